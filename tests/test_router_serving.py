"""Routers while they serve: routes that are added, very many of them, and what is left when they are gone."""

from __future__ import annotations

import gc
import json
import subprocess
import sys
import threading
import time
import weakref
from pathlib import Path

import pytest

import portico
from clients import Wire, wait_until


def say(text):
    return lambda request: {"statusCode": 200, "body": text}


def test_routes_added_while_serving_take_effect(serve):
    router, inner = portico.Router(), portico.Router()
    router.mount("/in", inner)
    served = serve(router)
    with served.wire() as wire:
        assert wire.get("/a").status == 404
        router.add_route("GET", "/a", say("a"))
        assert wire.get("/a").text == "a"
        router.add_route("GET", "/a", say("guarded"), guards=[lambda request: request.queryString == "g"])
        assert (wire.get("/a").text, wire.get("/a?g").text) == ("a", "guarded")
        inner.add_route("GET", "/b", say("b"))
        assert wire.get("/in/b").text == "b"
        deeper = portico.Router()
        inner.mount("/c", deeper)
        deeper.add_route("GET", "/", say("c"))
        assert wire.get("/in/c").text == "c"
        router.mount("/", say("any"))
        assert (wire.get("/a").text, wire.get("/d").text) == ("a", "any")


def test_the_first_async_route_of_a_server_may_come_late(serve):
    router = portico.Router()
    served = serve(router, dispatch="inline")

    @router.get("/async")
    async def later(request):
        return {"statusCode": 200, "body": threading.current_thread().name}

    assert served.get("/async").text == "portico-asyncio"


def test_a_handler_may_add_a_route(serve):
    router = portico.Router()

    @router.post("/{name}")
    def make(request):
        name = request.pathParameters["name"]
        router.add_route("GET", f"/{name}", say(name))
        return {"statusCode": 201}

    @router.put("/{name}")
    async def make_async(request):
        async def answer(request):
            return {"statusCode": 200, "body": "async"}

        router.add_route("GET", f"/{request.pathParameters['name']}", answer)
        return {"statusCode": 201}

    served = serve(router)
    assert served.ask("POST", "/new").status == served.ask("PUT", "/other").status == 201
    assert (served.get("/new").text, served.get("/other").text) == ("new", "async")


