"""The process of `portico run` that serves nothing itself: it holds the sockets, starts the workers, replaces those
that die, and takes new code and configuration when it is told to: by SIGHUP, by `portico reload`, and with `--reload`
by a file that has changed."""

from __future__ import annotations

import contextlib
import errno
import functools
import logging
import os
import queue
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

from portico import _certs, _greeting, _systemd, config
from portico._errors import ConfigError, Error, ListenError, WorkerError
from portico._signals import taken
from portico._succession import VARIABLE
from portico._workers import Workers

from . import _watching, _worker_main
from ._control import Answer, Control
from ._exits import Exit
from ._pid_file import pid_file
from ._words import status, welcome

_logger = logging.getLogger("portico.run")

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
# How often the main thread looks for signals that did not wake it.
_LOOK = 0.5
# While somebody develops, old workers are not waited for longer: browsers hold connections open.
_DEVELOPING_GRACE = 1.0
# For how long old workers read on what is idle, so that no client sends into a connection that is being closed.
_IDLE = 5.0
# How long a reload waits for old workers. They accept nobody from their first moment on.
_OLD_END = 3.0
# Tells a successor which port was asked for where nobody said one, by which it finds the socket.
_PORT_BY_ITSELF = "PORTICO_PORT_BY_ITSELF"
# How many files are named that have changed.
_NAMED = 3


