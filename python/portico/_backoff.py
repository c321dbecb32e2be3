"""How long a supervisor waits before it replaces a worker."""

from __future__ import annotations


class Backoff:
    """How long to wait before a worker is replaced: not at all, unless the ones before it died young too."""

    FIRST, MOST = 0.1, 5.0
    # Who has served for so long did not die of what it began with.
    GROWN_UP = 10.0

    def __init__(self) -> None:
        self._next = 0.0

    def after(self, served: float) -> float:
        """The pause after one that has served for so many seconds."""
        if served >= self.GROWN_UP:
            self._next = 0.0
        pause = self._next
        self._next = min(max(2 * pause, self.FIRST), self.MOST)
        return pause
