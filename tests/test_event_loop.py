"""`portico.new_event_loop`: asyncio as its users know it, with a server's I/O on the same thread."""

import asyncio
import contextvars
import logging
import re
import signal
import subprocess
import sys
import textwrap
import threading
import time

import httpx
import pytest

import portico
from clients import GENEROUS, Wire, request, wait_until
from frames import H2
from programs import Program


def ok(body=""):
    return {"statusCode": 200, "body": str(body)}


@pytest.fixture
def loop():
    loop = portico.new_event_loop()
    yield loop
    loop.run_until_complete(loop.shutdown_asyncgens())
    loop.run_until_complete(loop.shutdown_default_executor())
    loop.close()


async def ask(listener, path="/"):
    """Asks from a thread, while the loop serves."""
    return (await asyncio.to_thread(request, listener.port, path=path)).text


# ---- one thread


def test_a_program_and_its_server_share_a_thread(loop):
    async def handler(request):
        return ok(threading.current_thread() is threading.main_thread())

    async def main():
        async with portico.Server(handler, io_threads=1) as server:
            assert await ask(server.listen(0, tls=False)) == "True"
            return {thread.name for thread in threading.enumerate()}

    names = loop.run_until_complete(main())
    assert "portico-io-0" not in names
    assert "portico-asyncio" not in names


def test_a_servers_own_loop_does_its_io(serve):
    async def handler(request):
        return ok(threading.current_thread().name)

    served = serve(handler, io_threads=1)
    assert served.get().text == "portico-asyncio"
    assert "portico-io-0" not in {thread.name for thread in threading.enumerate()}


@pytest.mark.parametrize("suspends", [False, True])
def test_the_first_step_of_a_request_waits_for_no_turn_of_the_loop(serve, suspends):
    """Requests of one turn: each begins before those after it are looked at, and ends at once where it does not suspend."""
    order = []

    async def handler(request):
        order.append(f"begin {request.path}")
        if suspends:
            await asyncio.sleep(0)
        order.append(f"end {request.path}")
        return ok()

    served = serve(handler, io_threads=1)
    with served.tls_wire(alpn=["h2"]) as wire:
        client = H2(wire)
        flush, client.flush = client.flush, lambda: None
        streams = [client.open(path=f"/{n}") for n in range(3)]
        client.flush = flush
        client.flush()
        assert [client.reply(stream).status for stream in streams] == [200] * 3
    begun = [f"begin /{n}" for n in range(3)]
    ended = [f"end /{n}" for n in range(3)]
    if suspends:
        assert sorted(order) == sorted(begun + ended)
    else:
        assert order == [line for pair in zip(begun, ended, strict=True) for line in pair]


def test_each_request_is_a_task_of_its_own(serve):
    tasks = []

    async def handler(request):
        tasks.append(asyncio.current_task())
        return ok(asyncio.current_task() in asyncio.all_tasks())

    served = serve(handler)
    assert [served.get().text for _ in range(3)] == ["True"] * 3
    assert len(set(tasks)) == 3
    wait_until(lambda: all(task.done() for task in tasks), "the tasks to be over")


def test_handlers_see_the_context_that_the_server_was_entered_in(loop):
    tenant = contextvars.ContextVar("tenant", default="nobody")

    async def handler(request):
        before = tenant.get()
        tenant.set("a visitor")
        await asyncio.sleep(0)
        return ok(f"{before}, {tenant.get()}")

    async def main():
        tenant.set("the house")
        async with portico.Server(handler) as server:
            listener = server.listen(0, tls=False)
            tenant.set("too late")
            return [await ask(listener) for _ in range(2)]

    assert loop.run_until_complete(main()) == ["the house, a visitor"] * 2


def test_two_servers_on_one_loop(loop):
    async def main():
        async with portico.Server(who) as one, portico.Server(who) as two:
            listeners = [server.listen(0, tls=False) for server in (one, two)]
            return {await ask(listener) for listener in listeners * 2}

    async def who(request):
        return ok(threading.current_thread().name)

    assert loop.run_until_complete(main()) == {"MainThread"}


def test_servers_one_after_the_other_on_one_loop(loop):
    async def handler(request):
        return ok("here")

    async def main():
        for _ in range(5):
            async with portico.Server(handler) as server:
                assert await ask(server.listen(0, tls=False)) == "here"
        return await asyncio.sleep(0.01, "and the loop goes on")

    assert loop.run_until_complete(main()) == "and the loop goes on"


