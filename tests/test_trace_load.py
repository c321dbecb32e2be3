"""`trace=` under load, by callables that misbehave, and what it costs."""

from __future__ import annotations

import contextlib
import random
import socket
import struct
import subprocess
import sys
import threading
import time
from collections import defaultdict

import pytest

import portico
import portico.testing
import sockets
from clients import GENEROUS, Wire, wait_until
from frames import H2
from odd_requests import LIMITS, ODD
from sockets import OverHTTP1

ASKED = "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"


# ---- order and completeness


def check(records):
    """What holds for the records of any connections that are over, whatever came over them."""
    by_connection = defaultdict(list)
    for record in records:
        if record.event != "turned_away":
            by_connection[record.connection].append(record)
    for all_of_it in by_connection.values():
        story = "\n".join(map(str, all_of_it))
        names = [record.event for record in all_of_it]
        assert names[0] == "accepted", story
        assert names[-1] == "closed", story
        assert names.count("accepted") == names.count("closed") == 1, story
        assert names.count("protocol") <= 1, story
        times = [record.elapsed for record in all_of_it]
        assert times == sorted(times), story
        if "handshake_begun" in names:
            assert names.count("handshake_done") + names.count("handshake_failed") == 1, story
        by_request = defaultdict(list)
        for record in all_of_it:
            if record.stream is not None:
                by_request[record.stream].append(record)
        for of_request in by_request.values():
            check_request(of_request, story)
    return by_connection


def check_request(records, story):
    # A reset is told when it is read: before the head that came with it is decoded, or of what never was a request.
    records = [record for record in records if record.event != "reset"]
    if not records:
        return
    names = [record.event for record in records]
    assert names[0] in ("request", "refused"), story
    end = names.index("request_ended")
    assert end == len(names) - 1, story
    assert names.count("request") <= 1, story
    assert names.count("response") <= 1, story
    assert names.count("handler_answered") <= 1, story
    assert names.count("body_ended") <= names.count("body_begun") <= 1, story
    if "handler_answered" in names:
        assert names.index("handler_begun") < names.index("handler_answered"), story
    if records[end].details["outcome"] == "whole":
        assert "response" in names, story
        assert records[end].details["status"] == records[names.index("response")].details["status"], story


def reset(wire):
    wire.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    wire.close()


def whole(served, chance):
    with served.wire() if chance.random() < 0.5 else served.tls_wire() as wire:
        for _ in range(chance.randrange(1, 4)):
            wire.get(chance.choice(["/", "/slow", "/pieces", "/fails", "/none"]), "Accept-Encoding: identity\r\n")


def odd(served, chance):
    with served.wire() as wire:
        text = chance.choice(list(ODD.values()))[0]
        wire.send(text[: chance.randrange(1, len(text) + 1)])
        if chance.random() < 0.7:
            wire.half_close()
            wire.cut()


def cut_off(served, chance):
    wire = served.wire()
    wire.send(ASKED[: chance.randrange(len(ASKED))] if chance.random() < 0.5 else ASKED.replace("/ ", "/slow "))
    reset(wire)


def pipelined(served, chance):
    with served.wire() as wire:
        wire.send(ASKED * chance.randrange(1, 9))
        if chance.random() < 0.5:
            wire.half_close()
            wire.cut()


