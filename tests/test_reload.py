"""Changed and ended without losing a request: what clients that never try again have sent is answered, every time."""

import contextlib
import functools
import time

import pytest

import portico
import reload_mains
from clients import trusting, wait_until
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
