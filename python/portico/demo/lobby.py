"""`pages.localhost`: server pages that run in a sandbox, each with its source beside it; a clock, a chat and files."""

from __future__ import annotations

import contextvars
import re
from pathlib import Path
from typing import Any

import portico
from portico.demo.highlight import highlight
from portico.demo.live import Chat, Clock
from portico.demo.shop import ITEMS
from portico.demo.site import PAGE_HEADERS, Response, Site, from_elsewhere, port_of, url_of, wants_html
from portico.demo.templates import Markup, asset
from portico.pages import MISSING

_HERE = Path(__file__).parent
_INCLUDED = re.compile(r"""<% (?:include|layout)\("(\w+\.psp)"\)""")
_CONTENT = Markup("<!--content-->")
# Those that take a form.
_POSTED = ("/cart.psp", "/breakout.psp")
# Whoever tries these wants to see the end, and soon.
_LIMITS = portico.PageLimits(seconds=0.5, memory_bytes=16 * 2**20, output_bytes=2**20)

# Functions of the host that a page calls know by which request it runs: they are called on its thread.
_request: contextvars.ContextVar[portico.Request] = contextvars.ContextVar("request")


class Lobby:
    """Answers for `pages.localhost`. `router` is its handler."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self._sources = {path.name: path.read_text("utf-8") for path in (_HERE / "pages").glob("*.psp")}
        self._pages = None if MISSING else self._make_pages()
        self.router = portico.Router()
        self.router.add_route("GET", "/clock", Clock().handle)
        self.router.add_route("GET", "/chat", Chat().handle)
        self.router.mount("/files", portico.StaticFiles(_HERE / "files", listing=True))
        self.router.mount("/", self.handle)

    def handle(self, request: portico.Request) -> Response:
        """The handler of all pages."""
        name = "index.psp" if request.path == "/" else request.path[1:]
        if name not in self._sources or name.startswith("_"):
            return self.site.other(request)
        methods = ("GET", "HEAD", "POST") if request.path in _POSTED else ("GET", "HEAD")
        if request.method not in methods:
            return self.site.refuse(request, 405, allow=", ".join(methods))
        if request.method == "POST" and from_elsewhere(request):
            return self.site.refuse(request, 403)
        if request.path == "/" and not wants_html(request):
            return self._text(request)
        if self._pages is None:
            return self.site.refuse(request, 501)
        return self._run(self._pages, request)

    def close(self) -> None:
        """Ends the processes that run pages."""
        if self._pages:
            self._pages.close()

    def _make_pages(self) -> portico.Pages:
        return portico.Pages(
            _HERE / "pages",
            functions={"frame": self._frame, "goods": _goods, "source": self._source, "colours": self._colours},
            limits=_LIMITS,
            workers=2,
        )

    def _run(self, pages: portico.Pages, request: portico.Request) -> Response:
        before = _request.set(request)
        try:
            response = pages(request)
        except portico.PageError as error:
            # Shown and not told to the log: here are pages that are meant to fail.
            if error.reason not in ("time", "memory", "output", "recursion", "calls", "state"):
                raise
            return self._stopped(request, error)
        finally:
            _request.reset(before)
        headers: dict[str, Any] = response["headers"]
        place = url_of(self.site.host, port_of(request)).replace("https:", "wss:").rstrip("/")
        # Not every browser takes 'self' for WebSockets too.
        policy = PAGE_HEADERS["content-security-policy"].replace("connect-src 'self'", f"connect-src 'self' {place}")
        headers.update({**PAGE_HEADERS, "content-security-policy": policy, "cache-control": "no-store"})
        return response

    def _stopped(self, request: portico.Request, error: portico.PageError) -> Response:
        if wants_html(request):
            return self.site.refuse(request, 500)
        return {
            "statusCode": 500,
            "headers": {"content-type": "text/plain; charset=utf-8", "cache-control": "no-store"},
            "body": f"{error}\n",
        }

    def _text(self, request: portico.Request) -> Response:
        if MISSING:
            return self.site.text(request, "", f"Server pages: {MISSING}")
        names = sorted(name for name in self._sources if not name.startswith("_"))
        return self.site.text(
            request, "", "Server pages, a sandbox for each visitor:", *(f"  /{name}" for name in names)
        )

    # What pages may call.

    def _frame(self, title: str) -> list[str]:
        """What stands before and behind the content of a page."""
        return self.site.frame(_request.get(), str(title), _CONTENT).split(_CONTENT)

    def _source(self, name: str) -> str:
        """The source of a page, of those that are shown here."""
        return self._sources[name]

    def _colours(self, name: str) -> list[list[str]]:
        """The source of a page and of what it includes, as names and HTML."""
        names = [name, *_INCLUDED.findall(self._sources[name])]
        return [[one, highlight(self._sources[one])] for one in names]


def _goods() -> list[dict[str, Any]]:
    """What the shop at `a.localhost` has."""
    return [
        {
            "slug": it.slug,
            "name": it.name,
            "cents": it.cents,
            "stock": it.stock,
            "picture": asset(f"goods/{it.slug}.svg"),
        }
        for it in ITEMS.values()
    ]
