"""The process of `portico run` that serves nothing itself: it holds the sockets, starts the workers, replaces those
that die, and takes new code and configuration when it is told to."""

from __future__ import annotations

import contextlib
import errno
import functools
import logging
import queue
import signal
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

from portico import _greeting, _systemd, config
from portico._errors import ConfigError, Error, ListenError, WorkerError
from portico._workers import Workers

from . import _worker_main
from ._exits import Exit
from ._words import welcome, what

_logger = logging.getLogger("portico.run")

# How often the main thread looks for signals that did not wake it.
_LOOK = 0.5


class Supervisor:
    """Runs until it is told to end. The main thread waits for what happens, and everything that takes time is done on
    others."""

    def __init__(self, options: config.Options, configuration: config.Configuration, develop: bool) -> None:
        self._options = options
        self._configuration = configuration
        self._develop = develop
        self._events: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._manager = _systemd.Manager()
        self._workers: Workers | None = None
        self._closing = False
        self._ended = False
        self._failure: BaseException | None = None
        self._started_at = time.monotonic()

    def run(self) -> int:
        """Serves until SIGINT or SIGTERM, and returns the exit code. Raises `ConfigError` and `ListenError` where it
        does not come to serve."""
        addresses = config.addresses(self._configuration.listen)
        _systemd.forget_handed_over()
        with self._signals():
            self._start(addresses or [{"port": _greeting.PORT}], not addresses)
            while not self._ended:
                with contextlib.suppress(queue.Empty):
                    # Not for ever: a signal that comes right before the wait begins does not end it.
                    self._events.get(timeout=_LOOK)()
        if self._failure is not None:
            raise self._failure
        return Exit.DONE

    # ---- its life

    def _start(self, addresses: list[dict[str, Any]], or_any_port: bool) -> None:
        tls = any(keywords.get("tls", True) for keywords in addresses)
        main = functools.partial(_worker_main.main, options=self._options, listens_tls=tls)
        workers = Workers(
            main,
            listen=addresses,
            workers=self._configuration.workers,
            ready_timeout=self._configuration.ready_timeout,
        )
        self._workers = workers

        def start() -> None:
            try:
                workers.start()
            except ListenError as error:
                if or_any_port and error.errno == errno.EADDRINUSE:
                    self._events.put(lambda: self._start([{"port": 0}], False))
                else:
                    self._events.put(functools.partial(self._fail, error))
            except WorkerError as error:
                # After the first line, which says which worker it was, comes what that had to say.
                told = str(error).partition("\n")[2] or str(error)
                self._events.put(functools.partial(self._fail, ConfigError(told)))
            except BaseException as error:
                self._events.put(functools.partial(self._fail, error))
            else:
                remark = (
                    ""
                    if or_any_port or addresses != [{"port": 0}]
                    else f"Port {_greeting.PORT} is taken, so this is port {workers.ports[0]}."
                )
                self._events.put(functools.partial(self._on_started, remark))

        self._on_thread("start", start)

    def _on_started(self, remark: str) -> None:
        assert self._workers is not None
        if self._closing:
            return
        _greeting.say(welcome(self._configuration, self._workers.urls, remark))
        self._manager.ready(self._status())
        self._on_thread("watch", self._wait_for_end)

    def _fail(self, error: BaseException) -> None:
        # One that was closed while it started has not failed.
        if not self._closing:
            self._failure = error
        self._ended = True

    def _wait_for_end(self) -> None:
        """Workers end when they are closed, by whomever."""
        assert self._workers is not None
        self._workers._closed.wait()
        self._events.put(self._on_ended)

    def _on_ended(self) -> None:
        self._ended = True

    def _end(self, grace: float) -> None:
        if not self._closing:
            self._manager.stopping()
        self._closing = True
        workers = self._workers
        assert workers is not None

        def close() -> None:
            workers.close(grace)
            self._events.put(self._on_ended)

        self._on_thread("end", close)

    def _status(self) -> str:
        assert self._workers is not None
        count = len(self._workers.pids)
        workers = "1 worker" if count == 1 else f"{count} workers"
        return f"serving {what(self._configuration)} at {', '.join(self._workers.urls)} with {workers}"

    # ---- signals

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        def on_signal(number: int, frame: FrameType | None) -> None:
            # Whatever takes a lock may be what this handler has interrupted; this queue is made for it.
            self._events.put(functools.partial(self._on_signal, number))

        before = {number: signal.signal(number, on_signal) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
        try:
            yield
        finally:
            for number, previous in before.items():
                signal.signal(number, signal.SIG_DFL if previous is None else previous)

    def _on_signal(self, number: int) -> None:
        if number == signal.SIGHUP:
            self._on_thread("reload", self._reload)
        else:
            self._end(0.0 if self._closing else self._configuration.grace)

    # ---- reload

    def _reload(self) -> None:
        try:
            configuration, problems = config.load(self._options)
            problems.raise_any()
            assert self._workers is not None
            self._workers.reload(configuration.grace)
            self._configuration = configuration
        except Error as error:
            _logger.error("not reloaded, what ran goes on: %s", error)

    @staticmethod
    def _on_thread(name: str, target: Callable[[], None]) -> None:
        threading.Thread(target=target, name=f"portico-run-{name}", daemon=True).start()
