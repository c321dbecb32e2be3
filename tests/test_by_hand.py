"""HTTP/1 by hand: requests read and answered by a callback, on connections that the engine of the server keeps or ends."""

import asyncio
import http.client
import json
import logging
import queue
import socket
import struct
import threading

import pytest

import portico
from clients import GENEROUS, Wire, curl, wait_until
from test_http1_refused import LIMITS, MARKER, REFUSED

CUT_OFF = struct.pack("ii", 1, 0)  # SO_LINGER: close with RST


def tell(request):
    told = {"method": request.method, "path": request.rawPath, "body": request.body.decode("latin-1")}
    return {"statusCode": 200, "body": json.dumps(told)}


def answer(conn):
    for request in conn.requests():
        conn.respond(tell(request))


async def answer_async(conn):
    async for request in conn.requests():
        await conn.respond(tell(request))


GET = "GET {} HTTP/1.1\r\nHost: h\r\n\r\n"
BOTH = pytest.mark.parametrize("callback", [answer, answer_async])


@pytest.fixture
def by_hand(serve):
    """Starts a server whose cleartext listener gives its connections to a callback."""

    def by_hand(callback=answer, **settings):
        served = serve(**settings)
        served.listener = served.server.listen(0, tls=False, stream=callback)
        served.connect = lambda **more: Wire(served.listener.port, **more)
        return served

    return by_hand


@BOTH
def test_one_request_after_the_other(by_hand, callback):
    served = by_hand(callback)
    with served.connect() as wire:
        for number in range(10):
            assert wire.get(f"/{number}").json() == {"method": "GET", "path": f"/{number}", "body": ""}
    served.wait_stat("connections_closed", "client")
    assert served.stat("requests", "1.1") == served.stat("responses", "2xx") == 10


@BOTH
def test_pipelined_requests(by_hand, callback):
    with by_hand(callback).connect() as wire:
        wire.send("".join(GET.format(f"/{number}") for number in range(100)))
        assert [wire.read().json()["path"] for _ in range(100)] == [f"/{number}" for number in range(100)]


def test_every_way_to_send_a_body(by_hand):
    served = by_hand(max_read_buffer_size=4096)
    large = "x" * 1_000_000
    with served.connect() as wire:
        for head, body, expected in (
            (f"Content-Length: {len(large)}", large, large),
            ("Transfer-Encoding: chunked", "3\r\nabc\r\n4\r\ndefg\r\n0\r\nTrailer: x\r\n\r\n", "abcdefg"),
            ("Content-Length: 0", "", ""),
        ):
            wire.send(f"POST / HTTP/1.1\r\nHost: h\r\n{head}\r\n\r\n{body}")
            assert wire.read().json()["body"] == expected


def test_100_continue_comes_before_the_body_is_sent(by_hand):
    with by_hand().connect() as wire:
        wire.send("POST / HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n")
        assert wire.read().status == 100
        wire.send("abc")
        assert wire.read().json()["body"] == "abc"
        # A body that is there already needs no asking.
        wire.send("POST / HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\nabc")
        assert wire.read().json()["body"] == "abc"


def test_head_and_statuses_without_a_body(by_hand):
    def callback(conn):
        for request in conn.requests():
            conn.respond({"statusCode": int(request.path[1:]), "body": "hello"})

    with by_hand(callback).connect() as wire:
        head = wire.send("HEAD /200 HTTP/1.1\r\nHost: h\r\n\r\n").read("HEAD")
        assert (head.status, head.header("content-length")) == (200, "5")
        assert wire.get("/304").status == 304
        assert wire.get("/200").text == "hello"


@pytest.mark.parametrize(
    ("version", "connection", "stays", "told"),
    [
        ("1.1", None, True, None),
        ("1.1", "close", False, "close"),
        ("1.0", None, False, "close"),
        ("1.0", "keep-alive", True, "keep-alive"),
    ],
)
@BOTH
def test_who_keeps_the_connection(by_hand, callback, version, connection, stays, told):
    served = by_hand(callback)
    header = f"Connection: {connection}\r\n" if connection else ""
    asking = f"GET / HTTP/{version}\r\nHost: h\r\n{header}\r\n"
    with served.connect() as wire:
        assert wire.send(asking).read().header("connection") == told
        if stays:
            assert wire.send(asking).read().status == 200
        else:
            assert wire.rest() == b""


