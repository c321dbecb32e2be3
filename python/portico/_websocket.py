"""WebSockets (RFC 6455, RFC 8441) as handlers see them. The protocol is `rust/core/src/websocket/`."""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import Awaitable, Callable, Iterable
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar, cast

from . import _core
from ._connection import Buffer, Waiting, is_ended, is_generator, raises_for_program, tell
from ._errors import ClosedError, ConfigError, WebSocketError
from ._handlers import Function, is_async
from ._reports import Reports, name_of
from ._responses import Response

if TYPE_CHECKING:
    from ._core import ConnectionInfo, Request

_logger = logging.getLogger("portico.error")

_T = TypeVar("_T")

# After how long without a word from the client it is asked for one, in seconds: proxies drop what is quiet for long.
PING_INTERVAL = 20.0
MAX_MESSAGE = 16 * 2**20
_NORMAL = 1000
_ABNORMAL = 1006
_FAILED = 1011


class _WebSocket:
    """What both kinds have in common."""

    def __init__(self, socket: _core.Socket, request: Request, subprotocol: str | None) -> None:
        self._stream = socket
        self.request: Request = request
        """The request by which the client asked for it: path, headers, query, `pathParameters`, cookies."""
        self.subprotocol: str | None = subprotocol
        """The protocol that was agreed on, of `subprotocols`; None where there is none (RFC 6455 section 1.9)."""

    @property
    def connection(self) -> ConnectionInfo:
        """Who is connected, and how."""
        return self._stream.info

    @property
    def id(self) -> int:
        """The number of the connection."""
        return self._stream.info.id

    @property
    def close_code(self) -> int | None:
        """How it ended (RFC 6455 section 7.4): the code that the client has given, or this end before it; 1005 for a
        client that gave none, 1006 where the connection was lost. None while it goes on."""
        ended = self._stream.ended()
        return None if ended is None else ended[0]

    @property
    def close_reason(self) -> str | None:
        """The text that came with the code, often empty. None while it goes on."""
        ended = self._stream.ended()
        return None if ended is None else ended[1]

    def _check_end(self, error: Exception) -> None:
        """Raises `WebSocketError` for a read that failed, but where the socket has ended in order."""
        ended = self._stream.ended()
        if ended is None or ended[2] is not None:
            raise self._error("receive", error) from error

    def _error(self, doing: str, cause: Exception) -> WebSocketError:
        code, reason, failure = self._stream.ended() or (_ABNORMAL, "", str(cause))
        why = failure or f"it was closed with code {code}{f' ({reason})' if reason else ''}"
        error = WebSocketError(f"cannot {doing} on the WebSocket with {_peer(self.connection)}: {why}")
        error.code, error.reason = code, reason
        # By which `tell` knows that it is no mistake of the handler.
        error._portico_peer = self.id  # type: ignore[attr-defined]
        return error

    def __repr__(self) -> str:
        return f"<portico WebSocket {self.request.path} with {_peer(self.connection)}>"


def _peer(connection: ConnectionInfo) -> str:
    peer = connection.peername
    return peer if isinstance(peer, str) else f"{peer[0]}:{peer[1]}"


class WebSocket(_WebSocket):
    """A WebSocket in the hands of a `def` handler, on a thread of its own. It ends when the handler returns.

    Iterating gives its messages, `str` for text and `bytes` for binary ones, until it is closed by either side.

    >>> def echo(ws):
    ...     for message in ws:
    ...         ws.send(message)
    """

    def receive(self, timeout: float | None = None) -> str | bytes | None:
        """The next message: `str` for text, `bytes` for a binary one. None when the client or this end has closed it.

        Waits at most `timeout` seconds, by default as long as it takes; then `TimeoutError`, and nothing is lost.
        Raises `WebSocketError` where it ended otherwise: the client was lost, did not answer a ping, or broke the
        rules.
        """
        try:
            return self._stream.receive(timeout).wait()
        except (ConnectionError, ClosedError) as error:
            self._check_end(error)
            return None

    def send(self, data: str | Buffer) -> None:
        """Sends a message: text for `str`, a binary one for bytes.

        Returns when no more than 64 KiB have not left; a client that reads nothing holds it up for `write_timeout` at
        most. Raises `WebSocketError` where it has ended.
        """
        self._do("send", self._stream.send, data)

    def ping(self, data: bytes = b"") -> None:
        """Asks the client for a pong, with up to 125 bytes. It is done by itself every `ping_interval`.

        Raises `WebSocketError` where it has ended.
        """
        self._do("ping", self._stream.ping, data)

    def close(self, code: int = _NORMAL, reason: str = "") -> None:
        """Ends it: what was sent goes out, then `code` and `reason`, of which 123 bytes are sent. Returns at once.

        Raises `ValueError` for a code that may not be sent: others than 1000 to 1003, 1007 to 1014 and 3000 to 4999
        (RFC 6455 section 7.4).
        """
        _close(self._stream, code, reason)

    def __iter__(self) -> WebSocket:
        return self

    def __next__(self) -> str | bytes:
        message = self.receive()
        if message is None:
            raise StopIteration
        return message

    def _do(self, doing: str, begin: Callable[[Any], _core.Operation[None]], data: object) -> None:
        try:
            begin(data).wait()
        except (ConnectionError, TimeoutError, ClosedError) as error:
            raise self._error(doing, error) from error


