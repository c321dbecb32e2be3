"""`portico.Workers`: several processes that serve the same addresses, and what replaces those that die."""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import queue
import signal
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from types import FrameType, TracebackType

from ._addresses import Address, Sockets, parse
from ._backoff import Backoff
from ._errands import Errands
from ._errors import ClosedError, ConfigError, WorkerError
from ._importing import refuse_to_wait
from ._server import _check_grace
from ._signals import ending_signals
from ._succession import Inheritance, Successor, own_command
from ._worker import Worker
from ._worker_admin import Listening, WorkersAdmin
from ._worker_process import END, Process, Program

Main = Callable[[Worker], object]

_logger = logging.getLogger("portico.workers")

# The most workers; beyond it somebody has mistaken the number.
_MOST = 1_000
# How often the main thread looks for signals that did not wake it.
_LOOK = 0.5
# How long threads that have nothing left to do may take to be gone.
_THREADS_END = 2.0
# How long a successor may take beyond what its workers may.
_START = 10.0


class Workers:
    """Several processes that serve the same addresses, and a supervisor, this one, that replaces each that dies.

    `main` is called in each of them, in a fresh interpreter, with a `Worker`: it makes a `Server`, calls
    `worker.listen(server)`, and returns when the server has ended. It may be `async def`. The interpreters import it by
    name, so it stands at the top level of a module, and the program starts under `if __name__ == "__main__":`.

    `listen` is an address or a list of them: a port of 127.0.0.1, `(host, port)`, or a dict of the keywords `port`,
    `host`, `unix`, `fd`, `tls`, `backlog` and `proxy_protocol` of `Server.listen`. `workers` is how many processes
    there are, by default one for each core that this one may use. A worker that has not listened after `ready_timeout`
    seconds is killed.

    All workers accept from the same sockets, which this process holds: what waits in their queue outlives a worker
    that dies. With `reuse_port` each worker has sockets of its own instead (`SO_REUSEPORT`), among which the kernel
    deals out connections more evenly; those that wait in the queue of a worker that ends or dies are reset then.

    `admin` is the address of an admin listener, as one of `listen`, in the clear by default; a dict may have a `token`
    as for `Server.listen_admin`, and for `tls` wants `contexts`, a function that is given a server to add contexts to.
    This process has there `/metrics` of all workers, each with the label `worker`, and the probes; each worker has its
    dashboard at a port of its own, the next ones (`dashboard_urls`). A single worker has everything at the address.

    Raises `ConfigError` for wrong arguments, and for a `main` that another interpreter would not find. Every method may
    be called from any thread.

    >>> Workers(print, workers=2, listen=[8443, ("0.0.0.0", 8444), {"port": 8080, "tls": False}])
    <portico workers (new): 2 for 127.0.0.1:8443, 0.0.0.0:8444, 127.0.0.1:8080>
    """

    def __init__(
        self,
        main: Main,
        *,
        listen: Address | Iterable[Address],
        workers: int | None = None,
        reuse_port: bool = False,
        ready_timeout: float = 60.0,
        admin: Address | None = None,
    ) -> None:
        if not callable(main):
            raise ConfigError(f"main: a function of a worker, not {type(main).__name__}")
        if workers is None:
            workers = _cores()
        workers = _check_number(workers)
        if isinstance(ready_timeout, bool) or not isinstance(ready_timeout, (int, float)) or not ready_timeout > 0:
            raise ConfigError(f"ready_timeout: a number of seconds above 0, not {ready_timeout!r}")
        self._admin = WorkersAdmin(admin)
        self._main = main
        self._places = parse(listen)
        self._reuse_port = bool(reuse_port)
        self._ready_timeout = float(ready_timeout)
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._reloading = threading.Lock()
        self._state = "new"  # then starting, running, closing, closed
        self._closing = threading.Event()
        self._closed = threading.Event()
        # Running, or closing without ever having been.
        self._settled = threading.Event()
        self._failure: Exception | None = None
        self._waiting: list[queue.SimpleQueue[int | None]] = []
        self._program: Program | None = None
        # What is held open for the workers there are.
        self._sockets = Sockets([])
        self._inheritance: Inheritance | None = None
        self._folder = os.getcwd()
        self._restarts = 0
        self._errands = Errands({"reload": self._reload_by_signal, "upgrade": self.upgrade})
        # By number: the worker, or the dead one that waits to be replaced.
        self._current: list[Process | None] = [None] * workers
        self._backoffs = [Backoff() for _ in range(workers)]
        # Those that live, also old ones that finish what is in flight, and new ones that are not ready.
        self._living: set[Process] = set()
        self._threads: list[threading.Thread] = []

    # ---- life

    def start(self) -> None:
        """Binds the addresses, starts the workers and waits until each of them listens.

        Raises `ListenError` where an address is in use and the like, `WorkerError` with the traceback where a worker
        ends before it listens or does not listen in time (then none is left), `ConfigError` where a worker cannot load
        `main`, and `ClosedError` when called twice.
        """
        self._check_process()
        self._begin()
        try:
            self._settled.wait()
            if self._failure is not None:
                raise self._failure
            if self._closing.is_set():
                raise ClosedError("the workers were closed before all of them listened")
        except BaseException:
            self.close(0)
            raise

    def close(self, grace: float = 30.0) -> None:
        """Ends the workers: each lets what is in flight finish for `grace` seconds, as `Server.close` does, and is
        killed if it has not ended soon after. Waits for the end. Safe to call twice, also with a shorter grace from
        another thread while the first call waits; done with no grace when the interpreter ends.
        """
        if os.getpid() != self._pid:
            return  # a forked copy: the workers are the parent's
        grace = _check_grace(grace)
        self._begin_close(grace)
        self._closed.wait(grace + END + _THREADS_END)
        self._admin.close()
        atexit.unregister(self.close)
        end = time.monotonic() + _THREADS_END
        for thread in [*self._threads, *self._errands.threads()]:
            if thread is not threading.current_thread():
                thread.join(max(0.0, end - time.monotonic()))

    def run_forever(self, grace: float = 30.0) -> None:
        """Starts the workers, where that was not done, and blocks until they are closed, by whomever.

        On the main thread SIGINT (Ctrl-C) and SIGTERM close them with `grace`; a second one drops what is still in
        flight. SIGHUP calls `reload`, and SIGUSR2 `upgrade`, with `grace`; SIGUSR1 goes on to the workers, which reopen
        their access logs. Where that fails the old workers go on, and
        the logger `portico.workers` says why. What comes during a reload is done after it, once. The signal handlers
        that were there are put back at the end. Raises what `start` raises.
        """
        self._check_process()
        grace = _check_grace(grace)
        if self._closing.is_set():
            raise ClosedError("cannot run_forever closed workers")
        signals: queue.SimpleQueue[int | None] = queue.SimpleQueue()

        def on_signal(number: int, frame: FrameType | None) -> None:
            # Whatever takes a lock may be what this handler has interrupted; this queue is made for it.
            signals.put(number)

        with self._lock:
            self._waiting.append(signals)
        with ending_signals(on_signal, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
            try:
                if self._state == "new":
                    self._begin()
                if self._closed.is_set():
                    signals.put(None)
                left = grace
                while (number := _next(signals)) is not None:
                    if number in (signal.SIGHUP, signal.SIGUSR2):
                        self._errands.ask("reload" if number == signal.SIGHUP else "upgrade", grace)
                        continue
                    if number == signal.SIGUSR1:
                        self._pass_on(number)
                        continue
                    self._begin_close(left)
                    left = 0.0
                if self._failure is not None:
                    raise self._failure
            finally:
                self.close(0)

    def reload(
        self,
        grace: float = 30.0,
        idle: float = 5.0,
        *,
        main: Main | None = None,
        listen: Address | Iterable[Address] | None = None,
        workers: int | None = None,
        admin: Address | None = None,
        wait: float | None = None,
    ) -> None:
        """Replaces the workers: starts new ones, waits until all of them listen, and tells the old ones to end, which
        lets what is in flight finish for `grace` seconds. Returns when all old ones have ended, or `wait` seconds after
        they were told, where that is less. No request is lost:
        clients are told to close their connections before those are, and those that are between two requests are read
        for another `idle` seconds, where their clients do not close them before.

        New workers import the program anew, and so have its new code, settings and certificates. `main`, `listen`,
        `workers` and `admin` are there in place of those that were given before (`admin=False` for no such listener);
        sockets of addresses that stay are kept. Where a new worker does not come to listen, `WorkerError` (or
        `ConfigError`) is raised, and `ListenError` where an address is in use: then everything stays as it was. A
        second call waits for the first.
        """
        with self._reloading:
            old = self._renew(grace, idle, main, listen, workers, admin)
            end = time.monotonic() + (grace + END + _THREADS_END if wait is None else wait)
            for process in old:
                process.ended.wait(max(0.0, end - time.monotonic()))
            self._admin.end_old()

    def _reload_by_signal(self, grace: float) -> None:
        begun = time.monotonic()
        self.reload(grace)
        _logger.info("reloaded in %.1f s", time.monotonic() - begun)

    def _pass_on(self, number: int) -> None:
        """A signal, to every worker, also those that finish what is in flight."""
        with self._lock:
            living = [process.pid for process in self._living]
        for pid in living:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def _renew(
        self,
        grace: float,
        idle: float,
        main: Main | None,
        listen: Address | Iterable[Address] | None,
        workers: int | None,
        admin: Address | None,
    ) -> list[Process]:
        """New workers serve, and the old ones, which are returned, have been told to end. With the lock of reloads."""
        grace, idle = _check_grace(grace), _check_grace(idle, "idle")
        self._check_running()
        assert self._program is not None
        program = self._program if main is None else Program.of(main, self._ready_timeout)
        places = self._places if listen is None else parse(listen)
        count = len(self._current) if workers is None else _check_number(workers)
        new: list[Process] = []
        with contextlib.ExitStack() as failed:
            sockets = self._sockets.again(places)
            failed.callback(sockets.close)
            listening = self._admin.again(admin, count)
            failed.callback(self._admin.drop, listening)
            failed.callback(_give_up, new, grace, idle)
            self._launch_all(new, program, sockets, listening, count)
            old = self._swap(new, program, sockets, listening)
            failed.pop_all()
        for process in old:
            process.close(grace, idle)
        return old

    def upgrade(self, grace: float = 30.0, idle: float = 5.0, *, command: Sequence[str] | None = None) -> int:
        """Has a new process of the same program take over, with the listening sockets: for a new version of portico, of
        Python, or of what supervises. Returns its process number when it serves; by then the workers of this one have
        been told to end, as `reload` does it, and `run_forever` returns when they have.

        It is started as this one was, in the folder where these `Workers` were made, or by `command`. It has to make
        `Workers` with the same `listen`; addresses that it adds are bound, those that it lacks are closed. Raises
        `WorkerError` where it does not come to serve within `ready_timeout` and ten seconds; then it is ended, and
        everything stays as it was.
        """
        grace, idle = _check_grace(grace), _check_grace(idle, "idle")
        with self._reloading:
            self._check_running()
            held = [*self._sockets.held, *self._admin.sockets.held]
            successor = Successor(command or own_command(), self._folder, held)
            _logger.info("successor (pid %d) is started", successor.pid)
            successor.wait(self._ready_timeout + _START, self._closing)
            _logger.info("successor (pid %d) serves; this process ends", successor.pid)
            self._begin_close(grace, idle, handed_over=True)
            # The successor's is asked from now on.
            self._admin.close()
            return successor.pid

    # ---- looking at it

    @property
    def addresses(self) -> list[tuple[str, int] | str]:
        """`(ip, port)`, or the path of a Unix socket, for each of `listen`. Empty before the start."""
        return [held.address for held in self._sockets.held]

    @property
    def ports(self) -> list[int | None]:
        """The ports, also where 0 was asked for; None for a Unix socket. Empty before the start."""
        return [None if isinstance(address, str) else address[1] for address in self.addresses]

    @property
    def urls(self) -> list[str]:
        """Where to find it, as `Listener.url`, for each of `listen`. Empty before the start."""
        return [held.url for held in self._sockets.held]

    @property
    def admin_url(self) -> str | None:
        """Where the admin listener is; None without one, and before the start."""
        return self._admin.url

    @property
    def dashboard_urls(self) -> list[str]:
        """Where the dashboard of each worker is, by `Worker.number`. Empty without `admin`, and before the start."""
        return self._admin.dashboard_urls

    @property
    def pids(self) -> list[int]:
        """The processes, by `Worker.number`. One that waits to be replaced is left out."""
        with self._lock:
            return [process.pid for process in self._current if process is not None and process.code is None]

    @property
    def restarts(self) -> int:
        """How many workers have died and were replaced, or are about to be."""
        return self._restarts

    def __repr__(self) -> str:
        addresses = ", ".join(self.urls or map(str, self._places))
        return f"<portico workers ({self._state}): {len(self._current)} for {addresses}>"

    # ---- with

    def __enter__(self) -> Workers:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # ---- inside

    def _begin(self) -> None:
        """Binds and starts, without waiting."""
        refuse_to_wait("starting workers")
        with self._lock:
            if self._state != "new":
                raise ClosedError(f"cannot start workers that are {self._state}: workers start once")
            self._program = Program.of(self._main, self._ready_timeout)
            self._inheritance = Inheritance.take()
            try:
                self._sockets = Sockets(self._places, self._reuse_port, self._inheritance.socket_for)
                self._admin.open(len(self._current), self._inheritance)
            except BaseException:
                self._let_go()
                self._sockets = Sockets([])
                raise
            self._state = "starting"
            atexit.register(self.close, 0.0)
            for number in range(len(self._current)):
                try:
                    self._current[number] = self._launch(number, self._program, self._sockets, self._admin.now)
                except (OSError, RuntimeError) as error:
                    self._failure = WorkerError(f"cannot start worker {number}: {error}")
                    break
        if self._failure is not None:
            self._begin_close(0)

    def _launch(self, number: int, program: Program, sockets: Sockets, listening: Listening) -> Process:
        """Starts a process. With the lock held."""
        admin = self._admin.for_worker(number, listening)
        process = Process(number, program, sockets.held, self._on_ready, self._on_ended, admin)
        self._living.add(process)
        self._threads = [thread for thread in self._threads if thread.is_alive()] + [process.thread]
        return process

    def _on_ready(self, process: Process) -> None:
        _logger.info("worker %d (pid %d) listens", process.number, process.pid)
        with self._lock:
            if process in self._current:
                self._admin.joined(process)
            if self._state == "starting" and all(one and one.ready_at is not None for one in self._current):
                self._state = "running"
                assert self._inheritance is not None
                self._sockets.take_over()
                self._admin.sockets.take_over()
                self._inheritance.serves()
                self._settled.set()

    def _on_ended(self, process: Process) -> None:
        """A process has ended, for whatever reason. On the thread that watched it."""
        with self._lock:
            self._admin.ended(process)
            self._living.discard(process)
            state = self._state
            unasked = process in self._current
            if state == "closing":
                self._end_if_empty()
            elif state == "starting" and self._failure is None:
                self._failure = _failure(process)
        if state == "starting":
            self._begin_close(0)
        elif state == "running" and unasked:
            self._replace_dead(process)

    def _replace_dead(self, process: Process) -> None:
        with self._lock:
            if process not in self._current:
                return
            backoff = self._backoffs[process.number]
            self._restarts += 1
        pause = backoff.after(process.served(time.monotonic()))
        _logger.log(
            # One that returned was not ill.
            logging.ERROR if process.code else logging.WARNING,
            "worker %d (pid %d) %s; it is replaced %s%s",
            process.number,
            process.pid,
            process.why(),
            f"in {pause:g} s" if pause else "at once",
            f"\n{process.traceback}".rstrip() if process.traceback else "",
        )
        while not self._closing.wait(pause):
            with self._lock:
                if self._state != "running" or process not in self._current:
                    return
                try:
                    assert self._program is not None
                    self._current[process.number] = self._launch(
                        process.number, self._program, self._sockets, self._admin.now
                    )
                    return
                except (OSError, RuntimeError) as error:
                    why = error
            pause = backoff.after(0.0)
            _logger.error("cannot start worker %d: %s; tried again in %g s", process.number, why, pause)

    def _launch_all(
        self, new: list[Process], program: Program, sockets: Sockets, listening: Listening, count: int
    ) -> None:
        """Starts workers, and waits until all of them listen. Raises where one does not."""
        for number in range(count):
            with self._lock:
                self._check_running()
                try:
                    new.append(self._launch(number, program, sockets, listening))
                except (OSError, RuntimeError) as error:
                    raise WorkerError(f"cannot start worker {number}: {error}") from error
        while waiting := [process for process in new if not process.settled.is_set()]:
            for process in new:
                if process.settled.is_set() and process.ready_at is None:
                    raise _failure(process)
            waiting[0].settled.wait(_LOOK / 10)
            self._check_running()

    def _swap(self, new: list[Process], program: Program, sockets: Sockets, listening: Listening) -> list[Process]:
        """Puts new workers in the place of the old ones, which are returned."""
        with self._lock:
            self._check_running()
            for process in new:
                if process.code is not None or process.ready_at is None:
                    raise _failure(process)
            old = [process for process in self._current if process is not None]
            self._sockets = sockets
            self._current, self._backoffs = list(new), [Backoff() for _ in new]
            self._program, self._places = program, [one.place for one in sockets.held]
            for process in new:
                self._admin.joined(process)
            # Before the old workers let go of them, so that no connection waits for nobody, and before a new one that
            # dies is replaced.
            sockets.take_over()
            self._admin.swap(listening)
        return old

    def _begin_close(self, grace: float, idle: float | None = None, handed_over: bool = False) -> None:
        """Tells every worker to end, without waiting. The sockets may be `handed_over` to a successor."""
        with self._lock:
            if self._state == "closed":
                return
            if handed_over:
                self._sockets.hand_over()
                self._admin.sockets.hand_over()
            self._state = "closing"
            self._closing.set()
            self._settled.set()
            # Before the workers do, so that with the last of them connections are refused and do not queue up.
            self._let_go()
            living = list(self._living)
            self._end_if_empty()
        for process in living:
            process.close(grace, idle)

    def _let_go(self) -> None:
        """Closes the sockets. What they were stays to be asked for."""
        self._sockets.close()
        if self._inheritance is not None:
            self._inheritance.close()

    def _end_if_empty(self) -> None:
        """With the lock held."""
        if not self._living:
            self._state = "closed"
            self._closed.set()
            for signals in self._waiting:
                signals.put(None)

    def _check_running(self) -> None:
        self._check_process()
        if self._state != "running":
            raise ClosedError(f"the workers are {self._state}, not running")

    def _check_process(self) -> None:
        if os.getpid() != self._pid:
            raise ClosedError(f"these workers belong to process {self._pid}, of which this one is a fork")


def run_workers(
    main: Main,
    *,
    listen: Address | Iterable[Address],
    workers: int | None = None,
    reuse_port: bool = False,
    ready_timeout: float = 60.0,
    admin: Address | None = None,
    grace: float = 30.0,
) -> None:
    """Runs `Workers` until SIGINT or SIGTERM: `Workers(...).run_forever(grace)` in one call.

    >>> run_workers(print, workers=0, listen=8443)
    Traceback (most recent call last):
    portico.ConfigError: workers: a whole number from 1 to 1000, or None, not 0
    """
    made = Workers(
        main, listen=listen, workers=workers, reuse_port=reuse_port, ready_timeout=ready_timeout, admin=admin
    )
    made.run_forever(grace)


def _next(signals: queue.SimpleQueue[int | None]) -> int | None:
    """Waits for the next signal, or None."""
    while True:
        with contextlib.suppress(queue.Empty):
            # Not for ever: a signal that comes right before the wait begins does not end it, and its handler in Python
            # would run at the next signal only. One that came so was seen under load.
            return signals.get(timeout=_LOOK)


def _give_up(new: list[Process], grace: float, idle: float) -> None:
    for process in new:
        # Those that listened before another one failed may have taken requests.
        process.close(*((0.0, None) if process.ready_at is None else (grace, idle)))


def _failure(process: Process) -> Exception:
    """What is raised for a worker that did not come to serve."""
    kind = ConfigError if process.unloadable else WorkerError
    text = f"worker {process.number} (pid {process.pid}) {process.why()}"
    if process.unloadable:
        text += ": `main` has to be at the top level of a module that a fresh interpreter can import"
    return kind(f"{text}\n{process.traceback}".rstrip())


def _check_number(workers: object) -> int:
    if not isinstance(workers, int) or isinstance(workers, bool) or not 1 <= workers <= _MOST:
        raise ConfigError(f"workers: a whole number from 1 to {_MOST}, or None, not {workers!r}")
    return workers


def _cores() -> int:
    """How many cores this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on every system
        return os.cpu_count() or 1
