"""What the hosts share: the frame around their pages, their style sheet, their way to say no."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import portico
from portico.demo.templates import Markup, asset, join, render

Response = dict[str, Any]

HOSTS = {"localhost": "Connection", "a.localhost": "Shop", "b.localhost": "Board", "pages.localhost": "Pages"}
"""The hosts of the demo, with what stands on the way to each."""

_ASSETS = {
    "/style.css": ("style.css", "text/css; charset=utf-8"),
    "/live.js": ("live.js", "text/javascript; charset=utf-8"),
    "/pages.js": ("pages.js", "text/javascript; charset=utf-8"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
}

# Everything a page needs comes from its own host: a script that somebody got into a page would not be run.
PAGE_HEADERS = {
    "content-security-policy": "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; "
    "img-src 'self'; media-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "referrer-policy": "same-origin",
    "x-content-type-options": "nosniff",
    "cache-control": "no-cache",
    "vary": "accept",
}

_SAY = {
    404: "There is no such page on this host.",
    405: "This page cannot be asked for in that way.",
    422: "The form was not filled in.",
    403: "That came from a page of another site.",
    500: "This page was stopped. Nobody else noticed.",
    501: "Server pages run in pydantic-monty, which is not installed here: pip install 'portico[pages]'",
}


@dataclass(frozen=True)
class Site:
    """One host of the demo."""

    host: str
    """Its name."""
    subject: str
    """The subject of its certificate."""

    def html(self, request: portico.Request, title: str, content: Markup, status: int = 200) -> Response:
        """A whole page around its content."""
        return {
            "statusCode": status,
            "headers": {"content-type": "text/html; charset=utf-8", **PAGE_HEADERS},
            "body": self.frame(request, title, content),
        }

    def frame(self, request: portico.Request, title: str, content: Markup) -> Markup:
        """The HTML of that page."""
        port = port_of(request)
        tabs = (
            {
                "url": url_of(host, port),
                "name": name,
                "host": host,
                "current": Markup(' aria-current="page"') if host == self.host else "",
            }
            for host, name in HOSTS.items()
        )
        return render(
            "page.html",
            title=title,
            theme=self.host.partition(".")[0],
            home=url_of("localhost", port),
            tabs=join("tab.html", tabs),
            content=content,
            host=self.host,
            subject=self.subject,
            protocol=protocol_of(request),
        )

    def text(self, request: portico.Request, *lines: str, status: int = 200) -> Response:
        """A few lines for those who ask for no HTML, as curl does: host and certificate, then `lines`."""
        head = (
            f"{self.host}: {HOSTS[self.host].lower()} of the portico demo",
            f"certificate: {self.subject}",
            f"connection:  {protocol_of(request)}, {request.connection.cipher or 'not encrypted'}",
        )
        return {
            "statusCode": status,
            "headers": {"content-type": "text/plain; charset=utf-8", "vary": "accept"},
            "body": "\n".join((*head, *lines, "")),
        }

    def other(self, request: portico.Request) -> Response:
        """The answer for any path that the host itself does not know: the shared files, or 404."""
        if request.method not in ("GET", "HEAD"):
            return self.refuse(request, 405, allow="GET, HEAD")
        if request.path not in _ASSETS:
            return self.refuse(request, 404)
        name, content_type = _ASSETS[request.path]
        return {
            "statusCode": 200,
            "headers": {"content-type": content_type, "cache-control": "max-age=300"},
            "body": asset(name),
        }

    def refuse(self, request: portico.Request, status: int, **headers: str) -> Response:
        """An error page, or a line of text, with those headers besides."""
        if wants_html(request):
            content = render("refusal.html", status=status, say=_SAY[status], path=request.path, home="/")
            response = self.html(request, str(status), content, status)
        else:
            response = self.text(request, f"{status}: {_SAY[status]}", status=status)
        response["headers"].update(headers)
        return response


def from_elsewhere(request: portico.Request) -> bool:
    """Whether a page of another site sent a form. Browsers say where one came from (Fetch Metadata); others, like curl,
    do not send this at all."""
    return request.headers.get("sec-fetch-site", "none") not in ("same-origin", "none")


def wants_html(request: portico.Request) -> bool:
    """Whether a browser asks: curl and its like accept anything, but name no HTML."""
    return "text/html" in request.headers.get("accept", "")


def port_of(request: portico.Request) -> int:
    """The port by which the client came here, which is another than ours behind a forwarded port."""
    try:
        return urlsplit(request.url).port or 443
    except ValueError:
        return 443


def url_of(host: str, port: int) -> str:
    """The front page of a host."""
    return f"https://{host}/" if port == 443 else f"https://{host}:{port}/"


def protocol_of(request: portico.Request) -> str:
    """How the request came, as `HTTP/2 over TLSv1.3`."""
    return f"HTTP/{request.version} over {request.connection.tls_version or 'TCP'}"
