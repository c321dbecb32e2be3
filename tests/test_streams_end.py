"""Connections without HTTP, where one side ends it: clients that vanish, callbacks that raise, servers that close."""

import asyncio
import contextlib
import functools
import logging
import queue
import socket
import ssl
import textwrap
import threading
import time

import pytest

import portico
from callbacks import BOTH, CUT_OFF, OVER, Calls, echo_async
from clients import GENEROUS, Wire, refuses, trusting, wait_until
from programs import Program

# ---- clients that vanish, callbacks that raise


@BOTH
@OVER
def test_a_client_that_is_gone_is_no_error_worth_a_traceback(stream, callback, tls, caplog):
    caplog.set_level(logging.INFO, "portico.error")
    served = stream(callback, tls=tls)
    with served.connect() as wire:
        wire.send("x")
        assert wire.file.read(1) == b"x"
        wire.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, CUT_OFF)
    served.wait_stat("connections_closed", "aborted")
    wait_until(lambda: "reset" in caplog.text.lower())
    assert "Traceback" not in caplog.text
    assert served.errors.given.empty()


def test_tls_cut_off_is_told_from_its_end(stream):
    calls = Calls(lambda conn: [conn.read_exactly(2), conn.read(1)])
    served = stream(calls, tls=True)
    with served.connect() as wire:
        wire.send("ab")
        wire.half_close()  # Of the socket below: no close_notify.
        error = calls.outcome()
    assert isinstance(error, ConnectionError)
    assert "close_notify" in str(error)
    served.wait_stat("connections_closed", "aborted")


def test_writing_to_a_client_that_is_gone(stream):
    def keep_on(conn):
        conn.read(1)
        while True:
            conn.write(bytes(65536))

    calls = Calls(keep_on)
    served = stream(calls)
    with served.connect() as wire:
        wire.send("x")
        assert wire.sock.recv(1)
        wire.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, CUT_OFF)
    assert isinstance(calls.outcome(), BrokenPipeError)


@pytest.mark.parametrize("kind", ["def", "async def"])
def test_a_callback_that_raises_harms_nobody_else(stream, kind, caplog):
    def fail(conn):
        if conn.read_until() == b"fail\n":
            raise ZeroDivisionError("on purpose")
        conn.write(b"fine")

    async def fail_async(conn):
        if await conn.read_until() == b"fail\n":
            raise ZeroDivisionError("on purpose")
        await conn.write(b"fine")

    served = stream(fail if kind == "def" else fail_async, tls=True)
    with served.connect() as other:
        with served.connect() as wire:
            peer = "{}:{}".format(*wire.sock.getsockname())
            assert wire.send("fail\n").rest() == b""
        _, connection = served.errors.next(ZeroDivisionError)
        assert "{}:{}".format(*connection.peername) == peer
        assert peer in caplog.text
        assert "Traceback" in caplog.text
        assert other.send("go\n").rest() == b"fine"


@pytest.mark.parametrize("exception", [SystemExit, KeyboardInterrupt, GeneratorExit, StopIteration])
def test_no_callback_ends_the_program(stream, exception):
    def fail(conn):
        if conn.read(1) == b"x":
            raise exception
        conn.write(b"fine")

    served = stream(fail)
    with served.connect() as wire:
        assert wire.send("x").rest() == b""
    served.errors.next(BaseException)
    with served.connect() as wire:
        assert wire.send("y").rest() == b"fine"


def test_a_coroutine_that_nobody_awaits_is_said(stream, caplog):
    served = stream(lambda conn: echo_async(conn))
    with served.connect() as wire:
        assert wire.rest() == b""
    error, _ = served.errors.next(portico.ConfigError)
    assert "async def" in str(error)


# ---- the end of a server


@pytest.mark.parametrize("state", ["waits to read", "writes", "computes"])
@pytest.mark.parametrize("kind", ["def", "async def"])
def test_closing_a_server_whose_callback_is_busy(stream, state, kind):
    """One that only waits is let go soon; one that works has the grace."""
    inside, go_on, told = threading.Event(), threading.Event(), queue.Queue()

    def callback(conn):
        inside.set()
        if state == "waits to read":
            told.put(conn.read(1))
        elif state == "writes":
            for _ in range(20):
                conn.write(b"x" * 1000)
                time.sleep(0.1)
            told.put("written")
        else:
            assert go_on.wait(GENEROUS)
            conn.write(b"done")
            told.put("computed")

    async def callback_async(conn):
        inside.set()
        if state == "waits to read":
            told.put(await conn.read(1))
        elif state == "writes":
            for _ in range(20):
                await conn.write(b"x" * 1000)
                await asyncio.sleep(0.1)
            told.put("written")
        else:
            assert await asyncio.to_thread(go_on.wait, GENEROUS)
            await conn.write(b"done")
            told.put("computed")

    served = stream(callback if kind == "def" else callback_async)
    with served.connect() as wire:
        assert inside.wait(GENEROUS)
        closing = threading.Thread(target=served.server.close)
        began = time.monotonic()
        closing.start()
        wait_until(lambda: refuses(served.listener.port))
        go_on.set()
        rest = wire.rest()
        wire.close()
        closing.join(GENEROUS)
        assert not closing.is_alive()
    expected = {"waits to read": (b"", b""), "writes": (b"x" * 20_000, "written"), "computes": (b"done", "computed")}
    assert (rest, told.get(timeout=GENEROUS)) == expected[state]
    if state == "waits to read":
        assert time.monotonic() - began < 25, "an idle connection held up the end for the whole grace"
        assert served.stat("connections_closed", "shutdown") == 1


