"""Sessions: what a server remembers of each client, between requests and over all handlers, as `request.session`.

A signed cookie names the session, a store keeps it: memory, a file of SQLite, or Redis. docs/sessions.md tells the
whole."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ._memory import MemoryStore
from ._redis import RedisStore
from ._session import Session
from ._sessions import Sessions
from ._store import Lock, Locked, Record, Store

if TYPE_CHECKING:
    from ._sqlite import SQLiteStore

__all__ = [
    "Lock",
    "Locked",
    "MemoryStore",
    "Record",
    "RedisStore",
    "SQLiteStore",
    "Session",
    "Sessions",
    "Store",
]

# What a traceback prints is what can be imported.
for _public in (Lock, Locked, MemoryStore, Record, RedisStore, Session, Sessions, Store):
    _public.__module__ = "portico.sessions"


def __getattr__(name: str) -> Any:
    # Loaded when asked for: not every Python is built with SQLite.
    if name == "SQLiteStore":
        from ._sqlite import SQLiteStore

        SQLiteStore.__module__ = "portico.sessions"
        return SQLiteStore
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
