"""The end of the interpreter, before which servers that listen are closed."""

from __future__ import annotations

import atexit
import threading
import weakref
from typing import TYPE_CHECKING

from . import _core
from ._errors import ClosedError

if TYPE_CHECKING:
    from ._server import Server

_listening: weakref.WeakSet[Server] = weakref.WeakSet()
_starting = threading.Lock()
ending = threading.Event()
"""None starts after that."""


def enlist(server: Server) -> None:
    """Has it closed when the interpreter ends. Raises `ClosedError` where that is now."""
    with _starting:
        if ending.is_set():
            raise ClosedError("cannot listen: the interpreter is ending")
        _listening.add(server)


@atexit.register
def _close_all() -> None:
    """Before the interpreter is taken down, so that no thread of ours meets it half gone."""
    with _starting:
        ending.set()
    for server in list(_listening):
        server.close(0)
        server._threads.end_handlers()
    _core.close_door()
