"""Where handlers run: on the I/O thread, on a pool, on an event loop."""

import threading

import pytest

import portico
from clients import wait_until


def ok(body=""):
    return {"statusCode": 200, "body": str(body)}


def test_inline_uses_no_other_thread(serve):
    served = serve(lambda request: ok(threading.get_ident()), dispatch="inline", io_threads=1)
    idents = {served.get().text for _ in range(10)}
    assert len(idents) == 1
    assert str(threading.get_ident()) not in idents


@pytest.mark.parametrize("dispatch", ["threads", "auto"])
def test_threads_run_side_by_side(serve, dispatch):
    together = threading.Barrier(8)

    def handler(request):
        together.wait(30)
        return ok(threading.get_ident())

    served = serve(handler, dispatch=dispatch, threads=(1, 8), io_threads=1)
    wires = [served.wire() for _ in range(8)]
    try:
        for wire in wires:
            wire.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n")
        assert len({wire.read().text for wire in wires}) == 8
    finally:
        for wire in wires:
            wire.close()


def test_pool_grows_no_further_than_told(serve, gate):
    served = serve(gate, threads=(1, 2))
    wires = [served.wire() for _ in range(4)]
    try:
        for wire in wires:
            wire.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n")
        gate.wait_for(2)
        served.wait_stat("requests_in_flight", value=4)
        assert not gate.entered.acquire(timeout=0.3), "a third thread"
        gate.opened.set()
        assert [wire.read().status for wire in wires] == [200] * 4
    finally:
        for wire in wires:
            wire.close()


def test_a_blocked_handler_does_not_stop_the_others(serve, gate):
    served = serve(lambda request: gate(request) if request.path == "/slow" else ok())
    with served.wire() as slow:
        slow.send("GET /slow HTTP/1.1\r\nHost: h\r\n\r\n")
        gate.wait_for()
        assert [served.get().status for _ in range(10)] == [200] * 10


def test_thread_locals_work(serve):
    local = threading.local()

    def handler(request):
        local.count = getattr(local, "count", 0) + 1
        return ok(local.count)

    served = serve(handler, threads=(1, 1))
    assert [served.get().text for _ in range(3)] == ["1", "2", "3"]


def test_coroutine_from_a_def_handler_elsewhere_is_told(serve):
    async def never():
        raise AssertionError("nobody awaits it")

    coroutines = []

    def handler(request):
        coroutines.append(never())
        return coroutines[-1]

    served = serve(handler, dispatch="threads")
    assert served.get().status == 500
    assert "coroutine" in str(served.errors.next(portico.ResponseError)[0])
    coroutines[0].close()


@pytest.mark.parametrize("dispatch", ["inline", "threads", "asyncio", "async def"])
def test_close_from_a_handler(serve, dispatch):
    def handler(request):
        request.server.close()
        return ok("closing")

    async def asynchronous(request):
        return handler(request)

    served = serve(asynchronous) if dispatch == "async def" else serve(handler, dispatch=dispatch)
    reply = served.get()
    assert (reply.text, reply.header("connection")) == ("closing", "close")

    def closed():
        try:
            served.server.listen(0).close()
        except portico.ClosedError:
            return True

    wait_until(closed)
    wait_until(lambda: served.stat("connections_open") == 0)
