"""`wsgi.input` of WSGI applications: long bodies are read while they come."""

from __future__ import annotations

import contextlib
import gzip
import io
import os
import threading

import pytest

import portico
from clients import request as ask
from clients import wait_until
from frames import H2

LONG = 200_000
LINES = b"".join(b"line %d\n" % number for number in range(20_000))


def answering(read):
    """A handler for an app that answers with what `read(environ)` gives."""

    def app(environ, start_response):
        body = read(environ)
        start_response("200 OK", [("Content-Type", "application/octet-stream")])
        return [body]

    return portico.wsgi(app)


def head(length, more=""):
    return f"POST / HTTP/1.1\r\nhost: localhost\r\ncontent-length: {length}\r\n{more}\r\n"


@pytest.mark.parametrize("dispatch", ["auto", "inline", "threads"])
def test_it_is_read_while_the_client_still_sends(serve, dispatch):
    seen, threads = [], []

    def read(environ):
        body = environ["wsgi.input"]
        threads.append(threading.current_thread().name)
        assert environ["CONTENT_LENGTH"] == str(LONG)
        assert environ["wsgi.input_terminated"]
        for size in (3, 3, -1):
            seen.append(body.read(size))
        assert body.read() == b""
        return b"read"

    with serve(answering(read), dispatch=dispatch).wire() as wire:
        for _ in range(2):  # the connection goes on
            seen.clear()
            wire.send(head(LONG) + "one")
            wait_until(lambda: seen == [b"one"], "the first piece")
            wire.send(b"two" + b"x" * 10)
            wait_until(lambda: seen == [b"one", b"two"], "the second")
            wire.send(b"y" * (LONG - 16))
            assert wire.read().body == b"read"
            assert seen[2] == b"x" * 10 + b"y" * (LONG - 16)
    assert all(name.startswith("portico-stream") for name in threads), threads


@pytest.mark.parametrize("http2", [False, True])
@pytest.mark.parametrize(
    "read",
    [
        lambda body: body.read(),
        lambda body: b"".join(iter(lambda: body.read(777), b"")),
        lambda body: b"".join(iter(lambda: body.read(100_000), b"")),
        lambda body: b"".join(body),
        lambda body: b"".join(iter(body.readline, b"")),
        lambda body: b"".join(iter(lambda: body.readline(5), b"")),
        lambda body: b"".join(body.readlines()),
        lambda body: b"".join(body.readlines(1000)) + body.read(),
        lambda body: b"".join(iter(lambda: body.read1(1 << 20), b"")),
        lambda body: io.TextIOWrapper(body, "ascii", newline="").read().encode(),
    ],
)
def test_it_is_a_file(serve, read, http2):
    with serve(answering(lambda environ: read(environ["wsgi.input"]))).httpx(http2=http2) as client:
        for body in (LINES, LINES[:10]):
            assert client.post("/", content=body, headers={"accept-encoding": "identity"}).content == body


def test_short_bodies_and_those_without_a_length_are_here(serve):
    def read(environ):
        assert isinstance(environ["wsgi.input"], io.BytesIO)
        return environ["CONTENT_LENGTH"].encode()

    served = serve(answering(read), decompression=["gzip"])
    with served.wire() as wire:
        wire.send(head(1000) + "x" * 500)
        assert wire.send("x" * 500).read().text == "1000"
        # Applications that do not know `wsgi.input_terminated` would take it for empty.
        wire.send("POST / HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n")
        for _ in range(10):
            wire.send(b"4e20\r\n" + b"x" * 20_000 + b"\r\n")
        assert wire.send(b"0\r\n\r\n").read().text == str(LONG)
        noise = os.urandom(LONG)
        coded = gzip.compress(noise)
        wire.send(head(len(coded), "content-encoding: gzip\r\n"))
        assert wire.send(coded).read().text == str(LONG)


def test_a_body_that_was_asked_for_before_is_whole(serve):
    inner = answering(lambda environ: environ["wsgi.input"].read())

    class Around:
        """Reads the body before the application does."""

        stream_body = True

        def __call__(self, request):
            assert len(request.body) == LONG
            return inner(request)

    assert ask(serve(Around()).clear, "POST", body=b"x" * LONG).body == b"x" * LONG


