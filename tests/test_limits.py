"""Limits and time-outs: each with its status or way of closing, and its counter."""

import asyncio
import contextlib
import socket
import threading
import time

import h2.events
import pytest

import portico
from clients import GENEROUS, Wire
from frames import H2

HEAD = "POST /{} HTTP/1.1\r\nHost: localhost\r\n"
SHORT = 0.3


@contextlib.contextmanager
def at_least(seconds):
    began = time.monotonic()
    yield
    assert time.monotonic() - began > seconds * 0.9, "it came too early"


@contextlib.contextmanager
def at_most(seconds):
    began = time.monotonic()
    yield
    assert time.monotonic() - began < seconds, "it came too late"


@pytest.mark.parametrize("tls", [False, True])
def test_header_timeout(serve, tls):
    served = serve(header_timeout=SHORT)
    with at_least(SHORT), (served.tls_wire if tls else served.wire)() as wire:
        wire.send("GET / HTTP/1.1\r\nHost: localhost\r\n")
        reply = wire.read()
        assert (reply.status, reply.header("connection")) == (408, "close")
        assert wire.rest() == b""
    served.wait_stat("requests_refused", "header_timeout")
    error, _ = served.errors.next(portico.LimitError)
    assert (error.status, error.reason) == (408, "header_timeout")


def test_dripping_a_head_wins_no_time(serve):
    served = serve(header_timeout=SHORT)
    with served.wire() as wire:
        answered = threading.Event()

        def drip():
            with contextlib.suppress(OSError):
                wire.send("GET / HTTP/1.1\r\n")
                while not answered.wait(0.02):
                    wire.send("X: y\r\n")

        dripping = threading.Thread(target=drip)
        dripping.start()
        try:
            assert wire.read().status == 408
        finally:
            answered.set()
            dripping.join()


@pytest.mark.parametrize("tls", [False, True])
def test_new_connection_that_says_nothing_is_closed_without_a_word(serve, tls):
    served = serve(header_timeout=SHORT)
    with at_least(SHORT), (served.tls_wire if tls else served.wire)() as wire:
        assert wire.rest() == b""
    served.wait_stat("connections_closed", "idle")
    assert sum(served.stat("requests_refused").values()) == 0


@pytest.mark.parametrize("begun", ["Content-Length: 10\r\n\r\nhalf", "Transfer-Encoding: chunked\r\n\r\n5\r\nhal"])
def test_body_timeout(serve, begun):
    served = serve(body_timeout=SHORT)
    with served.wire() as wire, at_least(SHORT):
        assert wire.send(HEAD.format("") + begun).read().status == 408
        assert wire.rest() == b""
    served.wait_stat("requests_refused", "body_timeout")


def test_body_that_makes_progress_may_take_long(serve):
    served = serve(lambda request: {"statusCode": 200, "body": request.body}, body_timeout=4 * SHORT)
    with served.wire() as wire, at_least(8 * SHORT):
        wire.send(HEAD.format("") + f"Content-Length: {12 * 4096}\r\n\r\n")
        for _ in range(12):
            threading.Event().wait(SHORT * 0.8)
            wire.send("x" * 4096)
        assert wire.read().body == b"x" * 12 * 4096


def test_keepalive_timeout(serve):
    served = serve(keepalive_timeout=SHORT, header_timeout=10)
    with at_least(SHORT), served.wire() as wire:
        assert wire.get().status == 200
        assert wire.rest() == b""
    served.wait_stat("connections_closed", "idle")


def test_time_in_a_handler_is_not_idle_time(serve):
    def handler(request):
        threading.Event().wait(3 * SHORT)
        return {"statusCode": 200}

    served = serve(handler, keepalive_timeout=SHORT, header_timeout=SHORT, body_timeout=SHORT, write_timeout=SHORT)
    with served.wire() as wire:
        assert [wire.get().status, wire.get().status] == [200, 200]
    with served.httpx() as client:
        assert client.get("/").status_code == 200


