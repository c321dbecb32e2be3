"""The server whose memory `test_memory.py` watches, in a process of its own.

It takes commands from its standard input, one JSON object a line, and answers each with one on its standard output:
what it uses now, or starting and stopping other servers. It ends with its input.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
import itertools
import json
import logging
import os
import socket
import ssl
import sys
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from typing import Any

import portico
from portico import _core

HOST = "localhost"
# Its handler takes bodies as they come.
UPLOADS = "uploads.test"
HELLO = {"statusCode": 200, "headers": {"content-type": "text/plain"}, "body": "hello\n"}
# More than the kernel takes on the way (net.ipv4.tcp_wmem: 4 MiB).
LARGE = bytes(8 << 20)

# What no handler may return, one after the other.
JUNK = itertools.cycle(
    [
        None,
        [],
        "hello",
        object(),
        {"body": "no status"},
        {"statusCode": "200"},
        {"statusCode": 99},
        {"statusCode": 200, "colour": "red"},
        {"statusCode": 200, "headers": {"a": "b\r\nc: d"}},
        {"statusCode": 200, "headers": {"a b": "c"}},
        {"statusCode": 200, "headers": [1, 2]},
        {"statusCode": 200, "body": 12},
        {"statusCode": 200, "body": "%%%", "isBase64Encoded": True},
    ]
)


def everything(request: portico.Request) -> dict[str, Any]:
    """Looks at every key of the request, so that each is made, and dropped."""
    seen = {key: request[key] for key in request}
    seen["form"], seen["text"] = request.form(), request.text
    return {
        "statusCode": 200,
        "headers": {"content-type": "text/plain", "set-cookie": ["a=1", "b=2"]},
        "body": str(len(repr(seen))),
    }


def fail(request: portico.Request) -> dict[str, Any]:
    raise ValueError(f"no luck with {request.path}")


# The leaks on purpose, which the check has to catch: each keeps something of (some) requests for ever.
kept: list[Any] = []
requests_seen = itertools.count(1)
malloc = ctypes.CDLL(None).malloc
malloc.restype = ctypes.c_void_p


def every(interval: int) -> bool:
    return next(requests_seen) % interval == 0


def leak_native(request: portico.Request) -> dict[str, Any]:
    """48 bytes that Python knows nothing of, as a mistake in the core would lose them."""
    malloc(48)
    return HELLO


def leak_objects(request: portico.Request) -> dict[str, Any]:
    """One object out of ten requests."""
    if every(10):
        kept.append([request.path])
    return HELLO


def leak_threads(request: portico.Request) -> dict[str, Any]:
    if every(500):
        threading.Thread(target=threading.Event().wait, daemon=True).start()
    return HELLO


def leak_descriptors(request: portico.Request) -> dict[str, Any]:
    if every(500):
        os.open(os.devnull, os.O_RDONLY)
    return HELLO


def pieces(request: portico.Request) -> dict[str, Any]:
    """A body in pieces, of which every seventh breaks off."""

    def made() -> Iterator[bytes]:
        for number in range(20):
            yield bytes(1000)
            if number == 10 and every(7):
                raise ValueError("no more")

    return {"statusCode": 200, "body": made()}


async def pieces_async(request: portico.Request) -> dict[str, Any]:
    async def made() -> AsyncIterator[bytes]:
        for piece in pieces(request)["body"]:
            yield piece
            await asyncio.sleep(0)

    return {"statusCode": 200, "body": made()}


def upload(request: portico.Request) -> dict[str, Any]:
    """Reads a body as it comes: all of it, a piece, up to an error, or nothing."""
    if request.path == "/nothing":
        return HELLO
    size = 0
    for piece in request.stream():
        size += len(piece)
        if request.path == "/raise":
            raise ValueError(f"no luck after {size}")
        if request.path == "/piece":
            break
    return HELLO


async def upload_async(request: portico.Request) -> dict[str, Any]:
    """The same; all of it at once."""
    if request.path == "/nothing":
        return HELLO
    if request.path == "/all":
        await request.read()
        return HELLO
    async for _ in request.stream():
        if request.path == "/raise":
            raise ValueError("no luck")
        break
    return HELLO


upload.stream_body = upload_async.stream_body = True  # type: ignore[attr-defined]


def session(request: portico.Request) -> dict[str, Any]:
    """A new session for each request, of which the store keeps a few."""
    request.session["seen"] = [request.path]
    request.session["seen"].append(request.session.is_new)
    return HELLO


SESSIONS = portico.sessions.Sessions(store=portico.sessions.MemoryStore(max_sessions=100))


ROUTES: dict[str, Any] = {
    "/pieces": pieces,
    "/": lambda request: HELLO,
    "/everything": everything,
    "/raise": fail,
    "/session": session,
    "/empty": lambda request: {},
    "/junk": lambda request: next(JUNK),
    "/socket": lambda request: SOCKET(request),
    "/large": lambda request: {"statusCode": 200, "body": LARGE},
    "/leak/native": leak_native,
    "/leak/objects": leak_objects,
    "/leak/threads": leak_threads,
    "/leak/descriptors": leak_descriptors,
}


def handle(request: portico.Request) -> Any:
    return ROUTES[request.path](request)


async def handle_async(request: portico.Request) -> Any:
    if request.path == "/pieces":
        return await pieces_async(request)
    if request.path == "/socket":
        return await SOCKET_ASYNC(request)
    return ROUTES[request.path](request)


def echo_or_answer(conn: portico.Connection) -> None:
    """A line that goes back, or HTTP by hand; every other kind of first byte is left to raise."""
    first = conn.read_exactly(1)
    if first == b"e":
        conn.write(first + conn.read_until())
    elif first == b"h":
        for request in conn.requests():
            conn.respond(everything(request))
    else:
        raise ValueError(f"no luck with {conn!r}")


async def echo_or_answer_async(conn: portico.AsyncConnection) -> None:
    first = await conn.read_exactly(1)
    if first == b"e":
        await conn.write(first + await conn.read_until())
    elif first == b"h":
        async for request in conn.requests():
            await conn.respond(everything(request))
    else:
        raise ValueError(f"no luck with {conn!r}")


def talk(ws: portico.WebSocket) -> None:
    """An echo, but for two words."""
    for message in ws:
        if message == "raise":
            raise ValueError(f"no luck with {ws!r}")
        if message == "close":
            return
        ws.send(message)


async def talk_asgi(scope: Any, receive: Any, send: Any) -> None:
    """The same as an ASGI application."""
    await receive()
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        if message.get("text") == "raise":
            raise ValueError("no luck")
        if message.get("text") == "close":
            return
        await send({**message, "type": "websocket.send"})


SOCKET = portico.websocket(talk)
SOCKET_ASYNC = portico.asgi(talk_asgi, lifespan="off")


class Discard(logging.Handler):
    """Formats what is logged, tracebacks too, and throws it away."""

    def emit(self, record: logging.LogRecord) -> None:
        self.format(record)


def issue() -> tuple[str, bytes, bytes]:
    """A certificate authority, and a certificate with its key for both hosts."""
    authority, authority_key = _core.make_authority("portico memory test")
    chain, key = _core.issue_certificate(authority, authority_key, [HOST, UPLOADS], 1)
    return authority, chain.encode(), key.encode()


def resident() -> int:
    """The resident size in bytes, exact: /proc/self/statm is a sum of per-processor counters that lag behind."""
    with open("/proc/self/smaps_rollup") as rollup:
        line = next(line for line in rollup if line.startswith("Rss:"))
    return int(line.split()[1]) * 1024


def settle(server: portico.Server) -> None:
    """Waits until every connection is gone."""
    deadline = time.monotonic() + 20
    while server.stats()["connections_open"] or server.stats()["requests_in_flight"]:
        if time.monotonic() > deadline:
            raise TimeoutError(f"connections that do not end: {server.stats()}")
        time.sleep(0.002)


def sample(server: portico.Server) -> dict[str, Any]:
    """What this process uses now."""
    settle(server)
    gc.collect()
    objects = Counter(f"{type(thing).__module__}.{type(thing).__qualname__}" for thing in gc.get_objects())
    return {
        "resident": resident(),
        "threads": len(os.listdir("/proc/self/task")),
        "descriptors": len(os.listdir("/proc/self/fd")),
        "blocks": sys.getallocatedblocks(),
        "objects": objects,
        "stats": server.stats(),
    }


def request_once(port: int, context: ssl.SSLContext | None) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=30) as plain:
        stream = context.wrap_socket(plain, server_hostname=HOST) if context else plain
        with stream:
            stream.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            answer = stream.recv(4096)
    if not answer.startswith(b"HTTP/1.1 200 "):
        raise RuntimeError(f"answered with {answer!r}")


def start_and_stop(count: int, cert: bytes, key: bytes, context: ssl.SSLContext) -> None:
    """Servers with two listeners and two handlers that answer one request each, and end; on threads in turn."""
    failures: list[BaseException] = []

    def once() -> None:
        try:
            with portico.Server(handle, io_threads=2, threads=(1, 2)) as server:
                server.add_context(HOST, cert=cert, key=key)
                server.add_context(None, cert=cert, key=key, handler=handle_async)
                secure, plain = server.listen(0), server.listen(0, tls=False)
                request_once(secure.port, context)
                request_once(plain.port, None)
        except BaseException as failure:
            failures.append(failure)

    for number in range(count):
        if number % 2:
            once()
        else:
            thread = threading.Thread(target=once)
            thread.start()
            thread.join()
        if failures:
            raise failures[0]


def main() -> None:
    dispatch = sys.argv[1]
    log = logging.getLogger("portico")
    log.addHandler(Discard())
    log.propagate = False
    errors: Counter[str] = Counter()

    def on_error(error: BaseException, request: portico.Request | None) -> None:
        errors[type(error).__name__] += 1

    authority, cert, key = issue()
    trusting = ssl.create_default_context(cadata=authority)
    handler, uploads = (handle_async, upload_async) if dispatch == "asyncio" else (handle, upload)
    # As many threads from the start as there will be, so that more are a leak.
    settings = {"dispatch": dispatch, "threads": (4, 4), "io_threads": 2, "stream_threads": 4}
    with portico.Server(handler, on_error=on_error, sessions=SESSIONS, **settings) as server:
        server.add_context(HOST, cert=cert, key=key)
        server.add_context(UPLOADS, cert=cert, key=key, handler=uploads)
        secure, plain = server.listen(0), server.listen(0, tls=False)
        streams = server.listen(0, stream=echo_or_answer_async if dispatch == "asyncio" else echo_or_answer)
        ports = {"tls": secure.port, "plain": plain.port, "streams": streams.port}
        print(json.dumps({"ports": ports, "authority": authority}), flush=True)
        for line in sys.stdin:
            command = json.loads(line)
            answer: dict[str, Any] = {}
            if command["do"] == "sample":
                answer = sample(server)
            elif command["do"] == "start_and_stop":
                start_and_stop(command["count"], cert, key, trusting)
            print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
