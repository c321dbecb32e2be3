"""Certificates that change under load: no request is lost, and every handshake sees one that was in place."""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes

from clients import GENEROUS, wait_until
from measures import resident
from portico import _core

SWAPS = 100
CLIENT = Path(__file__).with_name("swap_client.py")
# The connections' buffers come and go under load; what a swap leaves behind is looked for where there is none.
ROOM = 2**20


def hello(request):
    return {"statusCode": 200, "body": "hello"}


@pytest.fixture
def pairs():
    """An authority, and two certificates by it for one host."""
    authority, key = _core.make_authority("swap")
    return authority, [_core.issue_certificate(authority, key, ["localhost"], 1) for _ in range(2)]


def fingerprint(chain):
    return x509.load_pem_x509_certificates(chain.encode())[0].fingerprint(hashes.SHA256()).hex()


def wait_for_work(server, *, requests, handshakes):
    """Waits until so many more of both are done."""

    def done():
        stats = server.stats()
        return sum(stats["requests"].values()), stats["handshakes"]

    first = done()
    wait_until(lambda: done()[0] >= first[0] + requests and done()[1] >= first[1] + handshakes, "the clients to work")


class Swapped:
    """A server whose one certificate changes, by new bytes or by new files."""

    def __init__(self, server, folder, pairs, by):
        self.server, self.pairs, self.by = server, pairs, by
        self.cert, self.key = folder / "localhost.crt", folder / "localhost.key"
        self._write(0)
        self.context = server.add_context("localhost", cert=self.cert, key=self.key)
        self.port = server.listen(0).port

    def _write(self, number):
        """Each file whole at any time; the pair is checked when it is loaded, so between the two no reload must be."""
        for path, content in zip((self.cert, self.key), self.pairs[number % 2], strict=True):
            draft = path.with_suffix(".draft")
            draft.write_text(content)
            os.replace(draft, path)

    def swap(self, number):
        if self.by == "files":
            self._write(number)
            self.context.reload()
        else:
            cert, key = self.pairs[number % 2]
            self.context.replace(cert=cert.encode(), key=key.encode())


@pytest.mark.parametrize("by", ["bytes", "files"])
def test_a_hundred_swaps_lose_no_request(make_server, pairs, tmp_path, by):
    authority, two = pairs
    (tmp_path / "ca.pem").write_text(authority)
    server = make_server(hello)
    swapped = Swapped(server, tmp_path, two, by)
    command = [sys.executable, CLIENT, str(swapped.port), tmp_path / "ca.pem", "8", "8"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as client:
        try:
            sizes = []
            for number in range(1, SWAPS + 1):
                # Between two swaps there is work of both kinds, however slow the machine.
                wait_for_work(server, requests=40, handshakes=4)
                swapped.swap(number)
                if number % 25 == 0:
                    gc.collect()
                    sizes.append(resident())
            told, _ = client.communicate("stop\n", GENEROUS)
        finally:
            client.kill()
    told = json.loads(told)
    assert told["errors"] == []
    assert len(told["sent"]) == 16
    assert told["answered"] == told["sent"]
    assert sum(told["sent"].values()) >= SWAPS * 40
    # Both were seen, and no other.
    assert set(told["shown"]) == {fingerprint(chain) for chain, _ in two}
    assert sum(told["shown"].values()) >= SWAPS * 4
    assert sum(server.stats()["handshakes_failed"].values()) == 0
    assert sizes[-1] - sizes[0] < ROOM, [size // 1024 for size in sizes]


@pytest.mark.parametrize("by", ["bytes", "files"])
def test_swaps_leave_nothing_behind(make_server, pairs, tmp_path, by):
    """A context holds 5 KiB and more."""
    swapped = Swapped(make_server(hello), tmp_path, pairs[1], by)

    def resident_after(swaps):
        for number in range(swaps):
            swapped.swap(number)
        gc.collect()
        return resident()

    before = resident_after(500)
    assert resident_after(2000) - before < 2000 * 512


def test_a_swap_that_fails_changes_nothing_under_load(make_server, pairs, tmp_path):
    authority, two = pairs
    (tmp_path / "ca.pem").write_text(authority)
    server = make_server(hello)
    swapped = Swapped(server, tmp_path, two, "files")
    command = [sys.executable, CLIENT, str(swapped.port), tmp_path / "ca.pem", "2", "2"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as client:
        try:
            for content in ("", "junk", two[1][0], two[0][0][:-100]):
                wait_for_work(server, requests=5, handshakes=5)
                # A certificate alone, without its key, is what a reload between two writes would see.
                swapped.cert.write_text(content)
                with pytest.raises(ValueError, match="localhost"):
                    swapped.context.reload()
            wait_for_work(server, requests=5, handshakes=5)
            told, _ = client.communicate("stop\n", GENEROUS)
        finally:
            client.kill()
    told = json.loads(told)
    assert told["errors"] == []
    assert told["answered"] == told["sent"]
    assert set(told["shown"]) == {fingerprint(two[0][0])}