def test_a_response_may_end_the_connection(by_hand):
    def callback(conn):
        request = conn.read_request()
        conn.respond({"statusCode": 200, "headers": {"connection": "close"}, "body": request.path})
        assert conn.read_request() is None
        with pytest.raises(portico.ClosedError):
            conn.write(b"more")

    with by_hand(callback).connect() as wire:
        wire.send(GET.format("/a") + GET.format("/b"))
        assert wire.read().text == "/a"
        assert wire.rest() == b""


@BOTH
def test_a_large_response(by_hand, callback):
    body = bytes(20 << 20)
    if callback is answer:

        def large(conn):
            for _ in conn.requests():
                conn.respond({"statusCode": 200, "body": body})
    else:

        async def large(conn):
            async for _ in conn.requests():
                await conn.respond({"statusCode": 200, "body": body})

    with by_hand(large).connect() as wire:
        for _ in range(2):
            assert wire.get().body == body


@pytest.mark.parametrize("case", REFUSED)
def test_what_the_server_refuses_is_refused_here(by_hand, case):
    """The same bytes, the same status, told in the same way; and the callback sees it."""
    sent, expected = REFUSED[case]
    seen = queue.Queue()

    def callback(conn):
        try:
            for request in conn.requests():
                conn.respond(tell(request))
        except portico.RequestError as error:
            seen.put(error)
            raise

    served = by_hand(callback, **LIMITS)
    with served.connect() as wire:
        reply = wire.send(sent + MARKER).read()
        error = seen.get(timeout=GENEROUS)
        assert reply.status == error.status
        assert reply.status in (expected if isinstance(expected, tuple) else (expected,))
        assert reply.header("connection") == "close"
        assert wire.rest() == b""
    reported, request = served.errors.next(portico.RequestError)
    assert (reported.reason, request) == (error.reason, None)
    served.wait_stat("connections_closed", "refused")
    assert served.stat("requests_refused", error.reason) == 1
    # Told once: the server has said it, and the callback that lets it pass says no more.
    assert served.errors.given.empty()


@pytest.mark.parametrize(
    ("settings", "sent", "reason", "status"),
    [
        ({"max_request_read_bytes": 3}, "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\n\r\n", "body_bytes", 413),
        ({"max_headers": 1}, "GET / HTTP/1.1\r\nHost: h\r\nA: b\r\n\r\n", "headers", 431),
        ({"header_timeout": 0.1}, "GET / HT", "header_timeout", 408),
        ({"body_timeout": 0.1}, "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\n\r\n", "body_timeout", 408),
    ],
)
@BOTH
def test_limits(by_hand, callback, settings, sent, reason, status):
    served = by_hand(callback, **settings)
    with served.connect() as wire:
        assert wire.send(sent).read().status == status
        assert wire.rest() == b""
    error, _ = served.errors.next(portico.LimitError)
    assert error.reason == reason


def test_time_between_requests_is_the_callbacks(by_hand):
    waited = threading.Event()

    def callback(conn):
        with pytest.raises(TimeoutError):
            conn.read_request(timeout=0.05)
        waited.set()
        answer(conn)

    with by_hand(callback, keepalive_timeout=0.01, header_timeout=0.2).connect() as wire:
        assert waited.wait(GENEROUS)
        assert wire.get("/late").json()["path"] == "/late"


def test_a_request_that_is_broken_off(by_hand, caplog):
    caplog.set_level(logging.INFO, "portico.error")
    served = by_hand()
    with served.connect() as wire:
        wire.send("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\n\r\nab").half_close()
        assert wire.rest() == b""
    with served.connect() as wire:
        wire.send("POST / HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n")
        assert wire.read().status == 100
        wire.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, CUT_OFF)
    served.wait_stat("requests_aborted", value=2)
    wait_until(lambda: "within a request" in caplog.text)
    assert "Traceback" not in caplog.text


def test_a_client_that_is_gone_between_requests_is_the_end(by_hand):
    answered, ended = threading.Event(), queue.Queue()

    def callback(conn):
        conn.respond(tell(conn.read_request()))
        answered.set()
        ended.put(conn.read_request())

    served = by_hand(callback)
    with served.connect() as wire:
        assert wire.get().status == 200
        assert answered.wait(GENEROUS)
        wire.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, CUT_OFF)
    assert ended.get(timeout=GENEROUS) is None