class Supervisor:
    """Runs until it is told to end. The main thread waits for what happens, and everything that takes time is done on
    others."""

    def __init__(self, options: config.Options, configuration: config.Configuration, develop: bool) -> None:
        self._options = options
        self._configuration = configuration
        self._develop = develop
        self._handed_over = _systemd.handed_over()
        self._manager = _systemd.Manager()
        self._events: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._workers: Workers | None = None
        self._made: _certs.Made | None = None
        # Taking over from another process, whose socket and file these become when this one serves.
        self._succeeds = VARIABLE in os.environ
        self._closing = contextlib.ExitStack()
        # What others find it by, from its start to its end.
        self._found_by = {"control": configuration.control, "pid_file": configuration.pid_file}
        # Where to listen if nobody says it.
        self._by_itself: list[dict[str, Any]] = [{"port": _port_by_itself()}]
        self._state = "starting"  # then running, closing, ended; or failed, while a change is waited for
        self._failure: BaseException | None = None
        self._reloading = threading.Lock()
        self._hangups = threading.BoundedSemaphore(2)
        # How often it was told to end.
        self._ends = 0

    def run(self) -> int:
        """Serves until SIGINT or SIGTERM, and returns the exit code. Raises `ConfigError` and `ListenError` where it
        does not come to serve."""
        addresses = self._addresses_of(self._configuration)
        _systemd.forget_handed_over()
        with taken(dict.fromkeys(_SIGNALS, self._take_signal)), self._closing:
            if not self._succeeds:
                self._be_found()
            self._start(addresses, or_any_port=addresses is self._by_itself)
            if self._develop:
                self._on_thread("watch", self._watch)
            while self._state != "ended":
                with contextlib.suppress(queue.Empty):
                    # Not for ever: a signal that comes right before the wait begins does not end it.
                    self._events.get(timeout=min(_LOOK, self._manager.watchdog or _LOOK))()
                if self._manager.watchdog is not None and self._workers is not None:
                    self._manager.alive()
        if self._failure is not None:
            raise self._failure
        return Exit.DONE

    # ---- its life

    def _start(self, addresses: list[dict[str, Any]], or_any_port: bool = False) -> None:
        # Here, so that not each worker makes it, and the welcome says whether it is new.
        self._made = _worker_main.certificate(self._configuration, addresses)
        workers = self._workers = Workers(
            self._main(),
            listen=addresses,
            workers=self._configuration.workers,
            ready_timeout=self._configuration.ready_timeout,
            admin=config.admin(self._configuration, self._made),
        )

        def start() -> None:
            try:
                workers.start()
            except ListenError as error:
                if or_any_port and error.errno == errno.EADDRINUSE:
                    self._by_itself = [{"port": 0}]
                    self._events.put(functools.partial(self._start, self._by_itself))
                else:
                    self._events.put(functools.partial(self._fail, error))
            except WorkerError as error:
                told = _told(error)
                # A worker tells of mistakes without the traceback that an exception has which it does not know.
                bug = told.startswith("Traceback (")
                self._events.put(functools.partial(self._fail, RuntimeError(str(error)) if bug else ConfigError(told)))
            except BaseException as error:
                self._events.put(functools.partial(self._fail, error))
            else:
                self._events.put(self._on_started)

        self._on_thread("start", start)

    def _main(self) -> functools.partial[None]:
        return functools.partial(_worker_main.main, options=self._options)

    def _on_started(self) -> None:
        if self._state != "starting":
            return
        assert self._workers is not None
        try:
            if self._succeeds:
                self._be_found()
            if (path := self._found_by["pid_file"]) is not None:
                # Not before it serves: one that cannot, as its port is taken, must not take the file of who does.
                self._closing.enter_context(pid_file(path))
        except ConfigError as error:
            # It serves, and nobody else does any more.
            _logger.error("%s", error)
        self._state = "running"
        remark = ""
        if not self._configuration.listen and not self._handed_over and self._workers.ports[0] != _greeting.PORT:
            remark = f"Port {_greeting.PORT} is taken, so this is port {self._workers.ports[0]}."
        admin = self._workers.admin_url, self._workers.dashboard_urls
        _greeting.say_while_serving(welcome(self._configuration, self._workers.urls, self._made, remark, *admin))
        self._manager.ready(self._status())

    def _fail(self, error: BaseException) -> None:
        if self._state == "closing":
            self._state = "ended"  # one that was closed while it started has not failed
        elif self._develop and isinstance(error, ConfigError):
            print(f"portico run: {error}\n\nWaiting for a change.", file=sys.stderr, flush=True)
            self._state = "failed"
        else:
            self._failure = error
            self._state = "ended"

    def _end(self, grace: float) -> None:
        if self._state == "failed":
            self._state = "ended"
            return
        if self._state != "closing":
            self._manager.stopping()
        self._state = "closing"

        workers = self._workers
        assert workers is not None

        def close() -> None:
            workers.close(grace)
            self._events.put(self._on_closed)

        self._on_thread("end", close)

    def _on_closed(self) -> None:
        self._state = "ended"

    def _status(self) -> str:
        assert self._workers is not None
        count = len(self._workers.pids)
        workers = "1 worker" if count == 1 else f"{count} workers"
        return f"{status(self._configuration, self._workers.urls, self._made)} by {workers}"

    # ---- reload

    def _reload(self, told_by: str) -> Answer:
        """New workers for the old ones. On any thread but the main one."""
        with self._reloading:
            if self._state != "running":
                return {"ok": False, "text": f"it is {self._state}"}
            assert self._workers is not None
            begun = time.monotonic()
            _logger.info("reloading (%s)", told_by)
            self._manager.reloading()
            try:
                configuration = self._load()
                addresses = self._addresses_of(configuration)
                made = _worker_main.certificate(configuration, addresses)
                admin = config.admin(configuration, made)
                # The wait is so that who asks next is answered by new code. What old workers still have to finish may
                # take longer.
                self._workers.reload(
                    *((_DEVELOPING_GRACE, 0.0) if self._develop else (configuration.grace, _IDLE)),
                    main=self._main(),
                    listen=addresses,
                    workers=configuration.workers,
                    admin=False if admin is None else admin,
                    wait=_OLD_END,
                )
            except Exception as error:
                text = _told(error) if isinstance(error, WorkerError) else str(error) or repr(error)
                # A traceback for what nobody has foreseen.
                _logger.error(
                    "not reloaded, what ran goes on: %s", text, exc_info=None if isinstance(error, Error) else error
                )
                self._manager.ready(f"{self._status()}; the last reload failed")
                return {"ok": False, "text": text}
            stays = self._what_stays(configuration)
            self._configuration, self._made = configuration, made
            text = f"reloaded in {time.monotonic() - begun:.1f} s: {self._status()}"
            _logger.info("%s", text)
            if stays:
                _logger.warning("%s", stays)
                text += f"\n{stays}"
            self._manager.ready(self._status())
            return {"ok": True, "text": text}

    def _what_stays(self, configuration: config.Configuration) -> str:
        """What has changed, and only a start takes; empty if nothing has."""
        now = {"control": configuration.control, "pid_file": configuration.pid_file}
        changed = [name for name, path in now.items() if path != self._found_by[name]]
        return f"taken at the next start only: {' and '.join(changed)}" if changed else ""

    def _load(self) -> config.Configuration:
        configuration, problems = config.load(self._options)
        problems.raise_any()
        if configuration.workers == 0:
            raise ConfigError("workers: this server has a supervisor; 0 workers want a start without it")
        return configuration

    def _addresses_of(self, configuration: config.Configuration) -> list[dict[str, Any]]:
        """Where to listen; where nothing is said that is what it was from the start."""
        return config.addresses(configuration.listen, self._handed_over) or self._by_itself

    def _on_hangup(self) -> None:
        # One that is under way, and one after it that sees what has changed meanwhile: more would do the same again.
        if self._hangups.acquire(blocking=False):

            def reload() -> None:
                try:
                    self._reload("SIGHUP")
                finally:
                    self._hangups.release()

            self._on_thread("reload", reload)

    def _upgrade(self) -> None:
        """Another process of this program goes on, with the same sockets: for a new version of portico itself."""
        with self._reloading:
            if self._state != "running":
                return
            assert self._workers is not None
            _systemd.hand_on(self._handed_over)
            os.environ[_PORT_BY_ITSELF] = str(self._by_itself[0]["port"])
            try:
                pid = self._workers.upgrade(self._configuration.grace)
            except Error as error:
                _logger.error("not upgraded, what ran goes on: %s", error)
                # The workers to come must not take these numbers for descriptors of theirs.
                _systemd.forget_handed_over()
                os.environ.pop(_PORT_BY_ITSELF, None)
                return
            self._manager.main_pid(pid)
            self._state = "closing"
        # Not with the lock: who asks for a reload meanwhile is told so at once.
        self._workers._closed.wait()
        self._events.put(self._on_closed)

    def _tell(self) -> Answer:
        text = self._status() if self._state == "running" else self._state
        urls = self._workers.urls if self._workers is not None else []
        return {"ok": True, "pid": os.getpid(), "state": self._state, "urls": urls, "text": text}

    # ---- development

    def _watch(self) -> None:
        """Reloads when a file has changed."""
        files = _watching.Files(self._configuration.app_dir, self._other_files)
        while self._state != "ended":
            time.sleep(_watching.LOOK)
            changed = set(files.changed())
            if not changed:
                continue
            while True:
                time.sleep(_watching.QUIET)
                if not (more := files.changed()):
                    break
                changed.update(more)
            while self._state == "starting":
                # What has changed meanwhile may not be in what starts.
                time.sleep(_watching.LOOK)
            names = ", ".join(os.path.relpath(name) for name in sorted(changed)[:_NAMED])
            named = f"{names} and {len(changed) - _NAMED} more" if len(changed) > _NAMED else names
            if self._state == "failed":
                self._events.put(self._start_again)
            else:
                self._reload(f"changed: {named}")

    def _other_files(self) -> list[Path]:
        return [self._options.file] if self._options.file is not None else []

    def _start_again(self) -> None:
        try:
            configuration = self._load()
            addresses = self._addresses_of(configuration)
            self._configuration, self._state = configuration, "starting"
            self._found_by["pid_file"] = configuration.pid_file
            self._start(addresses, or_any_port=addresses is self._by_itself)
        except ConfigError as error:
            self._fail(error)

    # ---- who may tell it

    def _take_signal(self, number: int, frame: FrameType | None) -> None:
        # Whatever takes a lock may be what this handler has interrupted; this queue is made for it.
        self._events.put(functools.partial(self._on_signal, number))

    def _on_signal(self, number: int) -> None:
        if number == signal.SIGHUP:
            self._on_hangup()
        elif number == signal.SIGUSR1:
            if self._workers is not None:
                self._workers._pass_on(number)  # they reopen their log files
        elif number == signal.SIGUSR2:
            self._on_thread("upgrade", self._upgrade)
        else:
            # Not by the state: after an upgrade it is closing, and what is in flight has its grace all the same.
            self._ends += 1
            self._end(self._configuration.grace if self._ends == 1 else 0.0)

    def _be_found(self) -> None:
        """Makes the socket for `portico reload` and the file with the number of the process, until the end."""
        path = self._found_by["control"]
        commands = {"reload": lambda: self._reload("portico reload"), "status": self._tell}
        try:
            self._closing.callback(Control(path, commands, self._succeeds).close)
        except ConfigError as error:
            if path is not None:
                raise
            # As in a container whose file system cannot be written; SIGHUP is left.
            _logger.warning("%s", error)

    @staticmethod
    def _on_thread(name: str, target: Callable[[], None]) -> None:
        threading.Thread(target=target, name=f"portico-run-{name}", daemon=True).start()


def _port_by_itself() -> int:
    """That of a predecessor, which tells it once."""
    text = os.environ.pop(_PORT_BY_ITSELF, str(_greeting.PORT))
    if not (text.isascii() and text.isdigit() and len(text) <= 5 and int(text) <= 65_535):
        raise ConfigError(f"{_PORT_BY_ITSELF}: it is for portico's own use, and says {text!r}")
    return int(text)


def _told(error: WorkerError) -> str:
    """What a worker had to say; it comes after a line that says which one it was."""
    first, _, rest = str(error).partition("\n")
    return rest or first
