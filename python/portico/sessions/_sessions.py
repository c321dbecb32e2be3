"""`portico.sessions.Sessions`: how sessions are kept and signed, and what all requests of them share."""

from __future__ import annotations

import contextlib
import logging
import re
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from .._errors import ClosedError, ConfigError, SessionError
from ._memory import MemoryStore
from ._redis import RedisStore
from ._session import Session, Visit, not_now
from ._signing import Keys
from ._store import Store

if TYPE_CHECKING:
    from types import TracebackType

    from .._core import Request, SessionCounts
    from .._server import Server

_logger = logging.getLogger("portico.session")

_SHORTEST_SECRET = 32
_YEAR = 366 * 86_400.0
_SAFE = frozenset(["GET", "HEAD", "OPTIONS", "TRACE"])
# How much longer a session is locked than a handler may take.
_PAST_HANDLER = 10.0
# Paths of which it is known that they write, and after how many requests that did not it is forgotten.
_KNOWN_PATHS = 1024
_PATIENCE = 32
# How many requests of one session may wait for it in one process.
_WAITING = 32
# How many locks are remembered that could not be given back.
_MOST_OWED = 1024
# What may be a cookie's name and have `__Host-` before it (RFC 6265 section 4.1.1).
_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]{1,64}")


class Sessions:
    """How a server keeps sessions: `Server(handler, sessions=Sessions(secret=[...], store="sqlite:sessions.db"))`. Any
    number of servers may share one.

    `secret` signs cookies and records: a str or bytes of 32 bytes at least, or a list of them, of which the first signs
    and each verifies; to change it put a new one in front, and drop the old one when `lifetime` is over. Processes and
    machines that share a store share it too. Without one it is made at random, for this process alone.

    `store` is `"memory:"` (this process alone), `"sqlite:PATH"` (a file; survives restarts, and several processes of
    one machine may share it), `"redis://HOST:PORT/DB"` (Redis or Valkey, for several machines; `rediss://` with TLS,
    `unix://PATH`; needs `pip install portico[redis]`), or a `Store`. A session ends when it was not used for `timeout`
    seconds (120), and `lifetime` seconds (8 hours) after it began or was renewed, however much it was used.

    The cookie is `HttpOnly`, of the path `/` and of no domain, `SameSite=Lax` by default (`"Strict"`, `"None"`). Over
    TLS it is `Secure` and its name, `cookie`, has `__Host-` before it, so that no other host can set it (RFC 6265bis);
    `secure=True` has that without TLS too, for a server behind a proxy that ends it.

    A request that locks its session waits for others `lock_timeout` seconds (5) at the most, and is answered 503 then.
    A lock whose owner has died ends after `lease` seconds (60, and always 10 more than `handler_timeout`). One session
    has `max_bytes` (1 MiB) at the most.

    Raises `ConfigError` for what is wrong, and for a file that is no store of sessions.

    >>> from portico import testing
    >>> def count(request):
    ...     request.session["visits"] = request.session.get("visits", 0) + 1
    ...     return {"statusCode": 200, "body": str(request.session["visits"])}
    >>> with testing.server(count, sessions=Sessions(secret="a long line that nobody else has ever seen")) as server:
    ...     import urllib.request
    ...     urllib.request.urlopen(urllib.request.Request(server.url), context=server.ssl_context).read()
    b'1'
    """

    def __init__(
        self,
        *,
        secret: str | bytes | Sequence[str | bytes] | None = None,
        store: str | Store = "memory:",
        timeout: float = 120.0,
        lifetime: float = 8 * 3600.0,
        cookie: str = "session",
        same_site: str = "Lax",
        secure: bool | None = None,
        lease: float = 60.0,
        lock_timeout: float = 5.0,
        max_bytes: int = 2**20,
    ) -> None:
        keys = _secrets(secret)
        self._timeout = _seconds("timeout", timeout)
        self._lifetime = _seconds("lifetime", lifetime)
        self._lease = _seconds("lease", lease)
        self._lock_timeout = _seconds("lock_timeout", lock_timeout)
        if self._timeout > self._lifetime:
            raise ConfigError(
                f"sessions: timeout ({timeout:g} s) is longer than lifetime ({lifetime:g} s), which ends them: give a "
                "longer lifetime"
            )
        if not isinstance(cookie, str) or not _NAME.fullmatch(cookie) or cookie.lower().startswith("__"):
            raise ConfigError(
                f"sessions: cookie is a name of up to 64 letters, digits and the like, not {cookie!r}; prefixes come "
                "by themselves"
            )
        if same_site not in ("Lax", "Strict", "None"):
            raise ConfigError(f"sessions: same_site is 'Lax', 'Strict' or 'None', not {same_site!r}")
        if secure is not None and not isinstance(secure, bool):
            raise ConfigError(f"sessions: secure is True, False or None, not {secure!r}")
        if not isinstance(max_bytes, int) or isinstance(max_bytes, bool) or not 1 <= max_bytes <= 2**30:
            raise ConfigError(f"sessions: max_bytes is a whole number from 1 to {2**30}, not {max_bytes!r}")
        self._cookie_name = cookie
        self._same_site = same_site
        self._secure = secure
        self._max_bytes = max_bytes
        self._clock: Callable[[], float] = time.time
        self._writers = _Writers()
        self._owed = _Owed()
        self._store = _open_store(store)
        self._counts = self._store._counts
        self._waiting = _Waiting(self._counts)
        self._is_random = not keys
        if not keys:
            keys = [secrets.token_bytes(32)]
            _logger.info(
                "sessions: no secret was given, so one was made at random: sessions end with this process, and no "
                "other process takes them up"
            )
        self._cookie_keys = Keys(keys, "cookie")
        self._record_keys = Keys(keys, "record")

    @property
    def store(self) -> Store:
        """Where sessions are kept."""
        return self._store

    def close(self) -> None:
        """Closes the store: its file, its connections. To be called when no server uses it any more."""
        self._store.close()

    def __enter__(self) -> Sessions:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<portico sessions in {self._store!r}>"

    def _warn_of_others(self) -> None:
        if self._is_random or isinstance(self._store, MemoryStore):
            _logger.warning(
                "sessions: this is one of several processes, and sessions are its own, so clients lose theirs whenever "
                "another one answers: give all of them the same secret, and a store that they share (sqlite:PATH, "
                "redis://HOST)"
            )

    def _open(self, request: Request, server: Server, on_loop: bool, settled: bool) -> Session:
        secure = request.scheme == "https" if self._secure is None else self._secure
        name = f"__Host-{self._cookie_name}" if secure else self._cookie_name
        visit = Visit(
            host=_site(request, server),
            path=request.path,
            cookie=request.cookies.get(name),
            cookie_name=name,
            secure=secure,
            is_safe=request.method in _SAFE,
            on_loop=on_loop,
            lease=max(self._lease, (server._handler_timeout or 0.0) + _PAST_HANDLER),
        )
        return Session(self, visit, settled)


