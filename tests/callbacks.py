"""Callbacks of connections without HTTP, for tests of `listen(stream=...)`."""

import queue
import struct

import pytest

from clients import GENEROUS

CUT_OFF = struct.pack("ii", 1, 0)  # SO_LINGER: close with RST


def echo(conn):
    while data := conn.read(65536):
        conn.write(data)


async def echo_async(conn):
    while data := await conn.read(65536):
        await conn.write(data)


BOTH = pytest.mark.parametrize("callback", [echo, echo_async])
OVER = pytest.mark.parametrize("tls", [True, False], ids=["tls", "plain"])


class Calls:
    """A callback that hands each connection to the test, and keeps what came of it."""

    def __init__(self, body):
        self.body, self.ended = body, queue.Queue()

    def __call__(self, conn):
        try:
            self.ended.put(self.body(conn))
        except BaseException as exception:
            self.ended.put(exception)
            raise

    def outcome(self):
        return self.ended.get(timeout=GENEROUS)
