"""Sessions in the memory of one process."""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from dataclasses import dataclass

from .._errors import ConfigError
from ._store import Lock, Locked, Record, Store

_logger = logging.getLogger("portico.session")

# What one takes beside its value, about: measured with tracemalloc, 650 to 700 bytes.
_OVERHEAD = 700
# A store that is full says so once in so many seconds.
_TOLD = 60.0


@dataclass
class _Entry:
    record: Record
    expires: float
    owner: str = ""
    until: float = 0.0

    def is_locked_for(self, owner: str, now: float) -> bool:
        return self.owner not in ("", owner) and self.until > now

    @property
    def size(self) -> int:
        return len(self.record.value) + _OVERHEAD


class MemoryStore(Store):
    """Sessions in this process alone; they end with it. The bound is `max_sessions` (10,000) and `max_bytes` (256 MiB)
    in all: past it those that were not used for the longest time end early, and the log says so."""

    waits = False

    def __init__(self, *, max_sessions: int = 10_000, max_bytes: int = 256 * 2**20) -> None:
        for name, value in (("max_sessions", max_sessions), ("max_bytes", max_bytes)):
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ConfigError(f"MemoryStore: {name} is a whole number from 1 on, not {value!r}")
        self._max_sessions = max_sessions
        self._max_bytes = max_bytes
        # Those used last at the end, and so, of one timeout, those that end first at the front.
        self._entries: OrderedDict[str, _Entry] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()
        self._told = float("-inf")

    def load(self, key: str, now: float, idle: float, lock: Lock | None = None) -> Record | None:
        with self._lock:
            entry = self._current(key, now)
            self._make_room(now)
            if entry is None:
                return None
            if lock is not None:
                if entry.is_locked_for(lock.owner, now):
                    raise Locked
                entry.owner, entry.until = lock.owner, now + lock.lease
            entry.expires = min(now + idle, entry.record.ends)
            self._entries.move_to_end(key)
            return entry.record

    def commit(
        self, key: str, record: Record, replaces: tuple[str, str] | None, now: float, idle: float, owner: str
    ) -> bool:
        with self._lock:
            there = self._current(replaces[0] if replaces else key, now)
            if (there.record.version if there else None) != (replaces[1] if replaces else None):
                return False
            if there is not None and there.is_locked_for(owner, now):
                raise Locked
            if replaces is not None:
                self._remove(replaces[0])
            entry = _Entry(record, min(now + idle, record.ends))
            self._entries[key] = entry
            self._bytes += entry.size
            self._counts.hold(len(self._entries))
            self._make_room(now)
            return True

    def unlock(self, key: str, owner: str) -> None:
        with self._lock:
            entry = self._entries.get(key)
            if entry is not None and entry.owner == owner:
                entry.owner = ""

    def delete(self, key: str) -> bool:
        with self._lock:
            return self._remove(key)

    def __len__(self) -> int:
        return len(self._entries)

    def _current(self, key: str, now: float) -> _Entry | None:
        entry = self._entries.get(key)
        if entry is not None and entry.expires <= now:
            self._remove(key)
            self._counts.ended("expired")
            return None
        return entry

    def _remove(self, key: str) -> bool:
        entry = self._entries.pop(key, None)
        if entry is None:
            return False
        self._bytes -= entry.size
        self._counts.hold(len(self._entries))
        return True

    def _make_room(self, now: float) -> None:
        evicted = expired = 0
        while self._entries:
            oldest = next(iter(self._entries))
            has_ended = self._entries[oldest].expires <= now
            is_full = len(self._entries) > self._max_sessions or self._bytes > self._max_bytes
            if not has_ended and not is_full:
                break
            self._remove(oldest)
            evicted += not has_ended
            expired += has_ended
        if expired or evicted:
            self._counts.ended("expired", expired)
            self._counts.ended("evicted", evicted)
        if evicted and now - self._told >= _TOLD:
            self._told = now
            _logger.warning(
                "sessions: the memory is full (%d sessions, %d bytes): those that were not used for the longest time "
                "end early; MemoryStore(max_sessions=, max_bytes=) gives it more",
                len(self._entries),
                self._bytes,
            )
