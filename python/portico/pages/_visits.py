"""Who visits: sessions by a random cookie, in memory.

A stand-in, to be replaced by `portico.sessions`: what is used of it is `open`, `commit` and `close`.
"""

from __future__ import annotations

import collections
import contextlib
import copy
import secrets
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from .._core import Request
from .._responses import Response, set_cookie

COOKIE = "portico_session"
_MOST = 10_000
_LONGEST_WAIT = 30.0


@dataclass
class _Record:
    values: dict[str, Any] = field(default_factory=dict)
    state: bytes | None = None
    used: float = 0.0
    lock: threading.Lock = field(default_factory=threading.Lock)


@dataclass
class Visit:
    """One request of a visitor. Nothing that is changed here counts before `commit`."""

    values: dict[str, Any]
    state: bytes | None
    _visits: Visits
    _record: _Record
    _key: str | None
    _secure: bool

    def commit(self, state: bytes, response: Response) -> None:
        """Keeps what the request has changed, and names the session to a visitor who is new."""
        self._record.values, self._record.state = self.values, state
        if self._key is None:
            key = self._visits.add(self._record)
            set_cookie(response, COOKIE, key, secure=self._secure)


class Visits:
    """All sessions of one handler. One that is idle for `timeout` seconds ends; of too many the longest idle."""

    def __init__(self, timeout: float) -> None:
        self._timeout = timeout
        self._lock = threading.Lock()
        self._records: collections.OrderedDict[str, _Record] = collections.OrderedDict()

    @contextlib.contextmanager
    def open(self, request: Request) -> Iterator[Visit | None]:
        """The visit that a request is part of. Requests of one visitor take turns; None where that takes too long."""
        key = request.cookies.get(COOKIE)
        record = self._find(key) if key else None
        if record is None:
            key, record = None, _Record()
        if not record.lock.acquire(timeout=_LONGEST_WAIT):
            yield None
            return
        try:
            yield Visit(
                copy.deepcopy(record.values) if record.values else {},
                record.state,
                self,
                record,
                key,
                request.connection.secure,
            )
        finally:
            record.lock.release()

    def add(self, record: _Record) -> str:
        """Keeps a new session; returns its key, which nobody can guess."""
        key = secrets.token_urlsafe(32)
        record.used = time.monotonic()
        with self._lock:
            self._records[key] = record
            while len(self._records) > _MOST:
                self._records.popitem(last=False)
        return key

    def _find(self, key: str) -> _Record | None:
        now = time.monotonic()
        with self._lock:
            while self._records:
                oldest = next(iter(self._records))
                if now - self._records[oldest].used < self._timeout:
                    break
                del self._records[oldest]
            record = self._records.get(key)
            if record is not None:
                record.used = now
                self._records.move_to_end(key)
            return record