def test_a_loop_that_was_stopped_leaves_the_server_serving(loop):
    """Between two runs of the loop nobody turns it: a spare thread does, and coroutines wait."""
    server = portico.Server(lambda request: ok("a def handler"), io_threads=1)

    async def begin():
        await server.__aenter__()
        return server.listen(0, tls=False)

    listener = loop.run_until_complete(begin())
    assert request(listener.port).text == "a def handler"
    assert loop.run_until_complete(ask(listener)) == "a def handler"
    loop.run_until_complete(server.aclose())


def test_a_loop_that_is_closed_leaves_the_server_to_be_closed():
    loop = portico.new_event_loop()
    server = portico.Server(lambda request: ok("still here"), io_threads=1)

    async def begin():
        await server.__aenter__()
        return server.listen(0, tls=False)

    listener = loop.run_until_complete(begin())
    loop.close()
    assert request(listener.port).text == "still here"
    server.close()
    assert server._threads.alive() == []


# ---- a handler that blocks


def test_a_coroutine_that_blocks_holds_up_coroutines_only(serve):
    let_go = threading.Event()

    async def blocks(request):
        let_go.wait(GENEROUS)
        return ok("blocked")

    served = serve({"a.test": blocks, "b.test": lambda request: ok("b")}, hosts=("a.test", "b.test"), io_threads=1)
    assert served.get(host="b.test").text == "b"
    with served.wire() as wire:
        wire.send("GET / HTTP/1.1\r\nHost: a.test\r\n\r\n")
        wait_until(lambda: served.stat("loop_takeovers") >= 1)
        # New connections, and handlers that are no coroutines.
        assert [served.get(host="b.test").text for _ in range(3)] == ["b"] * 3
        let_go.set()
        assert wire.read().text == "blocked"
    for _ in range(3):
        assert served.get(host="a.test").text == "blocked"
    assert served.get(host="b.test").text == "b"


def test_handlers_that_may_block_are_kept_off_the_loop(serve):
    """What `auto` has found short is called where the request was read, but not on the thread of an event loop."""
    names = set()

    def short(request):
        names.add(threading.current_thread().name)
        return ok()

    async def on_the_loop(request):
        return ok()

    served = serve({"a.test": on_the_loop, "b.test": short}, hosts=("a.test", "b.test"), io_threads=1)
    with served.wire() as wire:
        for _ in range(100):
            assert wire.get(host="b.test").status == 200
    assert all(name.startswith("portico-handler") for name in names), names


# ---- cancellation


class Waits:
    """A coroutine that waits until it is cancelled."""

    def __init__(self):
        self.begun, self.cancelled = threading.Event(), threading.Event()

    async def __call__(self, request):
        if request.path == "/":
            return ok("at once")
        self.begun.set()
        try:
            await asyncio.sleep(GENEROUS * 2)
        except asyncio.CancelledError:
            self.cancelled.set()
            raise


