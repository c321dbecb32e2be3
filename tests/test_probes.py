"""Probes: whether the server has begun, takes requests and lives, answered whatever its handlers do."""

import contextlib
import threading
import time

import httpx
import pytest

import portico
from clients import GENEROUS, Wire, request, wait_until
from programs import Program

PROBES = ["/probe/startup", "/probe/readiness", "/probe/liveness"]


def ask(admin, path):
    """Status and words of a probe, on a connection of its own."""
    reply = request(admin.port, path=path)
    assert reply.header("cache-control") == "no-store"
    return reply.status, reply.text.rstrip("\n")


@pytest.fixture
def stuck():
    """A handler that keeps its thread until the test ends; `stuck.waiting` is released by each call."""

    def handler(request):
        handler.waiting.release()
        handler.gate.wait(GENEROUS)
        return {"statusCode": 200}

    handler.gate, handler.waiting = threading.Event(), threading.Semaphore(0)
    yield handler
    handler.gate.set()


@contextlib.contextmanager
def asking(port, count):
    """So many clients that have asked and wait for their answer."""
    with contextlib.ExitStack() as stack:
        wires = [stack.enter_context(Wire(port)) for _ in range(count)]
        for wire in wires:
            wire.send("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        yield wires


def test_what_a_server_says_in_its_life(make_server, stuck):
    server = make_server(stuck)
    admin = server.listen_admin()
    assert ask(admin, "/probe/startup") == (503, "not listening yet")
    assert ask(admin, "/probe/readiness") == (503, "not listening yet")
    assert ask(admin, "/probe/liveness") == (200, "alive")
    listener = server.listen(0, tls=False)
    assert [ask(admin, probe) for probe in PROBES] == [(200, "started"), (200, "ready"), (200, "alive")]
    listener.close()
    wait_until(lambda: ask(admin, "/probe/readiness") == (503, "every listener was closed"), "the listener's end")
    listener = server.listen(0, tls=False)
    assert ask(admin, "/probe/readiness") == (200, "ready")
    with asking(listener.port, 1) as wires:
        assert stuck.waiting.acquire(timeout=GENEROUS)
        closing = threading.Thread(target=server.close)
        closing.start()
        why = "draining: the server was told to close"
        wait_until(lambda: ask(admin, "/probe/readiness") == (503, why), "the drain")
        assert ask(admin, "/probe/startup") == (200, "started")
        assert ask(admin, "/probe/liveness") == (200, "alive")
        assert "portico_up 0\n" in request(admin.port, path="/metrics").text
        stuck.gate.set()
        assert wires[0].read().status == 200
        closing.join(GENEROUS)
    with pytest.raises(ConnectionRefusedError):
        Wire(admin.port)


@pytest.mark.parametrize("dispatch", ["inline", "threads", "auto"])
def test_answered_while_every_handler_is_stuck(make_server, stuck, dispatch):
    server = make_server(stuck, dispatch=dispatch, threads=(2, 2), io_threads=1, max_in_flight=4)
    admin, listener = server.listen_admin(), server.listen(0, tls=False)
    with asking(listener.port, 4):
        wait_until(lambda: server.stats()["requests_in_flight"] == 4, "four requests in flight")
        assert ask(admin, "/probe/liveness") == (200, "alive")
        assert ask(admin, "/probe/startup") == (200, "started")
        assert ask(admin, "/probe/readiness") == (503, "overloaded: 4 requests are in flight, of 4 (max_in_flight)")
        assert "portico_requests_in_flight 4\n" in request(admin.port, path="/metrics").text
        stuck.gate.set()
        wait_until(lambda: ask(admin, "/probe/readiness") == (200, "ready"), "its handlers to be done")


def test_answered_while_no_connection_is_let_in(make_server, stuck):
    server = make_server(stuck, max_connections=2)
    admin, listener = server.listen_admin(), server.listen(0, tls=False)
    with Wire(listener.port), Wire(listener.port):
        wait_until(lambda: server.stats()["connections_open"] == 2, "two connections")
        with Wire(listener.port) as wire:
            assert wire.cut() == b""
        assert ask(admin, "/probe/liveness") == (200, "alive")
        assert ask(admin, "/probe/readiness") == (200, "ready")
        assert 'turned_away_total{reason="max_connections"} 1\n' in request(admin.port, path="/metrics").text
    assert server.stats()["connections_turned_away"]["max_connections"] == 1, "the admin's clients do not count"


HOLDS_THE_INTERPRETER = """
import sys, threading, portico
def handler(request):
    # One call into C that never lets go of the interpreter: some seconds.
    if request.path == "/hold":
        sum(range(int(request.queryStringParameters["n"])))
    return {"statusCode": 200, "body": "done"}
with portico.Server(handler, dispatch="inline", io_threads=1, liveness_timeout=0.5) as server:
    admin, listener = server.listen_admin(), server.listen(0, tls=False)
    print("ports", admin.port, listener.port, flush=True)
    server.serve_forever()
"""


@pytest.fixture
def program(tmp_path):
    path = tmp_path / "holds.py"
    path.write_text(HOLDS_THE_INTERPRETER)
    program = Program(path)
    yield program
    program.close()


def per_second():
    """How much this machine sums in a second, so that what holds the interpreter holds it for as long everywhere."""
    began = time.perf_counter()
    sum(range(5_000_000))
    return int(5_000_000 / (time.perf_counter() - began))


def test_answered_while_the_interpreter_is_held(program):
    found = program.wait_for(r"ports (\d+) (\d+)")
    admin, port = int(found[1]), int(found[2])
    assert request(port).text == "done"

    def probe(path="/probe/liveness"):
        return request(admin, path=path).status

    with Wire(port) as holding:
        holding.send(f"GET /hold?n={3 * per_second()} HTTP/1.1\r\nHost: localhost\r\n\r\n")
        holding.sock.setblocking(False)
        answers = []
        while True:
            began = time.monotonic()
            answers.append((probe(), probe("/metrics"), time.monotonic() - began))
            with contextlib.suppress(BlockingIOError):
                holding.sock.recv(1)
                break
        assert len(answers) > 10, "it was held for a while"
        assert {answer[:2] for answer in answers} == {(200, 200)}
        assert sorted(slow for *_, slow in answers)[len(answers) // 2] < 0.5


def test_a_loop_that_does_not_turn_is_named(program):
    found = program.wait_for(r"ports (\d+) (\d+)")
    admin, port = int(found[1]), int(found[2])
    # The loop's thread waits for the interpreter, so does each spare that takes over, and none is left.
    with contextlib.ExitStack() as stack:
        wires = [stack.enter_context(Wire(port)) for _ in range(8)]
        wires[0].send(f"GET /hold?n={4 * per_second()} HTTP/1.1\r\nHost: localhost\r\n\r\n")
        for wire in wires[1:]:
            threading.Event().wait(0.06)
            wire.send("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        liveness = wait_until(
            lambda: (reply := request(admin, path="/probe/liveness")).status == 503 and reply, "a loop that stands"
        )
        assert liveness.text.startswith("portico-io-0 has not turned for ")
        assert request(admin, path="/probe/readiness").status == 200
        assert all(wire.read().text == "done" for wire in wires)
        wait_until(lambda: request(admin, path="/probe/liveness").status == 200, "the loop to turn again")


def test_ordinary_listeners_answer_when_told_to(serve):
    def handler(request):
        raise AssertionError("these are the server's own")

    served = serve(handler, probes=True, max_in_flight=1)
    for http2 in (False, True):
        with served.httpx(http2=http2) as client:
            replies = [client.get(path) for path in PROBES]
            assert [reply.text for reply in replies] == ["started\n", "ready\n", "alive\n"]
            assert client.get("/metrics").text.startswith("# HELP portico_up ")
            head = client.head("/metrics")
            assert (head.status_code, head.content) == (200, b"")
            assert client.post("/metrics", content=b"x").status_code == 405
    # Whoever probes names an address, or nothing at all.
    assert request(served.clear, path="/probe/readiness", host="127.0.0.1").text == "ready\n"
    with served.wire() as wire:
        assert wire.send("GET /probe/readiness HTTP/1.0\r\n\r\n").read().status == 200


def test_ordinary_listeners_answer_ahead_of_admission(make_server, stuck):
    server = make_server(stuck, probes=True, max_in_flight=1)
    port = server.listen(0, tls=False).port
    with asking(port, 1):
        assert stuck.waiting.acquire(timeout=GENEROUS)
        assert request(port).status == 503
        assert request(port, path="/probe/liveness").status == 200
        reply = request(port, path="/probe/readiness")
        assert (reply.status, reply.text) == (503, "overloaded: 1 requests are in flight, of 1 (max_in_flight)\n")
        assert "portico_requests_in_flight 1\n" in request(port, path="/metrics").text


def test_ordinary_listeners_leave_the_paths_alone_otherwise(serve):
    served = serve()
    for path in [*PROBES, "/metrics"]:
        assert served.get(path).text == f"hello {path}"
    served = serve(probes=True)
    for path in ["/probe", "/probe/", "/probe/other", "/metrics/", "/Metrics"]:
        assert served.get(path).text == f"hello {path}"


def test_workers_that_probe_do_not_count_as_clients(make_server):
    server = make_server()
    admin = server.listen_admin()
    with httpx.Client(base_url=admin.url, trust_env=False) as client:
        for _ in range(20):
            assert client.get("/probe/startup").status_code == 503
    stats = server.stats()
    assert (stats["connections_accepted"], sum(stats["requests"].values())) == (0, 0)


def test_a_liveness_timeout_is_a_setting():
    with pytest.raises(portico.ConfigError, match="liveness_timeout"):
        portico.Server(liveness_timeout=0)
