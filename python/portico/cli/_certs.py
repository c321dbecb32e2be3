"""`portico certs`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from portico._certs import DEFAULT_DAYS, MAX_DAYS, Wanted, run

from ._arguments import add_command

if TYPE_CHECKING:
    from ._arguments import Commands


def add(commands: Commands) -> None:
    """Adds the command."""
    parser = add_command(
        commands,
        "certs",
        "make a certificate for names of your own, for development",
        "Makes a certificate and its key for some names, signed by an authority that exists on this "
        "machine alone; says how to serve with them and how clients are told to trust the authority. What is there "
        "and good is kept, so the command can be run again and again. Never for a server that strangers use.",
        "  portico certs localhost 127.0.0.1 ::1 '*.shop.test'\n  portico certs shop.test --out tls --name shop",
    )
    parser.add_argument(
        "names", nargs="+", metavar="NAME", help="a host name, a wildcard ('*.shop.test') or an IP address; all in one"
    )
    parser.add_argument("--out", type=Path, default=Path(), metavar="DIR", help="where to put both (default: here)")
    parser.add_argument("--name", metavar="STEM", help="what both are called (default: after the first host name)")
    parser.add_argument(
        "--ca",
        type=Path,
        metavar="DIR",
        help="where the authority is kept (default: portico/authority in $XDG_DATA_HOME or ~/.local/share)",
    )
    parser.add_argument(
        "--days",
        type=_days,
        default=DEFAULT_DAYS,
        help=f"how long it is valid (default: %(default)s, at most {MAX_DAYS})",
    )
    parser.add_argument("--force", action="store_true", help="make it anew, and overwrite other files of these names")
    parser.add_argument(
        "--any-name",
        action="store_true",
        help="by an authority that may sign for every name, not only for those that are nobody's on the internet; "
        "whoever steals its key can be any site to those who trust it",
    )
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    return run(
        Wanted(
            names=tuple(arguments.names),
            out=arguments.out,
            stem=arguments.name,
            ca=arguments.ca,
            days=arguments.days,
            force=arguments.force,
            any_name=arguments.any_name,
        )
    )


def _days(text: str) -> int:
    """A number of days, for argparse."""
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= MAX_DAYS):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of days from 1 to {MAX_DAYS}")
    return int(text)
