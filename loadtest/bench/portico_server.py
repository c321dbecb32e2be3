"""portico as a contender: `python portico_server.py KIND PORT CERTIFICATE KEY`, with default settings.

KIND is `auto`, `inline` or `threads` for a `def` handler, `async`, `asgi` or `wsgi`, `static` for files.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import apps
import portico

# Only for what happens past the limit; the default is what every other load has.
MAX_IN_FLIGHT = os.environ.get("PORTICO_BENCH_MAX_IN_FLIGHT")
# Only for `loadtest/observed.py`.
ACCESS_LOG = os.environ.get("PORTICO_BENCH_ACCESS_LOG")


def answer(body: bytes) -> dict[str, Any]:
    return {"statusCode": 200, "headers": {"content-type": "text/plain"}, "body": body}


def plain() -> portico.Handler:
    def hello(request: portico.Request) -> dict[str, Any]:
        return {"statusCode": 200, "headers": {"content-type": "text/plain"}, "body": apps.HELLO}

    def large(request: portico.Request) -> dict[str, Any]:
        return {"statusCode": 200, "headers": {"content-type": "text/plain"}, "body": apps.LARGE}

    def upload(request: portico.Request) -> dict[str, Any]:
        return answer(b"%d\n" % len(request.body))

    def isolation(request: portico.Request) -> dict[str, Any]:
        return answer(apps.slow(request.path))

    def echo(request: portico.Request) -> dict[str, Any]:
        return hello(request) if request.method == "GET" else echoed(request)

    echo.stream_body = True  # type: ignore[attr-defined]

    def socket(ws: portico.WebSocket) -> None:
        for message in ws:
            ws.send(message)

    if apps.NAME == "websocket":
        return beside(hello, portico.websocket(socket))
    return {
        "hello": hello,
        "static": hello,
        "large": large,
        "upload": upload,
        "isolation": isolation,
        "echo": echo,
    }[apps.NAME]


def echoed(request: portico.Request) -> dict[str, Any]:
    """What a client sends, sent back while it comes."""
    headers = {"content-length": request.headers["content-length"]}
    return {"statusCode": 200, "headers": headers, "body": request.stream()}


def beside(hello: Any, socket: Any) -> portico.Handler:
    """A greeting, by which a server is seen to be ready, and a WebSocket."""
    router = portico.Router()
    router.add_route("GET", "/", hello)
    router.mount("/socket", socket)
    return router


def asynchronous() -> portico.Handler:
    import asyncio

    async def hello(request: portico.Request) -> dict[str, Any]:
        return {"statusCode": 200, "headers": {"content-type": "text/plain"}, "body": apps.HELLO}

    async def suspend(request: portico.Request) -> dict[str, Any]:
        await asyncio.sleep(0)
        return {"statusCode": 200, "headers": {"content-type": "text/plain"}, "body": apps.HELLO}

    async def large(request: portico.Request) -> dict[str, Any]:
        return {"statusCode": 200, "headers": {"content-type": "text/plain"}, "body": apps.LARGE}

    async def upload(request: portico.Request) -> dict[str, Any]:
        return answer(b"%d\n" % len(request.body))

    async def isolation(request: portico.Request) -> dict[str, Any]:
        return answer(await apps.slow_async(request.path))

    async def echo(request: portico.Request) -> dict[str, Any]:
        return await hello(request) if request.method == "GET" else echoed(request)

    echo.stream_body = True  # type: ignore[attr-defined]

    async def socket(ws: portico.AsyncWebSocket) -> None:
        async for message in ws:
            await ws.send(message)

    if apps.NAME == "websocket":
        return beside(hello, portico.websocket(socket))
    return {
        "hello": hello,
        "suspend": suspend,
        "large": large,
        "upload": upload,
        "isolation": isolation,
        "echo": echo,
    }[apps.NAME]


def main() -> None:
    kind, port, certificate, key = sys.argv[1:]
    settings: dict[str, Any] = {}
    if kind in ("inline", "threads"):
        settings["dispatch"] = kind
    if MAX_IN_FLIGHT:
        settings["max_in_flight"] = int(MAX_IN_FLIGHT)
    if ACCESS_LOG:
        settings |= {"access_log": ACCESS_LOG, "access_log_format": os.environ["PORTICO_BENCH_ACCESS_LOG_FORMAT"]}
    match kind:
        case "async":
            handler = asynchronous()
        case "asgi":
            handler = portico.asgi(apps.asgi())
        case "wsgi":
            handler = portico.wsgi(apps.wsgi())
        case "static":
            router = portico.Router()
            router.mount("/static", portico.StaticFiles(Path(certificate).parent / "static"))
            router.mount("/", plain())
            handler = router
        case _:
            handler = plain()
    with portico.Server(handler, **settings) as server:
        server.add_context(None, cert=certificate, key=key)
        server.listen(int(port))
        server.serve_forever()


if __name__ == "__main__":
    main()
