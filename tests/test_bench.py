"""The smallest run of the benchmark: one server, one load, one second."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

RUN = Path(__file__).parents[1] / "loadtest" / "bench" / "run.py"

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="the benchmark measures through /proc"),
    pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="server and client want a core each"),
    pytest.mark.skipif(not shutil.which("wrk"), reason="wrk is not installed"),
]


def bench(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(RUN), "--installed", "--quick", "--only", "portico-auto", *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=90, check=False, env={**os.environ, **environment}
    )


def test_a_second_of_one_load_gives_results_and_a_chart(tmp_path: Path) -> None:
    out = tmp_path / "result.json"
    ended = bench("--loads", "h1", "--seconds", "1", "--out", str(out))
    assert ended.returncode == 0, ended.stdout + ended.stderr
    (measured,) = json.loads(out.read_text())["measurements"]
    assert measured["contender"] == "portico-auto"
    assert measured["requests"] > 100
    assert measured["errors"] == {}
    assert 1 < measured["cpu_us"] < 10_000
    assert measured["resident"] > 1 << 20
    assert out.with_suffix(".svg").read_text().startswith("<svg")


def test_a_missing_program_is_named_before_anything_runs(tmp_path: Path) -> None:
    out = tmp_path / "result.json"
    ended = bench("--loads", "h2", "--out", str(out), PATH=str(tmp_path))
    assert ended.returncode == 2
    assert "h2load is not installed: apt install nghttp2-client" in ended.stderr
    assert not out.exists()
