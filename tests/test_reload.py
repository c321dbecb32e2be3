"""Changed and ended without losing a request: what clients that never try again have sent is answered, every time."""

import contextlib
import functools
import os
import pathlib
import signal
import subprocess
import sys
import threading
import time

import pytest

import portico
import reload_mains
from clients import GENEROUS, Wire, refuses, trusting, wait_until
from programs import lives, starting_time
from reload_clients import Crowd, either

EVERYBODY = {
    "KeepAlive": 6, "Slow": 2, "Uploads": 2, "Reconnecting": 8,
    "Multiplexing": 2, "Chatting": 2, "ChattingOverHTTP2": 1,
}  # fmt: skip


@pytest.fixture
def workers(issue, tmp_path):
    """Starts workers; `workers.taken()` is how many requests they have had."""
    with contextlib.ExitStack() as stack:

        def start(
            number=2, listen=(0, {"port": 0, "tls": False}), main=reload_mains.serve, reuse_port=False, **settings
        ):
            counter = tmp_path / "taken"
            main = functools.partial(main, **issue("localhost"), counter=str(counter), **settings)
            made = portico.Workers(main, workers=number, listen=listen, reuse_port=reuse_port)
            made.taken = lambda: counter.stat().st_size
            stack.callback(made.close, grace=0)
            made.start()
            return made

        yield start


def crowd(workers, ca_pem, numbers=EVERYBODY):
    return Crowd(either(*workers.ports, lambda alpn: trusting(ca_pem, alpn=alpn)), **numbers)


def check(clients, taken):
    assert clients.lost == []
    assert clients.sent == clients.answered == taken


def test_ten_reloads_lose_nothing(workers, ca_pem):
    two = workers()
    before, began = two.pids, time.monotonic()
    with crowd(two, ca_pem) as clients:
        seen = clients.answered
        for _ in range(10):
            wait_until(lambda seen=seen: clients.answered > seen + 100, "clients to be answered")
            seen = clients.answered
            two.reload()
        wait_until(lambda: clients.answered > seen + 100, "clients to be answered")
    check(clients, two.taken())
    assert clients.answered > 1_000
    assert time.monotonic() - began < 60
    assert not set(before) & set(two.pids)
    answered_by = set().union(*(client.who for client in clients.clients))
    assert len(answered_by) > 15, "the workers of every reload have answered"


@pytest.mark.slow
@pytest.mark.parametrize(
    "how", [{"reuse_port": True}, {"main": reload_mains.serve_async}], ids=["reuse_port", "event loop"]
)
def test_reloads_lose_nothing_however_it_is_served(workers, ca_pem, how):
    two = workers(**how)
    with crowd(two, ca_pem) as clients:
        for _ in range(4):
            seen = clients.answered
            wait_until(lambda seen=seen: clients.answered > seen + 100, "clients to be answered")
            two.reload()
    check(clients, two.taken())


# ---- ends


def test_a_graceful_stop_loses_nothing_and_waits_for_nobody_who_is_idle(workers, ca_pem):
    two = workers()
    idle = [Wire(two.ports[1]) for _ in range(20)]
    for wire in idle:
        assert wire.get().status == 200
    with crowd(two, ca_pem, {"KeepAlive": 8, "Uploads": 4, "Multiplexing": 2, "Chatting": 2}) as clients:
        wait_until(lambda: clients.answered > 200)
        clients.stop_connecting()
        began = time.monotonic()
        two.close()
        took = time.monotonic() - began
    assert clients.lost == []
    assert clients.sent == clients.answered == two.taken() - len(idle)
    assert took < 4, "a second for those who are idle, and a moment for each goodbye"
    for wire in idle:
        assert wire.rest() == b"", "in order, and not reset"
        wire.close()
    assert all(refuses(port) for port in two.ports)


def begin_upload(wire):
    """Sends the head of a request for ten bytes; when the worker has it, which it says."""
    wire.send("POST /upload HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\nExpect: 100-continue\r\n\r\n")
    assert wire.read().status == 100
    return wire


