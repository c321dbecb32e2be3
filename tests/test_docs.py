"""The documentation says what the code does: tables are those of the code, and every example runs."""

from __future__ import annotations

import ast
import contextlib
import inspect
import json
import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

import portico
from doc_blocks import Site, belongs_to_a_page, blocks, needed
from portico import _core, _errors, config

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]
# The pages of the tutorial are one after the other, in one folder.
TUTORIAL = re.findall(r"^([\w-]+)$", (DOCS / "tutorial/index.md").read_text(), re.M)


def first_column(page: str) -> set[str]:
    """What stands in backticks at the beginning of a page's table rows."""
    return set(re.findall(r"^\| `([^`]+)` \|", (DOCS / page).read_text(), re.MULTILINE))


def test_generated_tables_are_up_to_date() -> None:
    command = [sys.executable, str(DOCS / "generate.py"), "--check"]
    checked = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_every_setting_is_documented_and_no_other() -> None:
    # Arguments that are no settings have a table of their own.
    arguments = {"handler", "on_error", "sessions"}
    assert arguments < set(inspect.signature(portico.Server).parameters)
    assert first_column("settings.md") == {setting["name"] for setting in portico.settings()} | arguments


def test_every_key_of_a_request_is_documented() -> None:
    public = {name for name in dir(portico.Request) if not name.startswith("_")}
    public |= {name for name in dir(portico.ConnectionInfo) if not name.startswith("_")}
    assert set(_core.REQUEST_KEYS) <= public
    assert {name.removesuffix("()") for name in first_column("request.md")} == public


def test_every_key_of_a_response_is_documented_and_no_other() -> None:
    functions = {name for name in first_column("response.md") if name.startswith("portico.")}
    assert first_column("response.md") - functions == set(_core.RESPONSE_KEYS)


def test_every_statistic_and_label_is_documented_and_no_other() -> None:
    with portico.Server(print) as server:
        stats = server.stats()
    assert stats["handlers"]["builtins.print"].keys() >= {"runs", "why"}
    assert [*(name for name, _ in _core.statistics()), "latencies", "certificates", "handlers"] == list(stats)
    of_a_handler = {"runs", "why", "promoted", "demoted", "slow_paths"}
    of_a_certificate = {"host", "subject", "not_after"}
    of_a_latency = {"host", "route", "method", "status", "count", "seconds", "buckets"}
    known = {*stats, *stats["connections_closed"], *of_a_handler, *of_a_certificate, *of_a_latency}
    assert first_column("statistics.md") | {"latencies", "certificates", "handlers"} == known


def test_every_error_and_reason_is_documented_and_no_other() -> None:
    with portico.Server() as server:
        stats = server.stats()
    classes = {name for name in vars(_errors) if not name.startswith("_")} & set(portico.__all__)
    assert first_column("errors.md") == {*classes, *stats["requests_refused"], *stats["handshakes_failed"]}


def test_every_error_that_browsers_show_is_documented_and_no_other() -> None:
    checks = (ROOT / "rust/core/src/tls/identity/checks.rs").read_text()
    page = (DOCS / "certificates.md").read_text()
    assert set(re.findall(r"ERR_CERT_\w+", page)) == set(re.findall(r"ERR_CERT_\w+", checks))


def test_every_dependency_has_its_reason() -> None:
    (section,) = re.findall(r"^## Dependencies$(.*?)(?=^## |\Z)", (DOCS / "architecture.md").read_text(), re.M | re.S)
    told = set(re.findall(r"`([^`]+)`", " ".join(re.findall(r"^\| ([^|]+) \|", section, re.MULTILINE))))
    (crates,) = re.findall(r"^\[workspace\.dependencies\]$(.*?)^\[", (ROOT / "Cargo.toml").read_text(), re.M | re.S)
    (groups,) = re.findall(r"^\[dependency-groups\]$(.*?)^\[", (ROOT / "pyproject.toml").read_text(), re.M | re.S)
    named = set(re.findall(r"^([\w-]+) =", crates, re.MULTILINE)) | set(re.findall(r'"([\w-]+)', groups))
    assert told == named


def test_links_lead_somewhere() -> None:
    for page in [*PAGES, *ROOT.glob("*.md")]:
        for link in re.findall(r"\]\((?!https?:|#)([^)#]+)", re.sub(r"(?s)```.*?```", "", page.read_text())):
            assert (page.parent / link).exists(), f"{page.name}: {link}"


def test_every_portico_toml_is_one(tmp_path: Path) -> None:
    path = tmp_path / "portico.toml"
    for page in PAGES:
        for block in blocks(page):
            if block.language == "toml":
                path.write_text(block.code)
                _, problems = config.load(config.Options(file=path), {})
                assert not problems, f"{name(page)}:{block.line}: {problems}"


# ---- examples


def examples() -> Iterator[pytest.param]:
    """Every Python block that is a program of its own."""
    for page in PAGES:
        for block in blocks(page):
            if block.language == "python" and not block.is_fragment and not block.file:
                yield pytest.param(block.code, id=f"{name(page)}:{block.line}")


def name(page: Path) -> str:
    return page.relative_to(ROOT).with_suffix("").as_posix().removeprefix("docs/")


