"""A real browser, Chromium without a window. Needs playwright, which drives it, and a Chromium of the system's:
`apt-get install chromium`."""

from __future__ import annotations

import contextlib
import shutil

import pytest

# No GPU and no sandbox, as in a container; and nothing that would ask anybody on the network.
FLAGS = """--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking
--disable-component-update --disable-sync""".split()  # noqa: SIM905


@contextlib.contextmanager
def chromium():
    """A browser, for a fixture; where there is none its tests are skipped."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if path is None:
        pytest.skip("chromium is not installed")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=path, args=FLAGS)
        yield browser
        browser.close()
