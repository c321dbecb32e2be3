"""Event loops on which handlers run: the one of the user's program, or one on a thread of its own."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import inspect
import logging
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ._asgi import Lifespans
from ._core import Bridge, Raised
from ._errors import ListenError
from ._event_loop import EventLoop, new_event_loop

if TYPE_CHECKING:
    from . import _core
    from ._core import Request

_logger = logging.getLogger("portico.error")

# How long tasks that were cancelled at the end may take to clean up.
_CLEAN_UP = 5.0


async def _call(handler: Callable[[Any], Any], request: Request) -> Any:
    """What a request's task runs."""
    try:
        value = handler(request)
        return await value if inspect.isawaitable(value) else value
    except (SystemExit, KeyboardInterrupt, StopIteration) as exception:
        # Ctrl-C is meant for the program, whose main thread this may be. SystemExit is not: no handler ends it.
        if isinstance(exception, KeyboardInterrupt) and threading.current_thread() is threading.main_thread():
            raise
        return Raised(exception)


class Loop:
    """Calls handlers on an event loop: the user's, once attached, else one on a thread of its own, once started.

    Requests arrive in batches: one wake for all that wait."""

    def __init__(self, start_thread: Callable[[str, Callable[[], None]], None]) -> None:
        self.loop: asyncio.AbstractEventLoop | None = None
        self.lifespans = Lifespans()
        self._bridge: Bridge | None = None
        self._start_thread = start_thread
        self._own = False
        self._reads = False
        self._ending = False
        self._stopped = False
        self._failure: Exception | None = None
        self._finished = threading.Event()
        # Until then, by the monotonic clock, tasks that go on after their response may: the end of a grace.
        self._patience = 0.0
        self._lock = threading.Lock()

    def bridge(self) -> Bridge:
        """How requests come to the loop."""
        with self._lock:
            if self._bridge is None:
                self._bridge = Bridge()
            return self._bridge

    def attach(self, loop: asyncio.AbstractEventLoop, core: _core.Server) -> None:
        """Serves on `loop`; on its own thread, or before it runs. One of ours does the server's I/O from now on."""
        self.loop = loop
        bridge = self.bridge()
        # In debug mode asyncio watches every step, so each is left to it.
        ready = None if loop.get_debug() else getattr(loop, "_ready", None)
        bridge.attach(loop.create_task, _call, ready)
        if isinstance(loop, EventLoop) and not loop.is_driving:
            driver = core.drive(bridge, loop._portico.fileno())
            if driver is not None:
                # Handlers see the context variables that are set now, as in a callback that was added now.
                loop.board(driver, functools.partial(contextvars.copy_context().run, bridge.run), bridge.close)
                return
        self._reads = True
        loop.add_reader(bridge.fileno(), bridge.run)

    def start(self, core: _core.Server) -> None:
        """Serves on a loop of its own, where none was attached or started."""
        with self._lock:
            if self.loop is not None or self._own or self._stopped:
                return
            self._own = True
        ready = threading.Event()
        try:
            self._start_thread("portico-asyncio", functools.partial(self._run, core, ready))
        except RuntimeError as error:
            self._own = False
            raise ListenError(f"cannot listen without a thread for the event loop: {error}") from error
        ready.wait()
        if self._failure is not None:
            raise ListenError(f"cannot listen without an event loop: {self._failure}") from self._failure

    def stop(self) -> None:
        """Ends what `start` began, from any other thread; returns at once. An attached loop is told to let go."""
        with self._lock:
            self._stopped = True
        loop = self.loop
        if loop is None:
            return
        try:
            loop.call_soon_threadsafe(self._stop_own if self._own else self.detach)
        except RuntimeError:
            self.close_if_loop_is()

    def close_if_loop_is(self) -> None:
        """Where the loop was closed under a server that goes on, nobody answers its requests: they get 500."""
        if self.loop is not None and self.loop.is_closed():
            self.bridge().close()

    def _stop_own(self) -> None:
        self.detach()
        assert self.loop is not None
        self.loop.stop()

    def detach(self) -> None:
        """Stops serving, on the loop's thread. Cancels what is left where the grace is over; else `finish` does."""
        if self.loop is not None and not self._ending:
            self._ending = True
            if self._reads:
                self.loop.remove_reader(self.bridge().fileno())
            self.bridge().close()
        if time.monotonic() >= self._patience:
            for task in self._tasks():
                task.cancel()

    def wait_until(self, patience: float) -> None:
        """How long `finish` waits for tasks that go on after their response: until then, by the monotonic clock. The
        earliest of several counts."""
        self._patience = patience if self._patience == 0 else min(self._patience, patience)

    async def finish(self) -> None:
        """Waits for tasks that go on after their response, as background tasks do, as long as the grace lasts; cancels
        those that are left; then ends the apps."""
        if tasks := self._tasks():
            patience = max(0.0, self._patience - time.monotonic())
            _, left = await asyncio.wait(tasks, timeout=patience)
            for task in left:
                task.cancel()
            if left:
                if patience > 0:
                    _logger.warning("%d background tasks were cancelled at the end of the grace", len(left))
                await asyncio.wait(left, timeout=_CLEAN_UP)
        await self.lifespans.shutdown()

    def wait_finished(self, timeout: float) -> None:
        """From another thread: until a loop of its own has nothing left to do."""
        if self._own:
            self._finished.wait(timeout)

    def is_current(self) -> bool:
        """Whether the caller runs on this loop, and so must not wait for it."""
        return self.loop is not None and asyncio._get_running_loop() is self.loop

    def runs_current_task(self) -> bool:
        """Whether the caller is a handler on this loop, for which the end has to wait."""
        return self.is_current() and asyncio.current_task() in self._tasks()

    def _tasks(self) -> list[asyncio.Task[Any]]:
        return [] if self._bridge is None else list(self._bridge.tasks.values())

    def _run(self, core: _core.Server, ready: threading.Event) -> None:
        loop = new_event_loop()
        try:
            asyncio.set_event_loop(loop)
            try:
                self.attach(loop, core)
            except Exception as error:
                self._failure = error
                return
            ready.set()
            while not self._ending:
                try:
                    loop.run_forever()
                except BaseException:
                    # sys.exit() in a task or callback: other requests are not to be lost to it.
                    _logger.exception("a callback on the event loop of a server raised")
            for last in (self.finish, self._cancel_rest, loop.shutdown_asyncgens, loop.shutdown_default_executor):
                try:
                    loop.run_until_complete(last())
                except BaseException:
                    _logger.exception("a callback on the event loop of a server raised at its end")
        except Exception:
            _logger.exception("the event loop of a server failed")
        finally:
            ready.set()
            asyncio.set_event_loop(None)
            loop.close()
            self._finished.set()

    async def _cancel_rest(self) -> None:
        """What handlers have left behind, as asyncio.run does."""
        if tasks := asyncio.all_tasks() - {asyncio.current_task()}:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks, timeout=_CLEAN_UP)
