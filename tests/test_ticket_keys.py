"""Ticket keys in a Redis, by which several machines take up each other's TLS sessions."""

import contextlib
import logging
import os
import socketserver
import threading
import time

import pytest
import redis

import portico
import session_stores
from clients import trusting, wait_until
from test_tickets import V12, V13, start, tell, visit

__all__ = ["start"]  # a fixture


@pytest.fixture
def store(tmp_path):
    with session_stores.redis_server(tmp_path) as server:
        yield server


@pytest.fixture
def make_keys():
    """Makes keys of one machine, closed at the end."""
    made = []

    def make_keys(url, **more):
        made.append(portico.RedisTicketKeys(url, **{"poll_interval": 0.1, **more}))
        return made[-1]

    yield make_keys
    for keys in made:
        keys.close()


@pytest.mark.parametrize("version", [V12, V13])
@pytest.mark.parametrize("secret", [None, b"s" * 32], ids=["without secret", "secret"])
def test_machines_take_up_each_others_sessions(start, make_keys, store, ca_pem, version, secret):
    (_, one), (_, two) = [start(ticket_keys=make_keys(store.url, secret=secret)) for _ in range(2)]
    client = trusting(ca_pem, minimum=version, maximum=version)
    _, session = visit(one, client)
    assert visit(two, client, session)[0]


def test_who_has_another_secret_does_not(start, make_keys, store, ca_pem):
    secrets = [os.urandom(32), os.urandom(32), None]
    ports = [start(ticket_keys=make_keys(store.url, secret=secret))[1] for secret in secrets]
    client = trusting(ca_pem)
    _, session = visit(ports[0], client)
    assert [visit(port, client, session)[0] for port in ports[1:]] == [False, False]


def test_what_is_in_the_redis_is_no_key(make_keys, store):
    keys = make_keys(store.url, secret=b"s" * 32)
    with redis.Redis(port=store.port) as client:
        used = keys.current()
        (kept,) = client.zrange("portico:ticket-keys", 0, -1)
        assert 0 < client.pttl("portico:ticket-keys") <= (12 + 12 + 2) * 3_600_000
    assert used != [kept]
    assert make_keys(store.url).current() == [kept], "without a secret it is"


def test_keys_change_by_themselves_and_no_session_is_lost(start, make_keys, store, ca_pem):
    both = [make_keys(store.url, rotate_every=1.0) for _ in range(2)]
    (_, one), (_, two) = (start(ticket_keys=keys) for keys in both)
    client = trusting(ca_pem)
    first = both[0].current()[0]
    _, session = visit(one, client)
    turned = 0

    def is_over():
        # All the time, whoever has sealed, each of them opens.
        nonlocal session, turned
        for port in (two, one):
            resumed, session = visit(port, client, session)
            assert resumed
            turned += 1
        return both[1].current()[0] != first and both[0].current()[0] == both[1].current()[0]

    wait_until(is_over, "the next key to seal")
    assert first in both[1].current(), "the one before still opens"
    assert turned > 4
    with redis.Redis(port=store.port) as server:
        assert server.zcard("portico:ticket-keys") >= 2, "one was made for both, not one by each"
        wait_until(lambda: len({*both[0].current()} ^ {*both[1].current()}) == 0, "both to know the same")


def test_only_one_makes_the_next_key(make_keys, store):
    several = [make_keys(store.url) for _ in range(8)]
    assert len({keys.current()[0] for keys in several}) == 1


def test_a_redis_that_is_not_there_stops_nobody(start, make_keys, store, ca_pem, caplog):
    caplog.set_level(logging.INFO, "portico.certificate")
    store.kill()
    (_, one), (_, two) = (start(ticket_keys=make_keys(store.url)) for _ in range(2))
    assert "cannot be used" in caplog.text
    client = trusting(ca_pem)
    _, alone = visit(one, client)
    resumed, alone = visit(one, client, alone)
    assert resumed, "with keys of its own"
    assert not visit(two, client, alone)[0]
    store.start()

    def shared():
        _, session = visit(one, client)
        return visit(two, client, session)[0]

    wait_until(shared, "both to have the keys")
    assert visit(one, client, alone)[0], "and the session from before"
    assert "is there again" in caplog.text
    before = caplog.text.count("cannot be used")
    store.kill()
    assert shared()
    wait_until(lambda: caplog.text.count("cannot be used") > before, "the outage to be seen")
    assert shared(), "what was there stays"


