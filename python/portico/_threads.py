"""The threads of a server, as Python knows them."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable

from . import _core
from ._reports import InterpreterEnds

# How long handlers that are told to end with the interpreter may take.
_HANDLERS_END = 0.5


class Threads:
    """The threads of one server, as Python knows them."""

    def __init__(self) -> None:
        self._all: list[threading.Thread] = []
        self._lock = threading.Lock()

    def start(self, name: str, target: Callable[[], None]) -> None:
        def run() -> None:
            # It may come where no handler is any more; `threading` is silent about SystemExit itself alone.
            with contextlib.suppress(InterpreterEnds):
                target()

        # Daemons, so that a handler that never returns cannot keep the interpreter from ending.
        thread = threading.Thread(target=run, name=name, daemon=True)
        with self._lock:
            # Listed before it runs: what runs on it may ask whether it is one of these.
            self._all = [known for known in self._all if known.is_alive() or known.ident is None] + [thread]
        try:
            thread.start()
        except RuntimeError:
            with self._lock:
                self._all.remove(thread)
            raise

    def end_handlers(self) -> None:
        """Ends what still runs Python code. What waits in C is left alone: it comes back to nothing."""
        for thread in self.alive():
            if thread.ident is not None:
                _core.raise_in_thread(thread.ident, InterpreterEnds)
        end = time.monotonic() + _HANDLERS_END
        for thread in self.alive():
            thread.join(max(0.0, end - time.monotonic()))

    def __contains__(self, thread: threading.Thread) -> bool:
        return thread in self._all

    def alive(self) -> list[threading.Thread]:
        return [thread for thread in self._all if thread.is_alive()]

    def join(self, end: float) -> list[str]:
        """Waits for them until a moment of the monotonic clock, and returns the names of those that are left."""
        for thread in self.alive():
            thread.join(max(0.0, end - time.monotonic()))
        return [thread.name for thread in self.alive()]
