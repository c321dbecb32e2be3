"""What contenders are asked, and how a closed loop of it is measured."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import clients
import https
from process import Server

# What a browser sends with a request for a page, and a session's cookies.
HEADERS = {
    "User-Agent": "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0",
    "Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8",
    "Accept-Language": "en-US,en;q=0.5",
    "Accept-Encoding": "gzip, deflate, br, zstd",
    "Referer": "https://localhost/catalogue/shoes?page=2&order=price",
    "Cookie": "session=4f7c1a90b2e84d1f9d3e5a6b7c8d9e0f; consent=all; theme=dark; _visits=17",
    "DNT": "1",
    "Sec-GPC": "1",
    "Upgrade-Insecure-Requests": "1",
    "Sec-Fetch-Dest": "document",
    "Sec-Fetch-Mode": "navigate",
    "Sec-Fetch-Site": "same-origin",
    "Sec-Fetch-User": "?1",
    "Sec-CH-UA": '"Chromium";v="128", "Not;A=Brand";v="24"',
    "Sec-CH-UA-Mobile": "?0",
    "Sec-CH-UA-Platform": '"Linux"',
    "Priority": "u=0, i",
    "Cache-Control": "max-age=0",
    "If-None-Match": '"5f3c-61d2f0a9b7c40"',
    "If-Modified-Since": "Tue, 03 Jun 2025 09:14:05 GMT",
}


@dataclass(frozen=True)
class Load:
    name: str
    title: str
    client: clients.Client
    app: str = "hello"
    path: str = "/"
    protocol: str = "h1"
    connections: int = 64
    kept: bool = True
    """Whether connections are opened once, and their opening is not what is measured."""


LOADS = (
    Load("h1", "HTTP/1.1, kept connections", clients.wrk),
    Load("h2", "HTTP/2, 8 connections of 32 streams", clients.h2load, protocol="h2", connections=8),
    Load("headers", "HTTP/1.1 with 20 headers of a browser", clients.wrk_with(HEADERS)),
    Load("suspend", "HTTP/1.1, a coroutine that awaits sleep(0)", clients.wrk, app="suspend"),
    Load("starlette", "HTTP/1.1, ASGI through Starlette", clients.wrk, app="starlette"),
    Load("websocket", "WebSocket echo, 64 bytes", clients.talk("websocket"), app="websocket", kept=False),
    Load("echo", "10 MiB echoed while they come", clients.talk("echo"), app="echo", connections=2, kept=False),
    Load("resumed", "A new connection each, resumed", clients.reconnect("resumed"), connections=16, kept=False),
    Load("full", "A new connection each, full handshake", clients.reconnect("full"), connections=16, kept=False),
    Load("upload", "Uploads of 64 KiB", clients.wrk_upload, app="upload", path="/upload"),
    Load("large", "Responses of 1 MiB", clients.wrk, app="large", path="/large", connections=16),
    Load("static_1k", "A file of 1 KiB", clients.wrk, app="static", path="/static/1k.txt"),
    Load("static_100k", "A file of 100 KiB", clients.wrk, app="static", path="/static/100k.txt", connections=16),
    Load("static_10m", "A file of 10 MiB", clients.wrk, app="static", path="/static/10m.txt", connections=8),
)


def closed_loop(load: Load, server: Server, target: clients.Target, warm: float) -> dict[str, Any]:
    """One measurement: the server's CPU for each request that it answered, and what else there is to see.

    The opening of kept connections is no part of a request: as many are opened beforehand, one after the other, and
    what that took is subtracted. For three seconds of hello it would be 1 to 2 %.
    """
    opening, opened = 0.0, 0
    if load.kept:
        before = server.cpu()
        https.close_all(https.open_many(server.port, load.connections, load.path))
        opening, opened = server.cpu() - before, load.connections
    if warm:
        load.client(clients.Target(**{**vars(target), "seconds": warm}))
    server.check()
    before = server.cpu()
    counted = load.client(target)
    cpu = server.cpu() - before
    resident = server.resident()
    server.check()
    if counted.requests <= opened:
        raise clients.ClientFailed(f"only {counted.requests} requests answered; errors: {counted.errors}")
    return {
        "requests": counted.requests,
        "seconds": round(counted.seconds, 3),
        "per_second": round(counted.requests / counted.seconds, 1),
        "cpu_us": round((cpu - opening) / (counted.requests - opened) * 1e6, 3),
        "core_busy": round(cpu / counted.seconds, 3),
        "opening_us": round(opening / opened * 1e6, 1) if opened else None,
        "resident": resident,
        "resumed": counted.resumed,
        "errors": counted.errors,
    }
