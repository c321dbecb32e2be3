"""Connections whose bytes a callback reads and writes itself, with or without HTTP."""

from __future__ import annotations

import asyncio
import functools
import inspect
import logging
import operator
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar, cast

from . import _core
from ._core import ConnectionInfo, PeerCertificate, ProxyInfo, Request
from ._errors import ConfigError
from ._handlers import is_async
from ._reports import InterpreterEnds, Reports, name_of
from ._responses import Response

_logger = logging.getLogger("portico.error")

# The longest line, and whatever else ends in a separator, that is read where no other length is given: asyncio's.
_LINE = 64 * 1024
# So many calls in a row that do not wait, then others on the event loop have their turn.
_TURN = 32

_T = TypeVar("_T")
Buffer = bytes | bytearray | memoryview


class _Connection:
    """What both kinds have in common. Every attribute of `request.connection` is one here too."""

    if TYPE_CHECKING:
        id: int
        peername: tuple[str, int] | str
        sockname: tuple[str, int] | str
        secure: bool
        sni: str | None
        tls_version: str | None
        cipher: str | None
        key_exchange: str | None
        alpn: str | None
        resumed: bool
        peer_certificate: PeerCertificate | None
        proxy: ProxyInfo | None

    def __init__(self, stream: _core.Stream) -> None:
        self._stream = stream
        self._info = stream.info

    @property
    def info(self) -> ConnectionInfo:
        """Who is connected, and how: the `request.connection` of requests that are read from it."""
        return self._info

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        try:
            return getattr(self._info, name)
        except AttributeError:
            kind = type(self).__name__
            raise AttributeError(f"{kind!r} object has no attribute {name!r}", name=name, obj=self) from None

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *(name for name in dir(self._info) if not name.startswith("_"))})

    def __repr__(self) -> str:
        return repr(self._info)


class Connection(_Connection):
    """A connection in the hands of a `def` callback of `Server.listen(stream=)`, on a thread of its own.

    Reads wait at most `timeout` seconds in all, by default as long as the setting `stream_timeout` says; `float("inf")`
    is no limit. They raise `TimeoutError`, and lose nothing: what has come is there for the next one. A client that has
    ended its side is the end of what can be read; one that is gone is a `ConnectionError`, and so is, over TLS, an end
    without `close_notify` (RFC 8446 section 6.1), where somebody may have cut off the rest.

    The connection ends when the callback does: what was written is sent, then the client is told that nothing more
    comes.

    >>> def echo(conn):
    ...     while data := conn.read(65536):
    ...         conn.write(data)
    """

    def read(self, n: int = -1, timeout: float | None = None) -> bytes:
        """Up to `n` bytes, as soon as there are any; `b""` at the end. Without `n`, everything to the end.

        Raises `LimitError` for more than `max_request_read_bytes` to the end, and `ConnectionAbortedError` where the
        server is being closed before the client has ended its side: what has come may be cut short.
        """
        return self._stream.read(n, timeout).wait()

    def read_until(self, separator: bytes = b"\n", *, limit: int = _LINE, timeout: float | None = None) -> bytes:
        """The bytes to the next `separator`, with it; `b""` at the end.

        Raises `asyncio.IncompleteReadError` (an `EOFError`) with what there was as `partial` where the end comes before
        the separator, `LimitError` where that does not come within `limit` bytes.
        """
        return self._stream.read_until(_separator(separator), _count(limit, "limit"), timeout).wait()

    def read_exactly(self, n: int, timeout: float | None = None) -> bytes:
        """`n` bytes; `b""` at the end.

        Raises `asyncio.IncompleteReadError` (an `EOFError`) with what there was as `partial` where the end comes before
        that, and `LimitError` at once for more than `max_request_read_bytes`: `n` is often what a client has sent.
        """
        return self._stream.read_exactly(_count(n, "n"), timeout).wait()

    def read_request(self, timeout: float | None = None) -> Request | None:
        """The next HTTP/1 request, its body read; None at the end, and where no other may follow the last.

        `timeout` is for its first byte; from there on `header_timeout` and `body_timeout` hold. Raises `RequestError`
        for one that the server refuses, after telling the client, and `RuntimeError` where the one before was not
        answered.
        """
        return self._stream.read_request(timeout).wait()

    def requests(self, timeout: float | None = None) -> Iterator[Request]:
        """One request after the other, to the end. Each is to be answered before the next is read."""
        while (request := self.read_request(timeout)) is not None:
            yield request

    def write(self, data: Buffer) -> None:
        """Writes all of it. Waits while the client does not take what was written before: at most 64 KiB are on their
        way when it returns.

        Raises `ConnectionError` where the client is gone, `TimeoutError` where it takes nothing for `write_timeout`.
        """
        self._stream.write(data).wait()

    def respond(self, response: Response) -> None:
        """Answers the request that was read last, with a dict as handlers return it.

        Raises `ResponseError` for what cannot be sent, of which the client has seen nothing then: another response may
        follow, or the client gets a 500 when the connection is closed. Raises `RuntimeError` where
        there is no request to answer.
        """
        self._stream.respond(response).wait()

    def write_eof(self) -> None:
        """Tells the client that nothing more comes, once what was written is sent. Reading goes on."""
        self._stream.write_eof()

    def close(self) -> None:
        """Ends the connection once what was written is sent; returns at once."""
        self._stream.close(False)

    def __enter__(self) -> Connection:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Waiting:
    """What waits on an event loop for what the core does."""

    def __init__(self) -> None:
        self._calls = 0

    async def _wait(self, operation: _core.Operation[_T]) -> _T:
        loop = asyncio.get_running_loop()
        self._calls += 1
        if self._calls % _TURN == 0:
            # A client that sends faster than it is read would have the loop to itself.
            await asyncio.sleep(0)
        while not operation.is_done(woken := loop.create_future()):
            self._calls = 0
            seconds = operation.seconds_left()
            timer = None if seconds is None else loop.call_later(seconds, _wake, woken)
            try:
                await woken
            finally:
                if timer is not None:
                    timer.cancel()
        return operation.wait()


