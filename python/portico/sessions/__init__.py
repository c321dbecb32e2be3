"""Sessions: what a server remembers of each client, between requests and over all handlers, as `request.session`.

A signed cookie names the session, a store keeps it: memory, a file of SQLite, or Redis. docs/sessions.md tells the
whole."""

from __future__ import annotations

from ._memory import MemoryStore
from ._redis import RedisStore
from ._session import Session
from ._sessions import Sessions
from ._sqlite import SQLiteStore
from ._store import Lock, Locked, Record, Store

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
for _name in __all__:
    globals()[_name].__module__ = "portico.sessions"