def test_a_stop_ends_hard_at_the_grace(workers):
    one = workers(number=1)
    with Wire(one.ports[1]) as wire:
        begin_upload(wire).send("12345")
        began = time.monotonic()
        one.close(grace=2)
        assert 1.9 < time.monotonic() - began < 6
        assert wire.cut() == b""


def test_an_upload_finishes_inside_the_grace(workers):
    one = workers(number=1)
    with Wire(one.ports[1]) as wire:
        begin_upload(wire)
        closing = threading.Thread(target=one.close)
        closing.start()
        wait_until(lambda: refuses(one.ports[1]))
        for _ in range(10):
            assert closing.is_alive()
            time.sleep(0.3)  # longer in all than a client that is idle has
            wire.send(b"x")
        reply = wire.read()
        assert (reply.status, reply.header("connection")) == (200, "close")
        assert wire.rest() == b""
        closing.join(GENEROUS)


# ---- workers that die


def test_a_worker_killed_under_load_loses_what_it_had_and_is_replaced_within_a_second(workers, ca_pem):
    two, took, starting = workers(number=2), [], []
    with crowd(two, ca_pem, {"KeepAlive": 8, "Reconnecting": 4}) as clients:
        for kill in range(3):
            seen = clients.answered
            wait_until(lambda seen=seen: clients.answered > seen + 100)
            starting.append(starting_time())
            lost = len(clients.lost)
            victim = two.pids[kill % 2]
            others = set(two.pids) - {victim}
            began = time.monotonic()
            os.kill(victim, signal.SIGKILL)
            wait_until(lambda victim=victim: victim not in two.pids and len(two.pids) == 2)
            (new,) = set(two.pids) - others
            wait_until(lambda new=new: str(new) in set().union(*(client.who for client in clients.clients)))
            took.append(time.monotonic() - began)
            # Each client asks one thing at a time: it has lost one at most, or its connection.
            assert len(clients.lost) - lost <= len(clients.clients)
            assert two.restarts == kill + 1
            time.sleep(0.5)
    assert min(took) < 1 + 2 * min(starting), "full capacity, beside what an interpreter takes here"
    assert clients.sent == clients.answered + len(clients.lost)
    assert 0 <= two.taken() - clients.answered <= len(clients.lost), "what was lost is in what was sent, or was taken"


# ---- what may change


def test_addresses_workers_and_the_program_change_with_a_reload(workers, issue, tmp_path):
    listen = [{"port": 0, "tls": False}, {"unix": tmp_path / "first", "tls": False}]
    one = workers(number=1, listen=listen, trusted_proxies=["127.0.0.1"])
    (port, _), (pid,) = one.ports, one.pids
    one.reload(listen=[{"port": 0, "tls": False}, {"unix": tmp_path / "second", "tls": False}], workers=3)
    assert one.ports[0] == port, "an address that stays keeps its socket"
    assert len(one.pids) == 3
    assert pid not in one.pids
    assert not (tmp_path / "first").exists()
    with Wire(None, unix=str(tmp_path / "second")) as wire:
        assert wire.get().status == 200
    with Wire(None, unix=str(tmp_path / "second")) as taken, pytest.raises(portico.ListenError):
        one.reload(listen=[("no-such-host.invalid", 80)])
    assert taken is not None
    before = one.pids
    with pytest.raises(portico.WorkerError):
        one.reload(main=functools.partial(reload_mains.serve, cert=b"", key=b"", counter=str(tmp_path / "taken")))
    assert one.pids == before
    one.reload(listen={"port": 0, "tls": False, "proxy_protocol": True}, workers=1)
    assert (one.ports, len(one.pids)) == ([port], 1), "the same socket, spoken to in another way"
    assert not (tmp_path / "second").exists()
    with Wire(port) as wire:
        wire.send("PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n")
        assert wire.get().status == 200
    one.close()
    assert not (tmp_path / "second").exists()


# ---- by signals


