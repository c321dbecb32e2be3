"""`portico run --workers 0`: in this very process, for debuggers."""

from __future__ import annotations

import contextlib

from portico import _greeting, config
from portico._server import Listener, Server

from ._exits import Exit
from ._words import welcome
from ._worker_main import prepare


def run(options: config.Options) -> int:
    """Serves until SIGINT or SIGTERM, finishes what is in flight, and returns the exit code."""
    configuration, problems = config.load(options)
    with contextlib.ExitStack() as closing:
        addresses = config.addresses(configuration.listen)
        tls = any(keywords.get("tls", True) for keywords in addresses) or not addresses
        server = prepare(configuration, problems, closing, tls)
        try:
            listeners, remark = _listen(server, addresses)
            _greeting.say(welcome(configuration, [listener.url for listener in listeners], remark))
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
