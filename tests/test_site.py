"""The docs site: it is built without a warning, every link leads somewhere, nothing comes from elsewhere, and it can be
searched and read in the light and in the dark, on a telephone too."""

from __future__ import annotations

import functools
import http.server
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urljoin, urlsplit

import pytest

import portico
import portico.sessions
import portico.testing
from browsers import chromium

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"

pytest.importorskip("sphinx", reason="the group docs is not installed")

# Seventy pages are built, and looked at in a browser: some seconds each on a busy machine.
pytestmark = pytest.mark.timeout(400)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, as `make docs` builds it."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "sphinx", "-b", "html", "-W", "--keep-going", "-q"]
    command += ["-d", folder / "doctrees", DOCS, folder / "html"]
    built = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert built.returncode == 0, built.stderr
    return folder / "html"


class Page(HTMLParser):
    """The links of a page, what it loads, and the anchors that it has."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.anchors: set[str] = set()
        self.feed(path.read_text())

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        for name, value in attributes:
            if name == "id" and value:
                self.anchors.add(value)
            elif name == "href" and tag == "a" and value:
                self.links.append(value)
            elif name in ("src", "srcset", "href", "action", "data", "poster") and tag != "a" and value:
                self.loaded.append(value)


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[Path, Page]:
    return {path: Page(path) for path in sorted(site.rglob("*.html"))}


def test_every_link_and_anchor_leads_somewhere(pages: dict[Path, Page]) -> None:
    checked = 0
    for path, page in pages.items():
        for link in page.links + page.loaded:
            found = urlsplit(urljoin(path.as_uri(), link))
            if found.scheme != "file":
                continue
            target = Path(unquote(found.path))
            assert target.is_file(), f"{path.name}: {link}"
            if found.fragment and target in pages and link != "#":
                assert unquote(found.fragment) in pages[target].anchors, f"{path.name}: {link}"
                checked += 1
    assert checked > 1_000


def test_nothing_is_loaded_from_elsewhere(site: Path, pages: dict[Path, Page]) -> None:
    for path, page in pages.items():
        for loaded in page.loaded:
            assert not re.match(r"(https?:)?//", loaded), f"{path.name}: {loaded}"
    for path in [*site.rglob("*.css"), *site.rglob("*.js")]:
        assert not re.search(r"""(?:url\(|@import|import\(|fetch\()\s*["']?(?:https?:)?//""", path.read_text()), path


def test_every_page_of_the_docs_is_in_the_contents(site: Path, pages: dict[Path, Page]) -> None:
    (tree,) = re.findall(r'<div class="sidebar-tree">(.*?)</aside>', (site / "index.html").read_text(), re.S)
    shown = set(re.findall(r'href="([^"#]+)"', tree))
    written = {path.relative_to(DOCS).with_suffix(".html").as_posix() for path in DOCS.rglob("*.md")}
    assert written - shown == {"index.html"}


def test_every_public_name_is_in_the_reference(pages: dict[Path, Page]) -> None:
    anchors = set().union(*(page.anchors for path, page in pages.items() if path.parent.name == "reference"))
    named = {f"portico.{name}" for name in portico.__all__ if name != "sessions"}
    named |= {f"portico.sessions.{name}" for name in portico.sessions.__all__}
    named |= {f"portico.testing.{name}" for name in ("server", "call_on_server", "TestServer")}
    assert named <= anchors
    # Members of classes written in Python and in Rust.
    assert {"portico.Server.add_context", "portico.Request.json", "portico.ConnectionInfo.alpn"} <= anchors


# ---- in a browser


@pytest.fixture(scope="module")
def browser():
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def served(site: Path) -> Iterator[str]:
    """The site on loopback."""
    quiet = type("Quiet", (http.server.SimpleHTTPRequestHandler,), {"log_message": lambda *_: None})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(quiet, directory=site)) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


# Width, height, and what the system of the visitor prefers.
LOOKS = [(1280, 900, "light"), (1280, 900, "dark"), (390, 844, "light")]
COLOURS = "(style => [style.backgroundColor, style.color])(getComputedStyle(document.body))"


def test_pages_are_readable_and_ask_nobody_else(browser, served: str, pages: dict[Path, Page], site: Path) -> None:
    page = browser.new_page()
    asked, failed = [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("pageerror", lambda error: failed.append(str(error)))
    page.on("console", lambda message: failed.append(message.text) if message.type == "error" else None)
    for path in pages:
        page.goto(f"{served}/{path.relative_to(site).as_posix()}", wait_until="load")
        for width, height, scheme in LOOKS:
            page.set_viewport_size({"width": width, "height": height})
            page.emulate_media(color_scheme=scheme)
            # A table that is too wide scrolls by itself; the page does not.
            assert page.evaluate("document.documentElement.scrollWidth") <= width, path.name
            background, text = (luminance(colour) for colour in page.evaluate(COLOURS))
            assert (background < text) == (scheme == "dark"), path.name
            assert (max(background, text) + 0.05) / (min(background, text) + 0.05) >= 7, path.name
    page.close()
    assert {url[: len(served)] for url in asked if not url.startswith("data:")} == {served}
    assert not failed


def luminance(colour: str) -> float:
    """Of `rgb(…)`, by WCAG 2."""
    parts = [int(part) / 255 for part in re.findall(r"\d+", colour)[:3]]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_search_needs_no_server(browser, site: Path) -> None:
    page = browser.new_page()
    page.goto((site / "search.html").as_uri() + "?q=keepalive_timeout")
    # What is found comes one by one.
    page.wait_for_selector("#search-results li a:text-is('Settings')")
    page.close()
