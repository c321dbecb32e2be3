"""Responses whose bodies are made while they are sent."""

from __future__ import annotations

import asyncio
import logging
import threading

import httpx
import pytest
from starlette.applications import Starlette
from starlette.responses import StreamingResponse
from starlette.routing import Route

import portico
from clients import GENEROUS, wait_until

ALL = 200


class Made:
    """Bodies that tell what becomes of them."""

    def __init__(self):
        self.asked, self.closed = 0, threading.Event()
        self.go_on = threading.Semaphore(0)

    def pieces(self, *pieces, step=False, error=None):
        try:
            for piece in pieces:
                self.asked += 1
                yield piece
                if step:
                    assert self.go_on.acquire(timeout=GENEROUS)
            if error:
                raise error
        finally:
            self.closed.set()

    async def apieces(self, *pieces, step=False, error=None):
        try:
            for piece in pieces:
                self.asked += 1
                yield piece
                while step and not self.go_on.acquire(blocking=False):  # noqa: ASYNC110
                    await asyncio.sleep(0.002)
            if error:
                raise error
        finally:
            self.closed.set()

    def endless(self):
        return self.pieces(*[b"x" * 10_000] * 100_000)

    def aendless(self):
        return self.apieces(*[b"x" * 10_000] * 100_000)


@pytest.fixture(params=["def", "async def"])
def making(request, serve):
    """Serves `body(made, path)`, by either kind of handler and of iterable; `body` is called with the method to use."""

    def making(body, headers=None, **settings):
        made = Made()

        def respond(request, pieces):
            return {"statusCode": 200, "headers": headers or {}, "body": body(pieces)}

        if request.param == "def":
            served = serve(lambda request: respond(request, made.pieces), **settings)
        else:

            async def handler(request):
                return respond(request, made.apieces)

            served = serve(handler, **settings)
        served.made = made
        return served

    return making


# ---- framing


def chunks(wire):
    """Reads chunks until the last one."""
    read = []
    while length := int(wire.file.readline(), 16):
        read.append(wire.file.read(length))
        assert wire.file.read(2) == b"\r\n"
    assert wire.file.readline() == b"\r\n"
    return read


def head(wire):
    lines = []
    while (line := wire.file.readline()) not in (b"\r\n", b""):
        lines.append(line.decode().lower().rstrip())
    return lines


