"""The event loop of asyncio, with a server's I/O on the same thread."""

from __future__ import annotations

import asyncio
import contextlib
import selectors
import signal
import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ._core import Driver

# How long the main thread waits before it looks for signals, where it cannot be woken by them.
_LOOK_FOR_SIGNALS = 0.1


class _Selector(selectors.DefaultSelector):
    """Waits for descriptors, and does a server's I/O meanwhile."""

    def __init__(self) -> None:
        super().__init__()
        self._driver: Driver | None = None
        self._run: Callable[[], None] = _nothing
        self._drained = False
        # The longest wait; None is for ever.
        self.patience: float | None = None

    def board(self, driver: Driver, run: Callable[[], None]) -> None:
        """From now on drives that, and calls `run` for what comes of it."""
        self._driver, self._run = driver, run

    @property
    def is_driving(self) -> bool:
        return self._driver is not None

    def select(self, timeout: float | None = None) -> list[Any]:
        if self._driver is None:
            return super().select(timeout)
        if self.patience is not None:
            timeout = self.patience if timeout is None else min(timeout, self.patience)
        called, readable, ended = self._driver.drive(timeout, self._drained)
        # Told once; what is called may raise.
        self._drained = False
        if called:
            self._run()
        if ended:
            self._driver, self._run = None, _nothing
        elif not readable:
            return []
        events = super().select(0)
        self._drained = not events
        return events

    def close(self) -> None:
        self._driver, self._run = None, _nothing
        super().close()


class EventLoop(asyncio.SelectorEventLoop):
    """An event loop of asyncio that does the I/O of a `portico.Server` on its own thread; see `new_event_loop`."""

    def __init__(self) -> None:
        self._portico = _Selector()
        self._portico_closed: Callable[[], None] = _nothing
        super().__init__(self._portico)

    def close(self) -> None:
        super().close()
        closed, self._portico_closed = self._portico_closed, _nothing
        closed()

    def board(self, driver: Driver, run: Callable[[], None], closed: Callable[[], None]) -> None:
        """Does a server's I/O from now on; calls `run` for what comes of it, and `closed` when this loop is closed."""
        self._portico.board(driver, run)
        self._portico_closed = closed

    @property
    def is_driving(self) -> bool:
        """Whether it does some server's I/O already."""
        return self._portico.is_driving

    def run_forever(self) -> None:
        with self._woken_by_signals():
            super().run_forever()

    def remove_signal_handler(self, sig: int) -> bool:
        removed = super().remove_signal_handler(sig)
        if threading.current_thread() is threading.main_thread() and self.is_running():
            # With the last handler asyncio takes the descriptor away.
            signal.set_wakeup_fd(self._csock.fileno(), warn_on_full_buffer=False)  # type: ignore[attr-defined]
        return removed

    @contextlib.contextmanager
    def _woken_by_signals(self) -> Iterator[None]:
        """Signals end a wait on the main thread. In the selectors of Python the interrupted system call does that,
        which the core begins anew."""
        if threading.current_thread() is not threading.main_thread() or self.is_closed():
            yield
            return
        ours = self._csock.fileno()  # type: ignore[attr-defined]
        before = signal.set_wakeup_fd(ours, warn_on_full_buffer=False)
        if before not in (-1, ours):
            # Somebody else's: they go on being told, and we look by ourselves.
            signal.set_wakeup_fd(before, warn_on_full_buffer=False)
            self._portico.patience = _LOOK_FOR_SIGNALS
        try:
            yield
        finally:
            self._portico.patience = None
            if before == -1 and not self._signal_handlers:  # type: ignore[attr-defined]
                signal.set_wakeup_fd(-1)


def _nothing() -> None:
    pass


def new_event_loop() -> asyncio.AbstractEventLoop:
    """An event loop for a whole program, on whose thread a server's connections are read and written too.

    For `asyncio.run(main(), loop_factory=portico.new_event_loop)` (Python 3.12), `asyncio.Runner` (3.11), or
    `run_until_complete`. Inside, `async with portico.Server(handler)` finds it: an `async def` handler that does not
    suspend then costs neither a change of threads nor a turn of the loop. It is a `SelectorEventLoop` in everything
    else. It does the I/O of one server at a time; a second one beside it uses threads of its own.

    >>> loop = new_event_loop()
    >>> loop.run_until_complete(asyncio.sleep(0, "done"))
    'done'
    >>> loop.close()
    """
    return EventLoop()