def test_several_threads_add_to_a_router_in_several_servers(make_server):
    router = portico.Router()
    ports = [make_server(router).listen(0, tls=False).port for _ in range(3)]

    def add(thread):
        for number in range(50):
            router.add_route("GET", f"/{thread}/{number}", say(f"{thread} {number}"))

    threads = [threading.Thread(target=add, args=(number,)) for number in range(4)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    for port in ports:
        with Wire(port) as wire:
            assert all(
                wire.get(f"/{thread}/{number}").text == f"{thread} {number}"
                for thread in range(4)
                for number in range(50)
            )


def test_a_closed_server_is_told_nothing(make_server):
    router = portico.Router()
    server = make_server(router)
    server.close()
    router.add_route("GET", "/", print)
    router.add_middleware(print)
    assert router._live_tables() == []


def test_a_server_that_refuses_a_router_leaves_nothing(make_server):
    router = portico.Router()
    server = make_server(None)
    with pytest.raises(portico.CertificateError):
        server.add_context(None, cert=b"", key=b"", handler=router)
    assert router._live_tables() == []
    assert server.stats()["handlers"] == {}


def test_a_context_that_is_removed_lets_its_router_go(serve, issue):
    router = portico.Router()
    router.add_route("GET", "/", say("a"))
    served = serve(None)
    served.server.add_context("one.test", **issue("one.test"), handler=router)
    assert len(router._live_tables()) == 1
    served.server.remove_context("one.test")
    assert router._live_tables() == []


def test_what_only_a_closed_server_refers_to_is_freed():
    def serve_once():
        router = portico.Router()

        class Handler:
            def __call__(self, request):
                return {"statusCode": 200, "body": str(len(router.routes))}

        handler = Handler()
        router.add_route("GET", "/", handler)
        router.add_middleware(enter=lambda request: print(end=str(handler)[:0]))
        inner = portico.Router()
        inner.mount("/x", handler)
        router.mount("/in", inner)
        with portico.Server(router) as server:
            handler.server = server  # a circle
            with Wire(server.listen(0, tls=False).port) as wire:
                assert wire.get("/").text == "2"
        return [weakref.ref(it) for it in (router, inner, handler, server)]

    left = serve_once()
    gc.collect()
    assert [it() for it in left] == [None] * 4


def test_a_circle_through_a_server_that_was_never_closed_is_freed():
    def make():
        router = portico.Router()
        server = portico.Server(router)
        router.add_route("GET", "/", lambda request: {"statusCode": 200, "body": repr((router, server))})
        return weakref.ref(router), weakref.ref(server)

    left = make()
    gc.collect()
    assert [it() for it in left] == [None, None]


MEMORY = """
import gc, sys, portico

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096

kept = portico.Router()
kept.add_route("GET", "/", print)

def turn():
    router = portico.Router()
    for number in range(200):
        router.add_route("GET", f"/{number}/{{id}}", lambda request: number)
    kept_too = portico.Router()
    router.mount("/kept", kept)
    server = portico.Server(router)
    router.add_middleware(enter=print)
    server.close()
    assert len(kept._live_tables()) <= 1

for _ in range(40):
    turn()
gc.collect()
before = resident()
for _ in range(200):
    turn()
gc.collect()
print(resident() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="memory is measured through /proc")
def test_routes_that_come_and_go_leave_nothing():
    """40 000 routes in 200 servers: fewer bytes each than the smallest allocation. Measured: 28 KiB in all."""
    measured = subprocess.run([sys.executable, "-c", MEMORY], capture_output=True, text=True, timeout=110, check=False)
    assert measured.returncode == 0, measured.stderr
    assert int(measured.stdout) < 40_000 * 26


@pytest.mark.slow
def test_100_000_routes(make_server):
    router = portico.Router()
    began = time.monotonic()
    for number in range(50_000):
        router.add_route("GET", f"/static/page{number}", say)
        router.add_route(
            "GET", f"/api/v{number}/users/{{id}}", lambda request: {"statusCode": 200, "body": request.path}
        )
    server = make_server(router)
    took = time.monotonic() - began
    with Wire(server.listen(0, tls=False).port) as wire:
        assert wire.get("/api/v31415/users/7").text == "/api/v31415/users/7"
        assert wire.get("/api/v50000/users/7").status == 404
        # One more takes no longer for the others.
        router.add_route("GET", "/late", say("late"))
        assert wire.get("/late").text == "late"
    assert len(server.stats()["handlers"]) == 100_001
    assert took < 60, f"adding them took {took:.1f} s"


SPEED = """
import json, sys, time, urllib.request, portico
sys.path.insert(0, sys.argv[1])
from clients import Wire

def hello(request):
    return {"statusCode": 200, "body": "hello"}

def cost(handler, path):
    with portico.Server(handler, dispatch="inline", io_threads=1) as server, Wire(server.listen(0, tls=False).port) as wire:
        batch = f"GET {path} HTTP/1.1\\r\\nHost: localhost\\r\\n\\r\\n".encode() * 250
        answer = len(b"".join(one(wire, batch[: len(batch) // 250], 1)))
        turns = []
        for _ in range(40):
            began = time.process_time()
            one(wire, batch, 250 * answer)
            turns.append(time.process_time() - began)
        return sorted(turns)[4] / 250

def one(wire, batch, size):
    wire.send(batch)
    parts, got = [], 0
    while got < size:
        parts.append(wire.sock.recv(65536))
        got += len(parts[-1])
    return parts

few, many = portico.Router(), portico.Router()
few.add_route("GET", "/hello", hello)
few.add_route("GET", "/users/{id}", hello)
for number in range(20_000):
    many.add_route("GET", f"/page{number}", hello)
    many.add_route("GET", f"/page{number}/{{id}}", hello)
many.add_route("GET", "/hello", hello)
costs = {"bare": [], "few": [], "many": [], "parameter": []}
for _ in range(5):
    costs["bare"].append(cost(hello, "/hello"))
    costs["few"].append(cost(few, "/hello"))
    costs["many"].append(cost(many, "/hello"))
    costs["parameter"].append(cost(few, "/users/7"))
print(json.dumps({name: min(all) * 1e6 for name, all in costs.items()}))
"""


@pytest.mark.slow
def test_a_router_costs_next_to_nothing():
    """CPU of a whole request, client and all, with and without a router, in one run. The bounds are for a busy machine;
    docs/routing.md has what was measured on a quiet one."""
    command = [sys.executable, "-c", SPEED, str(Path(__file__).parent)]
    measured = subprocess.run(command, capture_output=True, text=True, timeout=110, check=False)
    assert measured.returncode == 0, measured.stderr
    costs = json.loads(measured.stdout)
    print({name: f"{microseconds:.2f} us" for name, microseconds in costs.items()})
    assert costs["few"] < costs["bare"] * 1.5
    assert costs["many"] < costs["bare"] * 1.5
    assert costs["parameter"] < costs["bare"] * 1.7


def test_a_slow_route_does_not_send_its_neighbours_to_the_pool(serve):
    """Each handler has its own judge."""
    router, release = portico.Router(), threading.Event()
    router.add_route("GET", "/short", say("short"))
    router.add_route("GET", "/long", lambda request: release.wait(30) and {"statusCode": 200})
    served = serve(router)
    with served.wire() as wire:
        wait_until(
            lambda: wire.get("/short") and told(served, "say")["runs"] == "inline", "the short one to become inline"
        )
    assert told(served, "test_a_slow")["runs"] == "threads"
    release.set()


def told(served, part):
    (one,) = [value for name, value in served.server.stats()["handlers"].items() if f".{part}" in name]
    return one
