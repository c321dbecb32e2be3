"""Whole programs with worker processes: signals, a supervisor that is killed, what a fresh interpreter needs."""

import os
import pathlib
import signal
import subprocess
import sys
import textwrap
import time

import pytest

from clients import GENEROUS, Wire, refuses, wait_until
from programs import lives

PROGRAM = """
import logging, os, sys, threading, time
import portico
import worker_mains

FOLDER = sys.argv[1]

def main(worker):
    worker_mains.serve(worker, FOLDER)

def tell(workers):
    print(workers.ports[0], *workers.pids, flush=True)

if __name__ == "__main__":
    logging.basicConfig(format="%(name)s: %(message)s")
"""


@pytest.fixture
def program(tmp_path):
    """Runs a program with workers in a process group of its own; its port and pids. Nothing of it is left."""
    running, pids = [], []

    def program(text, wait=True):
        file, folder = tmp_path / "program.py", tmp_path / "folder"
        file.write_text(PROGRAM + textwrap.indent(textwrap.dedent(text), "    "))
        folder.mkdir()
        path = os.pathsep.join([str(pathlib.Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])])
        process = subprocess.Popen(
            [sys.executable, "-W", "error", file, folder],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            env={**os.environ, "PYTHONPATH": path},
        )
        running.append(process)
        if not wait:
            return process, folder
        line = process.stdout.readline()
        if not line:
            pytest.fail(process.communicate()[1])
        port, *started = map(int, line.split())
        pids.extend(started)
        return process, folder, port, started

    yield program
    for process in running:
        process.kill()
        process.communicate()
    wait_until(lambda: not any(map(lives, pids)), "the workers to end")


SERVE = """
workers = portico.Workers(main, workers=2, listen={"port": 0, "tls": False})
workers.start()
tell(workers)
workers.run_forever()
print("after", flush=True)
"""


def slow(port, folder, seconds):
    """Begins one slow request on a connection that is returned."""
    wire = Wire(port).send(f"GET /slow/one?{seconds} HTTP/1.1\r\nHost: h\r\n\r\n")
    wait_until(lambda: list(folder.iterdir()))
    return wire


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("whom", [os.kill, os.killpg])
def test_a_signal_ends_the_program_gracefully(program, number, whom):
    process, folder, port, pids = program(SERVE)
    with slow(port, folder, 1) as wire:
        whom(process.pid, number)
        assert wire.read().status == 200
    out, err = process.communicate(timeout=GENEROUS)
    assert (process.returncode, out, err) == (0, "after\n", "")
    assert not any(map(lives, pids))


def test_a_signal_to_every_process_is_taken_once(program):
    process, folder, port, pids = program(SERVE)
    with slow(port, folder, 1) as wire:
        for pid in (*pids, process.pid):
            os.kill(pid, signal.SIGTERM)
        assert wire.read().status == 200, "as a service manager ends a service"
    out, err = process.communicate(timeout=GENEROUS)
    assert (process.returncode, out) == (0, "after\n"), err


def test_a_second_signal_ends_it_at_once(program):
    process, folder, port, _ = program(SERVE)
    with slow(port, folder, 60) as wire:
        process.send_signal(signal.SIGINT)
        wait_until(lambda: refuses(port))
        begun = time.monotonic()
        process.send_signal(signal.SIGINT)
        wire.cut()
    out, err = process.communicate(timeout=GENEROUS)
    assert (process.returncode, out) == (0, "after\n")
    # A worker may say that it left a handler behind.
    assert "Traceback" not in err
    assert time.monotonic() - begun < 10


def test_ctrl_c_while_the_workers_start(program):
    process, _ = program(
        """
        def tell_soon():
            while len(workers.pids) < 2:
                time.sleep(0.01)
            tell(workers)
        workers = portico.Workers(worker_mains.never_listen, workers=2, listen=0)
        threading.Thread(target=tell_soon, daemon=True).start()
        workers.run_forever()
        """,
        wait=False,
    )
    pids = list(map(int, process.stdout.readline().split()))[1:]
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=GENEROUS)
    assert (process.returncode, err) == (0, "")
    assert not any(map(lives, pids))


def test_when_the_supervisor_is_killed_the_workers_finish_and_end(program):
    process, folder, port, pids = program(SERVE)
    with slow(port, folder, 1.5) as wire:
        process.kill()
        wait_until(lambda: refuses(port), "the port to be free")
        assert wire.read().status == 200
    wait_until(lambda: not any(map(lives, pids)), "the workers to end")
    assert process.communicate(timeout=GENEROUS)[1] == ""


