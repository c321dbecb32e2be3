"""How worker processes are started: by a script that confines each before it runs."""

from __future__ import annotations

import logging
import os
import shlex
import shutil
import sys
import tempfile

from pydantic_monty import _binary

from .._errors import ConfigError
from . import _confine

_log = logging.getLogger("portico.pages")
_CODE_BYTES = 512 * 2**20
"""Address space for the worker itself: its code, the stack of its thread, what its allocator sets aside."""


class Starter:
    """What the pool runs for each worker, as long as this is open."""

    def __init__(self, memory_bytes: int, confine: bool) -> None:
        try:
            monty = os.path.realpath(_binary.find_monty_binary(None))
        except FileNotFoundError as error:
            raise ConfigError(f"Pages: {error}") from None
        self._folder: str | None = None
        if not confine:
            self.path = monty
            return
        if not sys.executable or getattr(sys, "frozen", False):
            _log.warning("workers of pages run unconfined: this program has no Python interpreter to confine them")
            self.path = monty
            return
        missing = _confine.missing()
        if missing:
            _log.warning("workers of pages run without %s, which this machine does not offer", " and ".join(missing))
        # The pool takes the path of one program, without arguments.
        self._folder = tempfile.mkdtemp(prefix="portico-pages-")
        self.path = os.path.join(self._folder, "worker")
        command = [sys.executable, "-I", "-S", os.path.abspath(_confine.__file__), monty]
        command.append(str(_CODE_BYTES + 4 * memory_bytes))
        with open(self.path, "w", opener=lambda path, flags: os.open(path, flags, 0o700)) as script:
            script.write(f'#!/bin/sh\nexec {shlex.join(command)} "$@"\n')

    def close(self) -> None:
        """Takes the script away."""
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
