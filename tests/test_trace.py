"""`trace=`: what each kind of connection tells, step by step."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import ssl
import struct
import threading
import time

import h2.errors
import h2.events
import pytest

import portico
import portico.testing
import sockets
from clients import GENEROUS, Wire
from sockets import OverHTTP1, OverHTTP2

SHORT = 0.3


def steps(trace, connection=1):
    """`(stream, event)` of each record of a connection."""
    return [(record.stream, record.event) for record in trace.records if record.connection == connection]


def events(trace, connection=1, stream=None):
    return [event for of, event in steps(trace, connection) if stream in (of, None)]


def test_of_several_processes_it_says_which(traced):
    served = traced()
    with served.wire() as wire:
        wire.get()
    record = served.trace.wait("closed")
    assert record.pid == record.as_dict()["pid"] == os.getpid()


# ---- requests


def test_two_requests_on_a_connection_of_http1(traced):
    served = traced(dispatch="threads")
    with served.wire() as wire:
        wire.get("/a?b=c")
        wire.get("/d")
    closed = served.trace.wait("closed")
    answered = ["request", "handler_begun", "handler_answered", "response", "request_ended"]
    assert steps(served.trace) == [
        (None, "accepted"),
        (None, "protocol"),
        *((1, event) for event in answered),
        *((2, event) for event in answered),
        (None, "closed"),
    ]
    assert closed.details == {"why": "client", "received": None, "sent": None}
    (request,) = served.trace.find("request", stream=1)
    assert request.details == {"method": "GET", "target": "/a?b=c", "version": "HTTP/1.1", "host": "localhost"}
    (begun, _) = served.trace.find("handler_begun", place="threads")
    assert 0 <= begun.details["waited"] < GENEROUS
    (response, _) = served.trace.find("response", status=200)
    assert response.details["length"] == len("hello /a")
    (ended, _) = served.trace.find("request_ended", outcome="whole")
    assert ended.details == {"status": 200, "received": 0, "sent": len("hello /a"), "outcome": "whole"}
    times = [record.elapsed for record in served.trace.records]
    assert times == sorted(times)
    assert abs(closed.time - time.time()) < GENEROUS


def test_streams_of_http2_are_told_apart(traced, h2_of, gate):
    served = traced(gate, dispatch="threads")
    client = h2_of(served)
    streams = [client.open(path=f"/{number}") for number in range(3)]
    gate.wait_for(3)
    gate.opened.set()
    for stream in streams:
        client.wait_for(h2.events.StreamEnded, stream)
    for stream in streams:
        served.trace.wait("request_ended", stream=stream, outcome="whole")
        assert events(served.trace, stream=stream) == [
            "request",
            "handler_begun",
            "handler_answered",
            "response",
            "request_ended",
        ]
    assert [event for stream, event in steps(served.trace) if stream is None] == [
        "accepted",
        "handshake_begun",
        "handshake_done",
        "protocol",
    ]
    (done,) = served.trace.find("handshake_done")
    assert done.details["sni"] == done.details["host"] == "localhost"
    assert (done.details["version"], done.details["alpn"], done.details["resumed"]) == ("TLSv1.3", "h2", False)
    (protocol,) = served.trace.find("protocol")
    assert protocol.details == {"name": "http/2"}


@pytest.mark.parametrize("http2", [False, True])
def test_bodies(traced, http2):
    def reads_it_all(request):
        return {"statusCode": 200, "body": str(len(request.body))}

    def takes_it_as_it_comes(request):
        return {"statusCode": 200, "body": (piece for piece in request.stream())}

    takes_it_as_it_comes.stream_body = True
    router = portico.Router()
    router.post("/whole")(reads_it_all)
    router.post("/pieces")(takes_it_as_it_comes)
    served = traced(router)
    body = b"x" * 200_000
    with served.httpx(http2=http2) as client:
        assert client.post("/whole", content=body).text == "200000"
        assert client.post("/pieces", content=body, headers={"accept-encoding": "identity"}).content == body
    served.trace.wait("closed")
    first, second = (1, 3) if http2 else (1, 2)
    for stream, sent in ((first, 6), (second, len(body))):
        (begun,) = served.trace.find("body_begun", stream=stream)
        (ended,) = served.trace.find("body_ended", stream=stream)
        assert (begun.details["length"], ended.details["bytes"]) == (len(body), len(body))
        (over,) = served.trace.find("request_ended", stream=stream)
        assert over.details == {"status": 200, "received": len(body), "sent": sent, "outcome": "whole"}
    places = [served.trace.find("handler_begun", stream=stream)[0].details["place"] for stream in (first, second)]
    assert places[1] == "stream_threads"


def test_where_handlers_run(traced):
    async def on_a_loop(request):
        return {"statusCode": 204}

    for handler, dispatch, place in (
        (lambda request: {"statusCode": 204}, "inline", "inline"),
        (lambda request: {"statusCode": 204}, "threads", "threads"),
        (on_a_loop, "auto", "asyncio"),
    ):
        served = traced(handler, dispatch=dispatch)
        assert served.get().status == 204
        served.trace.wait("handler_begun", place=place)


def test_files_need_no_python(traced, tmp_path):
    (tmp_path / "a.txt").write_text("abc")
    served = traced(portico.StaticFiles(tmp_path))
    assert served.get("/a.txt").body == b"abc"
    served.trace.wait("handler_begun", place="core")
    assert served.trace.wait("request_ended").details["sent"] == 3


# ---- refused


def test_a_request_that_is_none(traced):
    served = traced()
    with served.wire() as wire:
        assert wire.send("GET  / HTTP/1.1\r\n\r\n").read().status == 400
    served.trace.wait("closed", why="refused")
    assert steps(served.trace) == [
        (None, "accepted"),
        (None, "protocol"),
        (1, "refused"),
        (1, "response"),
        (1, "request_ended"),
        (None, "closed"),
    ]
    (refused,) = served.trace.find("refused")
    assert (refused.details["why"], refused.details["status"]) == ("request_line", 400)
    assert served.trace.find("request_ended", outcome="refused", status=400)


def test_limits(traced, gate):
    served = traced(gate, max_in_flight=1, max_request_read_bytes=10, dispatch="threads")
    with served.wire() as first, served.wire() as second:
        first.send("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        gate.wait_for()
        assert second.get().status == 503
        served.trace.wait("refused", why="max_in_flight", status=503)
        gate.opened.set()
        assert first.read().status == 200
        first.send("POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 11\r\n\r\n")
        assert first.read().status == 413
        served.trace.wait("refused", why="body_bytes", status=413, connection=1, stream=2)


def test_connections_that_are_not_let_in(traced):
    served = traced(max_connections=1)
    with served.wire() as first:
        first.get()
        with served.wire() as second:
            assert second.cut() == b""
    away = served.trace.wait("turned_away", why="max_connections")
    assert (away.connection, away.stream, away.elapsed) == (None, None, 0.0)
    assert re.fullmatch(r"127\.0\.0\.1:\d+", away.details["peer"])


def test_behind_a_proxy(traced):
    served = traced(trusted_proxies=["127.0.0.1"])
    port = served.server.listen(0, tls=False, proxy_protocol=True).port
    with Wire(port) as wire:
        wire.send("PROXY TCP4 192.0.2.1 192.0.2.2 1234 80\r\n")
        assert wire.get().status == 200
    served.trace.wait("closed", why="client")
    assert events(served.trace)[:4] == ["accepted", "proxied", "protocol", "request"]
    (proxied,) = served.trace.find("proxied")
    assert proxied.details == {"version": 1, "client": "192.0.2.1:1234", "server": "192.0.2.2:80"}
    with Wire(port) as wire:
        wire.send("PROXY nothing\r\n").cut()
    served.trace.wait("closed", connection=2, why="proxy_header")


def test_stream_of_http2_that_breaks_the_rules(traced, h2_of):
    served = traced()
    client = h2_of(served)
    client.open(("x", " a"))
    client.wait_for(h2.events.StreamReset, 1)
    served.trace.wait("reset", stream=1, by="server", code="PROTOCOL_ERROR")
    assert events(served.trace, stream=1) == ["request", "refused", "request_ended", "reset"]


# ---- handshakes


def test_handshakes_that_fail(traced, ca_pem):
    served = traced(handshake_timeout=2)

    def fails(why, context, sni="localhost"):
        number = len(served.trace.find("accepted")) + 1
        with contextlib.suppress(OSError), Wire(served.port, context=context, sni=sni) as wire:
            wire.send("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").cut()
        failed = served.trace.wait("handshake_failed", why=why)
        served.trace.wait("closed", connection=number, why="handshake")
        assert events(served.trace, number) == ["accepted", "handshake_begun", "handshake_failed", "closed"]
        return failed.details

    assert fails("unknown_name", served.context(), "other.test")["sni"] == "other.test"
    assert "not TLS" in fails("not_tls", None)["message"]
    untrusting = ssl.create_default_context(cadata=ca_pem.decode())
    assert fails("client_alert", untrusting)["sni"] == "localhost"
    fails("incompatible", served.context(alpn=["nothing/1"]))
    with Wire(served.port) as wire:
        wire.cut()
    assert "handshake_timeout" in served.trace.wait("handshake_failed", why="timeout").details["message"]
    with Wire(served.port):
        pass
    assert served.trace.wait("handshake_failed", why="left").details["sni"] is None
    served.trace.wait("closed", count=6, why="handshake")


def test_client_certificates_and_resumption(make_server, issue, ca, ca_pem):
    trace = portico.testing.Trace()
    server = make_server(trace=trace)
    server.add_context("localhost", **issue("localhost"), client_auth="optional", client_ca=ca_pem)
    port = server.listen(0).port
    context = ssl.create_default_context(cadata=ca_pem.decode())
    ca.issue_cert("client.test").configure_cert(context)
    session = None
    for _ in range(2):
        raw = socket.create_connection(("127.0.0.1", port), GENEROUS)
        with context.wrap_socket(raw, server_hostname="localhost", session=session) as tls:
            tls.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert tls.recv(1000)
            session = tls.session
    trace.wait("closed", count=2)
    assert [record.details["resumed"] for record in trace.find("handshake_done")] == [False, True]
    assert all(record.details["client_certificate"] for record in trace.find("handshake_done"))


# ---- time-outs


HALF = "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n"


@pytest.mark.parametrize(
    ("setting", "sent", "event", "outcome", "why"),
    [
        ("header_timeout", "", "timed_out", None, "idle"),
        ("header_timeout", "GET / HT", "refused", "refused", "refused"),
        ("body_timeout", HALF, "refused", "refused", "refused"),
        ("keepalive_timeout", "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", "timed_out", "whole", "idle"),
    ],
)
def test_time_outs_of_http1(traced, setting, sent, event, outcome, why):
    served = traced(**{setting: SHORT})
    with served.wire() as wire:
        wire.send(sent).cut()
        if event == "timed_out":
            served.trace.wait(event, setting=setting)
        else:
            served.trace.wait(event, why=setting)
        served.trace.wait("closed", why=why)
    assert [record.details["outcome"] for record in served.trace.find("request_ended")] == (
        [outcome] if outcome else []
    )


def large(request):
    return {"statusCode": 200, "body": b"x" * 20_000_000}


def test_client_that_takes_nothing(traced, h2_of):
    served = traced(large, write_timeout=SHORT, compression=())
    with Wire(served.clear, receive_buffer=4096) as wire:
        wire.send("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        served.trace.wait("timed_out", setting="write_timeout", connection=1)
        served.trace.wait("request_ended", outcome="write_timeout", connection=1, stream=1)
        served.trace.wait("closed", connection=1, why="write_timeout")
    h2_of(served).open()
    served.trace.wait("timed_out", setting="write_timeout", connection=2)
    served.trace.wait("closed", connection=2, why="write_timeout")
    ended = served.trace.wait("request_ended", connection=2, stream=1)
    assert ended.details["status"] == 200
    assert ended.details["outcome"] != "whole"


def test_idle_time_outs_of_http2(traced, h2_of):
    served = traced(keepalive_timeout=SHORT, header_timeout=GENEROUS)
    client = h2_of(served)
    client.wait_for(h2.events.StreamEnded, client.open())
    served.trace.wait("timed_out", setting="keepalive_timeout")
    served.trace.wait("goaway", by="server", code="NO_ERROR")
    served.trace.wait("closed", why="idle")


def test_handler_timeout(traced, gate):
    served = traced(gate, handler_timeout=SHORT, dispatch="threads")
    assert served.get().status == 503
    served.trace.wait("refused", why="handler_timeout", status=503)
    served.trace.wait("request_ended", outcome="refused", status=503)
    gate.opened.set()
    served.trace.wait("closed")
    assert events(served.trace)[-1] == "closed"


# ---- clients that leave, and the server's end


def reset(sock):
    """Ends a connection without a goodbye."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def test_client_that_leaves_in_the_middle_of_a_response(traced):
    served = traced(large, compression=())
    wire = Wire(served.clear, receive_buffer=4096)
    wire.send("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert wire.file.read1(100), "some of it is sent"
    wire.file.close()
    reset(wire.sock)
    ended = served.trace.wait("request_ended", outcome="aborted")
    assert 0 < ended.details["sent"] < 20_000_000
    served.trace.wait("closed", why="aborted")


def test_client_that_resets_its_stream(traced, h2_of, gate):
    served = traced(gate, dispatch="threads")
    client = h2_of(served)
    stream = client.open()
    gate.wait_for()
    client.connection.reset_stream(stream, h2.errors.ErrorCodes.CANCEL)
    client.connection.ping(b"12345678")
    client.flush()
    client.wait_for(h2.events.PingAckReceived)  # it was looked at
    served.trace.wait("reset", stream=stream, by="client", code="CANCEL")
    gate.opened.set()
    served.trace.wait("request_ended", stream=stream, outcome="aborted")


def test_client_that_says_goodbye(traced, h2_of):
    served = traced()
    client = h2_of(served)
    client.wait_for(h2.events.StreamEnded, client.open())
    client.connection.close_connection(error_code=h2.errors.ErrorCodes.ENHANCE_YOUR_CALM)
    client.flush()
    served.trace.wait("goaway", by="client", code="ENHANCE_YOUR_CALM")
    client.wire.close()
    served.trace.wait("closed")


def test_flood_is_answered_by_goaway(traced, h2_of):
    served = traced()
    client = h2_of(served)
    with contextlib.suppress(OSError):
        for _ in range(1_000):
            client.connection.ping(b"12345678")
        client.flush()
        client.wire.cut()
    served.trace.wait("goaway", by="server", code="ENHANCE_YOUR_CALM")
    served.trace.wait("closed", why="aborted")


def test_drain(traced, h2_of, gate):
    served = traced(gate, dispatch="threads")
    idle, busy, second = served.wire(), served.wire(), h2_of(served)
    served.trace.wait("accepted", count=3)
    busy.send("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
    stream = second.open()
    gate.wait_for(2)
    closing = threading.Thread(target=served.server.close)
    closing.start()
    served.trace.wait("goaway", by="server")
    gate.opened.set()
    assert busy.read().header("connection") == "close"
    second.wait_for(h2.events.StreamEnded, stream)
    assert idle.rest() == b""
    for wire in (idle, busy, second.wire):
        wire.close()
    closing.join()
    assert [record.details["why"] for record in served.trace.find("closed")] == ["shutdown"] * 3
    assert len(served.trace.find("draining")) == 3
    assert {record.details["outcome"] for record in served.trace.find("request_ended")} == {"whole"}


def test_end_without_grace(traced, gate):
    served = traced(gate, dispatch="threads")
    with served.wire() as wire:
        wire.send("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        gate.wait_for()
        closing = threading.Thread(target=served.server.close, args=(0,))
        closing.start()
        served.trace.wait("request_ended", outcome="shutdown")
        served.trace.wait("closed", why="shutdown")
        gate.opened.set()
        closing.join()
    assert events(served.trace)[-2:] == ["request_ended", "closed"]


# ---- WebSockets, streams


@pytest.mark.parametrize("kind", [OverHTTP1, OverHTTP2])
def test_websocket(traced, h2_of, kind):
    served = traced(portico.websocket(sockets.echo_async, subprotocols=["chat"]))
    wire = served.tls_wire() if kind is OverHTTP1 else h2_of(served)
    ws = kind(
        wire, "/", "Sec-WebSocket-Protocol: chat\r\n" if kind is OverHTTP1 else ("sec-websocket-protocol", "chat")
    )
    ws.send(sockets.frame(sockets.TEXT, "hi"))
    assert ws.read() == (sockets.TEXT, b"hi")
    ws.send(sockets.close(4001, "enough"))
    ws.read_close()
    closed = served.trace.wait("websocket_closed")
    assert closed.details == {"code": 4001, "reason": "enough", "failure": None}
    (begun,) = served.trace.find("websocket_begun")
    assert begun.details == {"subprotocol": "chat", "compression": False}
    served.trace.wait("request_ended", outcome="whole")
    # A client that does not end its stream has it reset.
    assert [event for event in events(served.trace, stream=1) if event != "reset"] == [
        "request",
        "handler_begun",
        "handler_answered",
        "response",
        "websocket_begun",
        "handler_begun",
        "websocket_closed",
        "request_ended",
    ]
    getattr(wire, "wire", wire).close()


def test_websocket_that_breaks_the_rules(traced):
    served = traced(portico.websocket(sockets.echo_async))
    with served.wire() as wire:
        ws = OverHTTP1(wire)
        ws.send(sockets.frame(sockets.TEXT, b"\xff"))
        ws.read_close()
    closed = served.trace.wait("websocket_closed", code=1007)
    assert "UTF-8" in closed.details["failure"]


def test_idle_websocket(traced):
    served = traced(portico.websocket(sockets.echo_async, idle_timeout=SHORT))
    with served.wire() as wire:
        OverHTTP1(wire).read_close()
    served.trace.wait("timed_out", setting="idle_timeout", stream=1)
    served.trace.wait("websocket_closed", code=1001)


def test_stream(traced):
    def echo(conn):
        while data := conn.read(5):
            conn.write(data * 2)

    served = traced()
    for tls in (False, True):
        port = served.server.listen(0, tls=tls, stream=echo).port
        with Wire(port, context=served.context() if tls else None) as wire:
            wire.send("12345")
            assert wire.file.read(10) == b"1234512345"
    served.trace.wait("closed", count=2)
    assert events(served.trace) == ["accepted", "protocol", "handler_begun", "closed"]
    handshake = ["handshake_begun", "handshake_done"]
    assert events(served.trace, 2) == ["accepted", *handshake, "protocol", "handler_begun", "closed"]
    assert all((it.details["received"], it.details["sent"]) == (5, 10) for it in served.trace.find("closed"))
    assert served.trace.find("closed", connection=1, why="client")


def test_requests_by_hand(traced):
    def by_hand(conn):
        for request in conn.requests():
            conn.respond({"statusCode": 200, "body": request.path})

    served = traced()
    port = served.server.listen(0, tls=False, stream=by_hand).port
    with Wire(port) as wire:
        assert wire.get("/a").text == "/a"
    closed = served.trace.wait("closed").details
    assert closed["received"] == len("GET /a HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert closed["sent"] > 40
