"""Handlers on an event loop: the server's own, or the one of the program under `async with`."""

import asyncio
import contextvars
import functools
import threading
import time

import pytest

import portico
from clients import Wire, request, trusting


def ok(body=""):
    return {"statusCode": 200, "body": str(body)}


@pytest.fixture(params=[asyncio.new_event_loop, portico.new_event_loop], ids=["asyncio", "portico"])
def run(request):
    """Runs a whole program on an event loop of either kind."""

    def run(main):
        loop = request.param()
        try:
            return loop.run_until_complete(main)
        finally:
            loop.run_until_complete(loop.shutdown_asyncgens())
            loop.run_until_complete(loop.shutdown_default_executor())
            loop.close()

    return run


async def on_a_loop(request):
    before = asyncio.get_running_loop()
    await asyncio.sleep(0.001)
    assert asyncio.get_running_loop() is before
    return ok(f"{id(before)} {threading.get_ident()}")


def test_async_handlers_share_a_loop_of_the_servers_own(serve):
    served = serve(on_a_loop)
    told = {served.get().text for _ in range(5)}
    assert len(told) == 1
    assert told.pop().split()[1] != str(threading.get_ident())


def test_async_handlers_run_side_by_side(serve):
    async def handler(request):
        arrived.append(request)
        if len(arrived) == 50:
            everybody.set()
        await everybody.wait()
        return ok()

    arrived, everybody = [], asyncio.Event()
    served = serve(handler, io_threads=2)
    wires = [served.wire() for _ in range(50)]
    try:
        for wire in wires:
            wire.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n")
        assert [wire.read().status for wire in wires] == [200] * 50
    finally:
        for wire in wires:
            wire.close()


class Callable:
    async def __call__(self, request):
        return await on_a_loop(request)

    async def method(self, request):
        return await on_a_loop(request)


async def with_argument(number, request):
    return await on_a_loop(request)


@pytest.mark.parametrize("dispatch", ["auto", "inline", "threads", "asyncio"])
@pytest.mark.parametrize(
    "handler",
    [on_a_loop, Callable(), Callable().method, functools.partial(with_argument, 1)],
    ids=["function", "object", "method", "partial"],
)
def test_async_handlers_always_run_on_a_loop(serve, handler, dispatch):
    assert serve(handler, dispatch=dispatch).get().status == 200


def test_def_handlers_with_dispatch_asyncio_run_on_the_loop(serve):
    def handler(request):
        return ok(f"{id(asyncio.get_running_loop())} {threading.get_ident()}")

    served = serve(handler, dispatch="asyncio")
    assert len({served.get().text for _ in range(5)}) == 1


def test_def_handler_may_return_a_coroutine_there(serve):
    served = serve(lambda request: on_a_loop(request), dispatch="asyncio")
    assert served.get().status == 200


def test_async_and_def_handlers_in_one_server(serve):
    served = serve({"a.test": on_a_loop, "b.test": lambda request: ok("b")}, hosts=("a.test", "b.test"))
    assert served.get(host="a.test").status == 200
    assert served.get(host="b.test").text == "b"


def test_async_with_runs_handlers_on_the_running_loop(issue, ca_pem, run):
    tenant = contextvars.ContextVar("tenant", default="nobody")

    async def main():
        mine = asyncio.get_running_loop()

        async def handler(request):
            assert asyncio.get_running_loop() is mine
            assert threading.current_thread() is threading.main_thread()
            before, _ = tenant.get(), tenant.set(request.path)
            await asyncio.sleep(0.01)
            return ok(f"{before} {tenant.get()}")

        async with portico.Server(handler) as server:
            server.add_context("localhost", **issue("localhost"))
            port = server.listen(0).port
            asking = [asyncio.to_thread(request, port, path=f"/{n}", context=trusting(ca_pem)) for n in range(5)]
            replies = await asyncio.gather(*asking)
            assert server.stats()["requests"]["1.1"] == 5
        with pytest.raises(portico.ClosedError):
            server.listen(0)
        return [reply.text for reply in replies]

    # Each request has a context of its own: what one sets, no other sees.
    assert run(main()) == [f"nobody /{n}" for n in range(5)]


def test_async_with_and_def_handlers(issue, ca_pem, run):
    async def main():
        async with portico.Server(lambda request: ok(threading.current_thread() is threading.main_thread())) as server:
            return (await asyncio.to_thread(request, server.listen(0, tls=False).port)).text

    assert run(main()) == "False", "they must not block the loop"


def test_async_with_ends_with_requests_in_flight(run):
    begun = threading.Event()
    cancelled = []

    async def handler(request):
        begun.set()
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            cancelled.append(request.path)
            raise

    async def main():
        server = portico.Server(handler)
        async with server:
            wire = Wire(server.listen(0, tls=False).port)
            wire.send("GET /left HTTP/1.1\r\nHost: h\r\n\r\n")
            await asyncio.to_thread(begun.wait, 30)
            await server.aclose(grace=0.2)
        await asyncio.to_thread(wire.cut)
        wire.close()
        return [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]

    began = time.monotonic()
    assert run(main()) == []
    assert cancelled == ["/left"]
    assert time.monotonic() - began < 20


def test_wait_closed_returns_when_another_thread_closes(run):
    async def main():
        async with portico.Server(lambda request: ok()) as server:
            server.listen(0, tls=False)
            threading.Thread(target=server.close).start()
            await asyncio.wait_for(server.wait_closed(), 30)
            with pytest.raises(portico.ClosedError):
                server.listen(0, tls=False)

    run(main())


def test_aclose_from_an_async_handler(serve):
    async def handler(request):
        await request.server.aclose(grace=0.5)

    served = serve(handler)
    with served.wire() as wire:
        wire.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n").cut()
    served.server.close()
    assert served.stat("connections_open") == 0