class AsyncWebSocket(_WebSocket, Waiting):
    """A WebSocket in the hands of an `async def` handler, on the event loop of the handlers: the methods of `WebSocket`
    as coroutines.

    >>> async def echo(ws):
    ...     async for message in ws:
    ...         await ws.send(message)
    """

    def __init__(self, socket: _core.Socket, request: Request, subprotocol: str | None) -> None:
        _WebSocket.__init__(self, socket, request, subprotocol)
        Waiting.__init__(self)

    async def receive(self, timeout: float | None = None) -> str | bytes | None:
        """As `WebSocket.receive`."""
        try:
            return await self._wait(self._stream.receive(timeout))
        except (ConnectionError, ClosedError) as error:
            self._check_end(error)
            return None

    async def send(self, data: str | Buffer) -> None:
        """As `WebSocket.send`."""
        await self._do("send", self._stream.send, data)

    async def ping(self, data: bytes = b"") -> None:
        """As `WebSocket.ping`."""
        await self._do("ping", self._stream.ping, data)

    async def close(self, code: int = _NORMAL, reason: str = "") -> None:
        """As `WebSocket.close`."""
        _close(self._stream, code, reason)

    def __aiter__(self) -> AsyncWebSocket:
        return self

    async def __anext__(self) -> str | bytes:
        message = await self.receive()
        if message is None:
            raise StopAsyncIteration
        return message

    async def _do(self, doing: str, begin: Callable[[Any], _core.Operation[None]], data: object) -> None:
        try:
            await self._wait(begin(data))
        except (ConnectionError, TimeoutError, ClosedError) as error:
            raise self._error(doing, error) from error


def _close(socket: _core.Socket, code: int, reason: str) -> None:
    if isinstance(code, bool) or not isinstance(code, int) or not 0 <= code <= 65_535:
        raise ValueError(f"code: a number from 1000 to 4999, not {code!r}")
    socket.close(code, reason)


WebSocketCallback = Callable[[WebSocket], object] | Callable[[AsyncWebSocket], Awaitable[object]]
"""What `portico.websocket` takes: a function of a WebSocket, `def` or `async def`."""


def websocket(
    handler: WebSocketCallback,
    *,
    subprotocols: Iterable[str] = (),
    max_message_bytes: int = MAX_MESSAGE,
    ping_interval: float | None = PING_INTERVAL,
    idle_timeout: float | None = None,
    origins: Iterable[str | None] | None = None,
    compression: bool = True,
) -> Function:
    """A handler that speaks WebSocket (RFC 6455) over HTTP/1.1 and HTTP/2 (RFC 8441). It goes wherever a handler goes.

    `handler` is called with a `WebSocket` on a thread of its own (at most `stream_threads` at once), or, as
    `async def`, with an `AsyncWebSocket` on the event loop. The socket ends when it returns, with code 1000, or raises,
    with 1011.

    `subprotocols` are those that it speaks, the preferred one first. A client's message of over `max_message_bytes`
    (16 MiB) ends the socket with 1009. A client that is quiet for `ping_interval` seconds (20) is sent a ping, and is
    taken for lost when it stays so for as long again; None sends none. `idle_timeout` ends a socket with 1001 on which
    no message went either way for so many seconds. `origins` are the only ones whose pages may connect, as
    `"https://example.com"`; None among them lets clients connect that name no origin, as no browser does. Without
    `origins` every page may, also with its visitor's cookies: name them where those matter. `compression` compresses
    messages of 256 bytes and more for clients that ask for it (permessage-deflate, RFC 7692), each by itself, so that
    connections that wait keep nothing for it.

    A request for something else gets 426, as does another version than 13; a malformed one 400, a page of another
    origin 403. The handler is not called then.

    Raises `ConfigError` for what cannot be called, and for options out of their range.

    >>> from portico import testing
    >>> def shout(ws):
    ...     for message in ws:
    ...         ws.send(message.upper())
    >>> def client(url):
    ...     from websockets.sync.client import connect
    ...     with connect(url.replace("http", "ws", 1)) as ws:
    ...         ws.send("hello")
    ...         return ws.recv()
    >>> testing.call_on_server(websocket(shout), client)
    'HELLO'
    """
    if not callable(handler):
        raise ConfigError(f"websocket: a function of a WebSocket, not {type(handler).__name__}")
    if is_generator(handler):
        raise ConfigError(
            f"websocket: {name_of(handler)} has a `yield`: calling it gives a generator, and runs nothing of it"
        )
    options = Options.checked(
        "websocket", subprotocols, max_message_bytes, ping_interval, idle_timeout, origins, compression
    )
    return _AsyncHandler(handler, options) if is_async(handler) else _Handler(handler, options)