def test_when_the_supervisor_is_killed_and_its_forked_child_lives_on(program):
    process, _, _, pids = program("""
        workers = portico.Workers(main, workers=1, listen={"port": 0, "tls": False})
        workers.start()
        child = os.fork()
        if child == 0:
            time.sleep(60)
            os._exit(0)
        print(workers.ports[0], *workers.pids, child, flush=True)
        workers.run_forever()
    """)
    *workers, child = pids
    process.kill()
    try:
        # The child has a copy of the pipe, and of the listening socket.
        wait_until(lambda: not any(map(lives, workers)), "the workers to end")
    finally:
        os.kill(child, signal.SIGKILL)


def test_when_the_supervisor_is_killed_before_the_workers_listen(program):
    process, _ = program(
        """
        workers = portico.Workers(worker_mains.never_listen, workers=1, listen=0)
        threading.Thread(target=workers.start, daemon=True).start()
        while not workers.pids:
            time.sleep(0.01)
        tell(workers)
        time.sleep(60)
        """,
        wait=False,
    )
    _, pid = map(int, process.stdout.readline().split())
    process.kill()
    wait_until(lambda: not lives(pid), "the worker to end")


def test_a_program_that_forgets_to_close_leaves_no_worker(program):
    process, _, port, pids = program("""
        workers = portico.Workers(main, workers=2, listen={"port": 0, "tls": False})
        workers.start()
        tell(workers)
    """)
    _, err = process.communicate(timeout=GENEROUS)
    assert (process.returncode, err) == (0, "")
    assert not any(map(lives, pids))
    assert refuses(port)


def test_a_program_that_raises_ends_its_workers(program):
    process, _, _, pids = program("""
        with portico.Workers(main, workers=2, listen={"port": 0, "tls": False}) as workers:
            tell(workers)
            raise LookupError("mine")
    """)
    _, err = process.communicate(timeout=GENEROUS)
    assert process.returncode == 1
    assert err.rstrip().endswith("LookupError: mine")
    assert not any(map(lives, pids))


def run_file(tmp_path, text, *arguments):
    file = tmp_path / "file.py"
    file.write_text(textwrap.dedent(text))
    return subprocess.run(
        [sys.executable, *(arguments or [file])], capture_output=True, text=True, timeout=60, check=False
    )


def test_a_program_without_the_guard_is_told(tmp_path):
    done = run_file(
        tmp_path,
        """
        import portico

        def main(worker):
            pass

        portico.run_workers(main, workers=2, listen=0)
        """,
    )
    assert done.returncode == 1
    assert "portico.ConfigError: worker " in done.stderr
    assert 'if __name__ == "__main__"' in done.stderr


def test_a_program_that_has_no_file_is_told(tmp_path):
    text = "import portico\ndef main(worker): pass\nportico.run_workers(main, listen=0)"
    done = run_file(tmp_path, "", "-c", text)
    assert done.returncode == 1
    assert "put it into a file" in done.stderr


FROZEN = """
import multiprocessing.spawn, os, sys
# What a frozen program is to multiprocessing (whose own freeze_support PyInstaller replaces by that of its spawn): `sys.executable` runs this very program.
sys.frozen, sys.executable = True, os.path.join(os.path.dirname(__file__), "program")
import portico

def main(worker):
    with portico.Server(lambda request: {"statusCode": 200, "body": "from a frozen program"}) as server:
        worker.listen(server)
        server.serve_forever()

if __name__ == "__main__":
    FREEZE_SUPPORT
    import urllib.request
    with portico.Workers(main, workers=2, listen={"port": 0, "tls": False}) as workers:
        print(urllib.request.urlopen(workers.urls[0]).read().decode())
"""


@pytest.mark.parametrize("supported", [True, False])
def test_a_frozen_program(tmp_path, supported):
    executable = tmp_path / "program"
    executable.write_text(f'#!/bin/sh\nexec {sys.executable} {tmp_path}/file.py "$@"\n')
    executable.chmod(0o755)
    done = run_file(
        tmp_path, FROZEN.replace("FREEZE_SUPPORT", "multiprocessing.spawn.freeze_support()" if supported else "pass")
    )
    if supported:
        assert (done.returncode, done.stdout, done.stderr) == (0, "from a frozen program\n", "")
    else:
        assert done.returncode == 1
        assert "call multiprocessing.freeze_support()" in done.stderr