class AsyncConnection(_Connection, Waiting):
    """A connection in the hands of an `async def` callback of `Server.listen(stream=)`, on the event loop of the
    handlers: the methods of `Connection` as coroutines.

    >>> async def echo(conn):
    ...     while data := await conn.read(65536):
    ...         await conn.write(data)
    """

    def __init__(self, stream: _core.Stream) -> None:
        _Connection.__init__(self, stream)
        Waiting.__init__(self)

    async def read(self, n: int = -1, timeout: float | None = None) -> bytes:
        """As `Connection.read`."""
        return await self._wait(self._stream.read(n, timeout))

    async def read_until(
        self,
        separator: bytes = b"\n",
        *,
        limit: int = _LINE,
        timeout: float | None = None,
    ) -> bytes:
        """As `Connection.read_until`."""
        return await self._wait(self._stream.read_until(_separator(separator), _count(limit, "limit"), timeout))

    async def read_exactly(self, n: int, timeout: float | None = None) -> bytes:
        """As `Connection.read_exactly`."""
        return await self._wait(self._stream.read_exactly(_count(n, "n"), timeout))

    async def read_request(self, timeout: float | None = None) -> Request | None:
        """As `Connection.read_request`."""
        return await self._wait(self._stream.read_request(timeout))

    async def requests(self, timeout: float | None = None) -> AsyncIterator[Request]:
        """As `Connection.requests`, for `async for`."""
        while (request := await self.read_request(timeout)) is not None:
            yield request

    async def write(self, data: Buffer) -> None:
        """As `Connection.write`."""
        await self._wait(self._stream.write(data))

    async def respond(self, response: Response) -> None:
        """As `Connection.respond`."""
        await self._wait(self._stream.respond(response))

    async def write_eof(self) -> None:
        """As `Connection.write_eof`."""
        self._stream.write_eof()

    async def close(self) -> None:
        """As `Connection.close`."""
        self._stream.close(False)

    async def __aenter__(self) -> AsyncConnection:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


def _wake(woken: asyncio.Future[None]) -> None:
    if not woken.done():
        woken.set_result(None)


def _count(number: int, name: str) -> int:
    if (number := operator.index(number)) < 0:
        raise ValueError(f"{name}: a number of bytes from 0 on, not {number}")
    return min(number, sys.maxsize)


def _separator(separator: bytes) -> bytes:
    if not isinstance(separator, (bytes, bytearray, memoryview)):
        raise TypeError(f"separator: bytes, not {type(separator).__name__}")
    if not separator:
        raise ValueError("separator: at least one byte")
    return bytes(separator)


StreamCallback = Callable[[Connection], object] | Callable[[AsyncConnection], Awaitable[object]]
"""What `Server.listen(stream=)` takes: a function of a connection, `def` or `async def`."""


