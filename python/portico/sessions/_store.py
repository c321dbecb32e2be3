"""What a store of sessions is: records by key, of which each has a version and perhaps a lock.

A store understands neither cookies nor what it keeps: values are sealed before they come here."""

from __future__ import annotations

from abc import ABC, abstractmethod
from functools import cached_property
from typing import NamedTuple

from .._core import SessionCounts


class Record(NamedTuple):
    """One session as a store keeps it."""

    version: str
    """Another one after each change."""
    value: bytes
    """Its contents, signed."""
    ends: int
    """When it ends however much it is used, in seconds since 1970."""


class Lock(NamedTuple):
    """Asks for a session alone."""

    owner: str
    """Who asks; the same one may ask again."""
    lease: float
    """After so many seconds it is anybody's again, in case its owner has died."""


class Locked(Exception):
    """Somebody else has the session alone just now. Ask again a little later."""


class Store(ABC):
    """Where sessions are kept. Called from any thread; `now` is in seconds since 1970, `idle` in seconds.

    Methods raise `portico.SessionError` where the store cannot be reached or is damaged, saying which and why."""

    waits: bool = True
    """Whether a call may take longer than memory does. On an event loop such a store is called on a thread."""

    @cached_property
    def _counts(self) -> SessionCounts:
        """What becomes of its sessions, for `stats()` and `/metrics` of the servers that use it."""
        return SessionCounts()

    @abstractmethod
    def load(self, key: str, now: float, idle: float, lock: Lock | None = None) -> Record | None:
        """The record at a key, which now has `idle` seconds again; None where there is none, or it has ended. With
        `lock` it is locked from now on. Raises `Locked` where somebody else has locked it."""

    @abstractmethod
    def commit(
        self, key: str, record: Record, replaces: tuple[str, str] | None, now: float, idle: float, owner: str
    ) -> bool:
        """Keeps a record in place of another one, in one step, and ends its lock.

        `replaces` is the key and the version of the other; with None there is none yet. Returns False, and changes
        nothing, where that is not what is there. Raises `Locked` where somebody but `owner` has locked it. Where
        answers may be lost on their way, a commit that was done already returns True the second time."""

    @abstractmethod
    def unlock(self, key: str, owner: str) -> None:
        """Ends the lock of that owner, where there is one."""

    @abstractmethod
    def delete(self, key: str) -> bool:
        """Ends a session, whoever has locked it. Whether there was one."""

    def close(self) -> None:  # noqa: B027 - most have nothing to give back
        """Gives back what it holds: files, connections."""
