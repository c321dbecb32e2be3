"""What people found who tried to break dispatch and event loops, each kept as a test."""

import asyncio
import contextlib
import socket
import sys
import threading
import time

import h2.events
import h2.exceptions
import pytest

import portico
from clients import Wire, wait_until
from frames import H2


def test_what_was_readable_is_not_forgotten_when_a_handler_ends_the_loop():
    async def handler(request):
        raise KeyboardInterrupt

    loop, (ours, theirs) = portico.new_event_loop(), socket.socketpair()
    ours.setblocking(False)
    server = portico.Server(handler, io_threads=1)

    async def begin():
        await server.__aenter__()
        receiving = asyncio.create_task(loop.sock_recv(ours, 10))
        await asyncio.sleep(0.3)  # until asyncio's descriptors are drained
        return server.listen(0, tls=False).port, receiving

    port, receiving = loop.run_until_complete(begin())

    async def be_held_up(client):
        await asyncio.sleep(0.2)
        client.sendall(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
        theirs.send(b"data")
        time.sleep(0.2)  # noqa: ASYNC251 (a spare thread reads the request meanwhile)
        await asyncio.sleep(5)

    with ours, theirs, socket.create_connection(("127.0.0.1", port)) as client:
        with pytest.raises(KeyboardInterrupt):
            loop.run_until_complete(be_held_up(client))
        try:
            assert loop.run_until_complete(asyncio.wait_for(receiving, 3)) == b"data"
        finally:
            loop.run_until_complete(server.aclose(0))
            loop.close()


def test_an_app_that_exits_at_its_shutdown_holds_up_no_end():
    async def app(scope, receive, send):
        if scope["type"] == "lifespan":
            await receive()
            await send({"type": "lifespan.startup.complete"})
            await receive()
            sys.exit(1)

    server = portico.Server(portico.asgi(app))
    server.listen(0, tls=False)
    began = time.monotonic()
    server.close(5)
    assert time.monotonic() - began < 3


def test_aclose_waits_for_a_shutdown_no_longer_than_its_grace():
    async def app(scope, receive, send):
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await asyncio.sleep(8)
        await send({"type": "lifespan.shutdown.complete"})

    async def main():
        server = portico.Server(portico.asgi(app))
        await server.__aenter__()
        server.listen(0, tls=False)
        began = time.monotonic()
        await server.aclose(0.5)
        return time.monotonic() - began

    assert asyncio.run(main()) < 5


def test_a_client_over_http2_that_takes_nothing_of_small_answers_is_dropped():
    def handler(request):
        return {"statusCode": 200, "body": b"q" * 250_000}

    with portico.Server(handler, write_timeout=1, keepalive_timeout=2) as s:
        port = s.listen(0, tls=False).port
        with Wire(port, receive_buffer=4096) as wire:
            client = H2(wire)
            client.connection.update_settings({4: 2**31 - 1})
            client.connection.increment_flow_control_window(2**31 - 1 - 65535)
            client.flush()
            end = time.monotonic() + 10
            while time.monotonic() < end:
                try:
                    client.open(scheme="http")
                except OSError:
                    break
                time.sleep(0.5)
            wait_until(lambda: s.stats()["connections_open"] == 0)


def test_requests_that_were_reset_do_not_fill_the_server(gate):
    with portico.Server(gate) as s:
        # Where it is told to go the client is broken off.
        with Wire(s.listen(0, tls=False).port) as wire, contextlib.suppress(OSError):
            client = H2(wire)
            for _ in range(110):
                streams = [client.open(scheme="http") for _ in range(10)]
                client.connection.ping(b"12345678")
                client.flush()
                if client.wait_for(h2.events.PingAckReceived) is None:
                    break
                for stream in streams:
                    with contextlib.suppress(h2.exceptions.StreamClosedError):
                        client.connection.reset_stream(stream)
                client.flush()
        try:
            wait_until(lambda: s.stats()["connections_open"] == 0)
            assert s.stats()["requests_in_flight"] <= 300, "of the 1000 that may be"
        finally:
            gate.opened.set()


def test_threads_that_lost_a_loop_end_when_their_handlers_return():
    event, before = threading.Event(), threading.active_count()

    def handler(request):
        event.wait()
        return {"statusCode": 200}

    with portico.Server(handler, dispatch="inline", io_threads=1) as s:
        port = s.listen(0, tls=False).port
        wires = [Wire(port).send("GET / HTTP/1.1\r\nHost: h\r\n\r\n") for _ in range(20)]
        wait_until(lambda: s.stats()["loop_takeovers"] >= 20)
        event.set()
        assert all(wire.read().status == 200 for wire in wires)
        for wire in wires:
            wire.close()
        wait_until(lambda: threading.active_count() <= before + 8)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_task_that_cannot_be_cancelled_ends_no_loop():
    class Odd(asyncio.Task):
        def cancel(self, msg=None):
            raise ValueError("no")

    began = threading.Semaphore(0)

    async def handler(request):
        began.release()
        await asyncio.sleep(1)
        return {"statusCode": 200}

    async def main():
        def factory(loop, coro, **more):
            return (Odd if "_call" in repr(coro) else asyncio.Task)(coro, loop=loop, **more)

        asyncio.get_running_loop().set_task_factory(factory)
        async with portico.Server(handler) as server:
            port = server.listen(0, tls=False).port

            def leave():
                with Wire(port) as wire:
                    wire.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n")
                    began.acquire()

            await asyncio.to_thread(leave)
            await asyncio.sleep(2)

    loop = portico.new_event_loop()
    loop.run_until_complete(main())
    loop.run_until_complete(loop.shutdown_default_executor())
    loop.close()


def test_background_tasks_have_the_grace_and_not_a_moment_more():
    done = []

    async def app(scope, receive, send):
        if scope["type"] != "http":
            raise RuntimeError("no lifespan")
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"answered"})
        await asyncio.sleep(0.5 if scope["path"] == "/short" else 60)
        done.append(scope["path"])

    with portico.Server(portico.asgi(app)) as server:
        with Wire(server.listen(0, tls=False).port) as wire:
            assert wire.get("/short").text == "answered"
        server.close(20)
    assert done == ["/short"]
    with portico.Server(portico.asgi(app)) as server:
        with Wire(server.listen(0, tls=False).port) as wire:
            assert wire.get("/long").text == "answered"
        began = time.monotonic()
        server.close(0.5)
        assert time.monotonic() - began < 10
    assert done == ["/short"]


def test_an_app_without_its_wrapper_is_told_at_once():
    async def asgi(scope, receive, send):
        pass

    for app, hint in ((lambda environ, start_response: [], r"portico\.wsgi"), (asgi, r"portico\.asgi")):
        with pytest.raises(portico.ConfigError, match=hint):
            portico.Server(app)


def test_statistics_of_handlers_are_there_after_the_end(make_server):
    server = make_server(lambda request: {"statusCode": 200})
    server.listen(0, tls=False)
    server.close()
    (told,) = server.stats()["handlers"].values()
    assert told["runs"] == "threads"
