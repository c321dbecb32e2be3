"""Event loops on which handlers run: the one of the user's program, or one on a thread of its own."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import inspect
import logging
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ._asgi import Lifespans
from ._core import Bridge
from ._errors import ListenError

if TYPE_CHECKING:
    from ._core import Answer, Request

_logger = logging.getLogger("portico.error")

# How long tasks that were cancelled at the end may take to clean up.
_CLEAN_UP = 5.0


def is_async(handler: object) -> bool:
    """Whether calling it gives a coroutine: an `async def`, a partial of one, or an object whose `__call__` is one."""
    while isinstance(handler, functools.partial):
        handler = handler.func
    return inspect.iscoroutinefunction(handler) or inspect.iscoroutinefunction(
        getattr(handler, "__call__", None)  # noqa: B004
    )


class Loop:
    """Calls handlers on an event loop: the user's, once attached, else one on a thread of its own, once started.

    Requests arrive in batches: one wake for all that wait."""

    def __init__(self, start_thread: Callable[[str, Callable[[], None]], None]) -> None:
        self.loop: asyncio.AbstractEventLoop | None = None
        self.lifespans = Lifespans()
        self._bridge: Bridge | None = None
        self._start_thread = start_thread
        self._own = False
        self._ending = False
        self._stopped = False
        self._lock = threading.Lock()
        self._tasks: set[asyncio.Task[None]] = set()

    def bridge(self) -> Bridge:
        """How requests come to the loop; made when the first handler needs it, for it costs two descriptors."""
        with self._lock:
            if self._bridge is None:
                self._bridge = Bridge()
            return self._bridge

    def attach(self, loop: asyncio.AbstractEventLoop) -> None:
        """Serves on `loop`; on its own thread, or before it runs."""
        self.loop = loop
        loop.add_reader(self.bridge().fileno(), self._take)

    def start(self) -> None:
        """Serves on a loop of its own, where none was attached or started."""
        with self._lock:
            if self.loop is not None or self._own or self._stopped:
                return
            self._own = True
        ready = threading.Event()
        try:
            self._start_thread("portico-asyncio", functools.partial(self._run, ready))
        except RuntimeError as error:
            self._own = False
            raise ListenError(f"cannot listen without a thread for the event loop: {error}") from error
        ready.wait()

    def stop(self) -> None:
        """Ends what `start` began, from any other thread; returns at once. An attached loop is told to let go."""
        with self._lock:
            self._stopped = True
        loop = self.loop
        if loop is None:
            return
        # A RuntimeError says that it was closed already.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(self._stop_own if self._own else self.detach)

    def _stop_own(self) -> None:
        self.detach()
        assert self.loop is not None
        self.loop.stop()

    def detach(self) -> None:
        """Stops serving: cancels what is left. On the loop's thread."""
        if self.loop is not None and not self._ending:
            self._ending = True
            self.loop.remove_reader(self.bridge().fileno())
            self.bridge().close()
        for task in self._tasks:
            task.cancel()

    async def finish(self) -> None:
        """Waits for what `detach` cancelled, for a bounded time, and then ends the apps."""
        if self._tasks:
            await asyncio.wait(list(self._tasks), timeout=_CLEAN_UP)
        await self.lifespans.shutdown()

    def wait_finished(self, timeout: float) -> None:
        """From another thread: until the apps on a loop of its own have ended."""
        if self._own:
            self.lifespans.wait(timeout)

    def is_current(self) -> bool:
        """Whether the caller runs on this loop, and so must not wait for it."""
        return self.loop is not None and asyncio._get_running_loop() is self.loop

    def runs_current_task(self) -> bool:
        """Whether the caller is a handler on this loop, for which the end has to wait."""
        return self.is_current() and asyncio.current_task() in self._tasks

    def _take(self) -> None:
        assert self.loop is not None
        for answer in self.bridge().take():
            request, value = answer.call()
            if answer.done:
                continue
            try:
                awaitable = inspect.isawaitable(value)
            except BaseException as exception:
                # Whatever its class does to be looked at, the other requests are not to suffer from it.
                answer.fail(request, exception)
                continue
            if not awaitable:
                answer.send(request, value)
                continue
            task = self.loop.create_task(self._finish(answer, request, value))
            # The loop itself only keeps weak references to tasks.
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def _run(self, ready: threading.Event) -> None:
        loop = asyncio.new_event_loop()
        try:
            asyncio.set_event_loop(loop)
            self.attach(loop)
            ready.set()
            while not self._ending:
                try:
                    loop.run_forever()
                except BaseException:
                    # sys.exit() in a task or callback: other requests are not to be lost to it.
                    _logger.exception("a callback on the event loop of a server raised")
            loop.run_until_complete(self.finish())
            loop.run_until_complete(loop.shutdown_asyncgens())
        except Exception:
            _logger.exception("the event loop of a server failed")
        finally:
            ready.set()
            asyncio.set_event_loop(None)
            loop.close()

    async def _finish(self, answer: Answer, request: Request, awaitable: Any) -> None:
        try:
            value = await awaitable
        except asyncio.CancelledError as exception:
            if not self._ending:
                answer.fail(request, exception)
            raise
        except BaseException as exception:
            answer.fail(request, exception)
            # Ctrl-C is meant for the program, whose main thread this may be. SystemExit is not: no handler ends it.
            if isinstance(exception, KeyboardInterrupt) and threading.current_thread() is threading.main_thread():
                raise
        else:
            answer.send(request, value)
