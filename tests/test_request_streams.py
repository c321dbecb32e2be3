"""Bodies of requests that handlers take as they come: `stream_body` and `request.stream()`."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import queue
import random
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest

import portico
from clients import wait_until

POST = b"POST / HTTP/1.1\r\nhost: localhost\r\n"


@contextlib.contextmanager
def serving(handler: Any, **settings: Any) -> Iterator[tuple[portico.Server, socket.socket]]:
    with portico.Server(handler, **settings) as server:
        listener = server.listen(0, tls=False)
        with socket.create_connection(("127.0.0.1", listener.port), timeout=20) as client:
            yield server, client


def read_response(client: socket.socket) -> tuple[int, dict[str, str], bytes]:
    """One response that has a length."""
    data = b""
    while b"\r\n\r\n" not in data:
        more = client.recv(65536)
        assert more, data
        data += more
    head, _, body = data.partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in lines[1:])
    while len(body) < int(headers.get("content-length", 0)):
        body += client.recv(65536)
    return int(lines[0].split()[1]), headers, body


def of_kind(kind: str, each: Any) -> Any:
    """A handler, `def` or `async def`, that calls `each(piece)` and answers with how much there was."""

    def plain(request: portico.Request) -> Any:
        size = 0
        for piece in request.stream():
            each(piece)
            size += len(piece)
        return {"statusCode": 200, "body": str(size)}

    async def coroutine(request: portico.Request) -> Any:
        size = 0
        async for piece in request.stream():
            each(piece)
            size += len(piece)
        return {"statusCode": 200, "body": str(size)}

    handler: Any = plain if kind == "def" else coroutine
    handler.stream_body = True
    return handler


both = pytest.mark.parametrize("kind", ["def", "async def"])


@both
@pytest.mark.parametrize("chunked", [False, True])
def test_pieces_come_while_the_client_still_sends(kind: str, chunked: bool) -> None:
    seen: queue.Queue[bytes] = queue.Queue()

    def sent(piece: bytes) -> bytes:
        return b"%x\r\n%s\r\n" % (len(piece), piece) if chunked else piece

    with serving(of_kind(kind, seen.put)) as (_, client):
        framing = b"transfer-encoding: chunked\r\n\r\n" if chunked else b"content-length: 9\r\n\r\n"
        client.sendall(POST + framing)
        for piece in (b"one", b"two", b"six"):
            client.sendall(sent(piece))
            assert seen.get(timeout=20) == piece
        client.sendall(b"0\r\nx-trailer: 1\r\n\r\n" if chunked else b"")
        status, _, body = read_response(client)
        assert (status, body) == (200, b"9")
        # What follows is a request of its own.
        client.sendall(POST + b"content-length: 2\r\n\r\nhi")
        assert read_response(client)[2] == b"2"


@both
def test_continue_is_said_when_the_handler_asks(kind: str) -> None:
    ask = threading.Event()
    called = threading.Event()

    def plain(request: portico.Request) -> Any:
        called.set()
        ask.wait(20)
        return {"statusCode": 200, "body": b"".join(request.stream())}

    async def coroutine(request: portico.Request) -> Any:
        called.set()
        await asyncio.get_running_loop().run_in_executor(None, ask.wait, 20)
        return {"statusCode": 200, "body": await request.read()}

    handler: Any = plain if kind == "def" else coroutine
    handler.stream_body = True
    with serving(handler) as (_, client):
        client.sendall(POST + b"expect: 100-continue\r\ncontent-length: 4\r\n\r\n")
        assert called.wait(20)
        client.settimeout(0.2)
        with pytest.raises(TimeoutError):
            client.recv(1)
        client.settimeout(20)
        ask.set()
        assert client.recv(65536) == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.sendall(b"body")
        assert read_response(client)[2] == b"body"


def test_no_continue_after_a_final_status() -> None:
    def handler(request: portico.Request) -> Any:
        return {"statusCode": 403}

    handler.stream_body = True  # type: ignore[attr-defined]
    with serving(handler) as (_, client):
        client.sendall(POST + b"expect: 100-continue\r\ncontent-length: 4\r\n\r\n")
        status, headers, _ = read_response(client)
        assert (status, headers["connection"]) == (403, "close")
        assert client.recv(100) == b""


@pytest.mark.parametrize(("size", "stays"), [(100_000, True), (1_000_000, False)])
def test_a_body_nobody_reads_is_dropped_or_ends_the_connection(size: int, stays: bool) -> None:
    def handler(request: portico.Request) -> Any:
        return {"statusCode": 200, "body": request.path}

    handler.stream_body = True  # type: ignore[attr-defined]
    with serving(handler) as (_, client):
        client.sendall(POST + b"content-length: %d\r\n\r\n" % size)
        _, headers, body = read_response(client)
        assert body == b"/"
        assert (headers.get("connection") == "close") is not stays
        evil = b"GET /evil HTTP/1.1\r\nhost: localhost\r\n\r\n"
        client.sendall(evil.ljust(size, b"x"))
        if stays:
            client.sendall(b"GET /next HTTP/1.1\r\nhost: localhost\r\n\r\n")
            assert read_response(client)[2] == b"/next"
        else:
            with contextlib.suppress(ConnectionError):
                assert client.recv(100) == b""


@both
def test_a_client_is_stalled_by_a_handler_that_does_not_read(kind: str) -> None:
    go = threading.Event()

    def plain(request: portico.Request) -> Any:
        go.wait(20)
        return {"statusCode": 200, "body": str(sum(map(len, request.stream())))}

    async def coroutine(request: portico.Request) -> Any:
        await asyncio.get_running_loop().run_in_executor(None, go.wait, 20)
        return {"statusCode": 200, "body": str(len(await request.read()))}

    handler: Any = plain if kind == "def" else coroutine
    handler.stream_body = True
    size = 64 * 2**20
    # The time in which nothing is read for want of room is not the client's.
    with serving(handler, max_request_read_bytes=size, body_timeout=0.5) as (_, client):
        client.sendall(POST + b"content-length: %d\r\n\r\n" % size)
        client.settimeout(1)
        left = memoryview(bytes(size))
        with contextlib.suppress(TimeoutError):
            while left:
                left = left[client.send(left) :]
        assert len(left) > size // 2
        client.settimeout(20)
        go.set()
        client.sendall(left)
        assert read_response(client)[2] == b"%d" % size


@both
def test_a_body_over_the_limit_raises_in_the_stream_and_is_answered_413(kind: str) -> None:
    with serving(of_kind(kind, lambda piece: None), max_request_read_bytes=1000) as (_, client):
        client.sendall(POST + b"transfer-encoding: chunked\r\n\r\n3e8\r\n" + bytes(1000) + b"\r\n")
        client.sendall(b"1\r\nx\r\n")
        status, headers, _ = read_response(client)
        assert (status, headers["connection"]) == (413, "close")


@both
def test_a_body_without_progress_is_answered_408(kind: str) -> None:
    with serving(of_kind(kind, lambda piece: None), body_timeout=0.3) as (_, client):
        client.sendall(POST + b"content-length: 10\r\n\r\nx")
        assert read_response(client)[0] == 408


def test_a_client_that_leaves_within_its_body_is_a_connection_error_in_the_stream() -> None:
    raised: queue.Queue[Exception] = queue.Queue()
    called = threading.Event()

    def handler(request: portico.Request) -> Any:
        called.set()
        try:
            return {"statusCode": 200, "body": request.body}
        except ConnectionError as error:
            raised.put(error)
            raise

    handler.stream_body = True  # type: ignore[attr-defined]
    with serving(handler) as (server, client):
        client.sendall(POST + b"content-length: 10\r\n\r\nhalf")
        assert called.wait(20)
        client.close()
        assert isinstance(raised.get(timeout=20), ConnectionResetError)
        wait_until(lambda: server.stats()["requests_aborted"] == 1)


def test_an_echo_goes_both_ways_at_once() -> None:
    def plain(request: portico.Request) -> Any:
        return {"statusCode": 200, "body": (piece for piece in request.stream())}

    plain.stream_body = True  # type: ignore[attr-defined]
    size = 10 * 2**20
    with serving(plain) as (_, client):
        client.sendall(POST + b"content-length: %d\r\n\r\nfirst" % size)
        early = client.recv(65536)
        while b"first" not in early:
            early += client.recv(65536)
        rest = threading.Thread(target=client.sendall, args=(bytes(size - 5),))
        rest.start()
        received = len(early.partition(b"\r\n\r\n")[2])
        tail = early
        while not tail.endswith(b"0\r\n\r\n"):
            more = client.recv(2**20)
            assert more
            received += len(more)
            tail = (tail + more)[-5:]
        rest.join()
        assert received > size


@both
def test_the_stream_itself_is_a_body(kind: str) -> None:
    def plain(request: portico.Request) -> Any:
        return {"statusCode": 200, "body": request.stream()}

    async def coroutine(request: portico.Request) -> Any:
        return {"statusCode": 200, "body": request.stream()}

    handler: Any = plain if kind == "def" else coroutine
    handler.stream_body = True
    sent = random.Random(1).randbytes(10 * 2**20)
    with serving(handler) as (_, client):
        post = POST + b"connection: close\r\ncontent-length: %d\r\n\r\n" % len(sent)
        sending = threading.Thread(target=client.sendall, args=(post + sent,))
        sending.start()
        response = http.client.HTTPResponse(client)
        response.begin()
        assert response.status == 200
        assert response.read() == sent
        sending.join()


def test_a_handler_without_the_attribute_gets_the_body_that_is_there() -> None:
    def handler(request: portico.Request) -> Any:
        return {"statusCode": 200, "body": b"|".join(request.stream()) + b"," + request.body}

    with serving(handler) as (_, client):
        client.sendall(POST + b"content-length: 4\r\n\r\nab")
        client.sendall(b"cd")
        assert read_response(client)[2] == b"abcd,abcd"


def test_an_asgi_app_receives_a_body_as_it_comes() -> None:
    seen: queue.Queue[dict[str, Any]] = queue.Queue()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        while True:
            message = await receive()
            seen.put(message)
            if not message["more_body"]:
                break
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body"})
        seen.put(await receive())

    with serving(portico.asgi(app, lifespan="off")) as (_, client):
        client.sendall(POST + b"content-length: 6\r\n\r\n")
        for piece in (b"one", b"two"):
            client.sendall(piece)
            assert seen.get(timeout=20) == {"type": "http.request", "body": piece, "more_body": True}
        assert seen.get(timeout=20) == {"type": "http.request", "body": b"", "more_body": False}
        assert read_response(client)[0] == 200
        assert seen.get(timeout=20) == {"type": "http.disconnect"}
        # What is here with its head is one message.
        client.sendall(POST + b"content-length: 3\r\n\r\nall")
        assert seen.get(timeout=20) == {"type": "http.request", "body": b"all", "more_body": False}
        assert read_response(client)[0] == 200


def test_an_asgi_app_whose_client_leaves_within_its_body_is_told() -> None:
    seen: queue.Queue[Any] = queue.Queue()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.put(await receive())
        seen.put(await receive())
        try:
            await send({"type": "http.response.start", "status": 200})
        except OSError as error:
            seen.put(error)

    with serving(portico.asgi(app, lifespan="off")) as (_, client):
        client.sendall(POST + b"content-length: 6\r\n\r\none")
        assert seen.get(timeout=20)["body"] == b"one"
        client.close()
        assert seen.get(timeout=20) == {"type": "http.disconnect"}
        assert isinstance(seen.get(timeout=20), BrokenPipeError)


def test_a_body_over_the_limit_is_answered_413_for_an_asgi_app() -> None:
    seen: queue.Queue[Any] = queue.Queue()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        while True:
            message = await receive()
            seen.put(message)
            if message["type"] == "http.disconnect":
                return

    with serving(portico.asgi(app, lifespan="off"), max_request_read_bytes=1000) as (_, client):
        client.sendall(POST + b"transfer-encoding: chunked\r\n\r\n3e8\r\n" + bytes(1000) + b"\r\n")
        assert seen.get(timeout=20)["more_body"] is True
        client.sendall(b"1\r\nx\r\n")
        assert read_response(client)[0] == 413
        assert seen.get(timeout=20) == {"type": "http.disconnect"}


@both
def test_guards_and_middleware_leave_a_handler_its_stream(kind: str) -> None:
    seen: queue.Queue[bytes] = queue.Queue()
    router = portico.Router()
    router.add_route("POST", "/", of_kind(kind, seen.put), guards=[lambda request: True])
    router.add_middleware(leave=lambda request, response: None)
    with serving(router) as (_, client):
        client.sendall(POST + b"content-length: 6\r\n\r\n")
        for piece in (b"one", b"two"):
            client.sendall(piece)
            assert seen.get(timeout=20) == piece
        assert read_response(client)[2] == b"6"
