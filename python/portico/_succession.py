"""A supervisor that is replaced by a new one of the same program: the listening sockets go from hand to hand, and are
never closed in between."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from multiprocessing.connection import wait
from typing import Any

from ._addresses import Held, Place
from ._errors import ClosedError, ConfigError, WorkerError

# What a successor is told: a pipe to say that it serves, and which socket is for which address.
VARIABLE = "PORTICO_SUCCESSION"
# How often a successor is looked at, besides being listened to.
_LOOK = 0.2
# How long one that has to go may take before it is killed.
_END = 5.0
_SERVES = b"serves"


def own_command() -> list[str]:
    """How this program was started: the interpreter, its flags, the program and its arguments."""
    if getattr(sys, "frozen", False):
        return [sys.executable, *sys.argv[1:]]
    return [sys.executable, *sys.orig_argv[1:]]


class Successor:
    """A process that is to take over. Raises `WorkerError` where it cannot be started."""

    def __init__(self, command: Sequence[str], folder: str, held: list[Held]) -> None:
        self.command = list(command)
        self._read, ready = os.pipe()
        sockets = [{"key": one.place.key, "fd": one.fileno()} for one in held]
        told = json.dumps({"ready": ready, "sockets": sockets})
        try:
            self._popen = subprocess.Popen(
                self.command,
                cwd=folder,
                env={**os.environ, VARIABLE: told},
                stdin=subprocess.DEVNULL,
                pass_fds=(ready, *(one.fileno() for one in held)),
            )
        except OSError as error:
            os.close(self._read)
            raise WorkerError(f"cannot start a successor by {self.command}: {error}") from error
        finally:
            os.close(ready)

    @property
    def pid(self) -> int:
        return self._popen.pid

    def wait(self, timeout: float, closing: threading.Event) -> None:
        """Returns when it serves. Raises `WorkerError` where it ends before, or takes longer, and `ClosedError` where
        `closing` is set meanwhile; then it is gone."""
        end = time.monotonic() + timeout
        try:
            while True:
                if wait([self._read], _LOOK):
                    if os.read(self._read, len(_SERVES)) == _SERVES:
                        # Nobody waits for it, and `subprocess` shall not mind: it outlives this process.
                        self._popen.returncode = 0
                        return
                    # The pipe's end: it has ended, or has closed every descriptor that it does not know.
                    with contextlib.suppress(subprocess.TimeoutExpired):
                        code = self._popen.wait(_END)
                        raise WorkerError(
                            f"the successor (pid {self.pid}) ended with exit code {code} and never served"
                        )
                    raise WorkerError(f"the successor (pid {self.pid}) has closed the pipe to its predecessor")
                if closing.is_set():
                    raise ClosedError("the workers were closed before their successor served")
                if time.monotonic() > end:
                    raise WorkerError(
                        f"the successor (pid {self.pid}) did not serve within {timeout:g} s and was ended"
                    )
        except BaseException:
            self._end()
            raise
        finally:
            os.close(self._read)

    def _end(self) -> None:
        # First so that it can end its workers; they end as well when it is gone.
        self._popen.terminate()
        try:
            self._popen.wait(_END)
        except subprocess.TimeoutExpired:
            self._popen.kill()
            self._popen.wait()


class Inheritance:
    """What a predecessor has handed over; empty where there is none."""

    def __init__(self, told: Mapping[str, Any]) -> None:
        self._ready: int | None = told.get("ready")
        self._sockets: list[tuple[Any, int]] = [(one["key"], one["fd"]) for one in told.get("sockets", [])]
        for descriptor in self._descriptors():
            os.set_inheritable(descriptor, False)

    @classmethod
    def take(cls) -> Inheritance:
        """Takes it, once: what this process starts is not told. Raises `ConfigError` for what no predecessor tells."""
        told = os.environ.pop(VARIABLE, None)
        try:
            return cls(json.loads(told) if told else {})
        except (ValueError, TypeError, KeyError, AttributeError, OSError, RecursionError) as error:
            raise ConfigError(f"{VARIABLE}: it is for portico's own use, and says {told!r} ({error})") from error

    def socket_for(self, place: Place) -> socket.socket | None:
        """The socket for an address, which is the caller's from now on."""
        for at, (key, descriptor) in enumerate(self._sockets):
            if key == place.key:
                del self._sockets[at]
                return socket.socket(fileno=descriptor)
        return None

    def serves(self) -> None:
        """Tells the predecessor that it may go."""
        if self._ready is not None:
            # An error means that it is gone.
            with contextlib.suppress(OSError):
                os.write(self._ready, _SERVES)
        self.close()

    def close(self) -> None:
        """Lets go of what nobody wanted."""
        for descriptor in self._descriptors():
            with contextlib.suppress(OSError):
                os.close(descriptor)
        self._ready, self._sockets = None, []

    def _descriptors(self) -> list[int]:
        return [fd for fd in (self._ready, *(fd for _, fd in self._sockets)) if fd is not None]
