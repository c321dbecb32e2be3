"""Sessions in a file of SQLite, which survive restarts; for any number of processes of one machine."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
import time
import weakref
from collections.abc import Iterator
from typing import Any

from .._errors import ConfigError, SessionError
from ._store import Lock, Locked, Record, Store

# "pses": this file is ours (https://www.sqlite.org/fileformat.html#application_id), and its layout.
_APPLICATION = 0x70736573
_LAYOUT = 1
_SCHEMA = """
    CREATE TABLE IF NOT EXISTS sessions (
        key TEXT PRIMARY KEY NOT NULL,
        version TEXT NOT NULL,
        value BLOB NOT NULL,
        ends INTEGER NOT NULL,
        expires REAL NOT NULL,
        owner TEXT NOT NULL DEFAULT '',
        until REAL NOT NULL DEFAULT 0
    );
    CREATE INDEX IF NOT EXISTS sessions_expires ON sessions (expires);
"""
# How long one process waits for another that writes, in seconds.
_BUSY = 5.0
# What is only read is written to the file when that makes it last so many seconds longer: one write a second at the
# most.
_WORTH_A_WRITE = 1.0
# Sessions that have ended are removed after so many commits, as many at a time.
_CLEAN_EVERY = 64
_CLEAN_MOST = 1000
# A file of up to so many bytes is looked through when it is opened: 0.1 s or so. Of others, damage shows in use.
_LOOKED_THROUGH = 64 * 2**20


class SQLiteStore(Store):
    """Sessions in the file `path`, which is made where there is none, for its owner alone. The file grows to
    `max_bytes` (1 GiB) at the most; new sessions are refused then, and old ones end as they do.

    Commits are safe from a process that dies; a machine that does may lose the last ones (`synchronous=NORMAL`). The
    file has to be on a disk of this machine: SQLite's locks do not work over a network.

    Raises `ConfigError` where the file cannot be opened, or is damaged or something else; it is left as it is then."""

    def __init__(self, path: str | os.PathLike[str], *, max_bytes: int = 2**30) -> None:
        if not isinstance(max_bytes, int) or isinstance(max_bytes, bool) or max_bytes < 2**16:
            raise ConfigError(f"SQLiteStore: max_bytes is a whole number from {2**16} on, not {max_bytes!r}")
        self._path = os.path.abspath(path)
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None
        self._commits = 0
        try:
            with self._lock:
                self._look_through(self._connect())
            _stores.add(self)
        except (sqlite3.Error, OSError) as error:
            raise ConfigError(
                f"sessions: {self._path} cannot be a store of sessions ({error}): give another path, or move it away; "
                "sessions in it are lost then, and a new one is made"
            ) from error

    def load(self, key: str, now: float, idle: float, lock: Lock | None = None) -> Record | None:
        with self._transaction(writes=lock is not None) as run:
            row = run(
                "SELECT version, value, ends, expires, owner, until FROM sessions WHERE key = ? AND expires > ?",
                (key, now),
            ).fetchone()
            if row is None:
                return None
            version, value, ends, before, owner, until = row
            expires = min(now + idle, ends)
            if lock is not None:
                if owner not in ("", lock.owner) and until > now:
                    raise Locked
                run(
                    "UPDATE sessions SET expires = ?, owner = ?, until = ? WHERE key = ?",
                    (expires, lock.owner, now + lock.lease, key),
                )
            elif expires - before >= _WORTH_A_WRITE:
                run("UPDATE sessions SET expires = ? WHERE key = ?", (expires, key))
        return Record(version, value, ends)

    def commit(
        self, key: str, record: Record, replaces: tuple[str, str] | None, now: float, idle: float, owner: str
    ) -> bool:
        there, version = replaces or (key, None)
        expired = 0
        with self._transaction(writes=True) as run:
            row = run(
                "SELECT version, owner, until FROM sessions WHERE key = ? AND expires > ?", (there, now)
            ).fetchone()
            if (row[0] if row else None) != version:
                return False
            if row is not None and row[1] not in ("", owner) and row[2] > now:
                raise Locked
            self._commits += 1
            if self._commits % _CLEAN_EVERY == 1:
                expired = run(
                    "DELETE FROM sessions WHERE key IN (SELECT key FROM sessions WHERE expires <= ? LIMIT ?)",
                    (now, _CLEAN_MOST),
                ).rowcount
            if there != key:
                run("DELETE FROM sessions WHERE key = ?", (there,))
            run(
                "INSERT OR REPLACE INTO sessions (key, version, value, ends, expires) VALUES (?, ?, ?, ?, ?)",
                (key, record.version, record.value, record.ends, min(now + idle, record.ends)),
            )
        self._counts.ended("expired", expired)
        return True

    def unlock(self, key: str, owner: str) -> None:
        with self._transaction(writes=True) as run:
            run("UPDATE sessions SET owner = '' WHERE key = ? AND owner = ?", (key, owner))

    def delete(self, key: str) -> bool:
        with self._transaction(writes=True) as run:
            deleted: int = run("DELETE FROM sessions WHERE key = ?", (key,)).rowcount
        return deleted > 0

    def close(self) -> None:
        with self._lock:
            self._disconnect()

    def __del__(self) -> None:
        if getattr(self, "_connection", None) is not None:
            self.close()

    def __repr__(self) -> str:
        return f"<SQLiteStore {self._path}>"

    @contextlib.contextmanager
    def _transaction(self, *, writes: bool) -> Iterator[Any]:
        """Gives what runs statements, in one transaction where they write."""
        try:
            with self._lock:
                connection = self._connect()
                if not writes:
                    yield connection.execute
                    return
                connection.execute("BEGIN IMMEDIATE")
                try:
                    yield connection.execute
                except BaseException:
                    connection.rollback()
                    raise
                connection.execute("COMMIT")
        except (sqlite3.Error, OSError) as error:
            raise SessionError(f"sessions: {self._path} cannot be used: {error}") from error

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _connect(self) -> sqlite3.Connection:
        if self._connection is not None:
            return self._connection
        with _opening:
            # For its owner alone; what SQLite puts beside it is made with the same mode. A file that is there is not
            # opened by hand: closing it would give up the locks that SQLite has on it (SQLite, howtocorrupt, 2.2).
            with contextlib.suppress(FileExistsError):
                os.close(os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
            connection = sqlite3.connect(self._path, timeout=_BUSY, isolation_level=None, check_same_thread=False)
            try:
                self._prepare(connection)
            except BaseException:
                connection.close()
                raise
        self._connection = connection
        return connection

    def _prepare(self, connection: sqlite3.Connection) -> None:
        # In one transaction: another process may be making the file just now.
        connection.execute("BEGIN")
        application, layout = _pragma(connection, "application_id"), _pragma(connection, "user_version")
        is_empty = not connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
        connection.execute("COMMIT")
        if application != _APPLICATION and not (is_empty and application == 0):
            raise sqlite3.DatabaseError("it is a database of something else")
        if layout not in (0, _LAYOUT):
            raise sqlite3.DatabaseError(f"its layout {layout} is not the one that is known here, {_LAYOUT}")
        # Readers and a writer do not wait for each other.
        _keep_a_log(connection)
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute(f"PRAGMA max_page_count = {self._max_bytes // _pragma(connection, 'page_size')}")
        if application == 0:
            connection.execute(f"PRAGMA application_id = {_APPLICATION}")
            connection.execute(f"PRAGMA user_version = {_LAYOUT}")
        connection.executescript(_SCHEMA)

    def _look_through(self, connection: sqlite3.Connection) -> None:
        is_small = _pragma(connection, "page_count") * _pragma(connection, "page_size") <= _LOOKED_THROUGH
        if is_small and (found := _pragma(connection, "quick_check(1)")) != "ok":
            raise sqlite3.DatabaseError(f"it is damaged: {found}")


def _keep_a_log(connection: sqlite3.Connection) -> None:
    """Write-ahead logging. SQLite does not wait where another process asks for it at the same moment: that it is busy
    it says at once, so the waiting is here."""
    until = time.monotonic() + _BUSY
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > until:
                raise
        time.sleep(0.005)


def _pragma(connection: sqlite3.Connection, text: str) -> Any:
    return connection.execute(f"PRAGMA {text}").fetchone()[0]


# No connection outlives a fork, in either process (SQLite, howtocorrupt, 2.6). Leaving it alone in the child is not
# enough: SQLite there takes the locks of the parent, which the child has not, for its own, in a new one too. What
# the child then kept went into a log that the parent had removed at its end, and was lost.
_stores: weakref.WeakSet[SQLiteStore] = weakref.WeakSet()
_held: list[SQLiteStore] = []
# One connection at a time is opened, so that a file just made by hand is closed before SQLite has locks on it.
_opening = threading.Lock()


def _before_fork() -> None:
    # In one order, for the case that two threads fork. A store in whose middle this very thread is, by a signal, is not
    # waited for for ever.
    for store in sorted(_stores, key=id):
        if store._lock.acquire(timeout=_BUSY):
            _held.append(store)
            with contextlib.suppress(sqlite3.Error):
                store._disconnect()
    _opening.acquire(timeout=_BUSY)


def _after_fork() -> None:
    with contextlib.suppress(RuntimeError):
        _opening.release()
    while _held:
        _held.pop()._lock.release()


os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork)
