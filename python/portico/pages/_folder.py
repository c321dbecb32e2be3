"""The folder of a site: which page a path means, and pages compiled, anew where a file of theirs has changed."""

from __future__ import annotations

import os
import posixpath
import threading
import time
from dataclasses import dataclass

from .._errors import ConfigError
from ._errors import page_error
from ._language import Program, compile_page

SUFFIX = ".psp"
_LARGEST = 2**20
_KEPT = 4096
_RESOLVED_FOR = 1.0
"""For how many seconds a link that stands for a page is not followed anew."""

_Signature = tuple[int, int, int]


@dataclass(frozen=True)
class _Compiled:
    program: Program
    files: tuple[tuple[str, _Signature], ...]
    """What it was compiled from, and how that looked."""


class Folder:
    """The files below a folder. No name leads out of it."""

    def __init__(self, root: str) -> None:
        self.root = os.path.realpath(root)
        if not os.path.isdir(self.root):
            raise ConfigError(f"root: {root!r} is no folder")
        self._compiled: dict[str, _Compiled] = {}
        self._found: dict[str, tuple[str, float]] = {}
        self._lock = threading.Lock()

    def page(self, path: str) -> str | None:
        """The page that a path means, None where it means none. Names that begin with an underscore are for other
        pages to include, those that begin with a dot for nobody."""
        name = path + "index" + SUFFIX if path.endswith("/") else path
        found = self._found.get(name)
        if found is not None and time.monotonic() < found[1] and _signature(found[0]) is not None:
            return name
        if not name.endswith(SUFFIX) or any(part[:1] in ("_", ".") for part in name.split("/")[1:]):
            return None
        file = self.file(name)
        if file is None:
            return None
        with self._lock:
            if len(self._found) >= _KEPT:
                self._found.clear()
            self._found[name] = file, time.monotonic() + _RESOLVED_FOR
        return name

    def file(self, name: str) -> str | None:
        """Where a file is, by its name from the root on; None where there is none, or it is outside."""
        if not name.startswith("/") or "\0" in name or "\\" in name or ".." in name.split("/"):
            return None
        try:
            real = os.path.realpath(self.root + name)
            inside = real.startswith(self.root.rstrip("/") + "/") and os.path.isfile(real)
        except (OSError, ValueError):
            return None
        return real if inside else None

    def program(self, name: str) -> Program:
        """A page, compiled. Raises `PageError`."""
        known = self._compiled.get(name)
        if known is not None and all(_signature(path) == seen for path, seen in known.files):
            return known.program
        files: dict[str, _Signature] = {}
        try:
            text = self._read(name, files)
        except FileNotFoundError as error:
            raise page_error((name, 0), str(error)) from None

        def include(within: str, target: str) -> tuple[str, str]:
            full = posixpath.normpath(posixpath.join(posixpath.dirname(within), target))
            if not full.endswith(SUFFIX):
                raise FileNotFoundError(f"{target!r} is no page: its name ends in {SUFFIX}")
            return full, self._read(full, files)

        program = compile_page(name, text, include)
        with self._lock:
            if len(self._compiled) >= _KEPT:
                self._compiled.clear()
            self._compiled[name] = _Compiled(program, tuple(files.items()))
        return program

    def _read(self, name: str, files: dict[str, _Signature]) -> str:
        path = self.file(name)
        if path is None:
            raise FileNotFoundError(f"there is no page {name}")
        try:
            with open(path, "rb") as file:
                status = os.fstat(file.fileno())
                # Before it is read: what changes while it is, is read again.
                files[path] = (status.st_mtime_ns, status.st_size, status.st_ino)
                data = file.read(_LARGEST + 1)
        except OSError as error:
            raise page_error((name, 0), f"it cannot be read: {error.strerror}") from None
        if len(data) > _LARGEST:
            raise page_error((name, 0), f"a page is {_LARGEST:,} bytes at the most")
        try:
            return data.decode("utf-8")
        except UnicodeDecodeError as error:
            line = data.count(b"\n", 0, error.start) + 1
            raise page_error((name, line), "it is no UTF-8") from None


def _signature(path: str) -> _Signature | None:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino
