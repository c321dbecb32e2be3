"""Whole programs with a server in them: how they end, signals, and fork."""

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time

import pytest

from clients import GENEROUS, Wire, refuses, request, wait_until

COMMON = """
import asyncio, os, signal, sys, threading, time, urllib.request
import portico

begun = threading.Event()

def hello(request):
    return {"statusCode": 200, "body": "hello"}

def stuck(request):
    begun.set()
    time.sleep(600)

async def stuck_too(request):
    begun.set()
    await asyncio.sleep(600)

def ask(port):
    def asking():
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=60).read()
        except Exception:
            pass
    threading.Thread(target=asking, daemon=True).start()
"""


def command(program):
    environment = {**os.environ, "PYTHONWARNINGS": "error,ignore::ResourceWarning,ignore::DeprecationWarning"}
    return {"args": [sys.executable, "-X", "faulthandler", "-c", COMMON + textwrap.dedent(program)], "env": environment}


def ends_well(program):
    """Runs a program to its end, which must be soon and without noise; gives what it printed."""
    done = subprocess.run(**command(program), capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout


@pytest.mark.parametrize("handler", ["hello", "stuck", "stuck_too"])
@pytest.mark.parametrize("dispatch", ["inline", "threads", "asyncio"])
def test_program_ends_while_requests_run(handler, dispatch):
    ends_well(f"""
        server = portico.Server({handler}, dispatch="{dispatch}")
        port = server.listen(0, tls=False).port
        for _ in range(3):
            ask(port)
        if "{handler}" != "hello":
            begun.wait(30)
    """)


def test_program_ends_within_with_while_requests_run():
    ends_well("""
        import logging
        # That a handler is left behind is worth a warning, but not one for each close.
        warned = []
        logging.getLogger("portico").addFilter(lambda record: warned.append(record.getMessage()))
        with portico.Server(stuck) as server:
            ask(server.listen(0, tls=False).port)
            begun.wait(30)
            server.close(grace=0.1)
        assert len(warned) == 1 and "still running" in warned[0], warned
    """)


def test_program_ends_by_an_exception():
    done = subprocess.run(
        **command("""
            server = portico.Server(hello)
            ask(server.listen(0, tls=False).port)
            raise ValueError("mine")
        """),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.rstrip().endswith("ValueError: mine")


def test_threads_that_start_and_stop_servers_at_exit():
    ends_well("""
        def forever():
            try:
                while True:
                    with portico.Server(hello) as server:
                        urllib.request.urlopen(server.listen(0, tls=False).url).read()
                        begun.set()
            except Exception:
                pass  # the interpreter is ending
        for _ in range(4):
            threading.Thread(target=forever, daemon=True).start()
        begun.wait(30)
    """)


@pytest.fixture
def program():
    """Runs a program that prints its port, and goes on."""
    running = []

    def program(text):
        process = subprocess.Popen(**command(text), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        running.append(process)
        return process, int(process.stdout.readline())

    yield program
    for process in running:
        process.kill()
        process.communicate()


SERVE = """
before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]

def handler(request):
    if request.path == "/slow":
        # Only then has the main thread come to serve_forever.
        while signal.getsignal(signal.SIGTERM) is before[1]:
            time.sleep(0.001)
        print("begun", flush=True)
        begun.wait(600 if request.queryString else 1)
    return {"statusCode": 200, "body": "answered"}

with portico.Server(handler) as server:
    print(server.listen(0, tls=False).port, flush=True)
    server.serve_forever()
    print("after", flush=True)
assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before
print("restored", flush=True)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_serve_forever_ends_gracefully_by_a_signal(program, number):
    process, port = program(SERVE)
    assert request(port).text == "answered"
    with Wire(port) as wire:
        wire.send("GET /slow HTTP/1.1\r\nHost: h\r\n\r\n")
        assert process.stdout.readline() == "begun\n"
        process.send_signal(number)
        assert wire.read().text == "answered", "what is in flight is finished"
    out, err = process.communicate(timeout=GENEROUS)
    assert (process.returncode, out, err) == (0, "after\nrestored\n", "")


def test_a_second_signal_does_not_wait(program):
    process, port = program(SERVE)
    with Wire(port) as wire:
        wire.send("GET /slow?forever HTTP/1.1\r\nHost: h\r\n\r\n")
        assert process.stdout.readline() == "begun\n"
        process.send_signal(signal.SIGINT)
        # Once nobody listens any more the first signal has been taken.
        wait_until(lambda: refuses(port))
        process.send_signal(signal.SIGINT)
        again = time.monotonic()
        assert b"answered" not in wire.cut()
    out, err = process.communicate(timeout=20)
    assert (process.returncode, out) == (0, "after\nrestored\n"), err
    assert time.monotonic() - again < 5


def test_ctrl_c_without_serve_forever_is_pythons(program):
    process, port = program("""
        server = portico.Server(hello)
        print(server.listen(0, tls=False).port, flush=True)
        threading.Event().wait()
    """)
    assert request(port).text == "hello"
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=GENEROUS)
    assert process.returncode == -signal.SIGINT
    assert err.rstrip().endswith("KeyboardInterrupt")


def test_the_child_of_a_fork_is_told_and_ends():
    out = ends_well("""
        server = portico.Server(hello)
        listener = server.listen(0, tls=False)
        urllib.request.urlopen(listener.url).read()
        child = os.fork()
        if child == 0:
            for call in (server.stats, server.__enter__, listener.close, server.serve_forever,
                         lambda: server.listen(0, tls=False), lambda: server.remove_context(None),
                         lambda: server.add_context("a.test", cert=b"x", key=b"x")):
                try:
                    call()
                except portico.ClosedError as error:
                    print("told" if "fork" in str(error) else error, flush=True)
            server.close()
            with portico.Server(hello) as mine:
                print(urllib.request.urlopen(mine.listen(0, tls=False).url).read().decode(), flush=True)
            sys.exit(7)
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), urllib.request.urlopen(listener.url).read().decode())
        server.close()
    """)
    told = out.split()
    # `stats` may answer with what was counted before.
    assert told.count("told") >= 6
    assert told[-3:] == ["hello", "7", "hello"]


def test_a_fork_while_threads_start_leaves_the_child_able_to_serve():
    # Locks whose waiting threads stand in one table for the whole process made one child in eight wait for ever.
    out = ends_well("""
        for _ in range(50):
            server = portico.Server(hello)
            server.listen(0, tls=False)
            child = os.fork()
            if child == 0:
                with portico.Server(hello) as mine:
                    print(urllib.request.urlopen(mine.listen(0, tls=False).url).read().decode(), flush=True)
                os._exit(0)
            os.waitpid(child, 0)
            server.close()
    """)
    assert out == "hello\n" * 50


def test_the_child_of_a_fork_does_not_hold_the_port():
    out = ends_well("""
        server = portico.Server(hello)
        listener = server.listen(0, tls=False)
        ready, tell = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(tell)
            os.read(ready, 1)
            os._exit(0)
        server.close()
        # The child has a copy of the descriptor; connections must not queue up for nobody.
        try:
            urllib.request.urlopen(listener.url, timeout=5).read()
        except OSError as error:
            print("refused" if "refused" in str(error) else error)
        os.close(tell)
        os.waitpid(child, 0)
    """)
    assert out == "refused\n"


def test_fork_while_other_threads_serve(program):
    process, port = program("""
        import subprocess
        server = portico.Server(hello)
        print(server.listen(0, tls=False).port, flush=True)
        while True:
            assert subprocess.run(["true"], preexec_fn=lambda: None).returncode == 0
    """)
    threads = [threading.Thread(target=lambda: [request(port) for _ in range(30)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(GENEROUS)
    assert process.poll() is None
