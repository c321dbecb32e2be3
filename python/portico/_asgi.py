"""`portico.asgi`: ASGI 3 applications as handlers, and their lifespans. Scopes and messages are the work of
`rust/python/src/asgi/`."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Awaitable, Callable, Iterable
from concurrent import futures
from typing import TYPE_CHECKING, Any

from . import _websocket
from ._asgi_websocket import Conversation, is_of_leaving
from ._core import Exchange, asgi_scope, is_websocket
from ._errors import ClosedError, ConfigError, ListenError, ResponseError

if TYPE_CHECKING:
    from ._core import Request
    from ._handlers import Function

# Scopes and messages are Any, because every framework has types of its own for them.
ASGIApplication = Callable[[Any, Any, Any], Awaitable[None]]

_logger = logging.getLogger("portico.error")

# How long an app may take for its shutdown, in seconds.
_SHUTDOWN = 30.0
# How long it may take to return once it has said its last word: that its shutdown is complete, or its startup failed.
_LAST_STEPS = 5.0
_AFTER_FAILURE = 0.5


def asgi(
    app: ASGIApplication,
    *,
    lifespan: str = "auto",
    max_message_bytes: int = _websocket.MAX_MESSAGE,
    ping_interval: float | None = _websocket.PING_INTERVAL,
    idle_timeout: float | None = None,
    origins: Iterable[str | None] | None = None,
    compression: bool = True,
) -> Function:
    """An ASGI 3 application as a handler: Starlette, FastAPI, Django, Quart, Litestar and the like.

    It goes wherever a handler goes, and runs on the event loop, as every `async def` handler. The app is called as
    soon as the head of a request is read; the response is sent when its last `http.response.body` has come, and the
    app may go on after that (background tasks do). `receive()` gives the body as it comes, in one message where it is
    here already, and `http.disconnect` when the response is complete, the client has left, or its body was refused in
    the middle (`max_request_read_bytes`, `body_timeout`: the server answers that itself); in the last two cases
    `send` raises `BrokenPipeError`. The app is not cancelled for it, but when `handler_timeout` is over.

    A client that says `TE: trailers` gets trailers, by the extension `http.response.trailers` of the specification,
    which is in the scope then; any other client gets the response without.

    A request for a WebSocket has the scope `websocket`, where the setting `websocket` is on. Closing before accepting
    answers 403, and `websocket.http.response` whatever the app likes. When the client has left `send` raises
    `BrokenPipeError`. The socket ends with 1000 when the app returns, with 1011 when it raises. `max_message_bytes`,
    `ping_interval`, `idle_timeout`, `origins` and `compression` are those of `portico.websocket`.

    `lifespan` is `"auto"`, `"on"` or `"off"`. The app's startup runs before the first request is served: in
    `Server.listen`, or on entering `async with`, which raise `ListenError` where it fails. Where it is added to a
    server that listens already, its requests wait for it. Shutdown runs when the server has ended, and may take 30
    seconds. With `"auto"` an app that raises at its lifespan, or returns, is taken to have none; with `"on"` that is a
    failure. What the app leaves in the lifespan's `state` is in the `state` of each request, as a shallow copy. Each
    server to which a handler is given runs a lifespan of its own.

    Raises `ConfigError` where `app` cannot be called, and for options out of their range. Messages that are wrong or
    come out of turn raise `ResponseError` in the app; an app that does not complete its response is one in the log, and
    a 500 for the client. Source: the ASGI specification 3.0 (HTTP 2.4, WebSocket 2.5, Lifespan 2.0),
    https://asgi.readthedocs.io.

    >>> import urllib.request
    >>> from portico import testing
    >>> async def app(scope, receive, send):
    ...     assert scope["type"] == "http"
    ...     await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
    ...     await send({"type": "http.response.body", "body": b"hello " + scope["path"].encode()})
    >>> testing.call_on_server(asgi(app), lambda url: urllib.request.urlopen(url + "/world").read())
    b'hello /world'
    """
    if not callable(app):
        raise ConfigError(
            f"asgi: an application is an async function of scope, receive and send, not {type(app).__name__}"
        )
    if lifespan not in ("auto", "on", "off"):
        raise ConfigError(f'asgi: lifespan is "auto", "on" or "off", not {lifespan!r}')
    # Subprotocols are for the app to agree on.
    options = _websocket.Options.checked(
        "asgi", (), max_message_bytes, ping_interval, idle_timeout, origins, compression
    )
    return Application(app, lifespan, options)


class Application:
    """A handler that calls an ASGI application."""

    # `receive()` gives a body as it comes.
    stream_body = True

    def __init__(self, app: ASGIApplication, lifespan: str, websocket: _websocket.Options) -> None:
        self._app = app
        self._websocket = websocket
        self._mode = lifespan
        self.given: Application = self
        self.lifespan = Lifespan(app, lifespan)

    async def __call__(self, request: Request) -> Any:
        lifespan = self.lifespan
        if not lifespan.ready:
            await lifespan.startup()
        if is_websocket(request):
            return await Conversation(self._app, self, request, self._websocket).hold(lifespan.state)
        exchange = Exchange(request, self)
        try:
            scope = asgi_scope(request, lifespan.state, exchange.takes_trailers)
            await self._app(scope, exchange.receive, exchange.send)
        except BaseException as exception:
            exchange.abandon()
            if exchange.left and is_of_leaving(exception):
                return None
            raise
        return exchange.end()

    def for_another_server(self) -> Application:
        """The same with a lifespan of its own."""
        other = Application(self._app, self._mode, self._websocket)
        other.given = self
        return other

    def __repr__(self) -> str:
        return f"portico.asgi({self._app!r})"


async def disconnect(exchange: Exchange) -> dict[str, str]:
    """What `receive()` gives when there is nothing more to come."""
    await exchange.ended().wait()
    return {"type": "http.disconnect"}


class Lifespan:
    """The life of one app on one event loop (ASGI, Lifespan 2.0). All of it runs there."""

    def __init__(self, app: ASGIApplication, mode: str) -> None:
        self.state: dict[str, Any] = {}
        self.ready = mode == "off"
        self._app = app
        self._mode = mode
        self._startup: asyncio.Task[None] | None = None
        self._task: asyncio.Task[None] | None = None
        self._messages: asyncio.Queue[dict[str, str]] | None = None
        # What the app has said: None when all is well, else why not.
        self._started: asyncio.Future[str | None] | None = None
        self._stopped: asyncio.Future[str | None] | None = None

    async def startup(self) -> None:
        """Returns when the app is ready, at once where it is; for any number of callers.

        Raises `ListenError` where it is not going to be."""
        if self.ready:
            return
        if self._startup is None:
            self._startup = asyncio.ensure_future(self._start())
        # A caller that is cancelled, as a request may be, takes nothing from the others.
        await asyncio.shield(self._startup)

    def forget_failure(self) -> None:
        """So that the next `startup` tries again."""
        if self._startup is not None and self._startup.done() and not self.ready:
            self._startup = None

    async def shutdown(self) -> None:
        """Tells the app that the server has ended, and waits for it, for 30 seconds at most."""
        if self._startup is not None and not self._startup.done():
            self._startup.cancel()
            await asyncio.wait([self._startup], timeout=_LAST_STEPS)
        task, stopped = self._task, self._stopped
        if task is None or task.done() or stopped is None or self._messages is None:
            return
        if self.ready:
            self._messages.put_nowait({"type": "lifespan.shutdown"})
            waiting: list[asyncio.Future[Any]] = [task, stopped]
            await asyncio.wait(waiting, timeout=_SHUTDOWN, return_when=asyncio.FIRST_COMPLETED)
            if stopped.done():
                if stopped.result() is not None:
                    _logger.error("shutdown of an ASGI app failed: %s", stopped.result() or "it does not say why")
                await asyncio.wait([task], timeout=_LAST_STEPS)
            elif not task.done():
                _logger.error("shutdown of an ASGI app took longer than %g s", _SHUTDOWN)
        await _end(task)

    async def _start(self) -> None:
        loop = asyncio.get_running_loop()
        self._messages = asyncio.Queue()
        self._messages.put_nowait({"type": "lifespan.startup"})
        self._started, self._stopped = loop.create_future(), loop.create_future()
        self.state.clear()
        self._task = task = loop.create_task(self._run())
        waiting: list[asyncio.Future[Any]] = [task, self._started]
        try:
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            if self._started.done() and self._started.result() is None:
                self.ready = True
                task.add_done_callback(self._lived)
                return
            await asyncio.wait([task], timeout=_AFTER_FAILURE)
        finally:
            if not self.ready:
                await _end(task)
        raised = None if task.cancelled() else task.exception()
        if self._started.done():
            raise _failed(self._started.result() or "it does not say why") from raised
        what = "returned" if raised is None else f"raised {raised!r}"
        if self._mode == "on":
            raise _failed(f"it {what} where its lifespan was to begin") from raised
        _logger.debug("an ASGI app is taken to have no lifespan: it %s", what)
        self.ready = True

    async def _run(self) -> None:
        scope = {"type": "lifespan", "asgi": {"version": "3.0", "spec_version": "2.0"}, "state": self.state}
        assert self._messages is not None
        try:
            await self._app(scope, self._messages.get, self._send)
        except (SystemExit, KeyboardInterrupt) as exception:
            if isinstance(exception, KeyboardInterrupt) and threading.current_thread() is threading.main_thread():
                raise
            # asyncio would end its loop for it.
            raise RuntimeError(f"it raised {exception!r}") from exception

    async def _send(self, message: dict[str, Any]) -> None:
        known = {
            "lifespan.startup.complete": (self._started, None),
            "lifespan.startup.failed": (self._started, ""),
            "lifespan.shutdown.complete": (self._stopped, None),
            "lifespan.shutdown.failed": (self._stopped, ""),
        }
        kind = message.get("type") if isinstance(message, dict) else message
        if kind not in known:
            raise ResponseError(f"send: no message {kind!r} belongs to a lifespan")
        future, result = known[kind]
        assert future is not None
        if future.done() or (future is self._stopped and not self.ready):
            raise ResponseError(f"send: {kind} is out of turn")
        future.set_result(result if result is None else str(message.get("message", "")))

    def _lived(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (raised := task.exception()) is not None:
            _logger.error("the lifespan of an ASGI app raised", exc_info=raised)


def _failed(why: str) -> ListenError:
    error = ListenError(f"an ASGI app failed to start: {why}")
    error._of_app = True
    return error


async def _end(task: asyncio.Task[None]) -> None:
    if not task.done():
        task.cancel()
        await asyncio.wait([task], timeout=_LAST_STEPS)


class Lifespans:
    """Those of one server's apps."""

    def __init__(self) -> None:
        # By the handler that the user has given.
        self._apps: dict[Application, Application] = {}
        self._lock = threading.Lock()
        self._later: set[asyncio.Task[None]] = set()
        self._shutdown: asyncio.Task[None] | None = None

    def own(self, handler: Function) -> Function:
        """The handler for this server: of an app, one with a lifespan of its own, which is run once it is added."""
        if not isinstance(handler, Application):
            return handler
        with self._lock:
            return self._apps.get(handler) or handler.for_another_server()

    def add(self, handler: Function | None) -> None:
        """What `own` has given is in use."""
        if isinstance(handler, Application):
            with self._lock:
                self._apps[handler.given] = handler

    async def startup(self) -> None:
        """On the loop: starts every app that has not been. Raises `ListenError` where one fails."""
        for app in self._all():
            app.lifespan.forget_failure()
            await app.lifespan.startup()

    async def shutdown(self) -> None:
        """On the loop: ends what was started, the last one first; for any number of callers."""
        if self._shutdown is None:
            self._shutdown = asyncio.ensure_future(self._end())
        await asyncio.shield(self._shutdown)

    async def _end(self) -> None:
        for app in reversed(self._all()):
            await app.lifespan.shutdown()

    def start(self, loop: asyncio.AbstractEventLoop | None) -> None:
        """Starts apps from any other thread, and waits for them; on the loop's own, where it cannot wait, requests do.

        Raises `ListenError` where one fails, `ClosedError` where the server is closed meanwhile."""
        if loop is None or all(app.lifespan.ready for app in self._all()):
            return
        if asyncio._get_running_loop() is loop:
            self.start_soon(loop)
            return
        starting = asyncio.run_coroutine_threadsafe(self.startup(), loop)
        try:
            while True:
                futures.wait([starting], timeout=0.5)
                if starting.done():
                    return starting.result()
                if loop.is_closed():
                    raise futures.CancelledError
        except futures.CancelledError:
            raise ClosedError("the server was closed before its ASGI apps had started") from None
        finally:
            starting.cancel()

    def start_soon(self, loop: asyncio.AbstractEventLoop | None) -> None:
        """Has the loop start what has not been, and log what fails; from any thread. Requests wait."""
        if loop is not None and not all(app.lifespan.ready for app in self._all()):
            loop.call_soon_threadsafe(self._start_later)

    def _start_later(self) -> None:
        task = asyncio.ensure_future(self._start_and_log())
        self._later.add(task)
        task.add_done_callback(self._later.discard)

    async def _start_and_log(self) -> None:
        for app in self._all():
            try:
                await app.lifespan.startup()
            except ListenError as error:
                _logger.error("%s", error)

    def _all(self) -> list[Application]:
        with self._lock:
            return list(self._apps.values())