class Options(NamedTuple):
    """What one handler's sockets may do."""

    subprotocols: list[str]
    max_message_bytes: int
    ping_interval: float | None
    idle_timeout: float | None
    origins: list[str | None] | None
    compression: bool

    @classmethod
    def checked(
        cls,
        of: str,
        subprotocols: Iterable[str],
        max_message_bytes: int,
        ping_interval: float | None,
        idle_timeout: float | None,
        origins: Iterable[str | None] | None,
        compression: bool,
    ) -> Options:
        """Raises `ConfigError`, which begins with `of`, for what is out of its range."""
        if not isinstance(compression, bool):
            raise ConfigError(f"{of}: compression: True or False, not {compression!r}")
        return cls(
            _names(subprotocols, "subprotocols", of),
            _size(max_message_bytes, of),
            _seconds(ping_interval, "ping_interval", of),
            _seconds(idle_timeout, "idle_timeout", of),
            None if origins is None else _names(origins, "origins", of),
            compression,
        )


def _names(names: Iterable[Any], what: str, of: str) -> list[Any]:
    if isinstance(names, str):
        raise ConfigError(f"{of}: {what}: a list of str, not one")
    listed = list(names)
    for name in listed:
        good = isinstance(name, str) and name.isascii() and name.isprintable() and name.strip()
        if not good and not (name is None and what == "origins"):
            raise ConfigError(f"{of}: {what}: text that can stand in a header, not {name!r}")
    return listed


def _size(size: int, of: str) -> int:
    if isinstance(size, bool) or not isinstance(size, int) or not 1 <= size <= 2**40:
        raise ConfigError(f"{of}: max_message_bytes: a whole number of bytes from 1 to {2**40}, not {size!r}")
    return size


def _seconds(seconds: float | None, what: str, of: str) -> float | None:
    if seconds is None:
        return None
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or not 0.001 <= seconds <= 10**9:
        raise ConfigError(f"{of}: {what}: a number of seconds from 0.001 on, or None, not {seconds!r}")
    return float(seconds)


class _Opening:
    """What both kinds of handlers have in common."""

    def __init__(self, handler: Any, options: Options) -> None:
        self._handler = handler
        self._options = options
        # Statistics and logs call it by the name of what it was made of.
        self.__module__, _, self.__qualname__ = name_of(handler).rpartition(".")

    def _open(self, request: Request, call: Callable[..., object], on_loop: bool) -> Response:
        server = request.server
        if server is None:
            raise ConfigError("a WebSocket needs a request that has come to a server")
        handshake = _core.Handshake(server._core, request, self._options)
        if handshake.refused is not None:
            _logger.info("%s %s: no WebSocket: %s", request.method, request.url, handshake.refused)
            return cast("Response", handshake.refusal())
        bridge = server._loop.bridge() if on_loop else None
        response, socket = handshake.accept(handshake.subprotocol, bridge)
        target = functools.partial(call, self._handler, server._reports, request, handshake.subprotocol)
        socket.visit(target, bridge)
        return response

    def __repr__(self) -> str:
        return f"portico.websocket({self._handler!r})"


class _Handler(_Opening):
    def __call__(self, request: Request) -> Response:
        return self._open(request, _call, False)


class _AsyncHandler(_Opening):
    async def __call__(self, request: Request) -> Response:
        return self._open(request, _call_async, True)


def _call(
    handler: Callable[[WebSocket], object],
    reports: Reports,
    request: Request,
    subprotocol: str | None,
    socket: _core.Socket,
) -> None:
    ws = WebSocket(socket, request, subprotocol)
    code = _FAILED
    try:
        returned = handler(ws)
        if asyncio.iscoroutine(returned):
            returned.close()
            raise ConfigError(
                f"websocket: {name_of(handler)} returned a coroutine that nothing awaits: declare it `async def`"
            )
        code = _NORMAL
    except BaseException as exception:
        tell(exception, handler, ws, reports)
    finally:
        socket.close(code, "")


async def _call_async(
    handler: Callable[[AsyncWebSocket], Awaitable[object]],
    reports: Reports,
    request: Request,
    subprotocol: str | None,
    socket: _core.Socket,
) -> None:
    ws = AsyncWebSocket(socket, request, subprotocol)
    task = asyncio.current_task()
    code = _FAILED
    try:
        await handler(ws)
        code = _NORMAL
    except BaseException as exception:
        if is_ended(task, exception) or raises_for_program(exception):
            raise
        tell(exception, handler, ws, reports)
    finally:
        socket.close(code, "")
