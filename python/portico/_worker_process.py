"""One worker process as the supervisor sees it: how it is started, when it is ready, how it ends."""

from __future__ import annotations

import contextlib
import multiprocessing.spawn
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Pipe
from typing import Any

from ._addresses import Held
from ._errors import ConfigError
from ._worker import BUSY, READY, UNLOADABLE, Admin, Boot

# How long after its grace a process may take to end before it is killed: what is in flight has been dropped by then.
END = 2.0
# How often a process that is not ready yet is looked at, besides being listened to.
_LOOK = 0.05


@dataclass(frozen=True)
class Program:
    """What every worker runs. Made once, so that all of them, also later ones, are given the same."""

    main: bytes
    preparation: dict[str, Any]
    ready_timeout: float

    @classmethod
    def of(cls, main: Callable[..., object], ready_timeout: float) -> Program:
        """Raises `ConfigError` where another interpreter would not find `main`, and says what to do."""
        advice = "give a function at the top level of a module, or functools.partial of one"
        if multiprocessing.spawn.is_forking(sys.argv):
            raise ConfigError("workers of a frozen program: call multiprocessing.freeze_support() first thing in it")
        top: Any = sys.modules["__main__"]
        if getattr(main, "__module__", None) == "__main__" and not (
            getattr(top, "__file__", None) or getattr(top, "__spec__", None)
        ):
            raise ConfigError(
                f"main: {main!r} was typed in, or came from -c or standard input, where a worker's interpreter cannot "
                "find it: put it into a file"
            )
        try:
            pickled = pickle.dumps(main)
        except Exception as error:
            raise ConfigError(f"main: {main!r} cannot be handed to another interpreter ({error}): {advice}") from error
        try:
            preparation = multiprocessing.spawn.get_preparation_data("portico worker")
        except FileNotFoundError as error:
            raise ConfigError(
                "the folder in which this program was started is gone, and workers are started in it: start from one "
                "that stays"
            ) from error
        except RuntimeError as error:
            raise ConfigError(
                "a worker's interpreter imports this program to find `main`, and came to its start of the workers: put "
                'that under `if __name__ == "__main__":`'
            ) from error
        # As plain bytes, because multiprocessing refuses to pickle its own kind outside of its own start of a process.
        preparation["authkey"] = bytes(preparation["authkey"])
        return cls(pickled, preparation, ready_timeout)


