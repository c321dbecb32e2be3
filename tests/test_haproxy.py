"""HAProxy in front of two processes that share sessions and ticket keys by a Redis, as in examples/deploy."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

import session_stores
from clients import GENEROUS, Wire, trusting, wait_until
from programs import Program

DEPLOY = Path(__file__).parent.parent / "examples" / "deploy"
CLIENTS = 6


def free_ports(count):
    with contextlib.ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]


class Site:
    """Two nodes, a Redis and an HAProxy, each a process of its own."""

    def __init__(self, folder, redis, pair, stack):
        self.folder, self.redis, self._stack = folder, redis, stack
        (folder / "site.crt").write_bytes(pair["cert"])
        (folder / "site.key").write_bytes(pair["key"])
        (folder / "shared.key").write_bytes(os.urandom(64))
        self.front, *rest = free_ports(5)
        self.ports = {"one": rest[:2], "two": rest[2:]}
        self.nodes = {}
        config = (DEPLOY / "haproxy.cfg").read_text()
        changes = [("bind :443", f"bind 127.0.0.1:{self.front}"), (" check port 9090", "")]
        for name, ip in (("one", "10.0.0.11"), ("two", "10.0.0.12")):
            port, admin = self.ports[name]
            changes.append((f"{ip}:8443", f"127.0.0.1:{port} check port {admin}"))
        for before, after in changes:
            assert config.count(before) == 1, before
            config = config.replace(before, after)
        (folder / "haproxy.cfg").write_text(config)

    def start_node(self, name):
        port, admin = self.ports[name]
        node = Program(
            DEPLOY / "node.py",
            name,
            *("--cert", self.folder / "site.crt", "--key", self.folder / "site.key"),
            *("--redis", self.redis.url, "--secret", self.folder / "shared.key", "--proxy", "127.0.0.1"),
            *("--port", port, "--admin-port", admin),
        )
        self._stack.callback(node.close)
        node.wait_for("listens")
        self.nodes[name] = node

    def start_haproxy(self):
        command = ["haproxy", "-db", "-f", str(self.folder / "haproxy.cfg")]
        checked = subprocess.run([*command, "-c"], capture_output=True, text=True, timeout=GENEROUS, check=False)
        assert checked.returncode == 0, checked.stderr
        with (self.folder / "haproxy.log").open("w") as log:
            self.haproxy = subprocess.Popen(command, stdout=log, stderr=log)
        self._stack.callback(self._end_haproxy)

    def _end_haproxy(self):
        self.haproxy.kill()
        self.haproxy.wait(GENEROUS)

    def log(self):
        return (self.folder / "haproxy.log").read_text()[-5000:]

    def kill(self, name):
        self.nodes[name].process.send_signal(signal.SIGKILL)
        self.nodes[name].process.wait(GENEROUS)


class Client:
    """A browser of sorts: a connection for each request, its cookie and its TLS session with it."""

    def __init__(self, port, context):
        self.port, self.context = port, context
        self.cookie, self.session = None, None
        self.visits, self.lost, self.seen = 0, 0, []

    def visit(self):
        with Wire(self.port) as wire:
            wire.file.close()
            wire.sock = self.context.wrap_socket(wire.sock, server_hostname="localhost", session=self.session)
            wire.file = wire.sock.makefile("rb")
            own = wire.sock.getsockname()
            reply = wire.get("/", f"Cookie: {self.cookie}\r\n" if self.cookie else "")
            assert reply is not None, "the connection was closed"
            assert reply.status == 200, reply
            number, client, node, resumed = re.fullmatch(
                r"visit (\d+) of ([\d.:]+), to (\w+), resumed: (\w+)\n", reply.text
            ).groups()
            assert client == f"{own[0]}:{own[1]}", "the client that the proxy names"
            assert resumed == str(self.session is not None), f"TLS sessions are taken up, by {node} too"
            # One whose answer was lost on the way may have been counted.
            assert self.visits < int(number) <= self.visits + self.lost + 1, "it is the same session"
            self.visits, self.lost = int(number), 0
            self.session = wire.sock.session
            self.seen.append((time.monotonic(), node))
            for value in reply.all("set-cookie"):
                self.cookie = value.split(";")[0]

    def try_visit(self):
        """Whether it was answered; what fails is asked again, as people do."""
        try:
            self.visit()
        except (ConnectionError, ssl.SSLError, AssertionError) as error:
            if isinstance(error, AssertionError) and "connection was closed" not in str(error):
                raise
            self.lost += 1
            return False
        return True


@pytest.fixture
def site(tmp_path, issue):
    if not shutil.which("haproxy"):
        pytest.skip("haproxy is not installed")
    with contextlib.ExitStack() as stack:
        redis = stack.enter_context(session_stores.redis_server(tmp_path / "redis"))
        site = Site(tmp_path, redis, issue("localhost"), stack)
        for name in ("one", "two"):
            site.start_node(name)
        site.start_haproxy()
        yield site


def answers(site, context, *nodes):
    """Whether connections go to each of these, and to no other."""
    with contextlib.suppress(ConnectionError, ssl.SSLError, AssertionError):
        clients = [Client(site.front, context) for _ in range(4)]
        for client in clients:
            client.visit()
        return {node for client in clients for _, node in client.seen} == set(nodes)
    return False


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="processes are killed")
def test_requests_and_sessions_survive_the_death_of_either(site, ca_pem):
    context = trusting(ca_pem)
    wait_until(lambda: answers(site, context, "one", "two"), "HAProxy to use both")
    clients = [Client(site.front, context) for _ in range(CLIENTS)]
    stop, failures, losses = threading.Event(), [], []

    def load(client):
        try:
            while not stop.is_set():
                if not client.try_visit():
                    losses.append(time.monotonic())
        except BaseException as error:  # what is wrong is told by the test's own thread
            failures.append(error)

    threads = [threading.Thread(target=load, args=(client,)) for client in clients]
    for thread in threads:
        thread.start()
    try:
        for victim, other in (("one", "two"), ("two", "one")):
            # Every client has been at both, with one cookie and one TLS session from one to the other.
            start = time.monotonic()
            wait_until(
                lambda since=start: (
                    all({node for at, node in client.seen if at > since} == {"one", "two"} for client in clients)
                    or failures
                ),
                "every client to have been at both",
            )
            assert not failures, failures
            site.kill(victim)
            killed = time.monotonic()
            wait_until(
                lambda since=killed + 0.5: (
                    all(len([at for at, _ in client.seen if at > since]) > 20 for client in clients) or failures
                ),
                "every client to go on",
            )
            assert not failures, failures
            lost = [at for at in losses if at > killed - 1]
            # Each had one request under way at most, and whoever came after it was sent to the other.
            assert len(lost) <= CLIENTS, f"{len(lost)} requests lost"
            late = [round(at - killed, 2) for at in lost if at > killed + 1]
            assert not late, f"after the kill nobody is sent to the dead one: {late}; {site.log()}"
            assert {node for client in clients for at, node in client.seen if at > killed + 0.5} == {other}
            site.start_node(victim)
    finally:
        stop.set()
        for thread in threads:
            thread.join(GENEROUS)
    assert not failures, failures
    assert all(client.visits > 40 for client in clients)


def test_a_node_that_drains_gets_no_more_connections(site, ca_pem):
    context = trusting(ca_pem)
    wait_until(lambda: answers(site, context, "one", "two"), "HAProxy to use both")
    client = Client(site.front, context)
    client.visit()
    site.nodes["one"].signal(signal.SIGTERM)
    for _ in range(50):
        client.visit()  # none is lost
    assert site.nodes["one"].end() == 0
    assert answers(site, context, "two")
