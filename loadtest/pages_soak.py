"""Server pages under failures: two servers with one Redis, whose visitors must not lose anything that they were told.

    python loadtest/pages_soak.py [--requests 50000] [--sessions 1000] [--kills 20] [--restarts 5] [--clients 8]

Each request counts up in a variable of the page and in `session`, at any of the two servers; some visitors send several
at once. Meanwhile processes that run pages are killed, and the Redis is, and starts again with what it has on disk. A
request that is answered 503 or 500 is sent again. Exits with 1 where

- an answer has a count that its visitor was told before, or one below what it was told before the request was sent,
- the variable and `session` differ, or a visitor is given another session,
- the last count is less than what was acknowledged, or more than that and the requests whose fate nobody knows,
- there are more 500s than kills, or the memory of a server grows by more than GROWTH_BOUND after its first third.

Needs redis-server, portico[pages,redis] and psutil. All traffic stays on 127.0.0.1.
"""

from __future__ import annotations

import argparse
import http.client
import logging
import multiprocessing
import random
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from multiprocessing.connection import Connection
from pathlib import Path

import psutil

import portico
from memory import resident
from portico.sessions import Sessions

PAGE = """\
<%
try:
    n = n + 1
except NameError:
    n = 1
    seen = []
    def twice(x): return 2 * x
session["n"] = session["n"] + 1 if "n" in session else 1
seen = (seen + [n])[-20:]
%><%= n %> <%= session["n"] %> <%= twice(n) %> <%= seen[-1] %>"""
# What the memory of a server may grow by, in bytes, between the first third and the end.
GROWTH_BOUND = 8 << 20
# A request is not sent more often than that.
MOST_TRIES = 400
WORKERS = 2


def serve(folder: str, secret: str, store: str, ours: Connection) -> None:
    """A server, in a process of its own, until it is told to end."""
    # What fails here is counted by the clients.
    logging.disable()
    pages = portico.Pages(folder, workers=WORKERS)
    sessions = Sessions(secret=secret, store=store, timeout=3600)
    with portico.Server(pages, sessions=sessions) as server:
        ours.send(server.listen(0, tls=False).port)
        ours.recv()
    pages.close()
    sessions.close()


class Redis:
    """A Redis that keeps all it has acknowledged."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir()
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]

    def start(self) -> None:
        options = f"--port {self.port} --bind 127.0.0.1 --appendonly yes --appendfsync always --dir {self._folder}"
        command = ["redis-server", *options.split(), "--save", ""]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        end = time.monotonic() + 30
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"redis-server did not start: {' '.join(command)}")
            time.sleep(0.02)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def _answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), 1) as one:
                one.sendall(b"PING\r\n")
                return one.recv(16).startswith(b"+PONG")
        except OSError:
            return False


class Visitor:
    """One session, and what its client was told."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.cookie: str | None = None
        self.told: set[int] = set()
        self.last = 0
        self.unknown = 0