@contextlib.contextmanager
def _held_back(number: int) -> Iterator[None]:
    """Processes that are started meanwhile get a signal only when they ask for it: it would end one that has no handler
    yet. `Worker._begin` asks."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {number})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class Process:
    """A worker process, from its start on.

    It is the fresh interpreter of `multiprocessing`'s "spawn": the same command line, so that interpreter flags,
    `__main__`, `set_executable` and frozen programs (`freeze_support`) are as its documentation has them. A fork of a
    program with threads, as every server is, may hang on any lock. But it is started by `subprocess`, for what
    `multiprocessing.Process` lacks: its own session, a wait that several threads may make, no helper process (the
    resource tracker) that stays, and handlers that may have child processes.

    `ready` and `ended` are called once each, on the thread that watches the process; `ended` always.
    """

    def __init__(
        self,
        number: int,
        program: Program,
        held: list[Held],
        ready: Callable[[Process], None],
        ended: Callable[[Process], None],
        admin: Admin | None = None,
    ) -> None:
        self.number = number
        self.admin = admin
        self.code: int | None = None
        self.ready_at: float | None = None
        self.traceback = ""
        self.unloadable = False
        self.settled = threading.Event()
        """It is ready, or has ended without."""
        self.ended = threading.Event()
        self._late: float | None = None
        # What it said to be busy with, long before it was ready.
        self._busy = ""
        self._ready_timeout = program.ready_timeout
        self._on_ready, self._on_ended = ready, ended
        self._lock = threading.Lock()
        self._kills: list[threading.Timer] = []
        self._control, theirs = Pipe()
        read, write = os.pipe()
        try:
            boot = Boot(
                number, [one.keywords for one in held], theirs.fileno(), program.preparation, program.main, admin
            )
            # First the path, so that what unpickles `boot` finds portico.
            self._told = pickle.dumps({"sys_path": program.preparation["sys_path"]}) + pickle.dumps(boot)
            inherited = [one.descriptor for one in held if one.descriptor is not None]
            if admin is not None and admin.listen is not None:
                inherited.append(admin.listen["fd"])
            with _held_back(signal.SIGUSR1):
                self._popen = subprocess.Popen(
                    multiprocessing.spawn.get_command_line(pipe_handle=read),
                    stdin=subprocess.DEVNULL,
                    pass_fds=(read, theirs.fileno(), *inherited),
                    # Ctrl-C in a terminal goes to a whole process group; the supervisor is to lead the end.
                    start_new_session=True,
                )
            self.thread = threading.Thread(
                target=self._watch, args=(write,), name=f"portico-worker-{number}", daemon=True
            )
            try:
                self.thread.start()
            except RuntimeError:
                self._popen.kill()
                self._popen.wait()
                raise
        except BaseException:
            os.close(write)
            self._control.close()
            raise
        finally:
            os.close(read)
            theirs.close()

    @property
    def pid(self) -> int:
        return self._popen.pid

    def served(self, now: float) -> float:
        """For how many seconds it has been ready."""
        return 0.0 if self.ready_at is None else now - self.ready_at

    def close(self, grace: float, idle: float | None = None) -> None:
        """Tells it to end, and kills it where that takes longer than `grace` and a little. Does not wait. A second
        call may shorten the grace. `idle` is there in place of its setting `drain_idle_timeout`."""
        with self._lock:
            if self.code is not None:
                return
            with contextlib.suppress(OSError):
                self._control.send((grace, idle))
            kill = threading.Timer(grace + END, self._popen.kill)
            kill.name, kill.daemon = f"portico-worker-{self.number}-end", True
            try:
                kill.start()
                self._kills.append(kill)
            except RuntimeError:  # no more threads, as at the end of the interpreter
                self._popen.kill()

    def why(self) -> str:
        """Why it has ended, in words."""
        code = self.code or 0
        if self._late is not None:
            late = f"did not call worker.listen() within {self._late:g} s and was killed"
            return f"{late}: {self._busy}" if self._busy else late
        if self.unloadable:
            return "could not load the program"
        if self.traceback:
            return "ended by an exception"
        if code < 0:
            try:
                return f"was killed by {signal.Signals(-code).name}"
            except ValueError:
                return f"was killed by signal {-code}"
        if code > 0:
            return f"ended with exit code {code}"
        return "returned from main" if self.ready_at is not None else "returned from main without worker.listen()"

    # ---- inside, on the watching thread

    def _watch(self, write: int) -> None:
        with contextlib.suppress(OSError), open(write, "wb") as pipe:
            pipe.write(self._told)
        self._wait_until_ready()
        if self.ready_at is not None:
            self.settled.set()
            try:
                self._on_ready(self)
            except Exception:
                # Whoever waits for it is told, and not left waiting.
                self.traceback = traceback.format_exc()
                self._popen.kill()
        code = self._popen.wait()
        with self._lock:
            self._read()
            self._control.close()
            self.code = code
            for kill in self._kills:
                kill.cancel()
        self.settled.set()
        self.ended.set()
        self._on_ended(self)

    def _wait_until_ready(self) -> None:
        # Not by reading alone: a child that the worker has forked may hold the pipe open after the worker has died.
        end = time.monotonic() + self._ready_timeout
        while self._popen.poll() is None and not self._read(_LOOK):
            if time.monotonic() > end:
                self._late = self._ready_timeout
                self._popen.kill()
                return

    def _read(self, timeout: float = 0.0) -> bool:
        """Takes what the worker has told; whether it will tell no more before it is ready."""
        try:
            while self._control.poll(timeout):
                what, text = self._control.recv()
                if what == READY:
                    self.ready_at = time.monotonic()
                    return True
                if what == BUSY:
                    self._busy = text
                    continue
                self.traceback = text
                self.unloadable = what == UNLOADABLE
            return False
        except (EOFError, OSError):
            return True