def bodies(served, chance):
    length = chance.choice([0, 1, 99, 100, 101])
    with served.wire() as wire:
        path = chance.choice(["/", "/stream"])
        wire.send(f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n")
        wire.send("x" * chance.randrange(length + 1))
        if chance.random() < 0.5:
            wire.half_close()
        wire.cut() if chance.random() < 0.8 else reset(wire)


def streams(served, chance):
    with served.tls_wire(alpn=["h2"]) as wire:
        client = H2(wire)
        for _ in range(chance.randrange(1, 8)):
            end = chance.random() < 0.6
            method = "GET" if end else "POST"
            stream = client.open(method=method, path=chance.choice(["/", "/slow", "/pieces", "/stream"]), end=end)
            if not end and chance.random() < 0.7:
                client.data(stream, b"x" * chance.randrange(99), end=chance.random() < 0.5)
            if chance.random() < 0.3:
                client.connection.reset_stream(stream)
                client.flush()
        if chance.random() < 0.3:
            wire.send(bytes(chance.randrange(256) for _ in range(30)))
        if chance.random() < 0.5:
            wire.sock.settimeout(0.05)
            with contextlib.suppress(OSError):
                wire.sock.recv(10_000)
        if chance.random() < 0.3:
            reset(wire)


def noise(served, chance):
    with Wire(served.port) as wire:
        wire.send(bytes(chance.randrange(256) for _ in range(chance.randrange(1, 300))))
        if chance.random() < 0.5:
            wire.half_close()
            wire.cut()


def talk(served, chance):
    with served.wire() as wire:
        ws = OverHTTP1(wire, "/ws")
        for _ in range(chance.randrange(3)):
            ws.send(sockets.frame(chance.randrange(16), b"x" * chance.randrange(9)))
        if chance.random() < 0.5:
            ws.send(sockets.close(1000))
            wire.cut()


def site():
    router = portico.Router()

    @router.get("/")
    @router.post("/")
    def root(request):
        return {"statusCode": 200, "body": "hi"}

    @router.get("/slow")
    async def slow(request):
        import asyncio

        await asyncio.sleep(0.02)
        return {"statusCode": 200, "body": "x" * 5_000}

    @router.get("/pieces")
    def pieces(request):
        return {"statusCode": 200, "headers": {"content-length": "3"}, "body": (b"x" for _ in range(3))}

    @router.get("/fails")
    def fails(request):
        raise KeyError("on purpose")

    @router.post("/stream")
    def stream(request):
        return {"statusCode": 200, "body": str(sum(map(len, request.stream())))}

    stream.stream_body = True
    router.get("/ws")(portico.websocket(sockets.echo))
    return router


@pytest.mark.parametrize("seed", range(3))
def test_every_connection_and_every_request_has_its_end_whatever_comes(serve, seed):
    trace = portico.testing.Trace()
    served = serve(
        site(),
        trace=trace,
        handshake_timeout=0.5,
        header_timeout=0.5,
        body_timeout=0.5,
        keepalive_timeout=0.5,
        max_connections=40,
        **{name: limit for name, limit in LIMITS.items() if name == "max_request_read_bytes"},
    )
    served.clear  # noqa: B018  before the threads
    kinds = [whole, odd, cut_off, pipelined, bodies, streams, noise, talk]

    def client(number):
        chance = random.Random(f"{seed} {number}")
        for _ in range(12):
            # The server may have ended it by then, and that is its business.
            with contextlib.suppress(OSError, AssertionError, ValueError):
                chance.choice(kinds)(served, chance)

    threads = [threading.Thread(target=client, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if seed % 2:
        wait_until(lambda: served.stat("connections_open") == 0)
    served.server.close(1.0)
    assert not trace.find("dropped")
    told = check(trace.records)
    assert len(told) == served.stat("connections_accepted")
    assert len(trace.find("turned_away")) == sum(served.stat("connections_turned_away").values())
    assert len(trace.find("handshake_done")) == served.stat("handshakes")
    assert len(trace.find("handshake_failed")) == sum(served.stat("handshakes_failed").values())


# ---- callables that misbehave


def test_what_it_raises_is_logged_once_and_it_is_called_on(serve, caplog):
    came = []

    def raises(record):
        came.append(record)
        raise KeyError("mine")

    served = serve(trace=raises)
    for _ in range(3):
        assert served.get().status == 200
    wait_until(lambda: sum(record.event == "closed" for record in came) == 3)
    assert [record.levelname for record in caplog.records if "trace raised" in record.message] == ["ERROR"]
    error, about = served.errors.next(KeyError)
    assert (error.args, about) == (("mine",), None)


def test_records_that_come_too_fast_are_counted(serve):
    """Whoever is slow holds up nobody, and is told what is missing, and where."""
    go_on, came = threading.Event(), []

    def slow(record):
        assert go_on.wait(60)
        came.append(record)

    served = serve(trace=slow, dispatch="inline")
    asked = 9_000
    with served.wire() as wire:
        for _ in range(asked // 100):
            wire.send(ASKED * 100)
            for _ in range(100):
                assert wire.read().status == 200
    served.wait_stat("connections_closed", "client")
    go_on.set()
    served.server.close()
    dropped = [record for record in came if record.event == "dropped"]
    missing = sum(record.details["records"] for record in dropped)
    assert len(came) - len(dropped) + missing == 3 + 5 * asked
    assert 10_000 <= len(came) < 25_000
    assert "records=" in str(dropped[0])


def test_it_may_make_requests_to_its_server(serve):
    answers = []

    def asks(record):
        if record.event == "response" and record.connection == 1:
            answers.append(served.get("/from the trace".replace(" ", "%20")).text)

    served = serve(trace=asks)
    assert served.get().status == 200
    wait_until(lambda: answers)
    assert answers == ["hello /from the trace"]


def test_it_may_close_its_server():
    ended = threading.Event()

    def closes(record):
        if record.event == "response":
            server.close()
        if record.event == "closed":
            ended.set()

    server = portico.Server(lambda request: {"statusCode": 204}, trace=closes)
    port = server.listen(0, tls=False).port
    with Wire(port) as wire:
        wire.get()
        assert wire.rest() == b""
    assert ended.wait(GENEROUS)
    server.close()


def test_close_returns_when_all_was_told(make_server):
    came = []

    def slow(record):
        time.sleep(0.001)
        came.append(record.event)

    server = make_server(trace=slow)
    port = server.listen(0, tls=False).port
    with Wire(port) as wire:
        wire.send(ASKED * 50)
        for _ in range(50):
            wire.read()
    server.close()
    assert came[-1] == "closed"
    assert came.count("request_ended") == 50


@pytest.mark.parametrize(
    "trace",
    ["print", "lambda record: time.sleep(100)", "lambda record: stop.wait()", "lambda record: 1 / 0", "busy"],
)
def test_end_of_the_interpreter(trace):
    program = f"""
import logging, socket, threading, time
import portico
logging.disable()
stop = threading.Event()
def busy(record):
    while True:
        pass
server = portico.Server(lambda request: {{"statusCode": 204}}, trace={trace})
port = server.listen(0, tls=False).port
with socket.create_connection(("127.0.0.1", port)) as client:
    client.sendall(b"GET / HTTP/1.1\\r\\nHost: a\\r\\n\\r\\n")
    assert b"204" in client.recv(1000)
"""
    began = time.monotonic()
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert time.monotonic() - began < 20


def test_server_that_is_traced_is_freed(serve):
    import gc
    import weakref

    class Keeps:
        """Refers to its server, as a closure would."""

        def __call__(self, record):
            self.last = record

    keeps = Keeps()
    keeps.server = portico.Server(lambda request: {"statusCode": 204}, trace=keeps)
    port = keeps.server.listen(0, tls=False).port
    with Wire(port) as wire:
        wire.get()
    keeps.server.close()
    gone = weakref.ref(keeps)
    del keeps
    wait_until(lambda: gc.collect() or gone() is None)


# ---- memory


@pytest.mark.slow
def test_memory_stays_flat(serve):
    from measures import resident

    served = serve(trace=lambda record: None, dispatch="inline")
    served.clear  # noqa: B018

    def some(times):
        for _ in range(times):
            with served.wire() as wire:
                wire.send(ASKED * 20)
                for _ in range(20):
                    wire.read()

    some(100)
    before = resident()
    some(400)
    assert resident() - before < 3 * 2**20, "8 000 requests, 44 000 records"
