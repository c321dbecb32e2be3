"""What runs in a worker process: its beginning, its end, and the `Worker` that `main` is given."""

from __future__ import annotations

import asyncio
import inspect
import multiprocessing.spawn
import os
import pickle
import signal
import sys
import threading
import time
import traceback
import weakref
from dataclasses import dataclass
from multiprocessing import process
from multiprocessing.connection import Connection, wait
from typing import Any

from ._errors import ClosedError
from ._server import Listener, Server

# How long what is in flight may take when nobody says how long: the supervisor is gone, or SIGTERM came from elsewhere.
_GRACE = 30.0
# How long after its grace a worker that nobody supervises may take to end.
_END = 5.0
# How often a worker looks whether its parent is the same, for the case that a forked copy of the supervisor keeps the
# pipe open.
_LOOK = 5.0
# The most of a traceback that is sent, so that sending never waits for the supervisor to read.
_TRACEBACK = 16_384

READY, UNLOADABLE, RAISED, BUSY = "ready", "unloadable", "raised", "busy"


@dataclass(frozen=True)
class Admin:
    """How those who run the server look at one worker."""

    socket: str | None
    """The path of a Unix socket, on which the supervisor asks it; None for one alone, which nobody has to ask."""
    listen: dict[str, Any] | None
    """The keywords of `Server.listen_admin` for a listener that is this worker's, with a descriptor."""
    port: int | None
    """That listener's, where it has one."""


class Worker:
    """One process of `Workers`, as the function that runs in it sees it. Made by portico.

    >>> def main(worker):
    ...     with Server(lambda request: {"statusCode": 200, "body": f"from worker {worker.number}"}) as server:
    ...         worker.listen(server)
    ...         server.serve_forever()
    """

    def __init__(
        self, number: int, listen: list[dict[str, Any]], control: Connection, admin: Admin | None = None
    ) -> None:
        self._number = number
        self._listen = listen
        self._control = control
        self._admin = admin
        # On the socket that the worker before it and the one after it have too.
        self._shared_admin: Listener | None = None
        self._servers: weakref.WeakSet[Server] = weakref.WeakSet()
        self._lock = threading.Lock()
        self._ready = False
        self._closing = False
        self._parent = os.getppid()
        # A signal handler must not wait for a lock, so it only writes here.
        self._woken, self._wake = os.pipe()

    @property
    def number(self) -> int:
        """Which of the workers this is, from 0. One that replaces another has its number."""
        return self._number

    @property
    def pid(self) -> int:
        """The number of this process."""
        return os.getpid()

    def listen(self, server: Server) -> list[Listener]:
        """Begins to accept connections on every address of the workers, as `Server.listen` does, and tells the
        supervisor that this worker is ready. One `Listener` for each address, in their order.

        Where the supervisor ends the workers, the server is closed with the grace that it gives. Raises what
        `Server.listen` raises, and `ClosedError` where the workers are being closed already.
        """
        with self._lock:
            if self._closing:
                raise ClosedError(f"worker {self._number} cannot listen: it is being closed")
            server._serves_with_others()
            listeners = [server.listen(**keywords) for keywords in self._listen]
            self._servers.add(server)
            if not self._ready:
                if self._admin is not None:
                    self._listen_admin(server, self._admin)
                self._take_sigterm()
                self._ready = True
                self._tell(READY, "")
            return listeners

    def __repr__(self) -> str:
        return f"<portico worker {self._number} (pid {self.pid})>"

    # ---- inside

    def _begin(self) -> None:
        """Called on the main thread before anything of the user's."""
        # Ctrl-C is the supervisor's. Not SIG_IGN, which programs that this one starts would inherit.
        signal.signal(signal.SIGINT, lambda number, frame: None)
        # As long as nothing is in flight it just ends the process, whatever that is busy with: a handler in Python
        # would come too late if the signal came right before the main thread begins to wait for something.
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        # What a service manager may send to every process of a service, and is meant for the supervisor.
        for number in (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
            signal.signal(number, lambda number, frame: None)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGUSR1})
        threading.Thread(target=self._obey, name="portico-worker", daemon=True).start()

    def _listen_admin(self, server: Server, admin: Admin) -> None:
        if admin.socket is not None:
            server.listen_admin(unix=admin.socket)
        if admin.listen is not None:
            self._shared_admin = server.listen_admin(**admin.listen)
            os.close(admin.listen["fd"])  # the listener has one of its own

    def _take_sigterm(self) -> None:
        """From now on SIGTERM closes the servers, unless `main` has a handler of its own, as `serve_forever` has."""
        if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
            signal.signal(signal.SIGTERM, lambda number, frame: os.write(self._wake, b"\0"))

    def _obey(self) -> None:
        """Closes when the supervisor says so, when it is gone, and on SIGTERM."""
        while os.getppid() == self._parent:
            try:
                for ready in wait([self._control, self._woken], _LOOK):
                    if ready is self._control:
                        self._close(*self._control.recv())
                    else:
                        os.read(self._woken, 1)
                        self._close(_GRACE)
            except (EOFError, OSError):
                break
        self._close(_GRACE)
        # Nobody is left to kill this process if `main` does not return.
        time.sleep(_GRACE + _END)
        os._exit(1)

    def _close(self, grace: float, idle: float | None = None) -> None:
        if not self._ready:
            # Ends what `main`, or an import, is busy with. Before the lock, which `listen` may hold for as long as an
            # app takes to start.
            os.kill(os.getpid(), signal.SIGTERM)
        with self._lock:
            self._closing = True
            listening, self._listen = self._listen, []
        for keywords in listening:
            if "fd" in keywords:
                # Servers have copies of their own. As long as one is open the kernel queues connections.
                os.close(keywords["fd"])
        for server in list(self._servers):
            # Does not wait, so that all of them end side by side; `main` waits.
            server._core.close(grace, idle)
        if idle is not None and self._shared_admin is not None:
            # Only at a reload: from now on the new worker answers there.
            self._shared_admin.close()

    def _tell(self, what: str, text: str) -> bool:
        try:
            self._control.send((what, text[-_TRACEBACK:]))
        except OSError:
            return False  # the supervisor is gone
        return True

    def _failed(self, what: str, error: BaseException) -> int:
        if self._closing and isinstance(error, ClosedError):
            return 0  # the end came between two lines of `main`
        # The supervisor logs it, so that it is not told twice.
        if not self._tell(what, "".join(traceback.format_exception(error))):
            sys.excepthook(type(error), error, error.__traceback__)
        return 1