@pytest.mark.parametrize("tls", [False, True])
def test_write_timeout(serve, tls):
    served = serve(lambda request: {"statusCode": 200, "body": bytes(50_000_000)}, write_timeout=SHORT)
    with (served.tls_wire if tls else served.wire)(receive_buffer=4096) as wire:
        wire.send("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        served.wait_stat("connections_closed", "write_timeout")
    served.wait_stat("connections_open", value=0)


def test_slow_reader_that_takes_some_is_served(serve):
    body = bytes(3_000_000)
    served = serve(lambda request: {"statusCode": 200, "body": body}, write_timeout=2)
    with served.wire(receive_buffer=65536) as wire:
        wire.send("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert wire.read().body == body


def test_http2_client_that_takes_nothing_is_cut(serve):
    served = serve(lambda request: {"statusCode": 200, "body": bytes(5_000_000)}, write_timeout=SHORT)
    with served.tls_wire(alpn=["h2"]) as wire:
        client = H2(wire)
        client.open()
        # It never opens its window, so nothing but 64 KiB can be sent.
        with at_most(5):
            served.wait_stat("connections_open", value=0)
        assert served.stat("connections_closed", "write_timeout") == 1


@pytest.mark.parametrize("pings", [False, True])
def test_http2_client_that_opens_streams_and_no_window_is_cut(serve, pings):
    served = serve(lambda request: {"statusCode": 200, "body": "small"}, write_timeout=SHORT)
    with served.tls_wire(alpn=["h2"]) as wire:
        client = H2(wire)
        client.windows(0)
        with at_most(5):
            with contextlib.suppress(OSError):
                for _ in range(100):
                    client.open()
                while pings:
                    client.connection.ping(b"progress")
                    client.flush()
                    threading.Event().wait(SHORT / 5)
            served.wait_stat("connections_closed", "write_timeout")


def test_http2_body_timeout(serve):
    served = serve(body_timeout=SHORT)
    with served.tls_wire(alpn=["h2"]) as wire:
        client = H2(wire)
        stream = client.open(method="POST", end=False)
        client.data(stream, b"half")
        assert client.reply(stream).status == 408
        assert client.reply(client.open()).status == 200, "the other streams go on"
    assert served.stat("requests_refused", "body_timeout") == 1


@pytest.mark.parametrize("name", ["x-a", "cookie"])
def test_what_a_header_block_of_http2_decodes_to_counts(serve, name):
    """Repeated, a header takes a byte of HPACK; crumbs of a cookie are joined (RFC 9113 sections 8.2.3 and 10.5.1)."""
    served = serve()
    with served.tls_wire(alpn=["h2"]) as wire:
        client = H2(wire)
        # Against the default of 64 KiB, in which each counts 32 bytes more than its name and value.
        assert client.reply(client.open(*[(name, "y" * 3000)] * 20)).status == 200
        assert client.reply(client.open(*[(name, "y" * 3000)] * 23)).status == 431
        assert client.reply(client.open()).status == 200, "the connection goes on"


@pytest.mark.parametrize("asked_before", [False, True])
def test_idle_http2_connection(serve, asked_before):
    settings = {"keepalive_timeout": SHORT} if asked_before else {"header_timeout": SHORT}
    served = serve(**settings)
    with served.tls_wire(alpn=["h2"]) as wire:
        client = H2(wire)
        if asked_before:
            assert client.reply(client.open()).status == 200
        with at_most(5):
            assert client.wait_for(h2.events.ConnectionTerminated).error_code == 0
        client.wait_until_closed()
    served.wait_stat("connections_closed", "idle")


def test_http2_client_that_does_not_go_when_told_is_dropped(serve):
    served = serve(keepalive_timeout=SHORT)
    with served.tls_wire(alpn=["h2"]) as wire:
        client = H2(wire)
        assert client.reply(client.open()).status == 200
        with at_most(8):
            served.wait_stat("connections_closed", "idle")


def test_max_connections(serve):
    served = serve(max_connections=2)
    with served.wire() as first, served.wire() as second:
        assert [first.get().status, second.get().status] == [200, 200]
        with served.wire() as third:
            assert third.cut() == b""
        assert served.stat("connections_turned_away", "max_connections") == 1
        assert served.stat("connections_open") == 2
    served.wait_stat("connections_open", value=0)
    assert served.get().status == 200


def test_max_connections_per_ip(serve):
    served = serve(max_connections_per_ip=1)
    with served.wire() as first:
        assert first.get().status == 200
        with served.wire() as second:
            assert second.cut() == b""
        assert served.stat("connections_turned_away", "max_connections_per_ip") == 1
        # From another address there is room; Linux has all of 127.0.0.0/8.
        with (
            socket.create_connection(("127.0.0.1", served.clear), GENEROUS, ("127.0.0.2", 0)) as third,
            third.makefile("rb") as answer,
        ):
            third.sendall(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
            assert answer.readline() == b"HTTP/1.1 200 OK\r\n"
    served.wait_stat("connections_open", value=0)
    assert served.get().status == 200


@pytest.mark.parametrize("dispatch", ["threads", "async"])
def test_max_in_flight(serve, gate, dispatch):
    async def asynchronous(request):
        return await asyncio.to_thread(gate, request)

    served = serve(asynchronous if dispatch == "async" else gate, max_in_flight=2)
    with served.wire() as one, served.wire() as two, served.wire() as three, served.httpx() as four:
        for wire in (one, two):
            wire.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n")
        gate.wait_for(2)
        assert served.stat("requests_in_flight") == 2
        reply = three.get()
        assert reply.status == 503
        assert int(reply.header("retry-after")) > 0
        assert four.get("/").status_code == 503
        gate.opened.set()
        assert [one.read().status, two.read().status] == [200, 200]
        assert three.get().status == 200, "its connection goes on"
    assert served.stat("requests_refused", "max_in_flight") == 2


@pytest.mark.parametrize("dispatch", ["threads", "async"])
@pytest.mark.parametrize("http2", [False, True])
def test_handler_timeout(serve, gate, dispatch, http2):
    def handler(request):
        return gate(request) if request.path == "/slow" else {"statusCode": 200, "body": "fast"}

    async def asynchronous(request):
        if request.path == "/slow":
            await asyncio.sleep(60)
        return {"statusCode": 200, "body": "fast"}

    served = serve(asynchronous if dispatch == "async" else handler, handler_timeout=1)
    with served.httpx(http2=http2) as client, at_least(1):
        response = client.get("/slow")
        assert response.status_code == 503
        assert int(response.headers["retry-after"]) > 0
        gate.opened.set()
        assert client.get("/").text == "fast", "the late result is dropped, not taken for the next answer"
    assert served.stat("requests_refused", "handler_timeout") == 1
    error, _ = served.errors.next(portico.LimitError)
    assert error.reason == "handler_timeout"


def test_max_read_buffer_size(serve, gate):
    served = serve(gate, max_read_buffer_size=4096, max_request_read_bytes=100_000)
    with served.wire(receive_buffer=4096) as wire:
        wire.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n")
        gate.wait_for()
        asking = HEAD.format("") + "Content-Length: 100000\r\n\r\n" + "x" * 100_000
        # What is not taken fills the kernel's buffers, and then a send blocks.
        wire.sock.settimeout(1)
        sent = 0
        with contextlib.suppress(TimeoutError):
            while sent < 100_000_000:
                sent += wire.sock.send(asking.encode())
        assert sent < 30_000_000


def test_slow_clients_do_not_delay_a_good_one(serve):
    served = serve(io_threads=1)
    with contextlib.ExitStack() as stack:
        for _ in range(30):
            stack.enter_context(Wire(served.port)).send(b"\x16\x03\x01")
            stack.enter_context(served.wire()).send("GET / HT")
            stack.enter_context(served.tls_wire()).send(HEAD.format("") + "Content-Length: 10\r\n\r\nx")
        began = time.monotonic()
        for _ in range(20):
            assert served.get().status == 200
        assert time.monotonic() - began < GENEROUS / 6


def test_everything_is_counted(serve):
    served = serve()
    with served.httpx() as client:
        client.get("/")
    served.get()
    with served.wire() as wire:
        wire.send("GET / HTTP/1.0\r\n\r\n").read()
    served.wait_stat("connections_open", value=0)
    stats = served.server.stats()
    assert stats["requests"] == {"1.0": 1, "1.1": 1, "2": 1}
    assert stats["responses"]["2xx"] == stats["connections_accepted"] == sum(stats["connections_closed"].values()) == 3
    assert (stats["handshakes"], stats["requests_in_flight"], stats["handler_failures"]) == (2, 0, 0)
