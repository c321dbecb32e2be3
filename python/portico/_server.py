"""`portico.Server` and what it gives out."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import os
import threading
import time
import warnings
import weakref
from collections.abc import Callable, Iterable, Mapping
from types import FrameType, TracebackType
from typing import Any, Literal, TypeAlias

from . import _core
from ._addresses import url_of
from ._connection import StreamCallback, target
from ._contexts import Context, Password, Source
from ._errors import ClosedError, ConfigError, Error
from ._handlers import Function, is_async
from ._importing import refuse_to_wait
from ._interpreter_end import ending, enlist
from ._loops import Loop
from ._reports import OnError, Reports, name_of
from ._router import Router
from ._signals import ending_signals
from ._tables import Giving
from ._threads import Threads
from ._ticket_keys import RedisTicketKeys
from ._trace import Trace
from .sessions import Sessions

Handler: TypeAlias = Function | Router
"""Who answers requests: a function from a request to a response dict, `def` or `async def`, a `StaticFiles`, or a
`Router`."""

_logger = logging.getLogger("portico")

# The longest grace.
_YEARS = 10 * 366 * 86_400.0
# How long threads that have nothing left to do may take to be gone.
_THREADS_END = 2.0


class Listener:
    """An address that a server listens on, made by `Server.listen`."""

    def __init__(self, listener: _core.Listener, server: Server) -> None:
        self._listener = listener
        self._server = server

    @property
    def address(self) -> tuple[str, int] | str:
        """`(ip, port)`, or the path of a Unix socket."""
        return self._listener.address

    @property
    def port(self) -> int | None:
        """The port, also where 0 was asked for; None for a Unix socket."""
        address = self.address
        return None if isinstance(address, str) else address[1]

    @property
    def url(self) -> str:
        """Where to find it: `https://127.0.0.1:8443`, or `https+unix:///run/app.sock`."""
        return url_of(self.address, self._listener.tls)

    def close(self) -> None:
        """Stops accepting and frees the address. Connections that were accepted go on."""
        self._server._check_process()
        self._listener.close()

    def __repr__(self) -> str:
        return f"<portico listener on {self.url}>"


class Server:
    """A server for any number of host names, listeners and connections.

    `handler` answers for every host that has none of its own. Settings are keywords, or a mapping in `config`; keywords
    win. `portico.settings()` lists them with ranges and defaults. `on_error(exception, request)` is called for
    every error that nobody else could catch: of a handler (with its request), of a callback for connections (with its
    connection), and of what came before either (with None). `trace(record)` is called, on a thread of its own, with a
    `TraceRecord` for each step of each connection; `portico.print_trace` prints them. `sessions` says how
    `request.session` is kept: a `portico.sessions.Sessions`, or a mapping of its keywords; by default in memory, with
    the defaults of that class.

    Raises `ConfigError` for an unknown setting, naming the nearest known one, and for a wrong value, naming its range.
    Any number of servers may live in one process, and every method may be called from any thread.

    >>> with Server(lambda request: {"statusCode": 200, "body": "hi"}) as server:
    ...     listener = server.listen(0, tls=False)
    """

    def __init__(
        self,
        handler: Handler | None = None,
        *,
        config: Mapping[str, Any] | None = None,
        on_error: OnError | None = None,
        trace: Trace | None = None,
        sessions: Sessions | Mapping[str, Any] | None = None,
        **settings: Any,
    ) -> None:
        if not isinstance(config, (Mapping, type(None))):
            raise ConfigError(f"config: a mapping of settings, not {type(config).__name__}")
        given: dict[str, Any] = {**(config or {}), **settings}
        configured = given.pop("on_error", None)
        on_error = configured if on_error is None else on_error
        if on_error is not None and not callable(on_error):
            raise ConfigError(f"on_error: a function of an exception and a request, not {type(on_error).__name__}")
        configured = given.pop("trace", None)
        trace = configured if trace is None else trace
        if trace is not None and (not callable(trace) or is_async(trace)):
            what = f"the coroutine function {name_of(trace)}" if callable(trace) else type(trace).__name__
            raise ConfigError(f"trace: a `def` function of a TraceRecord, not {what}")
        configured = given.pop("sessions", None)
        self._session_store = _sessions(configured if sessions is None else sessions)
        self._making_sessions = threading.Lock()
        # Contexts whose ticket keys change by themselves.
        self._rotating: list[tuple[RedisTicketKeys, _core.Context]] = []
        self._is_one_of_several = False
        self._pid = os.getpid()
        self._threads = Threads()
        self._loop = Loop(self._threads.start)
        self._closed = threading.Event()
        self._listens = False
        self._needs_loop = False
        self._joining = threading.Lock()
        self._joined = False
        self._reports = reports = Reports(on_error)
        self._waiting: set[Callable[[], None]] = set()
        self._handlers: dict[str, dict[str, Any]] = {}
        self._core = _core.Server(given, weakref.ref(self), reports, self._threads.start, trace)
        reports.lines = self._core.recent()
        if self._session_store is not None:
            self._core.show_sessions(self._session_store._counts)
        # For `portico.aws_lambda`, whose functions may ask how long they have; checked by now.
        self._handler_timeout: float | None = given.get("handler_timeout")
        if handler is not None:
            with Giving(self) as giving:
                self._core.set_handler(*giving.take(handler))
        self._core.on_closed(functools.partial(_ended, self._closed, self._loop, self._waiting))

    # ---- hosts

    def add_context(
        self,
        host: str | None,
        *,
        cert: Source | None = None,
        key: Source | None = None,
        pfx: Source | None = None,
        password: Password | None = None,
        handler: Handler | None = None,
        min_version: str = "1.2",
        max_version: str = "1.3",
        alpn: Iterable[str] = ("h2", "http/1.1"),
        client_auth: Literal["none", "optional", "required"] = "none",
        client_ca: Source | None = None,
        client_crl: Source | None = None,
        ocsp: Source | None = None,
        ticket_keys: Iterable[Source] | RedisTicketKeys | None = None,
        watch: bool = False,
    ) -> Context:
        """Adds a certificate for a host name, also while serving.

        `host` is a name, `*.` and a name for all names one label below it, or None for clients that ask for no name or
        for an unknown one. Several contexts for one host are all kept, and the client's offer picks (ECDSA beside
        RSA). `cert` and `key` are paths, or PEM or DER bytes; `cert` may hold a whole chain, in any order, and the key
        too, which then need not be given. `pfx` is PKCS#12, which holds both. `password` opens what is encrypted.
        Files are read up to 1 MiB. What clients may mind about the certificate is logged by `portico.certificate` and
        kept in `Context.warnings`. `handler` answers requests to this host instead of the server's. TLS versions are
        `"1.2"` and `"1.3"`; `alpn` lists the protocols offered, the preferred one first (RFC 7301).

        `client_auth` `"optional"` asks clients for a certificate, `"required"` insists on one; it has to be signed by
        one of `client_ca` and not be listed in `client_crl` (PEM or DER, any number in a file; with revocation lists
        there has to be a current one for each authority). Handlers see it in `request.connection.peer_certificate`.
        `ocsp` is an OCSP response (RFC 6960) to send with the certificate, as long as it is good. `ticket_keys` are
        secrets of 32 random bytes or more, or files of them, by which processes and machines that share them take up
        each other's TLS sessions (RFC 5077): the first seals, each one opens, so put a new one in front and drop the
        last one a day later; a `RedisTicketKeys` does so by itself. With `watch` the files are looked at every second
        and read again when they have changed; what is not usable is told to `on_error`, and what was there stays.

        Raises `ConfigError` for a malformed host name or rule, `CertificateError` where certificate and key cannot be
        used, saying which file and why, `ClosedError` for a closed server. The server keeps what it had.
        """
        self._check_process()
        rotating = ticket_keys if isinstance(ticket_keys, RedisTicketKeys) else None
        keywords = {
            "cert": cert,
            "key": key,
            "pfx": pfx,
            "password": password,
            "min_version": min_version,
            "max_version": max_version,
            "alpn": _protocols(alpn),
            "client_auth": client_auth,
            "client_ca": client_ca,
            "client_crl": client_crl,
            "ocsp": ocsp,
            "ticket_keys": rotating.current() if rotating else ticket_keys,
            "watch": watch,
        }
        with Giving(self) as giving:
            taken = (None, None) if handler is None else giving.take(handler)
            core = self._core.add_context(host, keywords, *taken)
            context = Context(core)
        if rotating:
            rotating.follow(self, core)
        context._log_warnings()
        return context

    def remove_context(self, host: str | None) -> None:
        """Removes every context of a host, also while serving. Its connections go on.

        Raises `ConfigError` where there is none, `ClosedError` for a closed server.
        """
        self._check_process()
        self._core.remove_context(host)

    @property
    def contexts(self) -> list[Context]:
        """Every context, by host name, the default last."""
        self._check_process()
        return [Context(context) for context in self._core.contexts()]

    # ---- listening and its end

    def listen(
        self,
        port: int = 0,
        host: str = "127.0.0.1",
        *,
        tls: bool = True,
        stream: StreamCallback | None = None,
        alpn: Iterable[str] = (),
        unix: str | os.PathLike[str] | None = None,
        fd: int | None = None,
        reuse_port: bool = False,
        backlog: int | None = None,
        proxy_protocol: bool = False,
    ) -> Listener:
        """Begins to accept connections, and returns at once.

        `port` 0 lets the machine choose; see `Listener.port`. With `unix`, the path of a socket, or `fd`, the
        descriptor of a socket that listens already (it stays the caller's), `port` and `host` are not used. With
        `tls=False` HTTP is spoken in the clear: HTTP/1.1, and HTTP/2 by prior knowledge (RFC 9113 section 3.3).

        With `stream` no HTTP is served: it is called with a `Connection` (an `async def` with an `AsyncConnection`) for
        each client, and the connection ends when it returns. `alpn` lists the protocols that such a listener offers
        (RFC 7301), the preferred one first; a client that offers others only is refused then.

        `reuse_port` lets several processes share the address. `backlog` overrides the setting.

        With `proxy_protocol` a proxy in front says first on each connection whose it is, by the PROXY protocol, version
        1 or 2; that client's address is `peername` then, and what else the proxy tells is `ConnectionInfo.proxy`. Only
        the addresses of the setting `trusted_proxies` may connect to such a listener, and none without the header,
        which has to be here within `header_timeout`.

        Raises `ListenError` (an `OSError`) where the address is in use and the like, `ConfigError` for TLS without any
        context and for `proxy_protocol` without `trusted_proxies`, `ClosedError` for a closed server.
        """
        self._check_process()
        _check_port(port)
        if backlog is not None and not 1 <= backlog <= 65_535:
            raise ConfigError(f"backlog: a whole number from 1 to 65535, or None, not {backlog!r}")
        if not isinstance(proxy_protocol, bool):
            raise ConfigError(f"proxy_protocol: True or False, not {proxy_protocol!r}")
        path = None if unix is None else os.fspath(unix)
        streams = None if stream is None else self._streams(stream, alpn)
        if streams is None and alpn:
            raise ConfigError("alpn: only with stream; what is offered for HTTP is a matter of add_context")
        enlist(self)
        if self._needs_loop:
            self._loop.start(self._core)
            self._loop.lifespans.start(self._loop.loop)
        listener = self._core.listen(host, port, path, fd, tls, reuse_port, backlog, streams, proxy_protocol)
        self._listens = True
        return Listener(listener, self)

    def listen_admin(
        self,
        port: int = 0,
        host: str = "127.0.0.1",
        *,
        token: str | None = None,
        tls: bool = False,
        unix: str | os.PathLike[str] | None = None,
        fd: int | None = None,
    ) -> Listener:
        """Serves those who run the server, until it has ended: `/metrics` for Prometheus, `/probe/startup`,
        `/probe/readiness` and `/probe/liveness`, and a page for people at `/` (docs/metrics.md, docs/dashboard.md).

        It is HTTP on a thread, and with limits, of its own: answered by the core also while every handler is stuck,
        and not counted in `max_connections` and the like. `port`, `unix` and `fd` are as those of `listen`; with `tls`
        it has the certificates of the server.

        Without a `token` it listens on this machine alone, and answers requests for an IP address or `localhost` only,
        so that no page of a stranger's reads it by way of a name that leads here. With one clients show it by
        `Authorization: Bearer`, and browsers once by `?token=`, for which they get a cookie. Probes need none.

        Raises `ConfigError` for an address that others can reach without a token, for a token of less than 16
        characters or with others than letters, digits and `-._~+/=`, and for TLS without any context; `ListenError` (an
        `OSError`) where the address is in use and the like; `ClosedError` for a closed server.

        >>> with Server() as server:
        ...     listener = server.listen_admin(0)
        """
        self._check_process()
        _check_port(port)
        if not isinstance(token, (str, type(None))):
            raise ConfigError(f"token: a str or None, not {type(token).__name__}")
        path = None if unix is None else os.fspath(unix)
        enlist(self)
        return Listener(self._core.listen_admin(host, port, path, fd, tls, token), self)

    def close(self, grace: float = 30.0) -> None:
        """Stops accepting, lets what is in flight finish for `grace` seconds, then drops the rest.

        Keep-alive clients are told to close, HTTP/2 clients get GOAWAY. Waits for the end, but not when called from a
        handler, which the end has to wait for itself. Safe to call twice, from any thread, and at exit.
        """
        if os.getpid() != self._pid:
            return  # a forked copy: the server lives in the parent
        grace = _check_grace(grace)
        self._begin_to_close(grace)
        self._loop.close_if_loop_is()
        if threading.current_thread() in self._threads or self._loop.is_current():
            return
        end = time.monotonic() + grace + _THREADS_END
        self._closed.wait(grace + _THREADS_END)
        self._loop.wait_finished(end - time.monotonic())
        with self._joining:
            if not self._joined:
                self._joined = True
                busy = self._threads.join(time.monotonic() + _THREADS_END)
                if busy and not ending.is_set():
                    _logger.warning("a server was closed with handlers still running on %s", ", ".join(busy))

    async def aclose(self, grace: float = 30.0) -> None:
        """The same as `close`, without blocking the event loop. Does not wait either when called from a handler."""
        if os.getpid() != self._pid:
            return
        grace = _check_grace(grace)
        self._begin_to_close(grace)
        if self._loop.runs_current_task():
            return
        # The loop may have apps that take their time to end. They go on, and are cancelled with their loop.
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self.wait_closed(), grace + _THREADS_END)
        end = time.monotonic() + _THREADS_END
        # Threads cannot be awaited; those that are left are a line or two from their end.
        while self._threads.alive() and time.monotonic() < end:  # noqa: ASYNC110
            await asyncio.sleep(0.005)

    async def wait_closed(self) -> None:
        """Waits until the server has ended, by whomever it is closed."""
        self._check_process()
        refuse_to_wait("wait_closed()")
        loop = asyncio.get_running_loop()
        ended = asyncio.Event()

        def wake() -> None:
            # A RuntimeError says that the loop was closed meanwhile.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(ended.set)

        self._waiting.add(wake)
        try:
            # Looked at after it was added, so that one of the two is seen.
            if not self._closed.is_set():
                await ended.wait()
        finally:
            self._waiting.discard(wake)
        if self._loop.is_current():
            self._loop.detach()
            await self._loop.finish()

    def serve_forever(self, grace: float = 30.0) -> None:
        """Blocks until the server is closed, by whomever.

        On the main thread SIGINT (Ctrl-C) and SIGTERM close it with `grace`; a second one drops what is still in
        flight. Where the access log goes to a file, SIGUSR1 opens that anew, as `reopen_logs` does. The signal handlers
        that were there are put back at the end.
        """
        self._check_open("serve_forever on")
        refuse_to_wait("serve_forever()")
        grace = _check_grace(grace)
        if self._loop.is_current():
            raise ConfigError(
                "serve_forever() would block the event loop that the handlers run on: use `await server.wait_closed()`"
            )
        if not self._listens:
            _logger.warning("serve_forever() on a server that listens nowhere yet: call listen()")

        def on_signal(number: int, frame: FrameType | None) -> None:
            nonlocal grace
            self._begin_to_close(grace)
            grace = 0.0

        def on_reopen(number: int, frame: FrameType | None) -> None:
            try:
                self.reopen_logs()
            except Error as error:
                self._reports.log_failed(f"{error}; it goes on in the old file")

        with ending_signals(on_signal, reopen=on_reopen if self._core.logs_to_file() else None):
            # Not for ever at once: a signal that comes just before the wait does not end it.
            while not self._closed.wait(1.0):
                pass
        self.close(grace)

    def reopen_logs(self) -> None:
        """Opens the file of the access log anew, after it was renamed: as logrotate's `postrotate` has it.

        Lines that come from now on go to the new file, and no line is lost. Waits until the old file is done with, two
        seconds at most. Does nothing where the log goes elsewhere.

        Raises `ConfigError` where the file cannot be opened, in which case the old one stays, and `ClosedError`.
        """
        self._check_process()
        self._core.reopen_logs()

    # ---- looking at it

    def stats(self) -> dict[str, Any]:
        """What was counted since the start: numbers, and dicts of numbers by label. `docs/statistics.md` lists them.

        `handlers` tells for each handler, by name, where it `runs` (`inline`, `threads` or `asyncio`), `why`, how often
        it was `promoted` to inline and `demoted` from it, and its `slow_paths`, which run on the pool though it is
        inline. `certificates` is a list, an entry for each context: its `host` (None for the default), the
        certificate's `subject`, and when that ends, `not_after` in seconds since 1970. `latencies` is a list of how
        long requests took, an entry for each `host`, `route`, `method` and class of `status`: how many there were
        (`count`), how many `seconds` they took together, and `buckets`, by a bound in seconds how many took no longer.
        """
        self._check_process()
        return {
            **self._core.stats(),
            "certificates": [context._tell() for context in self.contexts],
            "handlers": self._tell_handlers() or self._handlers,
        }

    def __repr__(self) -> str:
        if os.getpid() != self._pid:
            return f"<portico server of process {self._pid}>"
        state = "open" if self._core.is_open() else "closed"
        hosts = ", ".join(context.host or "any host" for context in self.contexts)
        return f"<portico server ({state}) for {hosts or 'no host'}>"

    # ---- with, async with, and no with

    def __enter__(self) -> Server:
        self._check_open("enter")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    async def __aenter__(self) -> Server:
        self._check_open("enter")
        if self._listens:
            raise ConfigError("`async with` comes before listen(): handlers are to run on this event loop")
        self._loop.attach(asyncio.get_running_loop(), self._core)
        try:
            await self._loop.lifespans.startup()
        except BaseException:
            await self.aclose(0)
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    def __del__(self) -> None:
        if getattr(self, "_listens", False) and not self._closed.is_set() and os.getpid() == self._pid:
            warnings.warn(f"{self!r} was never closed", ResourceWarning, stacklevel=2, source=self)
            self._core.close(0.0)

    # ---- inside

    def _open_sessions(self) -> Sessions:
        """Those that were given; the default ones are made when first asked for."""
        if self._session_store is None:
            with self._making_sessions:
                if self._session_store is None:
                    self._session_store = Sessions()
                    self._core.show_sessions(self._session_store._counts)
                    if self._is_one_of_several:
                        self._session_store._warn_of_others()
        return self._session_store

    def _serves_with_others(self) -> None:
        """Other processes serve the same clients."""
        self._is_one_of_several = True
        if self._session_store is not None:
            self._session_store._warn_of_others()

    def _streams(
        self, callback: StreamCallback, alpn: Iterable[str]
    ) -> tuple[Callable[[_core.Stream], Any], list[str], _core.Bridge | None]:
        """What the binding needs of a callback for connections, and the way to the event loop for one that is async."""
        names = _protocols(alpn)
        if not all(isinstance(name, str) and 1 <= len(name.encode()) <= 255 for name in names):
            raise ConfigError(f"alpn: names of protocols of 1 to 255 bytes, not {names!r}")
        called = target(callback, self._reports)
        if not is_async(callback):
            return called, names, None
        self._needs_loop = True
        return called, names, self._loop.bridge()

    def _has_context(self, host: str) -> bool:
        """Whether there is one for that very name, or a wildcard."""
        return not {host, f"*.{host.partition('.')[2]}"}.isdisjoint({context.host for context in self._core.contexts()})

    def _begin_to_close(self, grace: float) -> None:
        # Handlers are forgotten at the end; those who look at the statistics then want to see them.
        self._handlers = self._handlers or self._tell_handlers()
        self._loop.wait_until(time.monotonic() + grace)
        self._core.close(grace)

    def _tell_handlers(self) -> dict[str, dict[str, Any]]:
        handlers: dict[str, dict[str, Any]] = {}
        for handler, (runs, why, (promoted, demoted), slow_paths) in self._core.handlers():
            name = unused = name_of(handler)
            while unused in handlers:
                unused = f"{name} ({len(handlers) + 1})"
            handlers[unused] = {
                "runs": runs,
                "why": why,
                "promoted": promoted,
                "demoted": demoted,
                "slow_paths": slow_paths,
            }
        return handlers

    def _check_open(self, doing: str) -> None:
        self._check_process()
        if not self._core.is_open():
            raise ClosedError(f"cannot {doing} a closed server")

    def _is_ours(self) -> bool:
        """Whether it is open, and no forked copy."""
        return os.getpid() == self._pid and self._core.is_open()

    def _check_process(self) -> None:
        if os.getpid() != self._pid:
            raise ClosedError(
                f"this server belongs to process {self._pid} and does not survive a fork: make a new one in this one"
            )


def _sessions(given: Any) -> Sessions | None:
    if given is None or isinstance(given, Sessions):
        return given
    if not isinstance(given, Mapping):
        raise ConfigError(
            f"sessions: a portico.sessions.Sessions or a mapping of its keywords, not {type(given).__name__}"
        )
    try:
        return Sessions(**given)
    except TypeError as error:
        raise ConfigError(f"sessions: {error}") from None


def _check_port(port: int) -> None:
    if not isinstance(port, int) or isinstance(port, bool) or not 0 <= port <= 65_535:
        raise ConfigError(f"port: a whole number from 0 to 65535, not {port!r}")


def _check_grace(grace: float, name: str = "grace") -> float:
    if isinstance(grace, bool) or not isinstance(grace, (int, float)) or not 0 <= grace <= _YEARS:
        raise ConfigError(f"{name}: a number of seconds from 0 to {_YEARS:g}, not {grace!r}")
    return float(grace)


def _protocols(alpn: Iterable[str]) -> list[str]:
    # One name alone is not the list of its letters.
    return [alpn] if isinstance(alpn, str) else list(alpn)


def _ended(closed: threading.Event, loop: Loop, waiting: set[Callable[[], None]]) -> None:
    """The last I/O thread is done."""
    loop.stop()
    closed.set()
    for wake in list(waiting):
        wake()