class Soak:
    """The clients, and what they find."""

    def __init__(self, ports: list[int], visitors: list[Visitor], requests: int) -> None:
        self.ports, self.visitors = ports, visitors
        self.left = requests
        self.done = 0
        self.statuses: Counter[str] = Counter()
        self.faults: list[str] = []
        self._lock = threading.Lock()

    def client(self, number: int) -> None:
        """Sends requests until there are none left."""
        chosen = random.Random(number)
        connections = [http.client.HTTPConnection("127.0.0.1", port, timeout=60) for port in self.ports]
        few = self.visitors[: max(1, len(self.visitors) // 100)]
        while self._take():
            # One in ten is of a few visitors, who so have several at once.
            visitor = chosen.choice(few if chosen.random() < 0.1 else self.visitors)
            try:
                self.visit(visitor, chosen, connections)
            except Exception as error:
                self.fault(f"a client ended: {error!r}")
                return
        for connection in connections:
            connection.close()

    def visit(self, visitor: Visitor, chosen: random.Random, connections: list[http.client.HTTPConnection]) -> None:
        """One request, until it is answered 200."""
        for _ in range(MOST_TRIES):
            with visitor.lock:
                before = visitor.last
            headers = {"cookie": visitor.cookie} if visitor.cookie else {}
            connection = chosen.choice(connections)
            try:
                connection.request("GET", "/page.psp", headers=headers)
                response = connection.getresponse()
                body = response.read().decode()
                status = str(response.status)
            except (OSError, http.client.HTTPException) as error:
                connection.close()
                status = type(error).__name__
            with self._lock:
                self.statuses[status] += 1
            if status == "200":
                self._told(visitor, before, body, response.getheader("set-cookie"))
                return
            if status != "500":
                # What was kept before the Redis ended may not have been heard of.
                with visitor.lock:
                    visitor.unknown += 1
            time.sleep(chosen.uniform(0.01, 0.1))
        self.fault(f"a request was not answered after {MOST_TRIES} tries")

    def _told(self, visitor: Visitor, before: int, body: str, cookie: str | None) -> None:
        words = body.split()
        count = int(words[0])
        if words != [str(count), str(count), str(2 * count), str(count)]:
            self.fault(f"the variable, the session and the function differ: {body!r}")
        with visitor.lock:
            if visitor.cookie is None and cookie is not None:
                visitor.cookie = cookie.split(";")[0]
            elif cookie is not None:
                self.fault(f"another session was given at count {count}, after {visitor.last}")
            if count in visitor.told or count <= before:
                self.fault(f"an update was lost: {count} was told again, after {before}")
            visitor.told.add(count)
            visitor.last = max(visitor.last, count)

    def fault(self, text: str) -> None:
        with self._lock:
            if len(self.faults) < 20:
                self.faults.append(text)

    def _take(self) -> bool:
        with self._lock:
            self.left -= 1
            self.done += self.left >= 0
            return self.left >= 0


def kill_a_worker(servers: list[int]) -> bool:
    """Kills one of the processes that run pages."""
    workers = [
        child
        for server in servers
        for child in psutil.Process(server).children(recursive=True)
        if child.name() == "monty"
    ]
    if workers:
        random.choice(workers).kill()
    return bool(workers)


def run(options: argparse.Namespace, folder: Path) -> list[str]:
    """All of it; what was wrong."""
    site = folder / "site"
    site.mkdir()
    (site / "page.psp").write_text(PAGE)
    redis = Redis(folder / "redis")
    redis.start()
    spawn = multiprocessing.get_context("spawn")
    secret, store = secrets.token_urlsafe(32), f"redis://127.0.0.1:{redis.port}/0"
    pipes, servers = [], []
    try:
        for _ in range(2):
            theirs, ours = spawn.Pipe()
            servers.append(spawn.Process(target=serve, args=(str(site), secret, store, ours)))
            servers[-1].start()
            pipes.append(theirs)
        ports = [pipe.recv() for pipe in pipes]
        return soak(options, redis, ports, [server.pid for server in servers if server.pid])
    finally:
        for pipe in pipes:
            pipe.send(None)
        for server in servers:
            server.join(30)
            server.kill()
        redis.kill()


def soak(options: argparse.Namespace, redis: Redis, ports: list[int], servers: list[int]) -> list[str]:
    visitors = [Visitor() for _ in range(options.sessions)]
    began = time.monotonic()
    first = Soak(ports, visitors, 0)
    connections = [http.client.HTTPConnection("127.0.0.1", port, timeout=60) for port in ports]
    for visitor in visitors:
        first.visit(visitor, random.Random(0), connections)
    work = Soak(ports, visitors, options.requests - options.sessions)
    clients = [threading.Thread(target=work.client, args=(number,)) for number in range(options.clients)]
    for client in clients:
        client.start()
    # When each of them happens, in requests that were begun.
    total = work.left + work.done
    events = [(total * (number + 0.5) / options.kills, "kill") for number in range(options.kills)]
    events += [(total * (number + 0.5) / options.restarts, "restart") for number in range(options.restarts)]
    events.sort(reverse=True)
    sizes: list[tuple[float, list[int]]] = []
    kills = 0
    while any(client.is_alive() for client in clients):
        while events and work.done >= events[-1][0]:
            if events.pop()[1] == "kill":
                kills += kill_a_worker(servers)
            else:
                redis.kill()
                time.sleep(0.3)
                redis.start()
        sizes.append((work.done / total, [resident(server) for server in servers]))
        time.sleep(0.05)
    taken = time.monotonic() - began
    faults = first.faults + work.faults
    statuses = first.statuses + work.statuses
    acknowledged = sum(len(visitor.told) for visitor in visitors)
    unknown = sum(visitor.unknown for visitor in visitors)
    kept = 0
    for visitor in visitors:
        count = visitor.last
        kept += count
        if not len(visitor.told) <= count <= len(visitor.told) + visitor.unknown:
            faults.append(f"{len(visitor.told)} were acknowledged and {visitor.unknown} unknown, but {count} kept")
    if acknowledged != options.requests:
        faults.append(f"{acknowledged} requests were acknowledged, not {options.requests}")
    if statuses["500"] > kills:
        faults.append(f"{statuses['500']} answers were 500 with {kills} kills")
    early = next(size for part, size in sizes if part >= 1 / 3)
    for before, after in zip(early, sizes[-1][1], strict=True):
        if after - before > GROWTH_BOUND:
            faults.append(f"a server grew from {before / 2**20:.1f} to {after / 2**20:.1f} MiB")
    shown = " and ".join(f"{a / 2**20:.1f} to {b / 2**20:.1f} MiB" for a, b in zip(early, sizes[-1][1], strict=True))
    print(f"{acknowledged} requests of {len(visitors)} visitors in {taken:.0f} s, {kills} workers and "
          f"{options.restarts} times the Redis killed")  # fmt: skip
    print(f"answers: {dict(statuses)}; {kept} updates kept, {acknowledged} acknowledged, {unknown} unknown")
    print(f"servers from a third on: {shown}")
    return faults


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("requests", 50_000), ("sessions", 1000), ("kills", 20), ("restarts", 5), ("clients", 8)):
        parser.add_argument(f"--{name}", type=int, default=default, help=f"how many ({default})")
    options = parser.parse_args()
    if not shutil.which("redis-server"):
        parser.error("redis-server is not installed")
    with tempfile.TemporaryDirectory() as folder:
        faults = run(options, Path(folder))
    for fault in faults:
        print(f"FAULT: {fault}")
    return bool(faults)


if __name__ == "__main__":
    sys.exit(main())
