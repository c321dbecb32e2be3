"""A short run of `make load`: three hosts, no failed request, memory that does not grow, a report with charts."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

RUN = Path(__file__).parents[1] / "loadtest" / "run.py"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="memory is measured through /proc"),
]


def test_ten_seconds_of_load(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    report = tmp_path / "report"
    command = [sys.executable, str(RUN), "--seconds", "10", "--users", "20", "--report", str(report)]
    with capfd.disabled():
        print(flush=True)
        status = subprocess.run(command, timeout=90, check=False).returncode
    assert status == 0
    assert "<html" in (report / "report.html").read_text()
    assert (report / "memory.svg").read_text().startswith("<svg")
    assert (report / "requests_stats.csv").read_text().count("\n") > 8
