"""asyncio's own tests, as Python brings them along, on our event loop while it serves."""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
def test_asyncios_own_tests_pass_on_our_loop():
    if importlib.util.find_spec("test.test_asyncio") is None:
        pytest.skip("this Python comes without its own tests")
    command = [sys.executable, Path(__file__).with_name("asyncio_suite.py")]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=110, check=False)
    assert ran.returncode == 0, ran.stderr[-5000:]
    assert int(re.search(r"Ran (\d+) tests", ran.stderr)[1]) > 200
