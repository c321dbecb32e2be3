"""Thousands of hosts: they load in seconds, take a stated memory, and cost no handshake anything."""

from __future__ import annotations

import contextlib
import json
import random
import socket
import ssl
import statistics
import subprocess
import sys
from pathlib import Path

import pytest

from clients import GENEROUS
from portico import _core

SERVER = Path(__file__).with_name("many_hosts_server.py")
CERTIFICATES = 1000
MANY = 10_000
# Measured: 0.4 to 0.9 s and 6 KiB for each; more than five times the time, because machines differ.
SECONDS, EACH = 5.0, 16 * 1024
# A batch of handshakes, taken in turns from both servers, and how much more those of the one with a thousand hosts may
# take. Measured: 0.97 to 1.03.
BATCH, BATCHES, RATIO = 60, 11, 1.3


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Certificates for any of the hosts, each different."""
    folder = tmp_path_factory.mktemp("hosts")
    authority, key = _core.make_authority("many hosts")
    (folder / "ca.pem").write_text(authority)
    for number in range(CERTIFICATES):
        issued = _core.issue_certificate(authority, key, [f"host-{number}.test"], 1)
        (folder / f"{number}.pem").write_text("".join(issued))
    return folder


class Server:
    def __init__(self, folder, hosts, certificates):
        command = [sys.executable, SERVER, folder, str(hosts), str(certificates)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.hosts, self.made, self.shaken = hosts, self._read(), 0
        self.context = ssl.create_default_context(cafile=folder / "ca.pem")

    def _read(self):
        return json.loads(self.process.stdout.readline())

    def ask(self):
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return self._read()

    def batch(self):
        """Full handshakes with hosts by chance; the server's processor time for each."""
        before = self.ask()
        for _ in range(BATCH):
            self.shake_hands(f"host-{random.randrange(self.hosts)}.test")
        return (self.ask()["cpu"] - before["cpu"]) / BATCH

    def shake_hands(self, name):
        with (
            socket.create_connection(("127.0.0.1", self.made["port"]), GENEROUS) as plain,
            self.context.wrap_socket(plain, server_hostname=name) as secure,
        ):
            secure.sendall(f"GET / HTTP/1.1\r\nHost: {name}\r\nConnection: close\r\n\r\n".encode())
            assert secure.recv(4096).startswith(b"HTTP/1.1 200")
            assert not secure.session_reused
        self.shaken += 1

    def close(self):
        self.process.stdin.close()
        assert self._read()["handshakes"] == self.shaken
        self.process.wait(GENEROUS)
        self.process.stdout.close()


@pytest.fixture
def start(folder):
    with contextlib.ExitStack() as stack:

        def start(hosts, certificates):
            server = Server(folder, hosts, certificates)
            stack.callback(server.close)
            return server

        yield start


@pytest.mark.parametrize(("certificates", "label"), [(1, "one certificate"), (CERTIFICATES, "1 000 certificates")])
def test_ten_thousand_hosts_load_in_seconds(start, capsys, certificates, label):
    server = start(MANY, certificates)
    made, each = server.made, server.made["size"] / MANY
    with capsys.disabled():
        print(f"\n  {MANY} hosts with {label}: {made['cpu']:.2f} s, {each / 1024:.1f} KiB each", end=" ")
    assert made["cpu"] < SECONDS
    assert each < EACH
    # Any of them answers, with the certificate that it was given.
    for number in random.sample(range(certificates), min(5, certificates)):
        server.shake_hands(f"host-{number}.test")


def test_a_thousand_hosts_cost_a_handshake_nothing(start, capsys):
    one, thousand = start(1, 1), start(CERTIFICATES, CERTIFICATES)
    one.batch(), thousand.batch()
    pairs = [(one.batch(), thousand.batch()) for _ in range(BATCHES)]
    ratio = statistics.median(many / few for few, many in pairs)
    with capsys.disabled():
        few, many = (statistics.median(times) * 1e6 for times in zip(*pairs, strict=True))
        print(
            f"\n  a new connection: {few:.0f} µs with one host, {many:.0f} with {CERTIFICATES}; ratio {ratio:.2f}",
            end=" ",
        )
    assert ratio < RATIO
