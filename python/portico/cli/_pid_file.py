"""The file with the number of the process, for those who signal it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from portico._errors import ConfigError


@contextlib.contextmanager
def pid_file(path: Path) -> Iterator[None]:
    """It is there meanwhile. Raises `ConfigError` where it cannot be written."""
    try:
        path.write_text(f"{os.getpid()}\n")
    except OSError as error:
        raise ConfigError(f"pid_file: cannot write {path}: {error.strerror}") from error
    try:
        yield
    finally:
        # Not that of a successor.
        with contextlib.suppress(OSError, ValueError):
            if int(path.read_text()) == os.getpid():
                path.unlink()