@dataclass(frozen=True)
class Boot:
    """What a worker process is given. `multiprocessing.spawn` unpickles it in the fresh interpreter and calls
    `_bootstrap`, as it does with a process of its own."""

    number: int
    listen: list[dict[str, Any]]
    control: int
    preparation: dict[str, Any]
    main: bytes
    admin: Admin | None

    def _bootstrap(self, parent_sentinel: int) -> int:
        os.close(parent_sentinel)
        admin = [self.admin.listen] if self.admin is not None and self.admin.listen is not None else []
        for descriptor in (self.control, *(keywords["fd"] for keywords in [*self.listen, *admin] if "fd" in keywords)):
            # Programs that the worker starts must not hold the port open.
            os.set_inheritable(descriptor, False)
        worker = Worker(self.number, self.listen, Connection(self.control), self.admin)
        worker._begin()
        try:
            main = self._load()
        except Exception as error:
            return worker._failed(UNLOADABLE, error)
        try:
            result = main(worker)
            if inspect.iscoroutine(result):
                asyncio.run(result)
        except Exception as error:
            return worker._failed(RAISED, error)
        return 0

    def _load(self) -> Any:
        current: Any = process.current_process()
        # So that a program without `if __name__ == "__main__"` is told, and does not start workers of workers.
        current._inheriting = True
        try:
            preparation = dict(self.preparation)
            if not os.path.isdir(preparation.get("dir") or ""):
                # Removed since the start, as releases are; the program may not need it.
                preparation.pop("dir", None)
            multiprocessing.spawn.prepare(preparation)
            return pickle.loads(self.main)
        finally:
            del current._inheriting
