"""What was found wrong in forms, decoded bodies, sessions and HTTP/2's 100 Continue by attacking them together."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading

import h2.errors
import h2.events
import pytest

from forms import MULTIPART
from frames import H2
from portico.sessions import MemoryStore, Record, Sessions


@pytest.mark.parametrize("settings", [{}, {"handler_timeout": 60}], ids=["plain", "with a deadline"])
@pytest.mark.parametrize("expects", [(), (("expect", "100-continue"),)], ids=["at once", "told to go on"])
def test_a_coroutine_whose_client_was_told_to_go_on_is_cancelled_by_a_reset(serve, expects, settings):
    has_body, cancelled = threading.Event(), threading.Event()

    async def handler(request):
        await request.read()
        has_body.set()
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            cancelled.set()
            raise
        return {"statusCode": 200}

    handler.stream_body = True
    with serve(handler, **settings).wire() as wire:
        client = H2(wire)
        stream = client.open(*expects, method="POST", end=False)
        if expects:
            assert client.wait_for(h2.events.InformationalResponseReceived, stream)
        client.data(stream, b"all", end=True)
        assert has_body.wait(20)
        client.connection.reset_stream(stream, h2.errors.ErrorCodes.CANCEL)
        client.flush()
        assert cancelled.wait(20)


def test_what_a_forked_child_keeps_in_sqlite_outlives_its_parents_connection(tmp_path):
    path = tmp_path / "s.db"
    program = f"""
import os, time
from portico.sessions import Record, SQLiteStore
now, (go, gone), (ready, begun) = time.time(), os.pipe(), os.pipe()
def keep(store, key):
    assert store.commit(key, Record("v", b"x", int(now) + 1000), None, now, 500, "")
store = SQLiteStore({str(path)!r})
keep(store, "parent")
child = os.fork()
if not child:
    keep(store, "one")
    os.write(begun, b"x")
    os.read(go, 1)
    keep(store, "two")
    os._exit(0)
os.read(ready, 1)
store.close()
os.write(gone, b"x")
assert os.waitpid(child, 0)[1] == 0
store = SQLiteStore({str(path)!r})
assert all(store.load(key, now, 500) for key in ("parent", "one", "two"))
"""
    subprocess.run([sys.executable, "-c", program], timeout=60, check=True)


def test_a_fork_while_another_thread_uses_a_store_leaves_it_to_the_child(tmp_path):
    program = f"""
import os, threading, time
from portico.sessions import Record, SQLiteStore
now, store = time.time(), SQLiteStore({str(tmp_path / "s.db")!r})
def use():
    for number in range(10**9):
        store.commit(str(number), Record("v", bytes(10_000), int(now) + 1000), None, now, 500, "")
threading.Thread(target=use, daemon=True).start()
for _ in range(20):
    time.sleep(0.003)
    child = os.fork()
    if not child:
        store.load("0", now, 500)
        os._exit(0)
    end = time.monotonic() + 20
    while not (ended := os.waitpid(child, os.WNOHANG))[0]:
        if time.monotonic() > end:
            os.kill(child, 9)
            os._exit(3)
        time.sleep(0.001)
    assert ended[1] == 0
os._exit(0)
"""
    subprocess.run([sys.executable, "-c", program], timeout=120, check=True)


class Slow(Record):
    """A record that takes its time to be read."""

    read, go = threading.Event(), threading.Event()

    @property
    def value(self):
        self.read.set()
        assert self.go.wait(20)
        return self[1]


class SlowStore(MemoryStore):
    waits, is_slow = True, False

    def load(self, *arguments):
        record = super().load(*arguments)
        return Slow(*record) if record is not None and self.is_slow else record


def test_a_session_whose_load_was_given_up_is_not_left_locked(serve):
    store = SlowStore()

    async def handler(request):
        if request.path == "/given-up":
            loading = asyncio.ensure_future(request.session.load(lock=True))
            await asyncio.to_thread(Slow.read.wait, 20)
            loading.cancel()
        else:
            (await request.session.load(lock=True))["a"] = 1
        return {"statusCode": 200}

    served = serve(handler, sessions=Sessions(store=store, lock_timeout=5))
    with served.httpx() as visitor:
        assert visitor.get("/").status_code == 200
        store.is_slow = True
        assert visitor.get("/given-up").status_code == 200
        Slow.go.set()
        store.is_slow = False
        assert visitor.get("/").status_code == 200


@pytest.mark.parametrize("how", ["given up", "still reading"])
def test_what_is_left_of_a_form_does_not_pass_for_the_body(serve, how):
    part = b'--X\r\ncontent-disposition: form-data; name="a"\r\n\r\n' + bytes(100_000)

    async def read(request):
        await request.form()

    async def handler(request):
        reading = asyncio.ensure_future(read(request))
        await asyncio.sleep(0.1)
        if how == "given up":
            reading.cancel()
        try:
            return {"statusCode": 200, "body": await request.read()}
        except RuntimeError as error:
            return {"statusCode": 200, "body": str(error)}

    handler.stream_body = True
    with serve(handler).wire() as wire:
        wire.send(
            f"POST / HTTP/1.1\r\nhost: localhost\r\ncontent-type: {MULTIPART}\r\ncontent-length: {len(part) + 9}\r\n\r\n"
        )
        wire.send(part)
        assert "read as a form" in wire.read().text
