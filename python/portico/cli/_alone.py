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
                "control: without a supervisor nobody can be told to reload; leave it or `--workers 0` out"
            )
        addresses = config.addresses(configuration.listen)
        manager = _systemd.Manager()
        made = certificate(configuration, addresses or [{"port": _greeting.PORT}])
        server = signals.server = prepare(configuration, problems, closing, made)
        try:
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
        server.close(configuration.grace)
        _greeting.say(_greeting.stopped(server))
    return Exit.DONE


class _Signals:
    """What signals ask of a supervisor, as far as it can be done without one. None of them ends what serves."""

    def __init__(self, closing: contextlib.ExitStack) -> None:
        self.server: Server | None = None
        # `serve_forever` has its own for SIGTERM, which is Ctrl-C until then, and for SIGUSR1 with a log file.
        taken = dict.fromkeys((signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2), self._on_signal)
        for number, handler in {**taken, signal.SIGTERM: signal.default_int_handler}.items():
            before = signal.signal(number, handler)
            closing.callback(signal.signal, number, signal.SIG_DFL if before is None else before)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        # On a thread: what takes a lock may be what this handler has interrupted.
        if number == signal.SIGHUP:
            threading.Thread(target=self._reload, name="portico-run-reload", daemon=True).start()

    def _reload(self) -> None:
        contexts = [] if self.server is None else self.server.contexts
        for context in contexts:
            try:
                context.reload()
            except Error as error:
                _logger.error("not read again, what was there stays: %s", error)
        _logger.info(
            "SIGHUP: certificates are read again, and nothing else is: new code and settings want another start, or, "
            "from the start, --workers 1"
        )


def _listen(server: Server, addresses: list[dict[str, object]]) -> tuple[list[Listener], str]:
    if addresses:
        return [server.listen(**keywords) for keywords in addresses], ""  # type: ignore[arg-type]
    listener, remark = _greeting.listen(server, "127.0.0.1", None)
    return [listener], remark
