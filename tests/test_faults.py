"""What a machine does to a server at three in the morning: no descriptors, a full disk, a clock that jumps; and handlers
that never return or run away. Each time a neighbour on a connection of its own must not notice."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shutil
import signal
import subprocess
import threading
import time
from email.utils import parsedate_to_datetime
from pathlib import Path

import pytest

from clients import GENEROUS, wait_until
from programs import Program

SERVER = Path(__file__).with_name("fault_server.py")
FAKETIME = next(iter(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1")), None)


class Fault:
    """The server, and a neighbour that asks it for something all the time."""

    def __init__(self, program):
        self.program = program
        self.port = int(self.program.wait_for(r"port (\d+)")[1])
        self.answered = 0
        self._failure = None
        self._done = threading.Event()
        self._neighbour = threading.Thread(target=self._ask)
        self._neighbour.start()

    def _ask(self):
        connection = self.connect()
        try:
            while not self._done.wait(0.002):
                connection.request("GET", "/")
                response = connection.getresponse()
                assert (response.status, response.read()) == (200, b"hello")
                self.answered += 1
        except BaseException as error:
            self._failure = error
        finally:
            connection.close()

    def check_neighbour(self):
        """It is answered still, on the connection that it began with."""
        before = self.answered
        wait_until(lambda: self._failure or self.answered > before + 3, "the neighbour")
        assert self._failure is None, self._failure

    def connect(self):
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=GENEROUS)

    def ask(self, path, method="GET", body=None, headers=()):
        """Status, headers and body, on a connection of its own."""
        connection = self.connect()
        try:
            connection.request(method, path, body=body, headers=dict(headers))
            response = connection.getresponse()
            return response.status, response.headers, response.read()
        finally:
            connection.close()

    def stats(self):
        return json.loads(self.ask("/stats")[2])

    @contextlib.contextmanager
    def injected(self, *options):
        """Its system calls fail while this lasts."""
        if shutil.which("strace") is None:
            pytest.skip("strace is not installed")
        strace = subprocess.Popen(
            ["strace", "-f", "-o", os.devnull, "-p", str(self.program.process.pid), *options],
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            line = strace.stderr.readline()
            if "attached" not in line:
                pytest.skip(f"strace may not trace here: {line}")
            yield
        finally:
            strace.send_signal(signal.SIGINT)
            strace.communicate(timeout=GENEROUS)

    def leave(self):
        """The neighbour leaves."""
        self._done.set()
        self._neighbour.join()


@pytest.fixture
def fault(tmp_path):
    with contextlib.ExitStack() as stack:

        def fault(*settings, **environment):
            program = Program(SERVER, tmp_path, *settings, **environment)
            stack.callback(program.close)
            made = Fault(program)
            stack.callback(made.leave)
            made.check_neighbour()
            return made

        yield fault


FORM = b'--b\r\ncontent-disposition: form-data; name="f"; filename="f"\r\n\r\n' + b"x" * 300_000 + b"\r\n--b--\r\n"
MULTIPART = {"content-type": "multipart/form-data; boundary=b"}


# ---- the machine


def test_no_descriptor_for_a_connection(fault):
    one = fault()
    with one.injected("-e", "trace=accept4", "-e", "inject=accept4:error=EMFILE:when=1..40"):
        # It waits in the queue of the socket, and is answered when there are descriptors again.
        assert one.ask("/")[0] == 200
        one.check_neighbour()
    stats = one.stats()
    assert stats["accept_errors"] > 0
    assert not any(stats["connections_turned_away"].values())


@pytest.mark.parametrize("error", ["EMFILE", "ENFILE", "EIO"])
def test_files_that_cannot_be_opened(fault, error):
    one = fault()
    with one.injected("-e", "trace=openat,openat2", "-e", f"inject=openat,openat2:error={error}"):
        assert one.ask("/files/file.txt")[0] in (500, 503)
        one.check_neighbour()
    assert one.ask("/files/file.txt")[2] == b"file"


@pytest.mark.parametrize("error", ["EMFILE", "ENOSPC", "EIO"])
def test_uploads_that_cannot_be_kept(fault, error):
    one = fault("form_memory_bytes=1000")
    with one.injected("-e", "trace=openat", "-e", f"inject=openat:error={error}"):
        assert one.ask("/form", "POST", FORM, MULTIPART)[0] in (500, 503, 507)
        one.check_neighbour()
    assert one.ask("/form", "POST", FORM, MULTIPART)[2] == b"300000"
    one.check_neighbour()


@pytest.mark.parametrize("error", ["ENOSPC", "EIO"])
def test_a_full_disk_for_sessions(fault, tmp_path, error):
    one = fault()
    status, headers, body = one.ask("/count")
    assert (status, body) == (200, b"1")
    cookie = {"cookie": headers["set-cookie"].split(";")[0]}
    with one.injected("-P", f"{tmp_path}/sessions.db-wal", "-e", f"inject=pwrite64,write:error={error}"):
        assert one.ask("/count", headers=cookie)[0] == 503
        one.check_neighbour()
    # Nothing that was acknowledged is lost, nothing that was refused is counted.
    assert one.ask("/count", headers=cookie)[2] == b"2"


def test_a_clock_that_jumps(fault, tmp_path):
    if FAKETIME is None:
        pytest.skip("faketime is not installed")
    shift = tmp_path / "shift"
    shift.write_text("+0")
    one = fault(
        LD_PRELOAD=str(FAKETIME),
        FAKETIME_TIMESTAMP_FILE=str(shift),
        FAKETIME_NO_CACHE="1",
        FAKETIME_DONT_FAKE_MONOTONIC="1",
        DONT_FAKE_MONOTONIC="1",
    )

    def set_clock(text):
        shift.with_name("new").write_text(text)
        shift.with_name("new").replace(shift)

    def ahead():
        """How far its clock is before ours, in handlers and in the Date header."""
        _, headers, body = one.ask("/time")
        return float(body) - time.time(), parsedate_to_datetime(headers["date"]).timestamp() - time.time()

    status, headers, body = one.ask("/count")
    cookie = {"cookie": headers["set-cookie"].split(";")[0]}
    day = 86_400
    for text, seconds in (("+1d", day), ("-1d", -day), ("+30d", 30 * day), ("+0", 0)):
        set_clock(text)
        wait_until(lambda: all(abs(one - seconds) < 5 for one in ahead()), f"the clock at {text}")  # noqa: B023
        one.check_neighbour()
        assert one.ask("/count")[2] == b"1"
        assert one.ask("/files/file.txt")[0] == 200
    # One that was made before it went ahead may have ended, and is a new one then.
    status, _, body = one.ask("/count", headers=cookie)
    assert (status, body) in ((200, b"1"), (200, b"2"))
    one.check_neighbour()


# ---- handlers


def test_handlers_that_never_return(fault):
    one = fault("handler_timeout=2", "threads=[2, 4]")
    statuses = []
    stuck = [threading.Thread(target=lambda: statuses.append(one.ask("/never")[0])) for _ in range(3)]
    for thread in stuck:
        thread.start()
    for thread in stuck:
        thread.join(GENEROUS)
    assert statuses == [503] * 3
    one.check_neighbour()
    # They do not hold up the end either.
    one.leave()
    began = time.monotonic()
    one.program.signal(signal.SIGTERM).process.wait(GENEROUS)
    assert time.monotonic() - began < 10


@pytest.mark.parametrize("path", ["/exit", "/deep", "/deepest"])
def test_handlers_that_run_away(fault, path):
    one = fault()
    for _ in range(5):
        assert one.ask(path)[0] == 500
        one.check_neighbour()
    assert one.stats()["handler_failures"] == 5
