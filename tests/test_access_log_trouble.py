"""An access log where the disk is full, the pipe is slow and the file is renamed: requests are answered as before, and what is
lost is counted."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import signal
import subprocess
import sys
import threading

import pytest

import portico
from clients import GENEROUS, request, wait_until
from measures import resident
from programs import Program, has_open

LONG = "/" + "x" * 4000


def ask(served, number, path="/"):
    """So many requests on one connection without TLS, in groups that the server reads at once."""
    asked = f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n"
    with served.wire() as wire:
        for start in range(0, number, 16):
            many = min(16, number - start)
            wire.send(asked * many)
            for _ in range(many):
                assert wire.read().status == 200


def whole(data):
    """The objects of a log, each of whose lines is one."""
    assert not data or data.endswith(b"\n")
    return [json.loads(line) for line in data.splitlines()]


@pytest.fixture
def quick(serve):
    """Starts a server of few bytes for each answer."""

    def quick(path, **settings):
        return serve(lambda request: {"statusCode": 200}, access_log=path, access_log_format="json", **settings)

    return quick


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 256 KiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", folder], capture_output=True, text=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"no file system may be mounted here: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


def said(caplog, pattern):
    return [message for message in caplog.messages if re.search(pattern, message)]


def test_a_full_disk(quick, small_disk, tmp_path, caplog):
    path = small_disk / "access.log"
    served = quick(path)
    full = r"the access log .*access\.log cannot be written: No space left on device; .* dropped and counted"
    with caplog.at_level(logging.WARNING, "portico.error"):
        for _ in range(10):
            ask(served, 128, LONG)
        wait_until(lambda: said(caplog, full), "the word of it")
        wait_until(lambda: served.stat("access_log_dropped"), "dropped lines")
        assert len(said(caplog, full)) == 1
        # Somebody makes room, where the log is expected.
        elsewhere = tmp_path / "elsewhere.log"
        full_file = path.rename(small_disk / "access.log.1")
        path.symlink_to(elsewhere)
        served.server.reopen_logs()
        wait_until(lambda: said(caplog, r"is written again; \d+ lines were dropped"), "the word of that")
        ask(served, 16)
    dropped = served.stat("access_log_dropped")
    # What fitted of a line is here, the rest there.
    wait_until(lambda: elsewhere.read_bytes().count(b'"target":"/",') == 16, "the last lines")
    written = whole(full_file.read_bytes() + elsewhere.read_bytes())
    assert 0 < dropped == 10 * 128 + 16 - len(written)
    assert said(caplog, f"is written again; {dropped} lines were dropped")


def test_a_full_disk_to_the_end(quick, small_disk, caplog):
    path = small_disk / "access.log"
    served = quick(path)
    ask(served, 256, LONG)
    served.server.close()
    assert path.stat().st_size <= 256 * 1024
    kept = path.read_bytes().count(b"\n")
    wait_until(lambda: served.stat("access_log_dropped") == 256 - kept, "what was given up")


def test_a_pipe_that_nobody_reads(quick, tmp_path, caplog):
    path = tmp_path / "pipe"
    os.mkfifo(path)
    served = quick(path)
    with caplog.at_level(logging.WARNING, "portico.error"):
        ask(served, 32)
        wait_until(lambda: said(caplog, "cannot be written: nobody reads the pipe"), "the word of it")
        with path.open("rb") as reader:
            lines = [reader.readline() for _ in range(32)]
            wait_until(lambda: said(caplog, "is written again; 0 lines were dropped"), "the word of that")
    assert len(whole(b"".join(lines))) == 32
    # Its reader has gone, and another one comes.
    ask(served, 16)
    with path.open("rb") as reader:
        assert len(whole(b"".join(reader.readline() for _ in range(16)))) == 16


def test_a_reader_that_takes_nothing(quick, tmp_path, caplog):
    path = tmp_path / "pipe"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        served = quick(path)
        with caplog.at_level(logging.WARNING, "portico.error"):
            for _ in range(10):
                ask(served, 128, LONG)
            wait_until(lambda: served.stat("access_log_dropped"), "dropped lines")
            wait_until(lambda: said(caplog, "cannot be written: nobody reads what was written"), "the word of it")
        # It does not keep the server from ending either.
        served.server.close(grace=1)
        os.set_blocking(reader, True)
        data = b""
        while piece := os.read(reader, 1 << 16):
            data += piece
    finally:
        os.close(reader)
    lines = data.splitlines(keepends=True)
    assert all(json.loads(line) for line in lines if line.endswith(b"\n"))
    assert len(lines) >= 5


def test_no_line_is_lost_by_rotation(quick, tmp_path):
    path = tmp_path / "access.log"
    served = quick(path)
    done = threading.Event()
    asked = []

    def load():
        number = 0
        while not done.is_set():
            ask(served, 64)
            number += 64
        asked.append(number)

    threads = [threading.Thread(target=load) for _ in range(3)]
    for thread in threads:
        thread.start()
    rotated, sizes = [], []
    for number in range(10):
        lines = served.stat("requests", "1.1")
        wait_until(lambda lines=lines: served.stat("requests", "1.1") > lines + 200, "some requests")
        rotated.append(path.rename(tmp_path / f"access.log.{number}"))
        served.server.reopen_logs()
        sizes.append(rotated[-1].stat().st_size)
        assert path.exists()
    done.set()
    for thread in threads:
        thread.join()
    served.server.close()
    files = [whole(file.read_bytes()) for file in (*rotated, path)]
    assert sum(map(len, files)) == sum(asked)
    # Some come so fast one after the other that nothing was written between them.
    assert sum(map(bool, files)) > 2
    # What was renamed was done with at once.
    assert [file.stat().st_size for file in rotated] == sizes


def test_reopening_what_cannot_be_opened_keeps_the_old_file(quick, tmp_path):
    path = tmp_path / "logs" / "access.log"
    path.parent.mkdir()
    served = quick(path)
    moved = path.parent.rename(tmp_path / "moved") / "access.log"
    with pytest.raises(portico.ConfigError, match="cannot open the access log"):
        served.server.reopen_logs()
    ask(served, 16)
    wait_until(lambda: len(whole(moved.read_bytes())) == 16, "the lines")


SIGNALLED = """
import sys, portico
with portico.Server(lambda request: {"statusCode": 200}, access_log=sys.argv[1]) as server:
    print("port", server.listen(0, tls=False).port, flush=True)
    server.serve_forever()
