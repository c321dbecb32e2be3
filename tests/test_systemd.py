"""What a service manager and `portico run` say to each other. The tests play systemd."""

from __future__ import annotations

import itertools
import os
import re
import select
import signal
import socket
import time

import pytest

from clients import GENEROUS, request, wait_until
from portico import ConfigError, _systemd
from programs import Program
from running import APP

CLEAR = ("--listen", "http://127.0.0.1:0")


class Manager:
    """The socket to which a service tells what it does."""

    def __init__(self, address):
        self.address = address
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind("\0" + address[1:] if address.startswith("@") else address)
        self.told = []

    def next(self):
        """The next datagram but for signs of life, as a dict."""
        end = time.monotonic() + GENEROUS
        while select.select([self.socket], [], [], end - time.monotonic())[0]:
            said = dict(line.split("=", 1) for line in self.socket.recv(4096).decode().splitlines())
            self.told.append(said)
            if "WATCHDOG" not in said:
                return said
        raise AssertionError("the service says nothing")

    def close(self):
        self.socket.close()


@pytest.fixture(params=["path", "abstract"])
def manager(request, tmp_path):
    found = Manager(
        str(tmp_path / "notify") if request.param == "path" else f"@portico-test-{os.getpid()}-{tmp_path.name}"
    )
    yield found
    found.close()


# ---- sd_notify


def test_it_says_when_it_serves_reloads_and_ends(run, manager):
    running = run("app:hello", *CLEAR, NOTIFY_SOCKET=manager.address)
    said = manager.next()
    (port,) = running.ready()
    assert said["READY"] == "1"
    assert re.fullmatch(rf"app:hello at http://127\.0\.0\.1:{port} by 1 worker", said["STATUS"])
    before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    running.signal(signal.SIGHUP)
    said = manager.next()
    assert said["RELOADING"] == "1"
    assert before <= int(said["MONOTONIC_USEC"]) <= time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    assert manager.next()["READY"] == "1"
    running.signal(signal.SIGTERM)
    assert manager.next()["STOPPING"] == "1"
    assert running.end() == 0


def test_a_reload_that_fails_is_told_and_the_service_is_ready_again(run, manager, tmp_path):
    running = run("app:hello", *CLEAR, NOTIFY_SOCKET=manager.address)
    manager.next()
    (port,) = running.ready()
    (tmp_path / "app.py").write_text("1 / 0\n")
    running.signal(signal.SIGHUP)
    assert manager.next()["RELOADING"] == "1"
    said = manager.next()
    assert said["READY"] == "1"
    assert said["STATUS"].endswith("; the last reload failed")
    assert request(port, "GET", "/x").text == "hello /x"


def test_it_is_not_ready_before_it_serves(run, manager, tmp_path):
    (tmp_path / "late.py").write_text(
        "import pathlib, time\nwhile not pathlib.Path('go').exists():\n    time.sleep(0.01)\n" + APP
    )
    run("late:hello", *CLEAR, NOTIFY_SOCKET=manager.address)
    assert not select.select([manager.socket], [], [], 1.0)[0]
    (tmp_path / "go").touch()
    assert manager.next()["READY"] == "1"


def test_signs_of_life_come_in_time(run, manager):
    run("app:hello", *CLEAR, NOTIFY_SOCKET=manager.address, WATCHDOG_USEC="2000000").ready()
    assert manager.next()["READY"] == "1"
    times = []
    while len(times) < 4:
        assert select.select([manager.socket], [], [], GENEROUS)[0]
        assert manager.socket.recv(100) == b"WATCHDOG=1"
        times.append(time.monotonic())
    assert max(late - early for early, late in itertools.pairwise(times)) < 2


def test_a_manager_that_is_gone_does_no_harm(run, tmp_path):
    running = run("app:hello", *CLEAR, NOTIFY_SOCKET=str(tmp_path / "nobody"), WATCHDOG_USEC="200000")
    (port,) = running.ready()
    assert request(port, "GET", "/x").text == "hello /x"
    assert running.signal(signal.SIGTERM).end() == 0


@pytest.mark.parametrize(
    ("environment", "seconds"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "3000000"}, 1.5),
        ({"WATCHDOG_USEC": "3000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "3000000", "WATCHDOG_PID": str(os.getpid())}, 1.5),
        ({"WATCHDOG_USEC": "0"}, None),
    ],
)
def test_how_often_a_sign_of_life_is_due(environment, seconds):
    assert _systemd.Manager(environment).watchdog == seconds


def test_lines_in_a_status_are_joined(manager):
    _systemd.Manager({"NOTIFY_SOCKET": manager.address}).status("one\nREADY=1")
    assert manager.next() == {"STATUS": "one READY=1"}


# ---- sockets that are handed over


# As systemd does it: descriptors from 3 on, and the variables for this very process.
LAUNCH = """
import os, sys
os.environ["LISTEN_PID"] = str(os.getpid())
os.execv(sys.executable, [sys.executable, "-m", "portico", "run", *sys.argv[1:]])
"""