def test_chunks(making):
    served = making(lambda pieces: pieces(b"one", b"", "two\u00e9", bytearray(b"three"), step=True))
    with served.wire() as wire:
        for _ in range(2):
            wire.send("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
            lines = head(wire)
            served.made.go_on.release(4)
            assert "transfer-encoding: chunked" in lines
            assert not [line for line in lines if line.startswith("content-length")]
            assert b"".join(chunks(wire)) == "onetwo\u00e9three".encode()
    assert served.made.closed.is_set()


def test_a_piece_leaves_before_the_next_is_made(making):
    served = making(lambda pieces: pieces(b"one", b"two", step=True))
    with served.tls_wire() as wire:
        wire.send("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        head(wire)
        for piece in (b"one", b"two"):
            assert wire.file.readline() == b"3\r\n"
            assert wire.file.read(5) == piece + b"\r\n"
            served.made.go_on.release()
        assert wire.file.readline() == b"0\r\n"


def test_pipelined_requests_are_answered_in_turn(making):
    served = making(lambda pieces: pieces(b"one", b"two"))
    with served.wire() as wire:
        wire.send("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n" * 3)
        for _ in range(3):
            # What is whole before it is sent has its length instead.
            is_chunked = "transfer-encoding: chunked" in head(wire)
            assert (b"".join(chunks(wire)) if is_chunked else wire.file.read(6)) == b"onetwo"


def test_http_1_0_has_no_chunks(making):
    served = making(lambda pieces: pieces(b"one", b"two", step=True))
    with served.wire() as wire:
        wire.send("GET / HTTP/1.0\r\nHost: localhost\r\nConnection: keep-alive\r\n\r\n")
        lines = head(wire)
        served.made.go_on.release(2)
        assert "connection: close" in lines
        assert not [line for line in lines if line.startswith("transfer-encoding")]
        assert wire.rest() == b"onetwo"


def test_a_length_that_is_given(making):
    served = making(lambda pieces: pieces(b"one", b"two"), {"content-length": "6"})
    with served.wire() as wire:
        reply = wire.get()
        assert (reply.header("content-length"), reply.header("transfer-encoding")) == ("6", None)
        assert reply.body == b"onetwo"
        assert wire.get().body == b"onetwo"


@pytest.mark.parametrize("length", ["5", "7", "0"])
def test_a_length_that_is_not_the_bodys(making, length):
    served = making(lambda pieces: pieces(b"one", b"two"), {"content-length": length})
    with served.wire() as wire:
        wire.send("GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        came = wire.cut()
    assert b" 500 " in came or len(came.partition(b"\r\n\r\n")[2]) != int(length) or length == "0"
    error, request = served.errors.next(portico.ResponseError)
    assert "content-length" in str(error)
    assert request.path == "/"


def test_http_2(making):
    served = making(lambda pieces: pieces(b"one", b"two", b"x" * 300_000))
    with served.httpx() as client:
        for _ in range(3):
            answer = client.get("/")
            assert answer.http_version == "HTTP/2"
            assert answer.content == b"onetwo" + b"x" * 300_000


@pytest.mark.parametrize("http2", [False, True])
def test_large_bodies_come_whole(making, http2):
    pieces = [bytes([index]) * (index * 3000 + 1) for index in range(100)]
    served = making(lambda make: make(*pieces))
    with served.httpx(http2=http2) as client:
        assert client.get("/").content == b"".join(pieces)


@pytest.mark.parametrize("http2", [False, True])
def test_head_has_no_body(making, http2):
    served = making(lambda pieces: pieces(b"one", b"two"))
    with served.httpx(http2=http2) as client:
        assert client.head("/").content == b""
        assert client.get("/").content == b"onetwo"


def test_lists_and_tuples_are_whole(serve):
    for body in ([b"one", "two"], (b"onetwo",)):
        with serve(lambda request, body=body: {"statusCode": 200, "body": body}).wire() as wire:
            assert wire.get().header("content-length") == "6"


def test_a_file_is_an_iterable_and_is_closed(serve, tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"one\ntwo\n" * 10_000)
    opened = []

    def handler(request):
        opened.append(path.open("rb"))
        return {"statusCode": 200, "body": opened[-1]}

    served = serve(handler)
    assert served.get().body == path.read_bytes()
    wait_until(lambda: opened[0].closed, "the file to be closed")


# ---- what goes wrong


@pytest.mark.parametrize("http2", [False, True])
def test_a_failure_in_the_middle_is_seen_by_the_client_and_told(making, http2, caplog):
    served = making(lambda pieces: pieces(b"one", step=True, error=ValueError("no more")))

    def fails():
        with served.httpx(http2=http2) as client, client.stream("GET", "/") as answer:
            assert answer.status_code == 200
            served.made.go_on.release()
            with pytest.raises(httpx.RemoteProtocolError):
                answer.read()

    fails()
    error, request = served.errors.next(ValueError)
    assert str(error) == "no more"
    assert request.path == "/"
    wait_until(lambda: "no more" in caplog.text, "the log")
    fails()


@pytest.mark.parametrize("piece", [7, object(), "\ud800", {"a": 1}])
def test_a_piece_that_is_none(making, piece):
    served = making(lambda pieces: pieces(b"one", piece))
    with served.wire() as wire:
        wire.send("GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        head(wire)
        assert not wire.cut().endswith(b"0\r\n\r\n")
    served.errors.next(portico.ResponseError)


@pytest.mark.parametrize("body", [{"a": 1}, 7, memoryview(bytearray(8)).cast("I"), object()])
def test_what_is_no_body(serve, caplog, body):
    serve(lambda request: {"statusCode": 200, "body": body}).check_wrong_response("body", caplog)


def test_what_fails_before_anything_was_sent_is_a_500(serve, caplog):
    async def fails():
        yield b"one"
        raise ValueError("no more")

    async def handler(request):
        return {"statusCode": 200, "body": fails()}

    # On one thread, where nothing can be sent between the piece and the failure.
    served = serve(handler, io_threads=1)
    for http2 in (False, True):
        with served.httpx(http2=http2) as client:
            assert client.get("/").status_code == 500
    served.wait_stat("handler_failures", value=2)


def test_what_is_whole_before_anything_was_sent_has_its_length(serve):
    async def pieces():
        yield b"one"
        yield b"two"

    async def handler(request):
        return {"statusCode": 200, "body": pieces()}

    served = serve(handler, io_threads=1)
    for http2 in (False, True):
        with served.httpx(http2=http2) as client:
            answer = client.get("/")
            assert (answer.content, answer.headers["content-length"]) == (b"onetwo", "6")


def test_an_async_iterable_needs_an_async_handler(serve, caplog):
    serve(lambda request: {"statusCode": 200, "body": Made().apieces()}).check_wrong_response("async def", caplog)


def test_an_async_handler_may_have_a_plain_iterable(serve):
    async def handler(request):
        return {"statusCode": 200, "body": Made().pieces(b"one", b"two")}

    assert serve(handler).get().body == b"onetwo"


# ---- clients that leave, and slow ones


@pytest.mark.parametrize("http2", [False, True])
def test_a_client_that_leaves_ends_the_body(making, http2):
    served = making(lambda pieces: pieces(*[b"x" * 10_000] * 100_000))
    with served.httpx(http2=http2) as client:
        with client.stream("GET", "/") as answer:
            next(answer.iter_bytes())
        client.close()
        assert served.made.closed.wait(GENEROUS)
    assert served.made.asked < 2_000


def test_a_client_that_leaves_while_nothing_comes_is_noticed_by_async_bodies(serve):
    made = Made()

    async def handler(request):
        return {"statusCode": 200, "body": made.apieces(b"one", b"two", step=True)}

    served = serve(handler)
    with served.tls_wire() as wire:
        wire.send("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        head(wire)
    assert made.closed.wait(GENEROUS)
    assert made.asked == 1


@pytest.mark.parametrize("http2", [False, True])
def test_a_client_that_reads_nothing_has_little_made_for_it(making, http2):
    served = making(lambda pieces: pieces(*[b"x" * 10_000] * 100_000), write_timeout=1.0)
    with served.httpx(http2=http2) as client, client.stream("GET", "/") as answer:
        assert answer.status_code == ALL
        assert served.made.closed.wait(GENEROUS), "write_timeout ends it"
    # What the kernel's buffers, the windows and the high-water marks take.
    assert served.made.asked < 3_000


def test_the_end_of_the_server_ends_endless_bodies(making):
    served = making(lambda pieces: pieces(*[b"x" * 10_000] * 100_000))
    with served.wire() as wire:
        wire.send("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        head(wire)
        served.server.close(grace=0.2)
        assert served.made.closed.wait(GENEROUS)


def test_bodies_on_threads_do_not_keep_handlers_from_theirs(serve):
    """Twice as many as there are handler threads."""
    made = Made()

    def handler(request):
        if request.path == "/":
            return {"statusCode": 200, "body": made.pieces(b"one", step=True)}
        return {"statusCode": 200, "body": "here"}

    served = serve(handler, threads=(1, 2), dispatch="threads")
    wires = [served.wire() for _ in range(4)]
    try:
        for wire in wires:
            wire.send("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
            head(wire)
        assert served.get("/other").text == "here"
        made.go_on.release(4)
        for wire in wires:
            assert chunks(wire) == [b"one"]
    finally:
        made.go_on.release(8)
        for wire in wires:
            wire.close()


# ---- server-sent events


@pytest.mark.parametrize("kind", ["def", "async def"])
def test_event_stream(serve, kind):
    events = ["one\ntwo", {"event": "tick", "data": 3, "id": "7", "retry": 100}]

    async def later():
        for event in events:
            yield event

    async def ahandler(request):
        return portico.event_stream(later())

    served = serve(ahandler if kind == "async def" else lambda request: portico.event_stream(events))
    reply = served.get()
    assert reply.header("content-type") == "text/event-stream"
    assert reply.text == "data: one\ndata: two\n\nevent: tick\nid: 7\nretry: 100\ndata: 3\n\n"


@pytest.mark.parametrize(
    "event", [7, {"event": "a"}, {"data": "a", "id": "1\n2"}, {"data": "", "x": 1}, {"data": "", "id": "\0"}]
)
def test_what_is_no_event(event):
    with pytest.raises(portico.ResponseError, match="event_stream"):
        list(portico.event_stream([event])["body"])


# ---- ASGI


def test_asgi_responses_are_sent_as_they_come(serve):
    first = asyncio.Event()
    made = Made()

    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": b"one", "more_body": True})
        while not made.go_on.acquire(blocking=False):  # noqa: ASYNC110
            await asyncio.sleep(0.002)
        await send({"type": "http.response.body", "body": b"two"})
        first.set()

    served = serve(portico.asgi(app, lifespan="off"))
    with served.tls_wire() as wire:
        wire.send("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        head(wire)
        assert wire.file.readline() == b"3\r\n"
        assert wire.file.read(5) == b"one\r\n"
        made.go_on.release()
        assert chunks(wire) == [b"two"]


def test_asgi_apps_hear_that_the_client_has_left(serve):
    heard = {}
    done = threading.Event()

    async def app(scope, receive, send):
        await receive()
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": b"one", "more_body": True})
        heard["received"] = (await receive())["type"]
        try:
            await send({"type": "http.response.body", "body": b"two", "more_body": True})
        except OSError as error:
            heard["raised"] = error
        done.set()

    served = serve(portico.asgi(app, lifespan="off"))
    with served.tls_wire() as wire:
        wire.send("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        head(wire)
    assert done.wait(GENEROUS)
    assert heard["received"] == "http.disconnect"
    assert isinstance(heard["raised"], OSError)


def test_asgi_apps_wait_for_slow_clients(serve):
    sent = []
    left = threading.Event()

    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200})
        try:
            for _ in range(100_000):
                await send({"type": "http.response.body", "body": b"x" * 10_000, "more_body": True})
                sent.append(1)
        except OSError:
            left.set()
            raise

    served = serve(portico.asgi(app, lifespan="off"), write_timeout=1.0)
    with served.wire() as wire:
        wire.send("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert left.wait(GENEROUS)
    assert len(sent) < 3_000


@pytest.mark.parametrize("length", [b"5", b"7"])
def test_asgi_length_that_is_not_the_bodys(serve, length):
    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", length)]})
        await send({"type": "http.response.body", "body": b"one", "more_body": True})
        await asyncio.sleep(0.01)
        await send({"type": "http.response.body", "body": b"two"})

    served = serve(portico.asgi(app, lifespan="off"))
    with served.wire() as wire:
        wire.send("GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        wire.cut()
    error, _ = served.errors.next(portico.ResponseError)
    assert "content-length" in str(error)


@pytest.mark.parametrize("http2", [False, True])
def test_asgi_head(serve, http2):
    finished = []

    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"6")]})
        await send({"type": "http.response.body", "body": b"one", "more_body": True})
        await send({"type": "http.response.body", "body": b"two"})
        finished.append(scope["method"])

    served = serve(portico.asgi(app, lifespan="off"))
    with served.httpx(http2=http2) as client:
        answer = client.head("/")
        assert (answer.headers["content-length"], answer.content) == ("6", b"")
        assert client.get("/").content == b"onetwo"
    wait_until(lambda: finished == ["HEAD", "GET"], "both to be done")


@pytest.mark.parametrize("http2", [False, True])
def test_starlette_streams(serve, http2):
    made = Made()

    async def stream(request):
        return StreamingResponse(made.apieces(b"one", "two", b"x" * 200_000))

    served = serve(portico.asgi(Starlette(routes=[Route("/", stream)])))
    with served.httpx(http2=http2) as client:
        assert client.get("/").content == b"onetwo" + b"x" * 200_000


# ---- WSGI


def wsgi(served_by, made, *parts, headers=()):
    def app(environ, start_response):
        start_response("200 OK", list(headers))
        return made.pieces(*parts)

    return served_by(portico.wsgi(app))


def test_wsgi_responses_are_sent_as_they_come(serve):
    made = Made()

    def app(environ, start_response):
        start_response("200 OK", [])
        return made.pieces(b"one", b"two", step=True)

    served = serve(portico.wsgi(app))
    with served.wire() as wire:
        wire.send("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        head(wire)
        assert wire.file.readline() == b"3\r\n"
        made.go_on.release(2)
        assert wire.file.read(5) == b"one\r\n"
        assert chunks(wire) == [b"two"]
    assert made.closed.wait(GENEROUS)


def test_wsgi_responses_with_a_length_are_whole(serve):
    made = Made()
    served = wsgi(serve, made, b"one", b"two", headers=[("Content-Length", "6")])
    reply = served.get()
    assert reply.body == b"onetwo"
    assert made.closed.wait(GENEROUS)


def test_wsgi_app_that_fails_after_its_first_part(serve, caplog):
    made = Made()

    def app(environ, start_response):
        start_response("200 OK", [])
        return made.pieces(b"one", step=True, error=ValueError("no more"))

    served = serve(portico.wsgi(app))
    with served.httpx(http2=False) as client, client.stream("GET", "/") as answer:
        assert answer.status_code == 200
        made.go_on.release()
        with pytest.raises(httpx.RemoteProtocolError):
            answer.read()
    served.errors.next(ValueError)
    assert made.closed.is_set()


logging.getLogger("httpx").setLevel("WARNING")
