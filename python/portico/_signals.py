"""The signals that end a program, while something of it blocks."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from types import FrameType
from typing import Any

Handler = Callable[[int, "FrameType | None"], None]


@contextlib.contextmanager
def ending_signals(handler: Handler, *more: int, reopen: Handler | None = None) -> Iterator[None]:
    """On the main thread SIGINT (Ctrl-C), SIGTERM and `more` call `handler`, SIGUSR1 `reopen` where it is given; what
    was there is put back at the end. Other threads get no signals."""
    handlers = dict.fromkeys((signal.SIGINT, signal.SIGTERM, *more), handler)
    if reopen is not None:
        handlers[signal.SIGUSR1] = reopen
    with taken(handlers if threading.current_thread() is threading.main_thread() else {}):
        yield


@contextlib.contextmanager
def taken(handlers: Mapping[int, Handler]) -> Iterator[None]:
    """These are called for these signals; what was there is put back at the end. For the main thread."""
    before: dict[int, Any] = {}
    try:
        for number, handler in handlers.items():
            before[number] = signal.signal(number, handler)
        yield
    finally:
        for caught, previous in before.items():
            # None was not set from Python, and cannot be put back from it.
            signal.signal(caught, signal.SIG_DFL if previous is None else previous)
