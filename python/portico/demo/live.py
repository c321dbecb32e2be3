"""What goes on while somebody looks: a clock by server-sent events, a chat by WebSocket. Both are `async def`, and so
run on one event loop: no locks."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable
from typing import Any, cast
from urllib.parse import urlsplit

import portico
from portico.demo.site import Response

MOST_WATCHERS = 200
MOST_GUESTS = 100
MAX_LINE = 300
_REMEMBERED = 20
# So many lines may wait for one guest; a slower one is let go, so that the others need not wait.
_BEHIND = 50


class Clock:
    """Answers with the server's time, once a second."""

    def __init__(self) -> None:
        self._watchers = 0

    async def handle(self, request: portico.Request) -> Response:
        """The handler."""
        if self._watchers >= MOST_WATCHERS:
            return portico.error(503)
        return portico.event_stream(self._ticks())

    async def _ticks(self) -> AsyncIterator[str]:
        self._watchers += 1
        try:
            while True:
                now = time.time()
                yield json.dumps({"now": now, "zone": time.strftime("%z"), "watchers": self._watchers})
                # As the next second begins, and never in the one that was told.
                await asyncio.sleep(1.001 - now % 1)
        finally:
            self._watchers -= 1


class Chat:
    """What one guest says all hear. Nothing is kept but the newest lines."""

    def __init__(self) -> None:
        self._guests: dict[str, asyncio.Queue[str]] = {}
        self._lines: deque[str] = deque(maxlen=_REMEMBERED)
        self._count = 0
        self._socket = portico.websocket(self._talk, max_message_bytes=4 * MAX_LINE, idle_timeout=1800)

    async def handle(self, request: portico.Request) -> Response:
        """The handler. Pages of other sites, which a visitor has open too, are not let in: browsers name them."""
        origin = request.headers.get("origin")
        if origin is not None and urlsplit(origin).netloc != request.headers.get("host"):
            return portico.error(403)
        if len(self._guests) >= MOST_GUESTS:
            return portico.error(503)
        return await cast(Awaitable[Response], self._socket(request))

    async def _talk(self, ws: portico.AsyncWebSocket) -> None:
        self._count += 1
        name = f"Guest {self._count}"
        lines: asyncio.Queue[str] = asyncio.Queue(_BEHIND)
        for line in (_line(you=name), *self._lines):
            lines.put_nowait(line)
        self._guests[name] = lines
        self._tell(who=name, does="came in")
        writing = asyncio.create_task(self._write(ws, name, lines))
        try:
            async for message in ws:
                said = " ".join(str(message).split())[:MAX_LINE]
                if isinstance(message, str) and said and name in self._guests:
                    self._tell(who=name, says=said)
        finally:
            writing.cancel()
            self._guests.pop(name, None)
            self._tell(who=name, does="left")

    async def _write(self, ws: portico.AsyncWebSocket, name: str, lines: asyncio.Queue[str]) -> None:
        with contextlib.suppress(portico.WebSocketError):  # A guest who has gone: `_talk` hears of that too.
            while name in self._guests:
                await ws.send(await lines.get())
            await ws.close(1013, "too slow")

    def _tell(self, **what: Any) -> None:
        line = _line(**what, here=len(self._guests))
        if "says" in what:
            self._lines.append(_line(**what))
        for name, lines in list(self._guests.items()):
            try:
                lines.put_nowait(line)
            except asyncio.QueueFull:
                del self._guests[name]


def _line(**what: Any) -> str:
    return json.dumps(what)
