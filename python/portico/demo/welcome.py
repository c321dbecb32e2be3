"""`localhost`: what portico is, what it knows of the connection, and its counters, live. A plain function."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import portico
from portico.demo.site import Response, Site, protocol_of, wants_html
from portico.demo.templates import join, render


class Welcome:
    """Answers for `localhost`."""

    def __init__(self, site: Site) -> None:
        self.site = site

    def handle(self, request: portico.Request) -> Response:
        """The handler."""
        if request.method not in ("GET", "HEAD"):
            return self.site.other(request)
        if request.path == "/":
            return self._page(request) if wants_html(request) else self._text(request)
        if request.path == "/stats.json":
            return _uncached("application/json", json.dumps(_stats(request)))
        if request.path == "/hello":
            return _uncached("text/plain; charset=utf-8", "hello\n")
        return self.site.other(request)

    def _page(self, request: portico.Request) -> Response:
        facts = ({"name": name, "value": value, "note": note} for name, value, note in _facts(request))
        counted = tiles_of(_stats(request))
        tiles = ({"id": key, "label": label, "value": value} for key, label, value in counted)
        content = render("welcome.html", facts=join("fact.html", facts), tiles=join("tile.html", tiles))
        return self.site.html(request, "portico", content)

    def _text(self, request: portico.Request) -> Response:
        facts = {name: value for name, value, _ in _facts(request)}
        counted = ", ".join(f"{label} {value}" for _, label, value in tiles_of(_stats(request)))
        return self.site.text(request, f"you:         {facts['You']}", f"this server: {counted}")


def _stats(request: portico.Request) -> dict[str, Any]:
    server = request.server
    assert server is not None, "run() holds it until the last request is answered"
    return server.stats()


def _facts(request: portico.Request) -> list[tuple[str, str, str]]:
    """Name, value and remark of what is known of the connection."""
    connection = request.connection
    exchange = connection.key_exchange or "none"
    return [
        ("You", _address(connection.peername), f"connection {connection.id} of this server"),
        ("This end", _address(connection.sockname), ""),
        ("Name asked for", connection.sni or "none", "SNI chose certificate and handler"),
        ("Protocol", protocol_of(request), f"ALPN chose {connection.alpn}" if connection.alpn else ""),
        ("Key exchange", exchange, "a post-quantum hybrid" if "MLKEM" in exchange else ""),
        ("Cipher", connection.cipher or "none", ""),
    ]


def _address(address: object) -> str:
    """An address for reading: host and port, or the path of a Unix socket."""
    if not isinstance(address, tuple):
        return str(address)
    host, port = address[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def tiles_of(stats: Mapping[str, Any]) -> list[tuple[str, str, int]]:
    """The counters shown large: id, label and value. `live.js` computes the same."""
    return [
        ("answered", "Requests answered", sum(stats["responses"].values())),
        ("open", "Connections open", stats["connections_open"]),
        ("handshakes", "TLS handshakes", stats["handshakes"]),
        ("flight", "Requests in flight", stats["requests_in_flight"]),
    ]


def _uncached(content_type: str, body: str) -> Response:
    return {
        "statusCode": 200,
        "headers": {"content-type": content_type, "cache-control": "no-store"},
        "body": body,
    }