class Activated(Program):
    def __init__(self, folder, sockets, names, *arguments):
        (folder / "app.py").write_text(APP)
        # Through a shell, because descriptors 3 and on are to be these very ones.
        moves = "; ".join(
            [f"os.dup2({one.fileno()}, {200 + at})" for at, one in enumerate(sockets)]
            + [f"os.dup2({200 + at}, {3 + at}); os.close({200 + at})" for at in range(len(sockets))]
        )
        start = f"import os; os.chdir({str(folder)!r}); {moves}" + LAUNCH
        for one in sockets:
            one.set_inheritable(True)
        super().__init__(
            "-c",
            start,
            *arguments,
            HOME=str(folder / "home"),
            XDG_RUNTIME_DIR=str(folder),
            LISTEN_FDS=str(len(sockets)),
            **names,
            inherit=True,
        )


@pytest.fixture
def activated(tmp_path):
    started = []

    def activated(sockets, *arguments, **names):
        started.append(Activated(tmp_path, sockets, names, *arguments))
        return started[-1]

    yield activated
    for program in started:
        program.close()


def listening(backlog=16):
    return socket.create_server(("127.0.0.1", 0), backlog=backlog)


def test_sockets_that_systemd_opened_are_served(activated):
    with listening() as one, listening() as two:
        ports = [one.getsockname()[1], two.getsockname()[1]]
        program = activated([one, two], "app:hello", LISTEN_FDNAMES="http:http")
        program.wait_for("^Ctrl-C stops the server")
        assert [request(port, "GET", "/x").text for port in ports] == ["hello /x"] * 2
        assert program.signal(signal.SIGTERM).end() == 0


def test_a_client_that_came_before_the_service_is_answered(activated):
    with listening() as one:
        with socket.create_connection(one.getsockname(), timeout=GENEROUS) as early:
            early.sendall(b"GET /x HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
            program = activated([one], "app:hello", "--listen", "http://systemd:web", LISTEN_FDNAMES="web")
            answer = b"".join(iter(lambda: early.recv(4096), b""))
            assert answer.endswith(b"hello /x")
        program.wait_for("^Ctrl-C stops the server")


def test_a_reload_keeps_the_socket_of_systemd(activated):
    with listening() as one:
        program = activated([one], "app:pid", LISTEN_FDNAMES="http")
        program.wait_for("^Ctrl-C stops the server")
        port = one.getsockname()[1]
        before = request(port, "GET", "/").text
        program.signal(signal.SIGHUP)
        program.wait_for("portico.run: reloaded in")
        wait_until(lambda: request(port, "GET", "/").text != before, "the new worker to answer")


def test_a_name_that_systemd_has_not_handed_over(activated):
    with listening() as one:
        program = activated([one], "app:hello", "--listen", "systemd:wep", LISTEN_FDNAMES="web")
        assert program.end() == 1
        assert "systemd has handed over no socket of the name 'wep'; there is web" in program.output


def test_variables_of_another_process_are_nothing_to_us():
    environment = {"LISTEN_PID": "1", "LISTEN_FDS": "1", "LISTEN_FDNAMES": "web"}
    assert _systemd.handed_over(environment) == {}
    environment["LISTEN_PID"] = str(os.getpid())
    assert _systemd.handed_over(environment) == {"web": [3]}
    environment |= {"LISTEN_FDS": "3", "LISTEN_FDNAMES": "a:b:a"}
    assert _systemd.handed_over(environment) == {"a": [3, 5], "b": [4]}
    environment["LISTEN_FDNAMES"] = ""
    assert _systemd.handed_over(environment) == {"unknown": [3, 4, 5]}
    environment["LISTEN_FDS"] = "many"
    with pytest.raises(ConfigError, match="LISTEN_FDS"):
        _systemd.handed_over(environment)


def test_a_successor_is_told_of_and_has_the_sockets(activated, manager, tmp_path):
    with listening() as one:
        port = one.getsockname()[1]
        program = activated([one], "app:pid", "--pid-file", "pid", LISTEN_FDNAMES="http", NOTIFY_SOCKET=manager.address)
        assert manager.next()["READY"] == "1"
        before = request(port, "GET", "/").text
        program.signal(signal.SIGUSR2)
        told = [manager.next(), manager.next()]
        assert {"READY": "1"}.items() <= max(told, key=len).items(), "by the successor, which has the sockets too"
        (pid,) = [int(said["MAINPID"]) for said in told if "MAINPID" in said]
        try:
            assert program.process.wait(60) == 0
            assert pid == int((tmp_path / "pid").read_text()) != program.process.pid
            assert request(port, "GET", "/").text != before
        finally:
            os.kill(pid, signal.SIGTERM)
        assert manager.next()["STOPPING"] == "1"
        wait_until(lambda: not (tmp_path / "pid").exists(), "the successor to end")


# ---- the journal


def test_lines_for_the_journal_have_a_priority(tmp_path):
    """Where standard error is the journal, which `JOURNAL_STREAM` says by device and inode."""
    start = (
        "import logging, os, sys; found = os.fstat(2); os.environ['JOURNAL_STREAM'] = f'{found.st_dev}:{found.st_ino}'\n"
        "from portico import _logs; _logs.to_stderr('info')\n"
        "logging.getLogger('portico.error').error('one\\ntwo'); logging.getLogger('portico').info('three')"
    )
    program = Program("-c", start)
    try:
        assert program.end() == 0
        assert program.output == "<3>portico.error: one\n<3>two\n<6>portico: three\n"
    finally:
        program.close()