def open_session(request: Request, on_loop: bool, settled: bool) -> Session:
    """What `request.session` is; called once for a request, by the binding."""
    server = request.server
    if server is None:
        raise ClosedError("there is no session: this request came to no server, or its server is gone")
    return server._open_sessions()._open(request, server, on_loop, settled)


def _site(request: Request, server: Server) -> str:
    """Whose session it is: that of a host name, as its cookie is, without the port, which cookies do not know (RFC 6265
    section 8.5).

    A host that has a context is answered by the handler of that one alone (others say 421). A name that has none is an
    alias, answered by whatever context the handshake chose; there the name of the handshake belongs to it too, or a
    client could show a session of one handler to another."""
    try:
        host = urlsplit(request.url).hostname or ""
    except ValueError:
        host = ""
    connection = request.connection
    sni = connection.sni
    if not connection.secure or sni == host or server._has_context(host):
        return host
    return f"{host} {sni or ''}"


class _Writers:
    """Paths at which requests write to their session though their method is not for that. Those lock it at once, so
    that a counter in a GET waits for the one before it instead of being answered 503."""

    def __init__(self) -> None:
        self._paths: OrderedDict[str, int] = OrderedDict()
        self._lock = threading.Lock()

    def has(self, path: str) -> bool:
        return path in self._paths

    def wrote(self, path: str) -> None:
        with self._lock:
            self._paths[path] = _PATIENCE
            self._paths.move_to_end(path)
            if len(self._paths) > _KNOWN_PATHS:
                self._paths.popitem(last=False)

    def only_read(self, path: str) -> None:
        with self._lock:
            if path in self._paths:
                self._paths[path] -= 1
                if self._paths[path] <= 0:
                    del self._paths[path]


