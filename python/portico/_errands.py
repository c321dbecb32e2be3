"""What signals ask a supervisor for, which takes longer than a signal may."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping

from ._errors import ClosedError, Error

_logger = logging.getLogger("portico.workers")


class Errands:
    """Does what it is asked for on a thread, one after the other. What is asked for twice while it waits for its turn
    is done once."""

    def __init__(self, known: Mapping[str, Callable[[float], object]]) -> None:
        """`known` are called with a grace."""
        self._known = known
        self._lock = threading.Lock()
        self._asked: list[str] = []
        self._thread: threading.Thread | None = None

    def ask(self, what: str, grace: float) -> None:
        """Does not wait."""
        with self._lock:
            if what not in self._asked:
                self._asked.append(what)
            if self._thread is None:
                thread = threading.Thread(target=self._run, args=(grace,), name="portico-workers-reload", daemon=True)
                thread.start()
                self._thread = thread

    def threads(self) -> list[threading.Thread]:
        """Where it is busy."""
        with self._lock:
            return [] if self._thread is None else [self._thread]

    def _run(self, grace: float) -> None:
        while True:
            with self._lock:
                if not self._asked:
                    self._thread = None
                    return
                what = self._asked.pop(0)
            _logger.info("%s", what)
            try:
                self._known[what](grace)
            except ClosedError as error:
                # Nobody waits for it any more.
                _logger.info("no %s: %s", what, error)
            except Exception as error:
                foreseen = isinstance(error, Error)
                _logger.error("cannot %s, what ran goes on: %s", what, error, exc_info=None if foreseen else error)
