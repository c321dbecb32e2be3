"""`portico check`: whether `portico run` would serve, without listening anywhere."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import functools
import logging
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from portico import config
from portico._errors import ConfigError
from portico._server import Server

from ._arguments import add_command
from ._exits import Exit
from ._run import add_options, options_of
from ._words import what

if TYPE_CHECKING:
    from ._arguments import Commands

# With fewer left a certificate is worth a word, where nothing renews it.
_FEW_DAYS = 14


def add(commands: Commands) -> None:
    """Adds the command."""
    parser = add_command(
        commands,
        "check",
        "say what is wrong with a portico.toml",
        "Does everything that `portico run` does but for listening: reads portico.toml, checks each value, loads every "
        "certificate and imports every handler. Says all that is wrong, each with its line, and ends with 1; or that "
        "all is well, and ends with 0. What other flags and the environment say counts as it does for `portico run`.",
        "  portico check\n"
        "  portico check /etc/portico.toml\n"
        "  portico check --print\n"
        "  portico check portico.toml && portico reload",
    )
    parser.add_argument(
        "config",
        nargs="?",
        type=Path,
        metavar="FILE",
        help=f"the file (default: $PORTICO_CONFIG, or the {config.DEFAULT_FILE} of this folder)",
    )
    add_options(parser)
    parser.add_argument(
        "--print", action="store_true", help="show every value that holds, and where it was said; secrets are files"
    )
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    options = options_of(arguments, None)
    configuration, problems = config.load(options)
    warnings = _Warnings()
    # Root checks what somebody else serves: the file must not be root's then.
    settings = {name: value for name, value in configuration.settings.items() if name != "access_log"}
    configuration = dataclasses.replace(configuration, settings=settings)
    with contextlib.ExitStack() as closing:
        server = config.build(configuration, problems, closing, functools.partial(print, file=sys.stderr, flush=True))
        if server is not None:
            _check_more(server, configuration, problems)
        if problems:
            print(problems, file=sys.stderr)
            print(f"portico check: {_counted(len(problems.told()), 'thing')} to mend", file=sys.stderr)
            return Exit.MISTAKE
        assert server is not None
        if arguments.print:
            print(config.effective(configuration))
        else:
            print("\n".join(_summary(options, configuration, server, warnings.found)))
    return Exit.DONE


def _check_more(server: Server, configuration: config.Configuration, problems: config.Problems) -> None:
    """What `portico run` does when it begins to listen, as far as that can be had without it."""
    config.check_admin(server, configuration, problems)
    # Where no place is named it is a port with TLS.
    if config.wants_own_certificate(configuration, [place.keywords() for place in configuration.listen] or [{}]):
        try:
            config.check_own_certificate()
        except ConfigError as error:
            problems.add(configuration.root, ("",), str(error))


def _summary(
    options: config.Options, configuration: config.Configuration, server: Server, warnings: list[str]
) -> list[str]:
    good = f"good, with {_counted(len(warnings), 'warning')}" if warnings else "good"
    lines = [f"{options.file or 'What was typed'} is {good}: {what(configuration)}"]
    for certificate in server.stats()["certificates"]:
        lines.append(f"  {certificate['host'] or 'every other host'}: {_days(certificate)}")
    if not configuration.hosts:
        lines.append("  no host has a certificate: one for this machine alone is made where TLS is spoken")
    return [*lines, *(f"  warning: {warning}" for warning in warnings)]


def _counted(count: int, what: str) -> str:
    return f"{count} {what}{'s' * (count != 1)}"


class _Warnings(logging.Handler):
    """What portico warns of meanwhile, which `portico run` logs. Not at once, so that it stands with what is good."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.found: list[str] = []
        logging.getLogger("portico").addHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        self.found.append(record.getMessage())


def _days(certificate: dict[str, Any]) -> str:
    days = int((certificate["not_after"] - time.time()) // 86400)
    told = f"{certificate['subject']}, {days} days left"
    return f"{told}: renew it" if days < _FEW_DAYS else told
