# Everything that a person or CI runs. Needs: Python 3.10 or newer with venv, a Rust toolchain, make, a C compiler.
# `make` alone lists the targets.
.DEFAULT_GOAL := help
.PHONY: help demo test test-rust test-python check wheel load bench fuzz docs clean venv develop

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
BENCH := .venv-bench
SCAN := .venv-scan
say = @printf '\n== %s\n' "$(1)"
# Rust sources, so that nothing is built twice for nothing.
SOURCES := $(shell find rust -name '*.rs' -not -path '*/target/*') Cargo.toml Cargo.lock rust/core/Cargo.toml rust/python/Cargo.toml pyproject.toml

help: ## List what can be made
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{ printf "  make %-12s %s\n", $$1, $$2 }'

$(VENV)/.made: pyproject.toml
	$(call say,Making .venv with what pyproject.toml names)
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --upgrade 'pip>=25.1'
	@$(BIN)/python -m pip install --quiet --group build
	@touch $@

$(VENV)/.tested: $(VENV)/.made
	$(call say,Installing what the tests need)
	@$(BIN)/python -m pip install --quiet --group test --group demo --group moving
	@touch $@

# Without it the demo says on its page what is missing, and serves the rest.
$(VENV)/.shown: $(VENV)/.made
	$(call say,Installing what server pages run in)
	@$(BIN)/python -m pip install --quiet --group demo && touch $@ || echo 'It cannot be had here; the demo will do without.'

# sslyze wants an older cryptography than the other tests.
$(SCAN)/.made: pyproject.toml
	$(call say,Making $(SCAN) with the scanner of TLS)
	@$(PYTHON) -m venv $(SCAN)
	@$(SCAN)/bin/python -m pip install --quiet --upgrade 'pip>=25.1'
	@$(SCAN)/bin/python -m pip install --quiet --group scan
	@touch $@

$(VENV)/.checked: $(VENV)/.made
	$(call say,Installing what the checks need)
	@$(BIN)/python -m pip install --quiet --group check
	@touch $@

$(VENV)/.loaded: $(VENV)/.made
	$(call say,Installing what the load test needs)
	@$(BIN)/python -m pip install --quiet --group load
	@touch $@

$(VENV)/.documented: $(VENV)/.made
	$(call say,Installing what the docs are built with)
	@$(BIN)/python -m pip install --quiet --group docs
	@touch $@

# Profile `quick`: the release extension without link-time optimisation, shared with the Rust tests.
$(VENV)/.built: $(VENV)/.made $(SOURCES)
	$(call say,Building the release extension (about two minutes the first time))
	@VIRTUAL_ENV=$(abspath $(VENV)) $(BIN)/maturin develop --profile quick --locked --quiet
	@touch $@

venv: $(VENV)/.made
develop: $(VENV)/.built ## Build the extension into .venv

demo: $(VENV)/.built $(VENV)/.shown ## Serve four HTTPS hosts on this machine
	$(call say,Starting the demo)
	@exec $(BIN)/portico demo

test: test-rust test-python ## Run all tests

test-rust:
	$(call say,Testing the core (Rust))
	@if cargo nextest --version >/dev/null 2>&1; then \
	  cargo nextest run --locked --cargo-profile quick -p portico-core; \
	else cargo test --locked --profile quick -p portico-core --lib --tests; fi
	@cargo test --locked --quiet --profile quick -p portico-core --doc

test-python: $(VENV)/.built $(VENV)/.tested $(VENV)/.loaded $(VENV)/.documented $(SCAN)/.made
	$(call say,Testing the package (Python))
	@$(BIN)/python -m pytest $(PYTEST_ARGS)

check: $(VENV)/.built $(VENV)/.tested $(VENV)/.checked ## Check formatting, lints, types and the stub
	$(call say,Checking Rust)
	@cargo fmt --all --check
	@cargo clippy --locked --quiet --profile quick --workspace --all-targets -- -D warnings
	$(call say,Checking Python)
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/python -m mypy.stubtest portico._core

wheel: $(VENV)/.made ## Build the wheel into dist/ with every optimisation
	$(call say,Building the wheel (some minutes))
	@$(BIN)/maturin build --locked --out dist

load: $(VENV)/.built $(VENV)/.loaded ## Load three hosts with locust; report in loadtest/report/
	$(call say,Loading a server with locust)
	@$(BIN)/python loadtest/run.py $(LOAD_ARGS)

# An environment of its own: the wheel with every optimisation, and the servers beside which it is measured.
$(BENCH)/.made: pyproject.toml
	$(call say,Making $(BENCH) with the servers to compare with)
	@$(PYTHON) -m venv $(BENCH)
	@$(BENCH)/bin/python -m pip install --quiet --upgrade 'pip>=25.1'
	@$(BENCH)/bin/python -m pip install --quiet --group bench
	@touch $@

bench: $(BENCH)/.made ## Measure portico beside other servers; BENCH_ARGS='--loads h1,h2 --quick'
	@$(BENCH)/bin/python loadtest/bench/run.py --check $(BENCH_ARGS)
	@$(MAKE) --no-print-directory wheel
	$(call say,Building the limit and the client in Rust)
	@cargo build --locked --quiet --release -p portico-core --examples
	@$(BENCH)/bin/python -m pip install --quiet --force-reinstall --no-deps "$$(ls -t dist/portico-*.whl | head -n 1)"
	$(call say,Measuring)
	@$(BENCH)/bin/python loadtest/bench/run.py $(BENCH_ARGS)

# cargo-fuzz wants a nightly compiler for its flags; the stable one does with RUSTC_BOOTSTRAP. What is found new goes into
# a folder that is not kept, so that the corpus stays what people put there.
FUZZ_TARGETS ?= $(basename $(notdir $(wildcard rust/fuzz/fuzz_targets/*.rs)))
fuzz: ## Fuzz what reads strangers' bytes, each target for FUZZ_SECONDS (60); needs cargo-fuzz
	@cd rust/fuzz && for target in $(FUZZ_TARGETS); do \
	  printf '\n== Fuzzing %s\n' $$target; mkdir -p target/found/$$target corpus/$$target; \
	  RUSTC_BOOTSTRAP=1 cargo fuzz run --fuzz-dir . $$target target/found/$$target corpus/$$target -- \
	    -max_total_time=$${FUZZ_SECONDS:-60} -max_len=4096 || exit 1; \
	done

docs: $(VENV)/.built $(VENV)/.documented ## Build the docs into site/, their generated tables anew
	@$(BIN)/python docs/generate.py
	$(call say,Building site/; a warning is an error)
	@$(BIN)/python -m sphinx -b html -W --keep-going -q -E -d target/doctrees docs site
	@echo 'Open site/index.html.'

clean: ## Remove what was built
	@rm -rf $(VENV) $(BENCH) $(SCAN) target dist site loadtest/report
