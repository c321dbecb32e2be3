"""Stores of sessions for tests: the three kinds, a clock to turn, and a Redis that is started here."""

from __future__ import annotations

import contextlib
import shutil
import signal
import socket
import subprocess

import pytest

from clients import GENEROUS, wait_until
from portico.sessions import MemoryStore, RedisStore, Sessions, SQLiteStore

KINDS = ["memory", "sqlite", "redis"]
SECRET = "a line of thirty-two bytes or more, for tests"


class Clock:
    """The time, which goes on when told to."""

    def __init__(self):
        self.now = 1_800_000_000.0

    def __call__(self):
        return self.now


class RedisServer:
    """A Redis on a free port, with its files in a folder of its own."""

    def __init__(self, folder):
        self.folder = folder
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self.process = None

    def start(self):
        options = f"--port {self.port} --bind 127.0.0.1 --appendonly yes --appendfsync always".split()
        options += ["--save", "", "--dir", str(self.folder), "--unixsocket", str(self.folder / "socket")]
        with (self.folder / "log").open("a") as log:
            self.process = subprocess.Popen(["redis-server", *options], stdout=log, stderr=log)
        wait_until(self.answers, "Redis to answer")

    def answers(self):
        assert self.process.poll() is None, (self.folder / "log").read_text()
        import redis

        with contextlib.suppress(redis.RedisError), redis.Redis(port=self.port, socket_timeout=GENEROUS) as client:
            return client.ping()

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(GENEROUS)

    def close(self):
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            self.process.wait(GENEROUS)


@contextlib.contextmanager
def redis_server(folder):
    if not shutil.which("redis-server"):
        pytest.skip("redis-server is not installed")
    pytest.importorskip("redis", reason="the Python package redis is not installed")
    folder.mkdir(exist_ok=True)
    server = RedisServer(folder)
    try:
        server.start()
        yield server
    finally:
        server.close()


class Stores:
    """Makes stores of one kind that share what they keep, but for memory; sessions over them; and closes them all."""

    def __init__(self, kind, folder, redis_url):
        self.kind, self.folder, self.redis_url = kind, folder, redis_url
        self.clock = Clock()
        self._memory = MemoryStore()
        self._stack = contextlib.ExitStack()

    def url(self):
        return {"memory": "memory:", "sqlite": f"sqlite:{self.folder / 'sessions.db'}"}.get(self.kind, self.redis_url)

    def store(self):
        if self.kind == "memory":
            return self._memory
        store = SQLiteStore(self.folder / "sessions.db") if self.kind == "sqlite" else RedisStore(self.redis_url)
        self._stack.callback(store.close)
        return store

    def sessions(self, **options):
        made = Sessions(**{"secret": SECRET, "store": self.store(), **options})
        made._clock = self.clock
        return made

    def close(self):
        self._stack.close()


# ---- a handler that does to its session what the path says


def act(request):
    session, (_, what, *rest) = request.session, request.path.split("/")
    if what == "set":
        session[rest[0]] = rest[1]
    elif what == "count":
        session["n"] = session.get("n", 0) + 1
        return {"statusCode": 200, "body": str(session["n"])}
    elif what == "append":
        session.setdefault("list", []).append(rest[0])
    elif what == "append-inside":
        session["list"].append(rest[0])
    elif what == "del":
        del session[rest[0]]
    elif what == "state":
        session.state = rest[0].encode()
    elif what == "clear":
        session.clear()
    elif what == "renew":
        session.renew()
    elif what == "end":
        session.end()
    elif what == "end-and-set":
        session.end()
        session[rest[0]] = rest[1]
    elif what == "raise":
        session["raised"] = True
        raise ValueError("as asked")
    elif what == "no-response":
        session["raised"] = True
        return {"statusCode": "none"}
    return {"statusCode": 200, "body": repr((dict(session), session.state))}


async def act_async(request):
    await request.session.load()
    return act(request)
