"""What commands log: to standard error, and under systemd with the priorities that its journal knows."""

from __future__ import annotations

import logging
import os
import sys

LEVELS = ("debug", "info", "warning", "error", "critical")

# sd-daemon(3): a line that begins so has that priority in the journal.
_PRIORITIES = {logging.DEBUG: 7, logging.INFO: 6, logging.WARNING: 4, logging.ERROR: 3, logging.CRITICAL: 2}


def to_stderr(level: str) -> None:
    """Has the loggers of portico write to standard error from that level on. What the program that is served logs is
    left to it."""
    logger = logging.getLogger("portico")
    logger.setLevel(level.upper())
    for handler in list(logger.handlers):
        if isinstance(handler, _Handler):
            logger.removeHandler(handler)
    handler = _Handler(sys.stderr)
    handler.setFormatter(
        _Journal() if _is_journal() else logging.Formatter("%(asctime)s %(levelname)-7s %(name)s: %(message)s")
    )
    logger.addHandler(handler)


class _Handler(logging.StreamHandler):  # type: ignore[type-arg]
    """Silent where the program configures logging itself: then its handlers have these lines, and would have them
    twice."""

    def filter(self, record: logging.LogRecord) -> bool:
        return not logging.getLogger().handlers and bool(super().filter(record))


class _Journal(logging.Formatter):
    """Lines with a priority, and without the time, which the journal has."""

    def __init__(self) -> None:
        super().__init__("%(name)s: %(message)s")

    def format(self, record: logging.LogRecord) -> str:
        priority = _PRIORITIES.get(record.levelno, 6)
        return "\n".join(f"<{priority}>{line}" for line in super().format(record).splitlines())


def _is_journal() -> bool:
    """Whether standard error goes to the journal (`$JOURNAL_STREAM`, systemd.exec(5))."""
    try:
        found = os.fstat(sys.stderr.fileno())
    except (OSError, ValueError, AttributeError):
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{found.st_dev}:{found.st_ino}"