def test_each_request_is_answered_once_and_before_the_next(by_hand):
    told = queue.Queue()

    def callback(conn):
        with pytest.raises(RuntimeError, match="no request"):
            conn.respond({"statusCode": 200})
        conn.read_request()
        with pytest.raises(RuntimeError, match="has not been answered"):
            conn.read_request()
        with pytest.raises(portico.ResponseError, match="statusCode"):
            conn.respond({"statusCode": 1})
        conn.respond({"statusCode": 200, "body": "the one"})
        with pytest.raises(RuntimeError, match="no request"):
            conn.respond({"statusCode": 200})
        told.put("done")

    with by_hand(callback).connect() as wire:
        assert wire.get().text == "the one"
        assert wire.rest() == b""
    assert told.get(timeout=GENEROUS) == "done"


def test_bytes_and_requests_take_turns(by_hand):
    """A greeting before, another protocol after: nothing that was read ahead is lost."""

    def callback(conn):
        conn.write(b"220 hello\r\n")
        assert conn.read_until(b"\r\n") == b"HI\r\n"
        request = conn.read_request()
        assert request.headers["upgrade"] == "shout"
        assert request.connection == conn.info
        conn.write(b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: shout\r\n\r\n")
        while line := conn.read_until():
            conn.write(line.upper())

    with by_hand(callback).connect() as wire:
        assert wire.file.readline() == b"220 hello\r\n"
        wire.send("HI\r\nGET / HTTP/1.1\r\nHost: h\r\nConnection: upgrade\r\nUpgrade: shout\r\n\r\nfirst\n")
        assert wire.read().status == 101
        assert wire.file.readline() == b"FIRST\n"
        wire.send("second\n").half_close()
        assert wire.rest() == b"SECOND\n"


def test_an_answer_of_ones_own_bytes(by_hand):
    def callback(conn):
        for request in conn.requests():
            conn.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n" + request.path.encode())

    with by_hand(callback).connect() as wire:
        assert wire.get("/a").body == b"/a"
        assert wire.get("/b").body == b"/b"
        assert wire.get("/c", headers="Connection: close\r\n").body == b"/c"
        assert wire.rest() == b""


@BOTH
def test_curl_over_tls(by_hand, callback, tmp_path):
    """It offers HTTP/2 by ALPN, which such a listener does not take up."""
    served = by_hand()
    listener = served.server.listen(0, stream=callback)
    ca = tmp_path / "ca.pem"
    ca.write_text(served.testing.ca_pem)
    told = curl(listener.port, "/b", "--data", "x=y", f"https://localhost:{listener.port}/a", ca=ca)
    assert told == "".join(json.dumps({"method": "POST", "path": path, "body": "x=y"}) for path in ("/a", "/b")), (
        "both on one connection"
    )
    assert served.stat("handshakes") == 1


def test_http_client(by_hand):
    served = by_hand()
    client = http.client.HTTPConnection("127.0.0.1", served.listener.port, timeout=GENEROUS)
    try:
        for number in range(3):
            client.request("POST", f"/{number}", body=iter([b"a", b"b"]), encode_chunked=True,
                           headers={"Transfer-Encoding": "chunked"})  # fmt: skip
            assert json.loads(client.getresponse().read())["body"] == "ab"
    finally:
        client.close()


def test_closing_the_server_ends_idle_connections_soon(by_hand):
    served = by_hand()
    with served.connect() as wire:
        assert wire.get().status == 200
        closing = threading.Thread(target=served.server.close)
        closing.start()
        assert wire.rest() == b""
        wire.close()
        closing.join(20)
        assert not closing.is_alive()


def test_draining_tells_the_client_to_close(by_hand):
    inside, go_on = threading.Event(), threading.Event()

    def callback(conn):
        for _ in conn.requests():
            inside.set()
            assert go_on.wait(GENEROUS)
            conn.respond({"statusCode": 200})

    served = by_hand(callback)
    with served.connect() as wire:
        wire.send(GET.format("/"))
        assert inside.wait(GENEROUS)
        closing = threading.Thread(target=served.server.close)
        closing.start()
        wait_until(lambda: not served.server._core.is_open())
        go_on.set()
        assert wire.read().header("connection") == "close"
        assert wire.rest() == b""
    closing.join(GENEROUS)


def test_cancelling_within_a_request_loses_nothing(by_hand):
    async def callback(conn):
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(conn.read_request(), 0.05)
        await conn.write(b"go on")
        request = await conn.read_request()
        await conn.respond(tell(request))

    with by_hand(callback).connect() as wire:
        wire.send("POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\n\r\nab")
        assert wire.file.read(5) == b"go on"
        assert wire.send("cd").read().json()["body"] == "abcd"