def test_the_client_waits_for_an_application_that_does_not_read(serve):
    gate = threading.Event()

    def read(environ):
        assert gate.wait(30)
        return str(len(environ["wsgi.input"].read())).encode()

    size = 30 * 2**20
    with serve(answering(read), max_request_read_bytes=size).wire() as wire:
        wire.send(head(size))
        wire.sock.settimeout(1)
        sent = 0
        with contextlib.suppress(TimeoutError):
            while sent < size:
                sent += wire.sock.send(b"x" * min(65536, size - sent))
        assert sent < size / 2, "the kernel holds some of it, the server 64 KiB"
        wire.sock.settimeout(30)
        gate.set()
        wire.send(b"x" * (size - sent))
        assert wire.read().text == str(size)


def test_slow_clients_keep_nobody_waiting(serve):
    """More uploads under way than there are threads for handlers."""
    served = serve(answering(lambda environ: environ["wsgi.input"].read()[:5]), threads=(1, 2), dispatch="threads")
    wires = [served.wire() for _ in range(10)]
    try:
        for wire in wires:
            wire.send(head(LONG) + "begin")
        for _ in range(5):
            assert ask(served.clear).status == 200
        for wire in wires:
            assert wire.send(b"x" * (LONG - 5)).read().body == b"begin"
    finally:
        for wire in wires:
            wire.close()


@pytest.mark.parametrize("keeps", [True, False])
def test_an_application_that_does_not_read(serve, keeps):
    """What is left is read and dropped where it is short, else the connection is closed, as with other handlers."""
    size = 100_000 if keeps else 5_000_000
    with serve(answering(lambda environ: b"early")).wire() as wire:
        reply = wire.send(head(size)).read()
        assert reply.body == b"early"
        assert reply.header("connection") == (None if keeps else "close")
        if keeps:
            wire.send(b"x" * size)
            assert wire.get().body == b"early"


def test_100_continue_is_sent_when_it_is_read(serve):
    asked = threading.Event()

    def read(environ):
        if environ["PATH_INFO"] == "/no":
            return b"no"
        assert asked.wait(30)
        return str(len(environ["wsgi.input"].read())).encode()

    served = serve(answering(read))
    with served.wire() as wire:
        wire.send(head(LONG, "expect: 100-continue\r\n"))
        asked.set()
        assert wire.read().status == 100
        assert wire.send(b"x" * LONG).read().text == str(LONG)
    with served.wire() as wire:
        reply = wire.send(head(LONG, "expect: 100-continue\r\n").replace("POST /", "POST /no")).read()
        assert (reply.status, reply.body, reply.header("connection")) == (200, b"no", "close")


@pytest.mark.parametrize("swallows", [False, True])
def test_one_that_is_too_slow_is_answered_by_the_server(serve, swallows):
    """Whatever the application makes of it."""

    def read(environ):
        try:
            return environ["wsgi.input"].read()
        except portico.RequestError:
            if swallows:
                return b"never mind"
            raise

    served = serve(answering(read), body_timeout=0.2)
    with served.wire() as wire:
        assert wire.send(head(LONG) + "x").read().status == 408
    assert served.stat("requests_refused", "body_timeout") == 1


def test_a_client_that_leaves_is_an_error_of_reading(serve):
    entered, left = threading.Event(), []

    def read(environ):
        entered.set()
        try:
            environ["wsgi.input"].read()
        except OSError as error:
            left.append(error)
        return b""

    served = serve(answering(read))
    with served.wire() as wire:
        wire.send(head(LONG) + "x")
        assert entered.wait(30)
    wait_until(lambda: left, "the error")
    assert isinstance(left[0], ConnectionResetError)


def test_the_answer_may_be_made_of_it_while_it_comes(serve):
    def app(environ, start_response):
        start_response("200 OK", [])
        return iter(lambda: environ["wsgi.input"].read1(1000), b"")

    with serve(portico.wsgi(app)).wire() as wire:
        client = wire.send(head(LONG) + "one")
        assert b"200" in client.file.readline()
        while client.file.readline() != b"\r\n":
            pass
        assert (client.file.readline(), client.file.readline()) == (b"3\r\n", b"one\r\n")
        client.send(b"two")
        assert (client.file.readline(), client.file.readline()) == (b"3\r\n", b"two\r\n")


def test_windows_of_http2_are_those_of_the_application(serve):
    read = threading.Event()

    def app(environ):
        assert read.wait(30)
        return str(len(environ["wsgi.input"].read())).encode()

    with serve(answering(app)).wire() as wire:
        client = H2(wire)
        stream = client.open(("content-length", "1000000"), method="POST", end=False)
        room = client.connection.local_flow_control_window(stream)
        assert room < 500_000
        client.send_body(stream, b"x" * room)
        read.set()
        client.send_body(stream, b"x" * (1_000_000 - room))
        client.data(stream, b"", end=True)
        assert client.reply(stream).text == "1000000"
