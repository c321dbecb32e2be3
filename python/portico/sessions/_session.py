"""One client's session in one request: a mapping that is loaded when first used and kept when the handler has
returned."""

from __future__ import annotations

import asyncio
import logging
import math
import random
import secrets
import threading
import time
from collections.abc import Callable, Coroutine, Iterator, MutableMapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .._errors import SessionError
from .._responses import delete_cookie, set_cookie
from . import _contents, _signing
from ._store import Lock, Locked, Record

if TYPE_CHECKING:
    from .._core import SessionCounts
    from ._sessions import Sessions

_logger = logging.getLogger("portico.session")

# How soon to ask again for a session that is in use, in seconds: soon at first, since most handlers are short.
_FIRST_PAUSE = 0.001
_LONGEST_PAUSE = 0.025


@dataclass(frozen=True)
class Visit:
    """What a session needs to know of its request. The request itself holds the session, and is not to be held by
    it."""

    host: str
    path: str
    cookie: str | None
    """As it came; None where none did."""
    cookie_name: str
    secure: bool
    is_safe: bool
    """Its method is not meant to change anything (RFC 9110 section 9.2.1)."""
    on_loop: bool
    """Its handler was called on an event loop."""
    lease: float


class Session(MutableMapping[str, Any]):
    """A client's session, as `request.session`: a mutable mapping from str to plain data (None, bool, int, float, str,
    lists and dicts of them), empty for a client that has none yet.

    It is made at the first write, and kept when the handler has returned, before its response is sent; nothing is kept
    for a handler that raises. What is changed within a list or dict in it is kept too. `async def` handlers call `await
    session.load()` first where the store is not the memory: it must not hold up the event loop.

    Two requests of one session never lose what the other wrote. A request that may write has the session alone from
    when it first uses it: those by other methods than GET, HEAD, OPTIONS and TRACE, those at paths that have written
    lately, those whose first use is a write, and those that say `lock()`. Others read without waiting; where they write
    after all, and somebody else has written meanwhile, they are answered 503 with `Retry-After`.

    Raises `SessionError` where the store cannot be reached, or the session cannot be had in time. A handler that lets
    it pass answers 503. Raises `TypeError` or `ValueError` for what is not plain data, `RuntimeError` for a write after
    the response.
    """

    def __init__(self, sessions: Sessions, visit: Visit, settled: bool) -> None:
        self._sessions = sessions
        self._visit = visit
        # For how long it may be idle, which server pages may say for theirs.
        self._timeout = sessions._timeout
        self._owner = ""
        self._data: dict[str, Any] = {}
        self._packed = b"{}"
        self._state: bytes | None = None
        # The record that there is, and which key has signed its cookie; none for a new session.
        self._id: str | None = None
        self._key = ""
        self._record: Record | None = None
        self._signer = 0
        self._loaded = False
        # The key that is locked for this request; for how long a lock is its own, and was when it was locked.
        self._locked: str | None = None
        self._lease = visit.lease
        self._locked_for = 0.0
        # Somebody has looked at what was loaded.
        self._used = False
        self._changed = False
        # Somebody has a list or a dict of it, which may be changed without our knowing.
        self._lent = False
        self._renewed = False
        # The key of a session that was ended.
        self._ended: str | None = None
        # What is changed from now on is not kept.
        self._settled = settled
        # Between a thread that locks and an event loop that has given up on it.
        self._giving_up = threading.Lock()
        self._read_cookie()

    # ---- the mapping

    def __getitem__(self, name: str) -> Any:
        value = self._read()[name]
        self._lent = self._lent or isinstance(value, (list, dict))
        return value

    def __setitem__(self, name: str, value: Any) -> None:
        if not isinstance(name, str):
            raise TypeError(f"session[{name!r}]: a session's keys are str, not {type(name).__name__}")
        _contents.check_plain(value, f"session[{name!r}]")
        self._write()[name] = value
        self._changed = True

    def __delitem__(self, name: str) -> None:
        del self._write()[name]
        self._changed = True

    def __iter__(self) -> Iterator[str]:
        return iter(self._read())

    def __len__(self) -> int:
        return len(self._read())

    def __contains__(self, name: object) -> bool:
        return name in self._read()

    def clear(self) -> None:
        """Takes everything out of it, but for `state`. The session goes on; see `end()`."""
        self._write().clear()
        self._changed = True

    @property
    def state(self) -> bytes | None:
        """Bytes beside the mapping, kept together with it; None where there are none. Server pages keep the variables
        of each client here."""
        self._read()
        return self._state

    @state.setter
    def state(self, state: bytes | None) -> None:
        if state is not None and not isinstance(state, bytes):
            raise TypeError(f"session.state: bytes or None, not {type(state).__name__}")
        self._write()
        self._changed = self._changed or state != self._state
        self._state = state

    @property
    def is_new(self) -> bool:
        """Whether the client has none yet: nothing was written before this request."""
        self._read()
        return self._record is None

    def renew(self) -> None:
        """Gives it a new id and its whole lifetime again, and ends the old id. To be called when a client logs in, so
        that an id that somebody knew before is worth nothing (session fixation)."""
        self._write()
        self._renewed = True

    def end(self) -> None:
        """Forgets it: everything in it, its record and the client's cookie. What is written after that begins another
        one. It waits for nobody: a request that has the session just now cannot keep it any more."""
        self._check_open()
        self._load(lock=False)
        if self._id is not None and self._record is not None:
            self._ended = self._key
        self._id, self._record, self._signer = None, None, 0
        self._data, self._packed, self._state = {}, b"{}", None
        self._changed = self._lent = self._renewed = False

    def lock(self, *, lease: float = 0.0) -> None:
        """Has the session alone from now on, and waits for that, `lock_timeout` seconds at the most: for a GET that
        writes what it makes of what it has read. In an `async def` handler: `await load(lock=True)`. A handler that may
        take longer than the `lease` of `Sessions` gives one of so many seconds here; a shorter one changes nothing.

        Raises `SessionError` where it was used before, and somebody has written meanwhile."""
        self._check_open()
        self._lease = max(self._lease, lease)
        self._load(lock=True)

    async def load(self, *, lock: bool | None = None) -> Session:
        """Loads it, without holding up the event loop, and returns it. `lock` says whether to have it alone; by default
        the request's method and path decide, as the text of the class says."""
        lock = self._is_likely_to_write() if lock is None else lock
        if self._needs_load(lock):
            for pause in _pauses(self._sessions, self._key):
                if pause:
                    await asyncio.sleep(pause)
                try:
                    if self._sessions._store.waits:
                        await asyncio.to_thread(self._load_once, lock)
                    else:
                        self._load_once(lock)
                    break
                except Locked:
                    continue
        return self

    def __repr__(self) -> str:
        return f"<portico session {self._data!r}>" if self._loaded else "<portico session, not loaded>"

    # ---- loading

    def _read_cookie(self) -> None:
        cookie, visit = self._visit.cookie, self._visit
        if not cookie:
            return
        read = _signing.read_cookie(self._sessions._cookie_keys, cookie, visit.host)
        if read is None:
            self._sessions._counts.rejected("cookie")
            _logger.info("sessions: the cookie of a client of %s was not signed here: a new session", visit.host)
            return
        self._signer = read[1]
        self._take_id(read[0])

    def _take_id(self, session_id: str) -> None:
        self._id, self._key = session_id, _signing.store_key(session_id, self._visit.host)

    def _is_likely_to_write(self) -> bool:
        return not self._visit.is_safe or self._sessions._writers.has(self._visit.path)

    def _read(self) -> dict[str, Any]:
        if not self._loaded:
            self._load(self._is_likely_to_write())
        self._used = True
        return self._data

    def _write(self) -> dict[str, Any]:
        self._check_open()
        if not self._loaded:
            self._load(lock=True)
        return self._data

    def _check_open(self) -> None:
        if self._settled:
            raise RuntimeError("the session of a request cannot be changed any more once its response is on its way")

    def _needs_load(self, lock: bool) -> bool:
        if not self._loaded:
            return True
        if not lock or self._record is None or self._settled:
            return False
        return self._locked is None or self._locked_for < self._lease

    def _must_not_wait(self) -> bool:
        # A `def` handler within an `async def` one has a thread, and may.
        return self._visit.on_loop and asyncio._get_running_loop() is not None

    def _load(self, lock: bool) -> None:
        if not self._needs_load(lock):
            return
        if self._id is not None and self._must_not_wait():
            if self._sessions._store.waits:
                raise RuntimeError(
                    "the session is not loaded, and waiting for its store here would hold up the event loop: call "
                    f"`await request.session.load({'lock=True' if self._loaded else ''})` first"
                )
            try:
                self._load_once(lock)
            except Locked:
                text = "the session is in use by another request: `await request.session.load()` waits for that"
                raise not_now(self._sessions._counts, "busy", text) from None
            return
        for pause in _pauses(self._sessions, self._key):
            if pause:
                time.sleep(pause)
            try:
                return self._load_once(lock)
            except Locked:
                continue

    def _load_once(self, lock: bool) -> None:
        """Raises `Locked` where somebody else has it alone."""
        if self._id is None:
            self._loaded = True
            return
        lock = lock and not self._settled
        sessions = self._sessions
        if lock:
            with self._giving_up:
                self._owner = self._owner or secrets.token_hex(8)
        wanted = Lock(self._owner, self._lease) if lock else None
        try:
            sessions._owed.give_back(sessions._store)
            record = sessions._store.load(self._key, sessions._clock(), self._timeout, wanted)
        except SessionError:
            sessions._counts.failed("store")
            # It may have been locked, and the answer lost.
            if wanted is not None:
                sessions._owed.add(self._key, self._owner)
            raise
        with self._giving_up:
            if wanted is not None and record is not None:
                self._locked, self._locked_for = self._key, wanted.lease
            given_up = self._locked is not None and self._settled
        if given_up:
            self._unlock()
        if self._loaded and (record and record.version) != (self._record and self._record.version):
            if self._used or self._changed:
                self._sessions._writers.wrote(self._visit.path)
                text = "the session was changed by another request, after it was read in this one"
                raise not_now(sessions._counts, "conflict", text)
        elif self._loaded:
            return
        self._take(record)

    def _take(self, record: Record | None) -> None:
        contents = None
        if record is not None:
            contents = _signing.unseal(
                self._sessions._record_keys, self._key, record.version, record.ends, record.value
            )
            unpacked = None if contents is None else _contents.unpack(contents)
            if unpacked is None:
                _logger.warning(
                    "sessions: a record in %r %s: a new session",
                    self._sessions._store,
                    "was not signed with a secret that is known here" if contents is None else "cannot be read",
                )
                self._sessions._counts.rejected("record")
                self._unlock()
                record = None
            else:
                self._packed, self._data, self._state = unpacked
        if record is None:
            # An id that is not there any more, or never was, is not taken up again: whoever has it may have given it to
            # the client (session fixation).
            self._id, self._signer = None, 0
            self._packed, self._data, self._state = b"{}", {}, None
        self._record = record
        self._loaded = True

    def _unlock(self) -> None:
        locked, self._locked = self._locked, None
        if locked is None:
            return
        try:
            self._sessions._store.unlock(locked, self._owner)
        except SessionError:
            self._sessions._owed.add(locked, self._owner)
            raise

    # ---- keeping

    def _replace(self, values: Any, state: bytes) -> None:
        """Takes all that a page leaves, or nothing of it where `values` are not what a session may hold."""
        if not isinstance(values, dict):
            raise TypeError(f"session: it stays a dict, and is a {type(values).__name__} now")
        _contents.check_plain(values, "session")
        self._write()
        self._data, self._state, self._changed = values, state, True

    @property
    def _cookie_names(self) -> tuple[str, str]:
        """What names the session, without TLS and with it."""
        name = self._sessions._cookie_name
        return name, f"__Host-{name}"

    def _commit(self) -> list[tuple[str, str]] | Coroutine[Any, Any, list[tuple[str, str]]]:
        """Called by the binding when the handler has returned: keeps what was changed, and returns the headers to send.
        A coroutine that does, where the event loop would be held up."""
        with self._giving_up:
            self._settled = True
        if not self._loaded:
            # A thread may have locked it just now for a `load()` that nobody waits for any more.
            self._discard()
            return []
        headers = [("vary", "cookie")]
        try:
            keep = self._kept_by(headers)
        except BaseException:
            self._discard()
            raise
        if keep is None:
            self._discard()
            return headers
        if self._must_not_wait():
            return self._keep_on_loop(keep, headers)
        for pause in _pauses(self._sessions, self._key):
            if pause:
                time.sleep(pause)
            if self._try(keep):
                break
        return headers

    def _keep_on_loop(
        self, keep: Callable[[], bool], headers: list[tuple[str, str]]
    ) -> list[tuple[str, str]] | Coroutine[Any, Any, list[tuple[str, str]]]:
        if not self._sessions._store.waits and self._try(keep):
            return headers

        async def later() -> list[tuple[str, str]]:
            for pause in _pauses(self._sessions, self._key):
                if pause:
                    await asyncio.sleep(pause)
                # What has begun is not given up in the middle: the client may leave, its change stays.
                if await asyncio.shield(asyncio.to_thread(self._try, keep)):
                    break
            return headers

        return later()

    def _discard(self) -> None:
        """Called by the binding where the handler has failed: keeps nothing, and lets others have the session."""
        with self._giving_up:
            self._settled = True
            locked = self._locked
        if locked is None:
            return
        if self._sessions._store.waits and self._must_not_wait():
            asyncio.get_running_loop().run_in_executor(None, self._unlock_quietly)
        else:
            self._unlock_quietly()

    def _unlock_quietly(self) -> None:
        try:
            self._unlock()
        except SessionError as error:
            _logger.warning("%s", error)

    def _kept_by(self, headers: list[tuple[str, str]]) -> Callable[[], bool] | None:
        """What keeps it, and says whether that was done in time; None where there is nothing to keep. Adds the cookie
        to the headers."""
        packed = None
        if self._changed or self._lent:
            _contents.check_plain(self._data, "session")
            packed = _contents.pack_data(self._data)
        wrote = self._changed or (self._lent and packed != self._packed)
        is_kept = wrote or (self._renewed and self._record is not None)
        self._learn(is_kept or self._ended is not None)
        record = None
        if is_kept:
            if packed is None:
                packed = self._packed
            record, replaces = self._new_record(packed)
        if record is not None and (replaces is None or self._renewed or self._signer):
            headers.append(self._cookie(record.ends))
        elif record is None and self._record is not None and self._signer:
            # Signed anew, so that an old secret is needed no longer than the oldest session lasts.
            headers.append(self._cookie(self._record.ends))
        elif record is None and self._ended is not None:
            headers.append(self._no_cookie())
        ended = self._ended
        if record is None and ended is None:
            return None
        key, sessions, timeout = self._key, self._sessions, self._timeout

        def keep() -> bool:
            if ended is not None and sessions._store.delete(ended):
                sessions._counts.ended("handler")
            if record is None:
                return True
            kept = sessions._store.commit(key, record, replaces, sessions._clock(), timeout, self._owner)
            if kept and replaces is None:
                sessions._counts.made()
            return kept

        return keep

    def _new_record(self, packed: bytes) -> tuple[Record, tuple[str, str] | None]:
        sessions, old = self._sessions, self._record
        replaces = None if old is None else (self._key, old.version)
        if old is None or self._renewed:
            self._take_id(_signing.new_id())
            ends = math.ceil(sessions._clock() + sessions._lifetime)
        else:
            ends = old.ends
        version = secrets.token_hex(8)
        contents = _contents.pack(packed, self._state)
        if len(contents) > sessions._max_bytes:
            raise ValueError(
                f"session: {len(contents)} bytes are more than the {sessions._max_bytes} that one may have: keep what "
                "is large elsewhere, and its key here"
            )
        value = _signing.seal(sessions._record_keys, self._key, version, ends, contents)
        return Record(version, value, ends), replaces

    def _learn(self, wrote: bool) -> None:
        if wrote and self._visit.is_safe:
            self._sessions._writers.wrote(self._visit.path)
        elif self._locked is not None and not wrote:
            self._sessions._writers.only_read(self._visit.path)

    def _try(self, keep: Callable[[], bool]) -> bool:
        """Whether it was kept; not where somebody has it alone just now."""
        try:
            if keep():
                self._locked = None
                return True
        except Locked:
            return False
        except BaseException as error:
            if isinstance(error, SessionError):
                self._sessions._counts.failed("store")
            self._unlock_quietly()
            raise
        self._unlock_quietly()
        raise not_now(
            self._sessions._counts,
            "conflict",
            "the session was changed by another request, or has ended, between being read and being kept in this one; "
            "nothing of this one was kept (`session.lock()` before reading has it wait for others)",
        )

    def _cookie(self, ends: int) -> tuple[str, str]:
        sessions, visit = self._sessions, self._visit
        assert self._id is not None
        value = _signing.write_cookie(sessions._cookie_keys, self._id, visit.host)
        age = max(0, int(ends - sessions._clock()))
        return _header(
            set_cookie({}, visit.cookie_name, value, max_age=age, secure=visit.secure, same_site=sessions._same_site)
        )

    def _no_cookie(self) -> tuple[str, str]:
        visit = self._visit
        return _header(delete_cookie({}, visit.cookie_name, secure=visit.secure, same_site=self._sessions._same_site))


def _header(response: dict[str, Any]) -> tuple[str, str]:
    return ("set-cookie", response["multiValueHeaders"]["set-cookie"][0])


def _pauses(sessions: Sessions, key: str) -> Iterator[float]:
    """How long to wait before each try, the first of which is at once. Raises `SessionError` when the time is over."""
    yield 0.0
    with sessions._waiting.turn(key):
        end, pause = time.monotonic() + sessions._lock_timeout, _FIRST_PAUSE
        while time.monotonic() < end:
            # Not all at the same moment.
            yield pause * random.uniform(0.5, 1.0)
            pause = min(pause * 1.5, _LONGEST_PAUSE)
    text = f"the session is in use by another request, for more than {sessions._lock_timeout:g} s"
    raise not_now(sessions._counts, "busy", text)


def not_now(counts: SessionCounts, reason: str, text: str) -> SessionError:
    """The error of a request that is in another one's way."""
    counts.failed(reason)
    error = SessionError(text)
    error.reason = reason
    return error
