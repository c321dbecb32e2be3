"""How a server ends: what is in flight is finished, what is idle is told to go, nothing holds it up."""

import asyncio
import threading
import time

import pytest

import portico
from clients import GENEROUS, Wire, refuses, wait_until


def hello(request):
    return {"statusCode": 200, "body": "hello"}


def test_close_frees_the_ports(serve):
    served = serve()
    ports = [served.port, served.clear]
    served.server.close()
    assert all(refuses(port) for port in ports)


@pytest.mark.parametrize("grace", [30, 0])
def test_close_is_idempotent_and_safe_from_many_threads(serve, grace):
    served = serve()
    with served.wire() as wire:
        assert wire.get().status == 200
        threads = [threading.Thread(target=served.server.close, args=(grace,)) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(GENEROUS)
        assert not any(thread.is_alive() for thread in threads)
        assert wire.cut() == b""
    served.server.close()
    served.server.close(grace=0)


def test_close_before_anything(make_server):
    server = make_server()
    server.close()
    server.close()


@pytest.mark.parametrize("grace", [-1, float("nan"), "soon", None])
def test_grace_that_makes_no_sense(make_server, grace):
    with pytest.raises((portico.ConfigError, TypeError, ValueError)):
        make_server().close(grace)


def test_request_in_flight_finishes_within_the_grace(serve, gate):
    served = serve(lambda request: gate(request) if request.path == "/1" else hello(request))
    with served.wire() as wire, served.wire() as idle:
        assert idle.get().status == 200
        wire.send("GET /1 HTTP/1.1\r\nHost: h\r\n\r\n")
        gate.wait_for()
        closing = threading.Thread(target=served.server.close)
        closing.start()
        assert idle.rest() == b"", "one that is idle is closed after a moment"
        wait_until(lambda: refuses(served.clear))
        assert closing.is_alive()
        gate.opened.set()
        reply = wire.read()
        assert (reply.text, reply.header("connection")) == ("through /1", "close")
        assert wire.rest() == b""
        closing.join(GENEROUS)
        assert not closing.is_alive()
    assert served.stat("connections_closed", "shutdown") == 2


@pytest.mark.parametrize("kind", ["clear, silent", "in handshake", "tls, silent", "tls, kept alive"])
def test_connection_with_nothing_in_flight_does_not_hold_up_the_end(serve, kind):
    served = serve()
    if kind == "in handshake":
        wire = Wire(served.port).send(b"\x16\x03\x01")
    else:
        wire = served.tls_wire() if kind.startswith("tls") else served.wire()
    with wire:
        if kind == "tls, kept alive":
            assert wire.get().status == 200
        served.wait_stat("connections_open")
        began = time.monotonic()
        served.server.close()
        assert time.monotonic() - began < 5
        assert b"200" not in wire.cut()


@pytest.mark.parametrize("handler", ["def", "async def"])
def test_request_in_flight_is_dropped_after_the_grace(serve, gate, handler):
    async def stuck(request):
        gate.entered.release()
        await asyncio.sleep(60)

    served = serve(gate if handler == "def" else stuck)
    with served.wire() as wire:
        wire.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n")
        gate.wait_for()
        began = time.monotonic()
        served.server.close(grace=0.3)
        took = time.monotonic() - began
        assert b"200 OK" not in wire.cut()
    assert 0.25 < took < 15


def test_a_second_close_shortens_the_grace(serve, gate):
    served = serve(gate)
    with served.wire() as wire:
        wire.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n")
        gate.wait_for()
        closing = threading.Thread(target=served.server.close, args=(1000,))
        closing.start()
        wait_until(lambda: refuses(served.clear))
        served.server.close(grace=0)
        wire.cut()
        gate.opened.set()
        closing.join(GENEROUS)
        assert not closing.is_alive()


# ---- nothing is lost


def test_a_request_on_an_idle_connection_is_answered_and_its_client_told_to_close(serve):
    served = serve(drain_idle_timeout=10)
    with served.wire() as wire, served.tls_wire() as secure:
        for one in (wire, secure):
            assert one.get().header("connection") is None
        closing = threading.Thread(target=served.server.close)
        closing.start()
        wait_until(lambda: refuses(served.clear))
        for one in (wire, secure):
            reply = one.get()
            assert (reply.status, reply.header("connection")) == (200, "close")
            assert one.rest() == b""
            one.close()
        closing.join(GENEROUS)
        assert not closing.is_alive()


@pytest.mark.parametrize(("setting", "least", "most"), [(0, 0, 0.9), (1.5, 1.4, 10)])
def test_an_idle_connection_holds_up_the_end_for_a_moment_only(serve, setting, least, most):
    served = serve(drain_idle_timeout=setting)
    with served.wire() as wire:
        assert wire.get().status == 200
        began = time.monotonic()
        served.server.close()
        assert least <= time.monotonic() - began < most
        assert wire.rest() == b""


def test_requests_that_have_come_already_are_all_answered(serve, gate):
    served = serve(gate)
    with served.wire() as wire:
        wire.send("".join(f"GET /{number} HTTP/1.1\r\nHost: h\r\n\r\n" for number in range(5)))
        gate.wait_for()
        closing = threading.Thread(target=served.server.close)
        closing.start()
        wait_until(lambda: refuses(served.clear))
        gate.opened.set()
        replies = [wire.read() for _ in range(5)]
        assert [reply.text for reply in replies] == [f"through /{number}" for number in range(5)]
        assert [reply.header("connection") for reply in replies] == [None] * 4 + ["close"]
        assert wire.rest() == b""
        closing.join(GENEROUS)


@pytest.mark.parametrize("kind", ["head", "handshake", "nothing"])
def test_a_client_that_has_just_begun_has_its_answer(serve, kind):
    served = serve(drain_idle_timeout=5)
    wire = Wire(served.port) if kind == "handshake" else served.wire()
    with wire:
        if kind == "head":
            wire.send("GET / HTT")
        served.wait_stat("connections_open")
        closing = threading.Thread(target=served.server.close)
        closing.start()
        wait_until(lambda: refuses(served.port))
        if kind == "handshake":
            wire.sock = served.context().wrap_socket(wire.sock, server_hostname="localhost")
            wire.file = wire.sock.makefile("rb")
        wire.send("P/1.1\r\nHost: h\r\n\r\n" if kind == "head" else "GET / HTTP/1.1\r\nHost: h\r\n\r\n")
        reply = wire.read()
        assert (reply.status, reply.header("connection")) == (200, "close")
        closing.join(GENEROUS)


def test_a_response_of_http2_is_read_whole_though_its_client_goes_on_sending(serve, h2_of):
    served = serve(lambda request: {"statusCode": 200, "body": b"x" * 400_000})
    client = h2_of(served)
    stream = client.open()
    served.wait_stat("requests", "2")
    closing = threading.Thread(target=served.server.close)
    closing.start()
    assert len(client.reply(stream).body) == 400_000
    client.connection.ping(b"12345678")
    client.flush()
    client.wait_until_closed()
    client.wire.close()
    closing.join(GENEROUS)
    assert not closing.is_alive()


@pytest.mark.parametrize("kind", ["tcp", "unix"])
def test_whoever_was_connected_is_answered_and_nobody_reset(serve, tmp_path, kind):
    answered, broken = [], []

    def connect(port, unix, ended):
        while not ended.is_set():
            try:
                wire = Wire(port, unix=unix)
            except OSError:
                return  # refused, or the socket's file is gone
            try:
                with wire:
                    answered.append(wire.get("/", "Connection: close\r\n").status)
                    assert wire.rest() == b""
            except Exception as error:
                broken.append(error)

    for _ in range(10):
        served = serve()
        if kind == "unix":
            path = str(tmp_path / "socket")
            port = served.server.listen(unix=path, tls=False).port
        else:
            path, port = None, served.clear
        ended = threading.Event()
        clients = [threading.Thread(target=connect, args=(port, path, ended)) for _ in range(8)]
        for client in clients:
            client.start()
        seen = len(answered)
        wait_until(lambda seen=seen: len(answered) > seen + 30)
        served.server.close()
        for client in clients:
            client.join(GENEROUS)
            assert not client.is_alive()
    assert broken == []
    assert set(answered) == {200}


@pytest.mark.slow
def test_a_hundred_starts_and_stops_under_load(serve):
    connecting = Hammer()
    with connecting:
        for _ in range(100):
            with portico.Server(hello) as server:
                listener = server.listen(0, tls=False)
                seen = connecting.answered
                connecting.port = listener.port
                wait_until(lambda seen=seen: connecting.answered > seen + 5)
                server.close()
    assert connecting.broken == []


class Hammer:
    """Clients that connect to whatever port there is."""

    def __init__(self):
        self.port, self.answered, self.broken = None, 0, []
        self.ended = threading.Event()
        self.threads = [threading.Thread(target=self._run) for _ in range(4)]

    def __enter__(self):
        for thread in self.threads:
            thread.start()

    def __exit__(self, *_):
        self.ended.set()
        for thread in self.threads:
            thread.join(GENEROUS)
            assert not thread.is_alive()

    def _run(self):
        while not self.ended.is_set():
            try:
                wire = Wire(self.port)
            except (OSError, TypeError):
                self.ended.wait(0.005)
                continue
            with wire:
                try:
                    while not self.ended.is_set():
                        reply = wire.get()
                        assert reply.status == 200
                        self.answered += 1
                        if reply.header("connection") == "close":
                            break
                except Exception as error:
                    self.broken.append(error)