def sites() -> Iterator[pytest.param]:
    """Pages whose files and commands belong together."""
    tutorial = [DOCS / f"tutorial/{page}.md" for page in TUTORIAL]
    yield pytest.param(tutorial, id="tutorial")
    for page in PAGES:
        if page not in tutorial and any(map(belongs_to_a_page, blocks(page))):
            yield pytest.param([page], id=name(page))


@pytest.fixture
def site() -> Iterator[Site]:
    # nginx, started by root, reads files as somebody else, who may not enter pytest's own folders.
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        site = Site(Path(folder))
        try:
            yield site
        finally:
            site.kill()


@pytest.mark.timeout(300)
@pytest.mark.parametrize("pages", list(sites()))
def test_page_runs(pages: list[Path], folder: Path, site: Site) -> None:
    # The certificates of all examples, unless the page makes its own.
    if not any("portico certs" in page.read_text() for page in pages):
        for path in folder.iterdir():
            if path.suffix in (".crt", ".key", ".pem"):
                shutil.copy(path, site.folder)
    for page in pages:
        for program in needed(page):
            if not shutil.which(program, path=f"{os.environ['PATH']}:/usr/sbin"):
                pytest.skip(f"{program} is not installed")
    for page in pages:
        for block in filter(belongs_to_a_page, blocks(page)):
            try:
                site.run(block)
            except AssertionError as error:
                raise AssertionError(f"{page.relative_to(ROOT)}:{block.line}: {error}") from None
    site.stop()


# What cannot be run here, or is no code: nothing else may stand in a block that no test looks at.
SHOWN = {"", "text", "tcl", "nginx", "dockerfile", "ini", "yaml"}


def test_every_block_is_run_or_says_that_it_is_not() -> None:
    for page in PAGES:
        for block in blocks(page):
            where = f"{name(page)}:{block.line}"
            if block.language == "python":
                compile(block.code, where, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
            elif block.language == "json":
                json.loads(block.code)
            elif block.language not in ("console", "toml"):
                assert block.file or block.language in SHOWN, f"{where}: {block.language or 'no language'}"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where examples run: with the certificates that they name."""
    folder = tmp_path_factory.mktemp("examples")
    authority, authority_key = _core.make_authority("portico examples")
    (folder / "authority.pem").write_text(authority)
    (folder / "clients-ca.crt").write_text(_core.make_authority("portico examples' clients")[0])
    for stem, name in (("example", "example.com"), ("shop", "*.shop.test")):
        chain, key = _core.issue_certificate(authority, authority_key, [name], 1)
        (folder / f"{stem}.crt").write_text(chain)
        (folder / f"{stem}.key").write_text(key)
    options = "-in shop.crt -inkey shop.key -out shop.pfx -passout pass:secret"
    command = ["openssl", "pkcs12", "-export", *options.split()]
    subprocess.run(command, cwd=folder, check=True, timeout=60, capture_output=True)
    return folder


# A port in `listen(8443)`, `listen=8443`, `listen=[8443, ...]` or `{"port": 8443}`.
PORT = re.compile(r"""(listen(?:\(|=\[?)|"port": )(\d+)""")


def is_free(port: int) -> bool:
    with socket.socket() as probe, contextlib.suppress(OSError):
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(("127.0.0.1", port))
        return True
    return False


@pytest.mark.parametrize("code", list(examples()))
def test_example_runs(code: str, folder: Path) -> None:
    # As pasted into a file, but for ports that another program on this machine has.
    code = PORT.sub(lambda found: found[1] + (found[2] if is_free(int(found[2])) else "0"), code)
    # What would wait for ever is ended at once.
    code = code.replace("await server.wait_closed()", "await server.aclose()")
    file = folder / "example.py"
    file.write_text(code)
    command = [sys.executable, "-W", "error", "-u", file]
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as program:
        guard = threading.Timer(60, program.kill)
        guard.start()
        try:
            if "serve_forever" in code:
                assert program.stdout
                visit(program.stdout.readline(), folder, code)
                program.send_signal(signal.SIGINT)
            _, errors = program.communicate()
        finally:
            program.kill()
            guard.cancel()
    # What handlers do wrong on purpose is logged there; nothing else is.
    assert program.returncode == 0, errors
    assert not re.search("Traceback|Warning|Exception ignored|panicked", errors), errors


def visit(line: str, folder: Path, code: str) -> None:
    """Asks the hosts of a program at the URL that it printed."""
    (port,) = re.findall(r"https://127\.0\.0\.1:(\d+)", line)
    context = ssl.create_default_context(cafile=str(folder / "authority.pem"))
    for name, host, expected in (
        ("example.com", "example.com", b"hello /x"),
        ("*.shop.test", "a.shop.test", b"welcome to a.shop.test"),
    ):
        if name not in code:
            continue
        with (
            socket.create_connection(("127.0.0.1", int(port)), timeout=30) as plain,
            context.wrap_socket(plain, server_hostname=host) as secure,
        ):
            secure.sendall(f"GET /x HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
            answer = b"".join(iter(lambda: secure.recv(4096), b""))
        assert answer.startswith(b"HTTP/1.1 200 OK")
        assert expected in answer