@pytest.mark.parametrize("tls", [True, False])
def test_a_client_that_leaves_cancels_its_coroutine(serve, tls):
    handler = Waits()
    served = serve(handler)
    wire = served.tls_wire() if tls else served.wire()
    wire.send("GET /wait HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert handler.begun.wait(GENEROUS)
    wire.close()
    assert handler.cancelled.wait(GENEROUS)
    assert served.get().text == "at once"
    assert served.errors.given.empty(), "that is nobody's error"


def test_a_stream_that_is_reset_cancels_its_coroutine_alone(serve):
    handler = Waits()
    served = serve(handler)
    with served.tls_wire(alpn=["h2"]) as wire:
        client = H2(wire)
        stream = client.open(path="/wait")
        client.flush()
        assert handler.begun.wait(GENEROUS)
        client.connection.reset_stream(stream)
        client.flush()
        assert handler.cancelled.wait(GENEROUS)
        other = client.open(path="/")
        client.flush()
        assert client.reply(other).status == 200


def test_the_time_out_cancels_the_coroutine(serve):
    handler = Waits()
    served = serve(handler, handler_timeout=0.2)
    assert served.get("/wait").status == 503
    assert handler.cancelled.wait(GENEROUS)


def test_the_end_of_the_grace_cancels_though_nobody_awaits_the_end(loop):
    handler = Waits()

    async def main():
        async with portico.Server(handler) as server:
            with Wire(server.listen(0, tls=False).port) as wire:
                wire.send("GET /wait HTTP/1.1\r\nHost: h\r\n\r\n")
                assert await asyncio.to_thread(handler.begun.wait, GENEROUS)
                await asyncio.to_thread(server.close, 0)
                assert await asyncio.to_thread(handler.cancelled.wait, GENEROUS)

    loop.run_until_complete(main())


def test_a_coroutine_that_goes_on_when_cancelled_harms_nobody(serve):
    over = threading.Event()

    async def stubborn(request):
        if request.path == "/":
            return ok("fine")
        try:
            await asyncio.sleep(GENEROUS)
        except asyncio.CancelledError:
            await asyncio.sleep(0.05)
        over.set()
        return ok("too late")

    served = serve(stubborn, handler_timeout=1)
    with served.wire() as wire:
        assert wire.get("/stubborn").status == 503
        assert over.wait(GENEROUS)
        assert wire.get("/").text == "fine"


def test_a_coroutine_that_cancels_itself_is_a_500(serve):
    async def handler(request):
        asyncio.current_task().cancel()
        await asyncio.sleep(0)

    served = serve(handler)
    assert served.get().status == 500
    served.errors.next(asyncio.CancelledError)


# ---- what else runs on a loop


def test_executors_subprocesses_generators_and_clients(loop):
    """The things that programs on asyncio do, side by side with serving."""
    closed = []

    async def numbers():
        try:
            for n in range(10):
                yield n
        finally:
            closed.append("generator")

    async def handler(request):
        in_thread = await asyncio.get_running_loop().run_in_executor(None, threading.current_thread)
        process = await asyncio.create_subprocess_exec(sys.executable, "-c", "print(6 * 7)", stdout=subprocess.PIPE)
        printed, _ = await process.communicate()
        async for number in numbers():
            if number == 3:
                break
        async with asyncio.timeout(5) if sys.version_info >= (3, 11) else _nothing():
            await asyncio.gather(*(asyncio.sleep(0.01 * n) for n in range(3)))
        return ok(f"{in_thread is threading.current_thread()} {printed.decode().strip()} {number}")

    async def main():
        async with portico.Server(handler) as server:
            listener = server.listen(0, tls=False)
            async with httpx.AsyncClient(base_url=listener.url) as client:
                replies = await asyncio.gather(*(client.get("/") for _ in range(5)))
        return [reply.text for reply in replies]

    assert loop.run_until_complete(main()) == ["False 42 3"] * 5
    loop.run_until_complete(loop.shutdown_asyncgens())
    assert closed == ["generator"] * 5


class _nothing:
    async def __aenter__(self):
        pass

    async def __aexit__(self, *_):
        pass


def test_streams_of_asyncio_beside_a_busy_server(loop):
    """Neither starves the other: an echo over asyncio's own streams while clients keep the server busy."""

    async def echo(reader, writer):
        while data := await reader.read(100):
            writer.write(data)
            await writer.drain()
        writer.close()

    async def handler(request):
        return ok()

    def load(port, stop):
        answered = 0
        with Wire(port) as wire:
            while not stop.is_set():
                assert wire.get().status == 200
                answered += 1
        return answered

    async def main():
        stop = threading.Event()
        async with portico.Server(handler, io_threads=1) as server:
            port = server.listen(0, tls=False).port
            loads = [asyncio.create_task(asyncio.to_thread(load, port, stop)) for _ in range(4)]
            own = await asyncio.start_server(echo, "127.0.0.1", 0)
            reader, writer = await asyncio.open_connection(*own.sockets[0].getsockname())
            for n in range(200):
                writer.write(b"%03d" % n)
                assert await asyncio.wait_for(reader.readexactly(3), GENEROUS) == b"%03d" % n
            stop.set()
            answered = await asyncio.gather(*loads)
            writer.close()
            own.close()
        return answered

    assert all(answered > 10 for answered in loop.run_until_complete(main()))


def test_timers_are_on_time(loop):
    async def main():
        async with portico.Server(lambda request: ok()) as server:
            server.listen(0, tls=False)
            began = time.monotonic()
            await asyncio.gather(*(asyncio.sleep(0.05) for _ in range(100)))
            return time.monotonic() - began

    assert 0.05 <= loop.run_until_complete(main()) < 2.5, "one after the other they would take five seconds"


def test_timers_and_descriptors_go_on_beside_inline_handlers(loop):
    """`dispatch="inline"` on the loop's own thread: asyncio has its turn after each batch."""

    def load(port, stop):
        with Wire(port) as wire:
            while not stop.is_set():
                assert wire.get().status == 200

    async def main():
        stop = threading.Event()
        async with portico.Server(lambda request: ok(), dispatch="inline", io_threads=1) as server:
            port = server.listen(0, tls=False).port
            loads = [asyncio.create_task(asyncio.to_thread(load, port, stop)) for _ in range(4)]
            here, began = asyncio.get_running_loop(), time.monotonic()
            for _ in range(20):
                await asyncio.sleep(0.01)
                future = here.create_future()
                threading.Timer(0.001, here.call_soon_threadsafe, [future.set_result, 1]).start()
                await asyncio.wait_for(future, GENEROUS)
            took = time.monotonic() - began
            stop.set()
            await asyncio.gather(*loads)
        return took

    assert loop.run_until_complete(main()) < 5


def test_calls_from_other_threads_wake_the_loop(loop):
    async def main():
        async with portico.Server(lambda request: ok()) as server:
            server.listen(0, tls=False)
            here = asyncio.get_running_loop()
            for _ in range(20):
                future = here.create_future()
                threading.Timer(0.005, here.call_soon_threadsafe, [future.set_result, 1]).start()
                await asyncio.wait_for(future, GENEROUS)

    loop.run_until_complete(main())


def test_debug_mode_sees_slow_handlers(loop, caplog):
    async def handler(request):
        time.sleep(0.15)  # noqa: ASYNC251
        return ok()

    async def main():
        async with portico.Server(handler) as server:
            return await ask(server.listen(0, tls=False))

    loop.set_debug(True)
    with caplog.at_level(logging.WARNING, logger="asyncio"):
        loop.run_until_complete(main())
    assert max(map(float, re.findall(r"took (\d+\.\d+) seconds", caplog.text)), default=0) >= 0.15


def test_a_task_factory_is_used(loop):
    made = []

    def factory(loop, coroutine, **more):
        made.append(coroutine)
        return asyncio.Task(coroutine, loop=loop, **more)

    async def handler(request):
        return ok("made")

    async def main():
        async with portico.Server(handler) as server:
            return await ask(server.listen(0, tls=False))

    loop.set_task_factory(factory)
    assert loop.run_until_complete(main()) == "made"
    assert made


def test_sys_exit_in_a_coroutine_ends_no_program(loop):
    async def handler(request):
        await asyncio.sleep(0)
        sys.exit(3)

    errors = []

    async def main():
        async with portico.Server(handler, on_error=lambda error, _: errors.append(error)) as server:
            reply = await asyncio.to_thread(request, server.listen(0, tls=False).port)
        return reply.status

    assert loop.run_until_complete(main()) == 500
    assert [type(error) for error in errors] == [SystemExit]


# ---- signals

PROGRAM = """
    import asyncio, signal, sys, time
    import portico

    async def handler(request):
        if request.path == "/busy":
            await asyncio.sleep(0)
        return {"statusCode": 200, "body": "hi"}

    async def main():
        async with portico.Server(handler) as server:
            print("port", server.listen(0, tls=False).port, flush=True)
            await asyncio.sleep(3600)

    SETUP
    loop = portico.new_event_loop()
    try:
        task = loop.create_task(main())
        if WAYS == "handler":
            loop.add_signal_handler(signal.SIGINT, task.cancel)
        loop.run_until_complete(task)
    except (KeyboardInterrupt, asyncio.CancelledError) as why:
        print("ended by", type(why).__name__, flush=True)
    finally:
        pending = asyncio.all_tasks(loop)
        for one in pending:
            one.cancel()
        if pending:
            loop.run_until_complete(asyncio.wait(pending))
        loop.close()
"""
FOREIGN = """
    import socket
    mine, theirs = socket.socketpair()
    mine.setblocking(False), theirs.setblocking(False)
    signal.set_wakeup_fd(mine.fileno())
    import atexit
    @atexit.register
    def tell():
        with mine, theirs:
            print("told", theirs.recv(10) == bytes([signal.SIGINT]))
"""


@pytest.mark.parametrize("way", ["default", "handler", "foreign"])
@pytest.mark.parametrize("busy", [False, True], ids=["idle", "busy"])
def test_ctrl_c_ends_a_program_at_once(tmp_path, way, busy):
    setup = textwrap.dedent(FOREIGN) if way == "foreign" else ""
    text = textwrap.dedent(PROGRAM).replace("SETUP", setup).replace("WAYS", repr(way))
    (tmp_path / "program.py").write_text(text)
    program = Program(tmp_path / "program.py")
    stop = threading.Event()
    try:
        port = int(program.wait_for(r"port (\d+)")[1])
        asking = threading.Thread(target=keep_asking, args=(port, stop))
        if busy:
            asking.start()
        time.sleep(0.3)
        began = time.monotonic()
        program.signal(signal.SIGINT)
        assert program.end() == 0
        assert time.monotonic() - began < 5
        assert ("ended by CancelledError" if way == "handler" else "ended by KeyboardInterrupt") in program.output
        assert way != "foreign" or "told True" in program.output
    finally:
        stop.set()
        if busy:
            asking.join()
        program.close()


def keep_asking(port, stop):
    try:
        with Wire(port) as wire:
            while not stop.is_set() and (reply := wire.get("/busy")) and reply.header("connection") != "close":
                pass
    except (OSError, AssertionError, ValueError, IndexError):
        pass  # The program has ended.
