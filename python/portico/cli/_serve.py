"""`portico serve`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from portico._errors import ConfigError
from portico.config import FORMS, Place, parse_host

from ._arguments import add_command, add_trace, trace

if TYPE_CHECKING:
    from collections.abc import Callable

    from ._arguments import Commands

T = TypeVar("T")


def add(commands: Commands) -> None:
    """Adds the command."""
    parser = add_command(
        commands,
        "serve",
        "serve the files and pages of a folder over HTTPS",
        "Serves the files of a folder over HTTPS: HTTP/1.1 and HTTP/2, ranges, conditions, what lies "
        "compressed beside a file (.br, .zst, .gz). Server pages (.psp) run in a sandbox, where pydantic-monty is "
        "installed; index.psp answers for its folder. Without --host a certificate for this machine is made, and "
        "kept. Certificates that change on the disk are taken without a restart.",
        "  portico serve public\n"
        "  portico serve public --host example.com=example.crt,example.key --listen 0.0.0.0:443\n"
        "  portico serve public --listen http://127.0.0.1:8080 --listing",
    )
    parser.add_argument("folder", type=Path, metavar="DIR", help="the folder; nothing outside of it can be reached")
    add_host(parser)
    add_listen(parser, "127.0.0.1:8443, or any port if that is taken")
    parser.add_argument("--index", default="index.html", metavar="NAME", help="what answers for a folder (%(default)s)")
    parser.add_argument("--listing", action="store_true", help="show what is in a folder without an index")
    parser.add_argument("--dotfiles", action="store_true", help="serve names that begin with a dot as well")
    add_trace(parser)
    add_log_level(parser, "warning")
    parser.set_defaults(run=_run)


def add_host(parser: argparse.ArgumentParser) -> None:
    """Adds --host."""
    parser.add_argument(
        "--host",
        action="append",
        default=[],
        metavar="NAME=CERT,KEY",
        help="a host name and the files of its certificate, as often as there are hosts; NAME=FILE.pfx, and a file "
        "with its password after a comma, for PKCS#12; `default` is any other name",
    )


def add_listen(parser: argparse.ArgumentParser, default: str) -> None:
    """Adds --listen."""
    parser.add_argument(
        "--listen",
        action="append",
        default=[],
        metavar="[ADDRESS:]PORT",
        help=f"where to listen, as often as wanted: {FORMS} (default: {default})",
    )


def add_log_level(parser: argparse.ArgumentParser, default: str) -> None:
    """Adds --log-level."""
    from portico._logs import LEVELS

    parser.add_argument(
        "--log-level",
        choices=LEVELS,
        metavar="LEVEL",
        help=f"what is logged to standard error: {', '.join(LEVELS)} (default: {default})",
    )


def each(flag: str, parse: Callable[[str], T], given: list[str]) -> list[T]:
    """The values of a flag, parsed. Raises `ConfigError` that names it."""
    try:
        return [parse(text) for text in given]
    except ConfigError as error:
        raise ConfigError(f"{flag} {error}") from None


def _run(arguments: argparse.Namespace) -> int:
    from portico import _logs, _serve

    _logs.to_stderr(arguments.log_level or "warning")
    return _serve.run(
        _serve.Wanted(
            folder=arguments.folder,
            hosts=each("--host", parse_host, arguments.host),
            places=each("--listen", Place.parse, arguments.listen),
            index=arguments.index,
            listing=arguments.listing,
            dotfiles=arguments.dotfiles,
            trace=trace(arguments),
        )
    )
