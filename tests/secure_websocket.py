"""The client of `websockets` over TLS, for tests that block."""

from __future__ import annotations

import asyncio
import threading

from websockets.asyncio.client import connect as connect_async

from clients import GENEROUS


class connect:
    """What `websockets.sync.client.connect` is, in one thread: that one reads on a thread of its own while it writes, which
    OpenSSL does not allow and Python does not prevent (python/cpython#143756). One handshake in a hundred or two was
    never sent by it, to any server."""

    def __init__(self, url, **options):
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        try:
            self._client = self._do(self._open(url, options))
        except BaseException:
            self._end()
            raise

    @staticmethod
    async def _open(url, options):
        return await connect_async(url, **options)

    def _do(self, coroutine, timeout=GENEROUS):
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(timeout)

    def _end(self):
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        try:
            self._do(self._client.close())
        finally:
            self._end()

    def __getattr__(self, name):
        """What needs no waiting, as `close_code` and `subprotocol`."""
        return getattr(self._client, name)

    def send(self, message):
        self._do(self._client.send(message))

    def recv(self, timeout=GENEROUS):
        return self._do(self._client.recv(), timeout)

    def ping(self):
        """Until it is answered."""

        async def ping():
            await (await self._client.ping())

        self._do(ping())

    def close(self, *reason):
        self._do(self._client.close(*reason))
