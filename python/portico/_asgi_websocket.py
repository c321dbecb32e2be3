"""The `websocket` scope of `portico.asgi` (the ASGI specification 3.0, WebSocket 2.5). The protocol is
`rust/core/src/websocket/`."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from . import _core
from ._connection import Waiting, is_ended, raises_for_program
from ._errors import ClosedError, ConfigError, ResponseError

if TYPE_CHECKING:
    from ._core import Request
    from ._websocket import Options

_logger = logging.getLogger("portico.error")

_ABNORMAL = 1006
_NORMAL = 1000
_FAILED = 1011
# How long an app may take to end that is cancelled, in seconds.
_LAST_STEPS = 5.0
# What an app answers that closes before it accepts.
_DENIED = 403


class Conversation(Waiting):
    """One WebSocket and its app, as messages. All of it runs on the event loop.

    The app is a task of its own: the handler that was called for the request returns the response of the handshake as
    soon as the app accepts, and the app goes on. Whatever else the app says is the response of an ordinary request."""

    def __init__(
        self,
        app: Callable[[Any, Any, Any], Awaitable[None]],
        handler: Any,
        request: Request,
        options: Options,
    ) -> None:
        super().__init__()
        server = request.server
        if server is None:
            raise ConfigError("a WebSocket needs a request that has come to a server")
        self._app = app
        self._handler = handler
        self._request = request
        self._bridge = server._loop.bridge()
        self._reports = server._reports
        self._handshake = _core.Handshake(server._core, request, options)
        self._decided: asyncio.Future[dict[str, Any] | None] = asyncio.get_running_loop().create_future()
        self._connected = False
        # Once it is accepted.
        self._socket: _core.Socket | None = None
        # Once it is denied: its response.
        self._exchange: _core.Exchange | None = None
        # The app has closed it.
        self._closed = False
        # The app knows that it has ended.
        self._told = False
        # What the app raised before it accepted.
        self._failure: BaseException | None = None

    async def hold(self, state: dict[str, Any]) -> Any:
        """Calls the app; the response of the handshake, or None where one is sent already."""
        handshake, request = self._handshake, self._request
        if handshake.refused is not None:
            _logger.info("%s %s: no WebSocket: %s", request.method, request.url, handshake.refused)
            return handshake.refusal()
        scope = _core.asgi_scope(request, state)
        del scope["method"]
        scope["type"] = "websocket"
        scope["scheme"] = "wss" if scope["scheme"] == "https" else "ws"
        scope["asgi"]["spec_version"] = "2.5"
        scope["subprotocols"] = handshake.offered
        scope["extensions"] = {"websocket.http.response": {}}
        self._task = task = asyncio.ensure_future(self._run(scope))
        waiting: list[asyncio.Future[Any]] = [task, self._decided]
        try:
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            if self._socket is not None:
                return self._decided.result()
            await asyncio.wait([task])
        except BaseException:
            # The client has left, or `handler_timeout` is over.
            task.cancel()
            raise
        return self._denied()

    def _denied(self) -> Any:
        exchange = self._exchange
        failure, self._failure = self._failure, None
        if self._task.cancelled():
            failure = asyncio.CancelledError()
        if failure is not None:
            if exchange is not None:
                exchange.abandon()
                if exchange.left and is_of_leaving(failure):
                    return None
            try:
                raise failure
            finally:
                del failure
        if exchange is None:
            raise ResponseError("the ASGI app returned without a websocket.accept or websocket.close")
        return exchange.end()

    async def _run(self, scope: dict[str, Any]) -> None:
        task = asyncio.current_task()
        code = _FAILED
        try:
            await self._app(scope, self.receive, self.send)
            code = _NORMAL
        except BaseException as exception:
            if is_ended(task, exception) or raises_for_program(exception):
                raise
            if self._socket is None:
                self._failure = exception
            elif self._socket.ended() is not None and (
                is_of_leaving(exception) or (self._told and _is_of_framework(exception))
            ):
                _logger.info("%r: the client has left: %r", self._handler, exception)
            else:
                self._socket.failed()
                self._reports.handler_failed(exception, self._request)
        finally:
            if self._socket is not None:
                self._socket.close(code, "")

    async def _stay(self, socket: _core.Socket) -> None:
        """What the server takes for the handler of the socket: is there as long as the app, and ends it where it has
        to."""
        del socket
        try:
            await asyncio.wait([self._task])
        except asyncio.CancelledError:
            self._task.cancel()
            await asyncio.wait([self._task], timeout=_LAST_STEPS)
            raise

    async def receive(self) -> dict[str, Any]:
        """`websocket.connect`, then what comes, then `websocket.disconnect`, as often as it is asked for."""
        if not self._connected:
            self._connected = True
            return {"type": "websocket.connect"}
        if self._socket is None and self._exchange is None:
            # A coroutine that is cancelled here takes nothing from others.
            await asyncio.shield(self._decided)
        socket = self._socket
        if socket is not None and not self._told:
            try:
                message = await self._wait(socket.receive(None))
            except (ConnectionError, ClosedError):
                message = None
            if message is not None:
                return {"type": "websocket.receive", "text" if isinstance(message, str) else "bytes": message}
        self._told = True
        code, reason, _ = (socket.ended() if socket is not None else None) or (_ABNORMAL, "", None)
        return {"type": "websocket.disconnect", "code": code, "reason": reason}

    async def send(self, message: dict[str, Any]) -> None:
        """Takes what an app may say.

        Raises `ResponseError` for what is none, and for what comes out of turn, `BrokenPipeError` when the socket has
        ended."""
        kind = message.get("type") if isinstance(message, dict) else None
        if kind in ("websocket.http.response.start", "websocket.http.response.body"):
            await self._deny(kind, message)
        elif kind == "websocket.accept":
            self._accept(message)
        elif kind == "websocket.close" and self._socket is None:
            await self._refuse()
        elif kind == "websocket.close":
            self._close(message)
        elif kind == "websocket.send":
            await self._send(message)
        else:
            raise ResponseError(f"send: no message {message if kind is None else kind!r} belongs to a WebSocket")

    def _check_turn(self, kind: str, undecided: bool) -> None:
        if undecided != (self._socket is None and self._exchange is None):
            raise ResponseError(f"send: {kind} is out of turn")

    def _accept(self, message: dict[str, Any]) -> None:
        self._check_turn("websocket.accept", True)
        subprotocol = message.get("subprotocol")
        if subprotocol is not None and not isinstance(subprotocol, str):
            raise ResponseError(f"websocket.accept: subprotocol: str, not {type(subprotocol).__name__}")
        headers = _core.asgi_headers(message.get("headers") or ())
        if "sec-websocket-extensions" in headers:
            raise ResponseError("websocket.accept: the header sec-websocket-extensions is the server's")
        try:
            response, socket = self._handshake.accept(subprotocol, self._bridge)
        except ConfigError as error:
            raise ResponseError(f"websocket.accept: {error}") from None
        for name, values in headers.items():
            if response["headers"].setdefault(name, values) is not values:
                raise ResponseError(f"websocket.accept: the header {name} is the server's")
        socket.visit(self._stay, self._bridge)
        self._socket = socket
        self._decided.set_result(response)

    async def _deny(self, kind: str, message: dict[str, Any]) -> None:
        if kind.endswith("start"):
            self._check_turn(kind, True)
            # Not before: a handler with one is not cancelled when its client leaves.
            exchange = _core.Exchange(self._request, self._handler)
            await exchange.send({**message, "type": "http.response.start"})
            self._exchange = exchange
            self._decided.set_result(None)
        elif self._exchange is None:
            raise ResponseError(f"send: {kind} is out of turn")
        else:
            await self._exchange.send({**message, "type": "http.response.body"})

    async def _refuse(self) -> None:
        headers = [(b"content-type", b"text/plain; charset=utf-8")]
        await self._deny("start", {"status": _DENIED, "headers": headers})
        await self._deny("body", {"body": b"403 Forbidden\n"})

    def _left(self) -> BrokenPipeError:
        code = ((self._socket and self._socket.ended()) or (_ABNORMAL,))[0]
        return BrokenPipeError(f"the WebSocket has ended, with code {code}")

    def _close(self, message: dict[str, Any]) -> None:
        self._check_turn("websocket.close", False)
        assert self._socket is not None
        if self._closed:
            raise ResponseError("send: a second websocket.close")
        if self._socket.ended() is not None:
            raise self._left()
        code, reason = message.get("code", _NORMAL), message.get("reason") or ""
        if isinstance(code, bool) or not isinstance(code, int) or not 0 <= code <= 65_535:
            raise ResponseError(f"websocket.close: code: a number from 1000 to 4999, not {code!r}")
        if not isinstance(reason, str):
            raise ResponseError(f"websocket.close: reason: str, not {type(reason).__name__}")
        try:
            self._socket.close(code, reason)
        except ValueError as error:
            raise ResponseError(f"websocket.close: {error}") from None
        self._closed = True

    async def _send(self, message: dict[str, Any]) -> None:
        self._check_turn("websocket.send", False)
        if self._socket is None or self._closed:
            raise ResponseError("send: websocket.send after the end")
        data, text = message.get("bytes"), message.get("text")
        if (data is None) == (text is None):
            raise ResponseError("websocket.send: either bytes or text")
        if data is None:
            if not isinstance(text, str):
                raise ResponseError(f"websocket.send: text: str, not {type(text).__name__}")
            data = text
        elif not isinstance(data, (bytes, bytearray, memoryview)):
            raise ResponseError(f"websocket.send: bytes: bytes, not {type(data).__name__}")
        try:
            await self._wait(self._socket.send(data))
        except (ConnectionError, TimeoutError, ClosedError) as error:
            raise self._left() from error


def is_of_leaving(exception: BaseException) -> bool:
    """Whether it comes of what `send` raises when the client has left: that is no error of the app, however it was
    wrapped on its way (Starlette's ClientDisconnect, a group of a task group)."""
    return _is_made_of(exception, lambda it: isinstance(it, BrokenPipeError))


def _is_of_framework(exception: BaseException) -> bool:
    """Whether it is what frameworks make of a `websocket.disconnect` (Starlette, FastAPI, Litestar): their handlers may
    let it pass."""
    return _is_made_of(exception, lambda it: type(it).__name__ == "WebSocketDisconnect")


def _is_made_of(exception: BaseException, is_it: Callable[[BaseException], bool]) -> bool:
    if not isinstance(exception, Exception):
        return False
    known: set[int] = set()
    left: list[BaseException] = [exception]
    while left:
        if is_it(it := left.pop()):
            return True
        if id(it) not in known:
            known.add(id(it))
            left += [other for other in (it.__cause__, it.__context__) if other is not None]
            left += getattr(it, "exceptions", ())
    return False