class _Waiting:
    """How many requests wait for each session."""

    def __init__(self, failures: SessionCounts) -> None:
        self._failures = failures
        self._counts: dict[str, int] = {}
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def turn(self, key: str) -> Iterator[None]:
        with self._lock:
            if self._counts.get(key, 0) >= _WAITING:
                text = f"the session is in use, and {_WAITING} other requests wait for it already"
                raise not_now(self._failures, "busy", text)
            self._counts[key] = self._counts.get(key, 0) + 1
        try:
            yield
        finally:
            with self._lock:
                self._counts[key] -= 1
                if not self._counts[key]:
                    del self._counts[key]


class _Owed:
    """Locks that could not be given back, since their store was out of reach. With the first request that reaches it
    again they are; else they would last as long as their lease."""

    def __init__(self) -> None:
        self._locks: OrderedDict[tuple[str, str], None] = OrderedDict()
        self._lock = threading.Lock()

    def add(self, key: str, owner: str) -> None:
        with self._lock:
            self._locks[key, owner] = None
            if len(self._locks) > _MOST_OWED:
                self._locks.popitem(last=False)

    def give_back(self, store: Store) -> None:
        """Raises `SessionError` where the store is still out of reach."""
        while self._locks:
            with self._lock:
                if not self._locks:
                    return
                (key, owner), _ = self._locks.popitem()
            try:
                store.unlock(key, owner)
            except SessionError:
                self.add(key, owner)
                raise


def _secrets(secret: Any) -> list[bytes]:
    if secret is None:
        return []
    listed = [secret] if isinstance(secret, (str, bytes)) else secret
    if not isinstance(listed, (list, tuple)) or not all(isinstance(one, (str, bytes)) for one in listed):
        raise ConfigError("sessions: secret is a str, bytes, or a list of them")
    encoded = [one.encode() if isinstance(one, str) else one for one in listed]
    if not encoded or any(len(one) < _SHORTEST_SECRET for one in encoded):
        # Not shown, and not how long it is either.
        raise ConfigError(
            f"sessions: a secret has {_SHORTEST_SECRET} bytes at least, which nobody can guess: `python -c 'import "
            "secrets; print(secrets.token_urlsafe(32))'` makes one"
        )
    return encoded


def _seconds(name: str, value: float) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value <= _YEAR:
        raise ConfigError(f"sessions: {name} is a number of seconds over 0 and up to {_YEAR:g}, not {value!r}")
    return float(value)


def _open_store(store: str | Store) -> Store:
    if isinstance(store, Store):
        return store
    if not isinstance(store, str):
        raise ConfigError(f"sessions: store is a str or a Store, not {type(store).__name__}")
    kind, _, rest = store.partition(":")
    if store in ("memory", "memory:"):
        return MemoryStore()
    if kind == "sqlite" and rest:
        try:
            from ._sqlite import SQLiteStore
        except ImportError as error:
            raise ConfigError(f"sessions: a store in a file needs a Python with SQLite ({error})") from error
        return SQLiteStore(rest)
    if kind in ("redis", "rediss", "unix") and rest:
        return RedisStore(store)
    # Not shown as a whole: there may be a password in it.
    raise ConfigError(
        f'sessions: store is "memory:", "sqlite:PATH", "redis://HOST:PORT/DB" or a Store, not "{kind}:..."'
    )
