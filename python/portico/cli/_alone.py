"""`portico run --workers 0` and `portico serve`: in this very process."""

from __future__ import annotations

import contextlib
import logging
import signal
import threading
from types import FrameType

from portico import _greeting, _systemd, config
from portico._errors import ConfigError, Error
from portico._server import Listener, Server
from portico._signals import Handler, taken

from ._exits import Exit
from ._pid_file import pid_file
from ._words import status, welcome
from ._worker_main import certificate, prepare

_logger = logging.getLogger("portico.run")


def run(options: config.Options) -> int:
    """Serves until SIGINT or SIGTERM, finishes what is in flight, and returns the exit code."""
    configuration, problems = config.load(options)
    with contextlib.ExitStack() as closing:
        signals = _Signals(closing)
        if configuration.control is not None:
            raise ConfigError(
                "control: without a supervisor nobody can be told to reload; leave it out, or say `--workers 1`"
            )
        addresses = config.addresses(configuration.listen)
        manager = _systemd.Manager()
        try:
            made = certificate(configuration, addresses or [{"port": _greeting.PORT}])
            server = signals.server = prepare(configuration, problems, closing, made)
            signals.end_if_told()
            admin = None if configuration.admin is None else config.listen_admin(server, configuration).url
            listeners, remark = _listen(server, addresses)
            if configuration.pid_file is not None:
                closing.enter_context(pid_file(configuration.pid_file))
            urls = [listener.url for listener in listeners]
            _greeting.say_while_serving(welcome(configuration, urls, made, remark, admin))
            manager.ready(status(configuration, urls, made))
            server.serve_forever(configuration.grace)
        except KeyboardInterrupt:
            pass  # Ctrl-C or SIGTERM before serve_forever was there to take it.
        finally:
            signals.interrupt = False  # no call: at its beginning the next signal would be taken
        if signals.server is not None:
            signals.server.close(configuration.grace)
            _greeting.say(_greeting.stopped(signals.server))
    return Exit.DONE


class _Signals:
    """What signals ask of a supervisor, as far as it can be done without one. None of them ends what serves."""

    def __init__(self, closing: contextlib.ExitStack) -> None:
        self.server: Server | None = None
        # Whether SIGINT and SIGTERM break off what is being done: not what is done at the end, by a second one.
        self.interrupt = True
        self._told_to_end = False
        # `serve_forever` has its own for SIGINT and SIGTERM, and for SIGUSR1 with a log file.
        ends, others = (signal.SIGINT, signal.SIGTERM), (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
        handlers: dict[int, Handler] = dict.fromkeys(ends, self._on_end)
        handlers |= dict.fromkeys(others, self._on_signal)
        closing.enter_context(taken(handlers))

    def end_if_told(self) -> None:
        """Raises KeyboardInterrupt where a program has swallowed it while it was imported."""
        if self._told_to_end:
            raise KeyboardInterrupt

    def _on_end(self, number: int, frame: FrameType | None) -> None:
        self._told_to_end = True
        # `serve_forever` gives the signals back once nobody is served, and then waits for what apps do at their end.
        served = self.server is not None and self.server._closed.is_set()
        if self.interrupt and not served:
            raise KeyboardInterrupt

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        # On a thread: what takes a lock may be what this handler has interrupted.
        if number == signal.SIGHUP:
            threading.Thread(target=self._reload, name="portico-run-reload", daemon=True).start()

    def _reload(self) -> None:
        contexts = [] if self.server is None else self.server.contexts
        read = 0
        for context in contexts:
            try:
                context.reload()
                read += 1
            except Error as error:
                _logger.error("not read again, what was there stays: %s", error)
        _logger.info(
            "SIGHUP: %s: new code and settings want another start, or, from the start, --workers 1",
            f"{read} of {len(contexts)} certificates are read again, and nothing else is"
            if contexts
            else "there are no certificates to read again",
        )


def _listen(server: Server, addresses: list[dict[str, object]]) -> tuple[list[Listener], str]:
    if addresses:
        return [server.listen(**keywords) for keywords in addresses], ""  # type: ignore[arg-type]
    listener, remark = _greeting.listen(server, "127.0.0.1", None)
    return [listener], remark
