"""`portico run --workers 0`: in this very process, for debuggers."""

from __future__ import annotations

import contextlib

from portico import _greeting, _systemd, config
from portico._errors import ConfigError
from portico._server import Listener, Server

from ._exits import Exit
from ._pid_file import pid_file
from ._words import welcome, what
from ._worker_main import certificate, prepare


def run(options: config.Options) -> int:
    """Serves until SIGINT or SIGTERM, finishes what is in flight, and returns the exit code."""
    configuration, problems = config.load(options)
    with contextlib.ExitStack() as closing:
        if configuration.control is not None:
            raise ConfigError(
                "control: without a supervisor nobody can be told to reload; leave it or `--workers 0` out"
            )
        addresses = config.addresses(configuration.listen)
        made = certificate(configuration, addresses or [{"port": _greeting.PORT}])
        server = prepare(configuration, problems, closing, made)
        try:
            admin = None if configuration.admin is None else config.listen_admin(server, configuration).url
            listeners, remark = _listen(server, addresses)
            if configuration.pid_file is not None:
                closing.enter_context(pid_file(configuration.pid_file))
            urls = [listener.url for listener in listeners]
            _greeting.say_while_serving(welcome(configuration, urls, made, remark, admin))
            _systemd.Manager().ready(f"{what(configuration)} at {', '.join(urls)}")
            server.serve_forever(configuration.grace)
        except KeyboardInterrupt:
            pass  # Ctrl-C before serve_forever was there to take it.
        server.close(configuration.grace)
        _greeting.say(_greeting.stopped(server))
    return Exit.DONE


def _listen(server: Server, addresses: list[dict[str, object]]) -> tuple[list[Listener], str]:
    if addresses:
        return [server.listen(**keywords) for keywords in addresses], ""  # type: ignore[arg-type]
    listener, remark = _greeting.listen(server, "127.0.0.1", None)
    return [listener], remark
