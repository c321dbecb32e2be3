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
        self._descriptor: int | None = None
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
        command = [sys.executable, "-I", "-S", os.path.abspath(_confine.__file__), monty]
        command.append(str(_CODE_BYTES + 4 * memory_bytes))
        # The pool takes the path of one program, without arguments.
        script = f'#!/bin/sh\nexec {shlex.join(command)} "$@"\n'.encode()
        self._descriptor = _in_memory(script)
        if self._descriptor is not None:
            self.path = f"/proc/{os.getpid()}/fd/{self._descriptor}"
            return
        self._folder = tempfile.mkdtemp(prefix="portico-pages-")
        self.path = os.path.join(self._folder, "worker")
        with open(self.path, "wb", opener=lambda path, flags: os.open(path, flags, 0o700)) as file:
            file.write(script)

    def close(self) -> None:
        """Takes the script away."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)


def _in_memory(script: bytes) -> int | None:
    """A file in memory that can be run, where there is such a thing: nothing that cleans up temporary folders takes it
    away, and it goes with this process however that ends."""
    if not hasattr(os, "memfd_create"):
        return None
    # MFD_EXEC, from Linux 6.3 on, where a machine may be set to run no files in memory without it, or none at all.
    for flags in (os.MFD_CLOEXEC | 0x10, os.MFD_CLOEXEC):
        try:
            descriptor = os.memfd_create("portico-pages-worker", flags)
        except OSError:
            continue
        os.write(descriptor, script)
        if os.access(f"/proc/{os.getpid()}/fd/{descriptor}", os.X_OK):
            return descriptor
        os.close(descriptor)
    return None