class Program:
    """A program with workers, which signals reload, replace and end."""

    def __init__(self, folder, path):
        self.folder, self.lines = folder, []
        text = "import sys, reload_mains\nif __name__ == '__main__':\n    reload_mains.program(sys.argv[1])\n"
        (folder / "program.py").write_text(text)
        self.process = subprocess.Popen(
            [sys.executable, "-W", "error", "program.py", str(folder)],
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, "PYTHONPATH": path},
        )
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()
        self.pid, *self.ports = self.served(1)[:3]

    def _read(self):
        for line in self.process.stdout:
            self.lines.append(line)

    def count(self, text):
        return sum(text in line for line in self.lines)

    def served(self, times):
        """What the program has told when it came to serve for the so many-th time."""
        wait_until(lambda: self.count("serves ") == times, f"serving {times} times, not {self.lines}")
        line = [line for line in self.lines if line.startswith("serves ")][-1]
        return list(map(int, line.split()[1:]))

    def signal(self, number, answer):
        """Sends a signal, and waits until so many lines with that text are there as now, and one."""
        times = self.count(answer) + 1
        os.kill(self.pid, number)
        wait_until(lambda: self.count(answer) >= times, f"{answer!r} for the {times}. time in {self.lines}")

    def taken(self):
        return (self.folder / "taken").stat().st_size


@pytest.fixture
def program(tmp_path, issue):
    pair = issue("localhost")
    (tmp_path / "cert.pem").write_bytes(pair["cert"])
    (tmp_path / "key.pem").write_bytes(pair["key"])
    path = os.pathsep.join([str(pathlib.Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])])
    program = Program(tmp_path, path)
    yield program
    for line in program.lines:
        if line.startswith("serves "):
            pid, _, _, *workers = map(int, line.split()[1:])
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
            wait_until(lambda: not any(map(lives, [pid, *workers])), "the program to end")  # noqa: B023
    program.process.wait(GENEROUS)
    program.reader.join(GENEROUS)
    program.process.stdout.close()


def test_sighup_takes_what_is_new_and_what_is_broken_leaves_the_old(program, ca_pem):
    with crowd(program, ca_pem, {"KeepAlive": 4, "Reconnecting": 2, "Multiplexing": 1}) as clients:
        program.signal(signal.SIGHUP, "reloaded in")
        (program.folder / "broken").touch()
        program.signal(signal.SIGHUP, "cannot reload, what ran goes on")
        assert program.count("the new code is broken") >= 1
        seen = clients.answered
        wait_until(lambda: clients.answered > seen + 50)
        (program.folder / "broken").unlink()
        program.signal(signal.SIGHUP, "reloaded in")
    check(clients, program.taken())
    assert len(set().union(*(client.who for client in clients.clients))) == 6


def test_a_hangup_during_a_reload_is_done_after_it_once(program):
    (program.folder / "held").touch()
    program.signal(signal.SIGHUP, "portico.workers: reload\n")
    for _ in range(20):
        os.kill(program.pid, signal.SIGHUP)
        time.sleep(0.005)
    (program.folder / "held").unlink()
    wait_until(lambda: program.count("reloaded in") == 2)
    time.sleep(0.5)
    assert program.count("portico.workers: reload\n") == 2
    assert program.process.poll() is None


def test_a_successor_takes_over_and_nothing_is_lost(program, ca_pem):
    with crowd(program, ca_pem, EVERYBODY) as clients:
        for generation in range(2, 5):
            old = program.pid
            os.kill(old, signal.SIGUSR2)
            program.pid, *ports = program.served(generation)[:3]
            assert program.pid != old
            assert ports == program.ports
            wait_until(lambda old=old: program.count(f"ended {old}") == 1, f"the end of {old}: {program.lines}")
            wait_until(lambda old=old: not lives(old))
            seen = clients.answered
            wait_until(lambda seen=seen: clients.answered > seen + 100)
        program.signal(signal.SIGHUP, "reloaded in")
    check(clients, program.taken())


def test_a_successor_that_fails_leaves_the_old(program, ca_pem):
    with crowd(program, ca_pem, {"KeepAlive": 4, "Reconnecting": 2}) as clients:
        (program.folder / "broken").touch()
        program.signal(signal.SIGUSR2, "cannot upgrade, what ran goes on: the successor")
        assert program.count("ended with exit code 1 and never served") == 1
        (program.folder / "broken").unlink()
        seen = clients.answered
        wait_until(lambda: clients.answered > seen + 50)
        os.kill(program.pid, signal.SIGUSR2)
        program.pid, *_ = program.served(2)
    check(clients, program.taken())
