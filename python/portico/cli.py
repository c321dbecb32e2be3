"""The command line, `portico COMMAND`. For each command a function adds a parser and names what runs it."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from portico import Error, __version__, print_trace

if TYPE_CHECKING:
    from portico._trace import Trace

    Commands = argparse._SubParsersAction[argparse.ArgumentParser]


def main(argv: list[str] | None = None) -> int:
    """Runs one command and returns its exit code: 0 when all went well, 1 for what the user can mend (told on
    standard error), 130 after an interrupt that came before there was anything to stop.

    `argv` is what follows the program's name, by default that of `sys.argv`. Wrong arguments end the program
    with code 2, as argparse does."""
    arguments = _parser().parse_args(argv)
    try:
        code: int = arguments.run(arguments)
        sys.stdout.flush()
        return code
    except Error as error:
        print(f"portico {arguments.command}: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:
        # Whoever read our output has left, as in `portico demo | head`. At its end the interpreter flushes
        # standard output once more, and must not complain then.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="portico", description="An HTTPS server for many host names.")
    parser.add_argument("--version", action="version", version=f"portico {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    _add_demo(commands)
    _add_serve(commands)
    _add_certs(commands)
    return parser


def _add_demo(commands: Commands) -> None:
    parser = commands.add_parser(
        "demo",
        help="serve a working site on https://localhost",
        description="Serves four HTTPS hosts on one port, with certificates of its own making.",
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument("--port", type=_port, help="port, 0 for any free one (default: 8443, or any if taken)")
    parser.add_argument(
        "--folder",
        type=Path,
        metavar="DIR",
        help="where to keep the certificates (default: portico/demo in $XDG_DATA_HOME or ~/.local/share)",
    )
    _add_trace(parser)
    parser.set_defaults(run=_demo)


def _demo(arguments: argparse.Namespace) -> int:
    from portico import demo

    return demo.run(arguments.host, arguments.port, arguments.folder, trace=_trace(arguments))


def _add_trace(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--trace", action="store_true", help="print each step of each connection on standard error")


def _trace(arguments: argparse.Namespace) -> Trace | None:
    return print_trace if arguments.trace else None


def _add_serve(commands: Commands) -> None:
    parser = commands.add_parser(
        "serve",
        help="serve the files and pages of a folder over HTTPS",
        description="Serves the files of a folder over HTTPS: HTTP/1.1 and HTTP/2, ranges, conditions, what lies "
        "compressed beside a file (.br, .zst, .gz). Server pages (.psp) run in a sandbox, where pydantic-monty is "
        "installed; index.psp answers for its folder. Without --host a certificate for this machine is made, and "
        "kept. Certificates that change on the disk are taken without a restart.",
        epilog="example: portico serve public --host example.com=example.crt,example.key --listen 0.0.0.0:443",
    )
    parser.add_argument("folder", type=Path, metavar="DIR", help="the folder; nothing outside of it can be reached")
    parser.add_argument(
        "--host",
        action="append",
        default=[],
        metavar="NAME=CERT,KEY",
        help="a host name and the files of its certificate, as often as there are hosts; `default` is any other name",
    )
    parser.add_argument(
        "--listen",
        action="append",
        default=[],
        metavar="[ADDRESS:]PORT",
        help="where to listen, in the clear with http:// before it; as often as wanted (default: 127.0.0.1:8443, or "
        "any port if that is taken)",
    )
    parser.add_argument("--index", default="index.html", metavar="NAME", help="what answers for a folder (%(default)s)")
    parser.add_argument("--listing", action="store_true", help="show what is in a folder without an index")
    parser.add_argument("--dotfiles", action="store_true", help="serve names that begin with a dot as well")
    _add_trace(parser)
    parser.set_defaults(run=_serve)


def _serve(arguments: argparse.Namespace) -> int:
    from portico import _serve

    wanted = _serve.Wanted(
        folder=arguments.folder,
        hosts=[_serve.Host.parse(text) for text in arguments.host],
        places=[_serve.Place.parse(text) for text in arguments.listen],
        index=arguments.index,
        listing=arguments.listing,
        dotfiles=arguments.dotfiles,
        trace=_trace(arguments),
    )
    return _serve.run(wanted)


def _add_certs(commands: Commands) -> None:
    from portico._certs import DEFAULT_DAYS, MAX_DAYS

    parser = commands.add_parser(
        "certs",
        help="make a certificate for names of your own, for development",
        description="Makes a certificate and its key for some names, signed by an authority that exists on this "
        "machine alone; says how to serve with them and how clients are told to trust the authority. What is there "
        "and good is kept, so the command can be run again and again. Never for a server that strangers use.",
        epilog="example: portico certs localhost 127.0.0.1 ::1 '*.shop.test'",
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
    parser.set_defaults(run=_certs)


def _certs(arguments: argparse.Namespace) -> int:
    from portico import _certs

    wanted = _certs.Wanted(
        names=tuple(arguments.names),
        out=arguments.out,
        stem=arguments.name,
        ca=arguments.ca,
        days=arguments.days,
        force=arguments.force,
        any_name=arguments.any_name,
    )
    return _certs.run(wanted)


def _days(text: str) -> int:
    """A number of days, for argparse."""
    from portico._certs import MAX_DAYS

    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= MAX_DAYS):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of days from 1 to {MAX_DAYS}")
    return int(text)


def _port(text: str) -> int:
    """A port number, for argparse."""
    if not (text.isascii() and text.isdigit() and int(text) <= 65535):
        raise argparse.ArgumentTypeError(f"{text!r} is not a port number from 0 to 65535")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