print("closed", flush=True)
"""


def test_sigusr1_reopens_while_it_serves(tmp_path):
    path = tmp_path / "access.log"
    with contextlib.closing(Program("-c", SIGNALLED, path)) as program:
        port = int(program.wait_for(r"port (\d+)")[1])
        request(port, path="/before")
        wait_until(lambda: b"/before" in path.read_bytes(), "the line")
        old = path.rename(tmp_path / "access.log.1")
        program.signal(signal.SIGUSR1)
        wait_until(lambda: not has_open(program.process.pid, old), "it to let go of the file")
        request(port, path="/after")
        wait_until(lambda: b"/after" in path.read_bytes(), "the line")
        assert b"/after" not in old.read_bytes()
        program.signal(signal.SIGTERM)
        program.wait_for("closed")
    assert path.read_bytes().count(b"\n") == 1


@pytest.mark.skipif(sys.platform != "linux", reason="memory is measured through /proc")
def test_memory_stays(quick, tmp_path):
    served = quick(tmp_path / "access.log", request_id_header="x-request-id")
    ask(served, 4_000)
    before = resident()
    ask(served, 24_000)
    grown = resident() - before
    assert grown < 1 << 20, grown
    wait_until(lambda: (tmp_path / "access.log").read_bytes().count(b"\n") == 28_000, "every line", GENEROUS)
