"""What each worker process of `portico run` does."""

from __future__ import annotations

import contextlib
import functools
import logging
import sys
from collections.abc import Callable

from portico import _certs, _logs, config
from portico._errors import ClosedError, ConfigError, Error
from portico._importing import is_to_blame
from portico._server import Server
from portico._worker import BUSY, RAISED, Worker

from ._exits import Exit
from ._words import what

_logger = logging.getLogger("portico.run")


def main(worker: Worker, options: config.Options) -> None:
    """Reads the configuration anew, imports what is to be served and serves it. What somebody has to mend goes to the
    supervisor as it is, without the way that it took through portico."""
    try:
        configuration, problems = config.load(options)
    except ConfigError as error:
        worker._tell(RAISED, str(error))
        sys.exit(Exit.MISTAKE)
    try:
        with contextlib.ExitStack() as closing:
            made = certificate(configuration, worker._listen)
            server = prepare(configuration, problems, closing, made, functools.partial(_tell_of_long, worker))
            worker.listen(server)
            server.serve_forever(configuration.grace)
    except ClosedError:
        raise  # the end came between two lines
    except Error as error:  # as of a lifespan that fails
        worker._tell(RAISED, str(error))
        sys.exit(Exit.MISTAKE)
    except Exception as error:
        if not is_to_blame(error):
            raise  # by which the supervisor knows a fault of portico
        worker._tell(RAISED, f"starting {what(configuration)} failed\n{config.told(error)}")
        sys.exit(Exit.MISTAKE)


def prepare(
    configuration: config.Configuration,
    problems: config.Problems,
    closing: contextlib.ExitStack,
    made: _certs.Made | None,
    tell: Callable[[str], object] = _logger.warning,
) -> Server:
    """A server with everything but listeners, and with that certificate for every name. `tell` is for what takes long.
    Raises `ConfigError` with everything that is wrong."""
    problems.raise_any()
    _logs.to_stderr(configuration.log_level)
    server = config.build(configuration, problems, closing, tell)
    problems.raise_any()
    assert server is not None
    if made is not None:
        config.add_host(server, "default", {"cert": made.cert, "key": made.key})
    return server


def certificate(configuration: config.Configuration, addresses: list[dict[str, object]]) -> _certs.Made | None:
    """One for this machine alone, where no host has one and TLS is spoken. Raises `ConfigError`."""
    return config.own_certificate() if config.wants_own_certificate(configuration, addresses) else None


def _tell_of_long(worker: Worker, text: str) -> None:
    """Now, and where it was too long."""
    _logger.warning("%s", text)
    worker._tell(BUSY, text)
