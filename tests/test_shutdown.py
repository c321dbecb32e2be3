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
        assert idle.rest() == b"", "one that is idle is closed at once"
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
