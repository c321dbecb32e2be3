"""`portico run --reload`: which Python files have changed.

By looking at them, not by notices of the kernel: those differ by system, are lost on network and container file
systems, and a thousand files are looked at in a few milliseconds."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

# How often the files are looked at, and for how long none may change before it is acted on: editors write several.
LOOK, QUIET = 0.5, 0.15
# No program of one's own has more; a home directory does.
_MOST = 20_000
_NO_PROGRAM = {"__pycache__", "node_modules", "site-packages", "target"}

Snapshot = dict[str, tuple[int, int]]


class Files:
    """The Python files below some folders, and other files by name."""

    def __init__(self, folder: Path, more: Callable[[], Sequence[Path]] = tuple) -> None:
        self._folder = folder
        self._more = more
        self._seen = self._look()

    def changed(self) -> list[str]:
        """What has changed, come or gone since the last call."""
        now = self._look()
        before, self._seen = self._seen, now
        return sorted(name for name in before.keys() | now.keys() if before.get(name) != now.get(name))

    def _look(self) -> Snapshot:
        found: Snapshot = {}
        for name in [*self._python_files(), *map(os.fspath, self._more())]:
            try:
                told = os.stat(name)
            except OSError:
                continue
            found[name] = told.st_mtime_ns, told.st_size
            if len(found) >= _MOST:
                break
        return found

    def _python_files(self) -> Iterator[str]:
        for folder, folders, names in os.walk(self._folder):
            if "pyvenv.cfg" in names:
                folders.clear()
                continue
            folders[:] = [name for name in folders if not name.startswith(".") and name not in _NO_PROGRAM]
            yield from (os.path.join(folder, name) for name in names if name.endswith(".py"))