def target(callback: StreamCallback, reports: Reports) -> Callable[[_core.Stream], Any]:
    """What the binding calls for each connection; for a callback that is `async def` it gives a coroutine."""
    if not callable(callback):
        raise ConfigError(f"stream: a function of a connection, not {type(callback).__name__}")
    if is_generator(callback):
        raise ConfigError(
            f"stream: {name_of(callback)} has a `yield`: calling it gives a generator, and runs nothing of it"
        )
    if is_async(callback):
        return functools.partial(_call_async, cast("Callable[[AsyncConnection], Awaitable[object]]", callback), reports)
    return functools.partial(_call, cast("Callable[[Connection], object]", callback), reports)


def is_generator(callback: Callable[..., object]) -> bool:
    while isinstance(callback, functools.partial):
        callback = callback.func
    called = (callback, getattr(callback, "__call__", None))  # noqa: B004
    return any(inspect.isgeneratorfunction(it) or inspect.isasyncgenfunction(it) for it in called)


def _call(callback: Callable[[Connection], object], reports: Reports, stream: _core.Stream) -> None:
    connection = Connection(stream)
    idle = False
    try:
        returned = callback(connection)
        if asyncio.iscoroutine(returned):
            returned.close()
            raise ConfigError(
                f"stream: {name_of(callback)} returned a coroutine that nothing awaits: declare it `async def`"
            )
    except BaseException as exception:
        idle = tell(exception, callback, connection, reports)
    finally:
        stream.close(idle)


async def _call_async(
    callback: Callable[[AsyncConnection], Awaitable[object]], reports: Reports, stream: _core.Stream
) -> None:
    connection = AsyncConnection(stream)
    task = asyncio.current_task()
    idle = False
    try:
        await callback(connection)
    except BaseException as exception:
        if is_ended(task, exception) or raises_for_program(exception):
            raise
        idle = tell(exception, callback, connection, reports)
    finally:
        stream.close(idle)


def raises_for_program(exception: BaseException) -> bool:
    """Whether it is Ctrl-C, which is meant for the program."""
    return isinstance(exception, KeyboardInterrupt) and threading.current_thread() is threading.main_thread()


def is_ended(task: asyncio.Task[Any] | None, exception: BaseException) -> bool:
    """Whether the coroutine was cancelled, as at the end of the grace, or closed by whoever drops its task; False where
    the callback has raised such an exception itself."""
    if not isinstance(exception, (asyncio.CancelledError, GeneratorExit)):
        return False
    if asyncio._get_running_loop() is None or asyncio.current_task() is not task:
        return True
    if isinstance(exception, GeneratorExit):
        return False
    # Before Python 3.11 a task cannot tell.
    cancelling = getattr(task, "cancelling", None)
    return cancelling is None or cancelling() > 0


def tell(exception: BaseException, callback: Callable[..., object], connection: Any, reports: Reports) -> bool:
    """Tells of what a callback let pass; whether that was a time-out of its client."""
    if isinstance(exception, InterpreterEnds):
        return False
    if getattr(exception, "_portico_peer", None) == connection.id:
        # The client's doing or the network's: daily business.
        _logger.info("%s: %s", name_of(callback), exception)
        return isinstance(exception, TimeoutError)
    connection._stream.failed()
    reports.stream_failed(exception, callback, connection)
    return False


def parse_request(
    data: Buffer,
    *,
    max_request_read_bytes: int | None = None,
    max_header_bytes: int | None = None,
    max_headers: int | None = None,
) -> Request:
    """Parses the bytes of exactly one HTTP/1 request, by the rules and, where no others are given, the limits of the
    server.

    Its `connection` and `server` are None, and its `url` begins with `http://` and the host that it names; without one
    it is the path.

    Raises `RequestError` with the `status` that the server would answer and its `reason`; `IncompleteRequest` where the
    bytes are the beginning of a request; `RequestError` of the reason `"longer"` where more bytes follow it, with the
    offset where it ends as `end`; and `ConfigError` for a limit outside its range.

    >>> parse_request(b"GET /a?b=c HTTP/1.1\\r\\nHost: x.test\\r\\n\\r\\n").url
    'http://x.test/a?b=c'
    """
    limits = {
        "max_request_read_bytes": max_request_read_bytes,
        "max_header_bytes": max_header_bytes,
        "max_headers": max_headers,
    }
    return _core.parse_request(data, {name: limit for name, limit in limits.items() if limit is not None})