@pytest.mark.parametrize("kind", ["def", "async def"])
def test_at_the_end_of_the_grace_nothing_is_waited_for(stream, kind):
    inside, told = threading.Event(), queue.Queue()

    def flood(conn):
        inside.set()
        try:
            while True:
                conn.write(bytes(65536))
        except BaseException as exception:
            told.put(exception)
            raise

    async def flood_async(conn):
        inside.set()
        try:
            while True:
                await conn.write(bytes(65536))
        except BaseException as exception:
            told.put(exception)
            raise

    served = stream(flood if kind == "def" else flood_async)
    with served.connect(receive_buffer=4096):
        assert inside.wait(GENEROUS)
        served.server.close(grace=0.2)
        assert isinstance(told.get(timeout=GENEROUS), (ConnectionAbortedError, asyncio.CancelledError))


def test_closing_from_within_a_callback(stream):
    served = stream(lambda conn: [conn.write(b"bye"), served.server.close()])
    with served.connect() as wire:
        assert wire.rest() == b"bye"
    wait_until(served.server._closed.is_set)


def test_on_the_loop_of_the_program(issue, ca_pem):
    identity = issue("localhost")

    async def main():
        loop = asyncio.get_running_loop()

        async def callback(conn):
            assert asyncio.get_running_loop() is loop
            await echo_async(conn)

        async with portico.Server() as server:
            server.add_context(None, **identity)
            port = server.listen(0, stream=callback).port
            reader, writer = await asyncio.open_connection(
                "127.0.0.1", port, ssl=trusting(ca_pem), server_hostname="localhost"
            )
            writer.write(b"hello")
            answer = await reader.readexactly(5)
            writer.close()
            with contextlib.suppress(ConnectionError, ssl.SSLError):
                await writer.wait_closed()
            return answer

    for runs in (asyncio.run, functools.partial(run_on, portico.new_event_loop)):
        assert runs(asyncio.wait_for(main(), GENEROUS)) == b"hello"


def run_on(make_loop, awaitable):
    loop = make_loop()
    try:
        return loop.run_until_complete(awaitable)
    finally:
        loop.close()


def test_a_client_that_floods_does_not_keep_the_loop_to_itself(stream):
    """Each read finds something: the others on the loop have their turns all the same."""
    beats = 0

    async def sink(conn):
        if await conn.read(1) == b"t":
            nonlocal beats
            while beats < 50:
                beats += 1
                await asyncio.sleep(0)
            return await conn.write(b"done")
        while await conn.read(100):
            pass

    served = stream(sink)
    with served.connect() as flood, served.connect() as other:
        stop = threading.Event()

        def feed():
            with contextlib.suppress(OSError):
                while not stop.is_set():
                    flood.sock.send(b"x" * 65536)

        feeder = threading.Thread(target=feed)
        feeder.start()
        try:
            assert other.send("t").rest() == b"done"
        finally:
            stop.set()
            flood.sock.shutdown(socket.SHUT_RDWR)
            feeder.join()


PROGRAM = """
import threading
import portico

def never(conn):
    {never}

server = portico.Server()
print(server.listen(0, tls=False, stream=never).port, flush=True)
threading.Event().wait(2)
"""


@pytest.mark.parametrize("never", ["conn.read()", "threading.Event().wait()", "while True: pass"])
def test_a_callback_that_never_returns_keeps_no_interpreter(never, tmp_path):
    file = tmp_path / "program.py"
    file.write_text(textwrap.dedent(PROGRAM).replace("{never}", never))
    program = Program(file)
    try:
        port = int(program.wait_for(r"^\d+$")[0])
        with Wire(port):
            assert program.end() == 0
        assert "panicked" not in program.output
        assert "Fatal" not in program.output
    finally:
        program.close()
