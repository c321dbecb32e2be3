"""What every Python contender answers, once for each interface. The environment names the one to serve.

`hello` is what most loads ask for; each load has an application of its own, so that nobody pays for routing. Only
`isolation` has routes: what is fast stands there beside what is slow.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

HELLO = b"hello\n"
LARGE = bytes(range(256)) * 4096  # 1 MiB
# The routes of `isolation`, in seconds.
SLEEP = 1.0
BURN = 0.1
WORK = 0.005
COMPUTING = {"/burn": BURN, "/work": WORK}

NAME = os.environ.get("PORTICO_BENCH_APP", "hello")


def burn(seconds: float) -> bytes:
    """Computes in Python for so long."""
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        pass
    return HELLO


def slow(path: str) -> bytes:
    """The routes of `isolation` where a function may block."""
    if path == "/sleep":
        time.sleep(SLEEP)
    elif path in COMPUTING:
        burn(COMPUTING[path])
    return HELLO


async def slow_async(path: str) -> bytes:
    """The same where waiting is awaited. Computing holds the event loop, as it does in anybody's program."""
    if path == "/sleep":
        await asyncio.sleep(SLEEP)
    elif path in COMPUTING:
        burn(COMPUTING[path])
    return HELLO


Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]
StartResponse = Callable[[str, list[tuple[str, str]]], Any]


def wsgi() -> Callable[[dict[str, Any], StartResponse], Iterable[bytes]]:
    """The application as WSGI."""

    def hello(environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        start_response("200 OK", [("content-type", "text/plain"), ("content-length", "6")])
        return [HELLO]

    def reply(start_response: StartResponse, content: bytes) -> Iterable[bytes]:
        start_response("200 OK", [("content-type", "text/plain"), ("content-length", str(len(content)))])
        return [content]

    def large(environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        return reply(start_response, LARGE)

    def upload(environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        return reply(start_response, b"%d\n" % len(body))

    def isolation(environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        return reply(start_response, slow(environ["PATH_INFO"]))

    return {"hello": hello, "large": large, "upload": upload, "isolation": isolation}[NAME]


def asgi() -> Callable[[dict[str, Any], Receive, Send], Awaitable[None]]:
    """The application as ASGI 3. That it wants no lifespan events it says as uvicorn's documentation does."""

    async def hello(scope: dict[str, Any], receive: Receive, send: Send) -> None:
        assert scope["type"] == "http"
        headers = [(b"content-type", b"text/plain"), (b"content-length", b"6")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": HELLO})

    async def suspend(scope: dict[str, Any], receive: Receive, send: Send) -> None:
        await asyncio.sleep(0)
        await hello(scope, receive, send)

    async def reply(send: Send, content: bytes) -> None:
        headers = [(b"content-type", b"text/plain"), (b"content-length", b"%d" % len(content))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": content})

    async def large(scope: dict[str, Any], receive: Receive, send: Send) -> None:
        assert scope["type"] == "http"
        await reply(send, LARGE)

    async def upload(scope: dict[str, Any], receive: Receive, send: Send) -> None:
        assert scope["type"] == "http"
        pieces, more = [], True
        while more:
            message = await receive()
            pieces.append(message.get("body", b""))
            more = message.get("more_body", False)
        await reply(send, b"%d\n" % len(b"".join(pieces)))

    async def isolation(scope: dict[str, Any], receive: Receive, send: Send) -> None:
        assert scope["type"] == "http"
        await reply(send, await slow_async(scope["path"]))

    async def echo(scope: dict[str, Any], receive: Receive, send: Send) -> None:
        if scope["method"] == "GET":
            return await hello(scope, receive, send)
        headers = [(b"content-length", dict(scope["headers"])[b"content-length"])]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        more = True
        while more:
            message = await receive()
            more = message.get("more_body", False)
            await send({"type": "http.response.body", "body": message.get("body", b""), "more_body": more})

    async def websocket(scope: dict[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            return await hello(scope, receive, send)
        assert (await receive())["type"] == "websocket.connect"
        await send({"type": "websocket.accept"})
        while (message := await receive())["type"] == "websocket.receive":
            await send({"type": "websocket.send", "bytes": message["bytes"]})

    if NAME == "starlette":
        return starlette()
    return {
        "hello": hello,
        "suspend": suspend,
        "large": large,
        "upload": upload,
        "isolation": isolation,
        "echo": echo,
        "websocket": websocket,
    }[NAME]


def starlette() -> Any:
    """The same greeting by a framework, with a route."""
    from starlette.applications import Starlette
    from starlette.responses import PlainTextResponse
    from starlette.routing import Route

    async def hello(request: Any) -> PlainTextResponse:
        return PlainTextResponse("hello\n")

    return Starlette(routes=[Route("/", hello)])


def rsgi() -> Callable[[Any, Any], Awaitable[None]]:
    """The application as RSGI, granian's own interface."""
    headers = [("content-type", "text/plain")]

    async def hello(scope: Any, protocol: Any) -> None:
        protocol.response_bytes(200, headers, HELLO)

    async def suspend(scope: Any, protocol: Any) -> None:
        await asyncio.sleep(0)
        protocol.response_bytes(200, headers, HELLO)

    async def large(scope: Any, protocol: Any) -> None:
        protocol.response_bytes(200, headers, LARGE)

    async def upload(scope: Any, protocol: Any) -> None:
        protocol.response_bytes(200, headers, b"%d\n" % len(await protocol()))

    async def isolation(scope: Any, protocol: Any) -> None:
        protocol.response_bytes(200, headers, await slow_async(scope.path))

    return {"hello": hello, "suspend": suspend, "large": large, "upload": upload, "isolation": isolation}[NAME]