def test_a_redis_that_has_lost_all_gets_new_keys(start, make_keys, store, ca_pem):
    both = [make_keys(store.url) for _ in range(2)]
    (_, one), (_, two) = (start(ticket_keys=keys) for keys in both)
    client = trusting(ca_pem)
    before = both[0].current()[0]
    _, session = visit(one, client)
    with redis.Redis(port=store.port) as server:
        server.flushall()
    wait_until(lambda: all(keys.current()[0] != before for keys in both), "a new key")
    assert both[0].current()[0] == both[1].current()[0]
    assert visit(two, client, session)[0], "what was sealed before is good as long as it was"


def test_what_else_is_written_there_is_let_out(make_keys, store):
    with redis.Redis(port=store.port) as server:
        server.zadd("portico:ticket-keys", {b"short": 5, b"x" * 33: 1e17})
        assert [len(key) for key in make_keys(store.url).current()] == [32]
        assert server.zcard("portico:ticket-keys") == 1, "nothing of the future, nothing of old"
        server.zadd("now", {b"short": time.time() * 1000})
        server.set("text", "that is no sorted set")
    for name in ("now", "text"):
        assert [len(key) for key in make_keys(store.url, name=name).current()] == [32]


def test_however_many_keys_come_and_go_there_few_are_remembered(make_keys, store):
    keys = make_keys(store.url)
    with redis.Redis(port=store.port) as server:
        for _ in range(8):
            server.delete("portico:ticket-keys")
            server.zadd("portico:ticket-keys", {os.urandom(32): time.time() * 1000 - 1 for _ in range(32)})
            keys._refresh()
    assert len(keys._seen) == len(keys.current()) == 32


class Odd(socketserver.StreamRequestHandler):
    """Speaks the protocol of a Redis, and answers scripts with what no Redis would."""

    def handle(self):
        with contextlib.suppress(OSError):
            while line := self.rfile.readline():
                words = []
                for _ in range(int(line[1:])):
                    words.append(self.rfile.read(int(self.rfile.readline()[1:])))
                    self.rfile.readline()
                self.wfile.write(self.server.answer if words[0].startswith(b"EVAL") else b"+OK\r\n")


@pytest.mark.parametrize(
    "answer",
    [
        b":5\r\n",
        b"$-1\r\n",
        b"*2\r\n:5\r\n:6\r\n",
        b"*2\r\n$3\r\ninf\r\n*0\r\n",
        b"*2\r\n:5\r\n*2\r\n:7\r\n:8\r\n",
        b"*2\r\n:5\r\n*2\r\n$1\r\nk\r\n*0\r\n",
        b"*3\r\n:5\r\n*0\r\n*0\r\n",
    ],
)
def test_an_odd_answer_is_an_outage(make_keys, caplog, answer):
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Odd) as server:
        server.daemon_threads, server.answer = True, answer
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            keys = make_keys(f"redis://127.0.0.1:{server.server_address[1]}")
            assert [len(key) for key in keys.current()] == [32]
            assert "cannot be used: its answer is none to what it was asked" in caplog.text
        finally:
            keys.close()
            server.shutdown()


def test_one_object_for_many_contexts_that_come_and_go(make_server, make_keys, store, issue, ca_pem):
    keys = make_keys(store.url, rotate_every=1.0)
    servers = [make_server(tell) for _ in range(2)]
    for server in servers:
        for host in ("one.test", "two.test"):
            server.add_context(host, **issue(host), ticket_keys=keys)
    ports = [server.listen(0).port for server in servers]
    servers[0].remove_context("two.test")
    first = keys.current()[0]
    wait_until(lambda: keys.current()[0] != first, "the next key")
    wait_until(lambda: len(servers[0]._rotating) == 1, "the context that was removed to be forgotten")
    client = trusting(ca_pem)
    _, session = visit(ports[0], client, sni="one.test")
    assert visit(ports[1], client, session, sni="one.test")[0]
    context = next(context for context in servers[1].contexts if context.host == "one.test")
    context.replace(**issue("one.test"))
    assert visit(ports[1], client, session, sni="one.test")[0], "a new certificate keeps them"
    thread = keys._thread
    for server in servers:
        server.close()
    thread.join(10)
    assert not thread.is_alive(), "nobody is left to look for"


@pytest.mark.parametrize(
    "wrong",
    [{"secret": b"short"}, {"secret": "text"}, {"poll_interval": 0}, {"rotate_every": 1}, {"url": "http://localhost"}],
)
def test_what_cannot_be_is_refused(wrong):
    with pytest.raises(portico.ConfigError, match="ticket keys: "):
        portico.RedisTicketKeys(**{"url": "redis://localhost", **wrong})
