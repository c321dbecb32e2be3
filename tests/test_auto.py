"""`dispatch="auto"` and `"inline"`: without a hop while handlers are short, and safe when they are not."""

import threading
import time

import pytest

import portico
from clients import wait_until

PROOF = 32  # short calls in a row that make a handler inline, see rust/core/src/dispatch/judge.rs


class Handler:
    """Answers with the name of its thread; `/hang` waits until released."""

    def __init__(self):
        self.release = threading.Event()
        self.hanging = threading.Semaphore(0)

    def __call__(self, request):
        if request.path == "/hang":
            self.hanging.release()
            self.release.wait(60)
        return {"statusCode": 200, "body": threading.current_thread().name}


@pytest.fixture
def handler():
    handler = Handler()
    yield handler
    handler.release.set()


def promote(served, wire):
    """Asks until the handler runs on an I/O thread."""
    for _ in range(20 * PROOF):
        if wire.get().text.startswith("portico-io"):
            return
    raise AssertionError(f"never promoted: {served.testing.server.stats()}")


def test_a_handler_that_proves_short_runs_where_its_request_was_read(serve, handler):
    served = serve(handler)
    with served.wire() as wire:
        assert wire.get().text.startswith("portico-handler"), "it begins on the pool"
        promote(served, wire)


def test_stats_tell_where_a_handler_runs_and_why(serve, handler):
    served = serve(handler)
    name = f"{__name__}.Handler"
    with served.wire() as wire:
        wire.get()
        told = served.stat("handlers")[name]
        assert (told["runs"], told["promoted"], told["demoted"]) == ("threads", 0, 0)
        promote(served, wire)
        told = served.stat("handlers")[name]
        assert (told["runs"], told["promoted"], told["demoted"]) == ("inline", 1, 0)
        assert told["why"] == "32 calls in a row took less than 1ms"
        wire.send("GET /hang HTTP/1.1\r\nHost: h\r\n\r\n")
        wait_until(lambda: served.stat("handlers")[name]["slow_paths"] == ["/hang"])
        told = served.stat("handlers")[name]
        assert (told["runs"], told["promoted"], told["demoted"]) == ("inline", 1, 1)
        handler.release.set()
        wire.read()


def test_stats_tell_of_every_handler_by_name(make_server, issue):
    async def coroutine(request):
        return {"statusCode": 200}

    server = make_server(Handler())
    server.add_context("a.test", **issue("a.test"), handler=coroutine)
    server.add_context("b.test", **issue("b.test"), handler=Handler())
    told = server.stats()["handlers"]
    assert {name.replace(f"{__name__}.", ""): one["runs"] for name, one in told.items()} == {
        "Handler": "threads",
        "test_stats_tell_of_every_handler_by_name.<locals>.coroutine": "asyncio",
        "Handler (3)": "threads",
    }


def test_the_pool_grows_while_handlers_block_and_shrinks_when_they_do_not(serve, gate):
    served = serve(gate, threads=(2, 8))

    def size():
        return sum(thread.name.startswith("portico-handler") for thread in threading.enumerate())

    wires = [served.wire() for _ in range(7)]
    try:
        for wire in wires:
            wire.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n")
        gate.wait_for(7)
        assert 7 <= size() <= 8
        gate.opened.set()
        assert [wire.read().status for wire in wires] == [200] * 7
        wait_until(lambda: size() == 2, "the pool to shrink")
        assert wires[0].get().status == 200
    finally:
        for wire in wires:
            wire.close()


def test_a_handler_that_blocks_stays_on_the_pool(serve):
    def slow(request):
        threading.Event().wait(0.002)
        return {"statusCode": 200, "body": threading.current_thread().name}

    served = serve(slow)
    with served.wire() as wire:
        assert all(wire.get().text.startswith("portico-handler") for _ in range(3 * PROOF))


def test_a_long_call_sends_its_path_to_the_pool(serve, handler):
    served = serve(handler, io_threads=1)
    with served.wire() as wire, served.wire() as other, served.wire() as another:
        promote(served, wire)
        other.send("GET /hang?1 HTTP/1.1\r\nHost: localhost\r\n\r\n")
        handler.hanging.acquire(timeout=30)
        wait_until(lambda: served.stat("loop_takeovers") >= 1)
        another.send("GET /hang?2 HTTP/1.1\r\nHost: localhost\r\n\r\n")
        handler.hanging.acquire(timeout=30)
        assert wire.get().text.startswith("portico-io"), "other paths of the same handler stay"
        handler.release.set()
        assert other.read().text.startswith("portico-io"), "where it began"
        assert another.read().text.startswith("portico-handler"), "at once, and not when the first returns"
        assert served.stat("loop_takeovers") >= 1


def test_a_handler_with_many_long_paths_goes_to_the_pool(serve):
    def handler(request):
        if request.path != "/":
            time.sleep(0.008)
        return {"statusCode": 200, "body": threading.current_thread().name}

    served = serve(handler, io_threads=1)
    with served.wire() as wire:
        promote(served, wire)
        for number in range(20):
            wire.get(f"/{number}")
        assert wire.get().text.startswith("portico-handler")


@pytest.mark.parametrize("dispatch", ["auto", "inline"])
def test_a_handler_that_hangs_inline_takes_nothing_with_it(serve, handler, dispatch):
    served = serve(handler, io_threads=1, dispatch=dispatch)
    with served.wire() as old, served.wire() as stuck:
        promote(served, old)
        stuck.send("GET /hang HTTP/1.1\r\nHost: localhost\r\n\r\n")
        handler.hanging.acquire(timeout=30)
        assert old.get().status == 200, "a connection on the same loop goes on"
        with served.wire() as new:
            assert new.get().status == 200, "and so do new ones"
        assert served.stat("loop_takeovers") >= 1
        handler.release.set()
        assert stuck.read().status == 200


def test_handlers_that_hang_inline_one_after_the_other(serve, handler):
    served = serve(handler, io_threads=2, dispatch="inline")
    wires = [served.wire() for _ in range(8)]
    for count, wire in enumerate(wires, 1):
        wire.send("GET /hang HTTP/1.1\r\nHost: localhost\r\n\r\n")
        handler.hanging.acquire(timeout=30)
        wait_until(lambda count=count: served.stat("loop_takeovers") >= count, f"{count} loops to be taken over")
        with served.wire() as new:
            assert new.get().status == 200
    handler.release.set()
    for wire in wires:
        assert wire.read().status == 200
        wire.close()


def test_answers_made_before_a_hang_are_not_held_back(serve, handler):
    served = serve(handler, io_threads=1, dispatch="inline")
    with served.wire() as wire:
        # One write, so that the calls wait for one another on one connection; the others on theirs.
        others = [served.wire() for _ in range(16)]
        for number, other in enumerate(others):
            path = "/hang" if number == 8 else "/"
            other.send(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert all(other.read().status == 200 for number, other in enumerate(others) if number != 8)
        assert wire.get().status == 200
        handler.release.set()
        assert others[8].read().status == 200
        for other in others:
            other.close()


def test_a_server_ends_while_a_handler_hangs_inline(handler):
    server = portico.Server(handler, dispatch="inline", io_threads=1)
    listener = server.listen(0, tls=False)
    from clients import Wire

    with Wire(listener.port) as wire:
        wire.send("GET /hang HTTP/1.1\r\nHost: localhost\r\n\r\n")
        handler.hanging.acquire(timeout=30)
        began = time.monotonic()
        server.close(grace=0.1)
        assert time.monotonic() - began < 10
        assert wire.cut() == b""
