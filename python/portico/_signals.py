"""The signals that end a program, while something of it blocks."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

Handler = Callable[[int, "FrameType | None"], None]


@contextlib.contextmanager
def ending_signals(handler: Handler, *more: int, reopen: Handler | None = None) -> Iterator[None]:
    """On the main thread SIGINT (Ctrl-C), SIGTERM and `more` call `handler`, SIGUSR1 `reopen` where it is given; what
    was there is put back at the end. Other threads get no signals."""
    before: dict[int, Any] = {}
    try:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM, *more):
                before[number] = signal.signal(number, handler)
            if reopen is not None:
                before[signal.SIGUSR1] = signal.signal(signal.SIGUSR1, reopen)
        yield
    finally:
        for caught, previous in before.items():
            # None was not set from Python, and cannot be put back from it.
            signal.signal(caught, signal.SIG_DFL if previous is None else previous)
