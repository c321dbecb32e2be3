"""What the parsers of several commands have in common."""

from __future__ import annotations

import argparse
import difflib
from collections.abc import Callable
from typing import TYPE_CHECKING, NoReturn, TypeAlias, TypeVar

from portico import _logs
from portico._errors import ConfigError
from portico.config import FORMS

if TYPE_CHECKING:
    Commands: TypeAlias = argparse._SubParsersAction[argparse.ArgumentParser]

T = TypeVar("T")

# Flags of other servers, and of other commands, by what does the same here.
_ELSEWHERE = {
    **dict.fromkeys(("--port", "--bind", "--address", "-b", "-p", "--listen"), ("--listen", "--port")),
    **dict.fromkeys(("--cert", "--certfile", "--ssl-certfile", "--key", "--keyfile", "--ssl-keyfile"), ("--host",)),
    **dict.fromkeys(("-w", "--processes"), ("--workers",)),
    **dict.fromkeys(("-c", "--conf"), ("--config",)),
    **dict.fromkeys(("--chdir", "-d"), ("--app-dir",)),
    **dict.fromkeys(("--graceful-timeout", "--timeout-graceful-shutdown"), ("--grace",)),
}


def add_command(commands: Commands, name: str, short: str, long: str, examples: str = "") -> argparse.ArgumentParser:
    """A parser for a command. `examples` are lines of commands, which keep their breaks."""
    return commands.add_parser(
        name,
        help=short,
        description=long,
        epilog=f"examples:\n{examples}" if examples else None,
        formatter_class=_Words,
    )


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
    parser.add_argument(
        "--log-level",
        choices=_logs.LEVELS,
        metavar="LEVEL",
        help=f"what is logged to standard error: {', '.join(_logs.LEVELS)} (default: {default})",
    )


def each(flag: str, parse: Callable[[str], T], given: list[str]) -> list[T]:
    """The values of a flag, parsed. Raises `ConfigError` that names it."""
    try:
        return [parse(text) for text in given]
    except ConfigError as error:
        raise ConfigError(f"{flag} {error}") from None


def refuse_unknown(parser: argparse.ArgumentParser, unknown: list[str]) -> NoReturn:
    """Ends the program: the command does not take that. Says what was probably meant."""
    flags = [one.partition("=")[0] for one in unknown if one.startswith("-")]
    likely = _likely(flags[0], list(parser._option_string_actions)) if flags else None
    advice = f": did you mean {likely}?" if likely else f"; {parser.prog} --help shows what there is"
    parser.error(f"unrecognized arguments: {' '.join(flags[:1] or unknown)}{advice}")


def _likely(flag: str, known: list[str]) -> str | None:
    elsewhere = next((one for one in _ELSEWHERE.get(flag, ()) if one in known), None)
    return elsewhere or next(iter(difflib.get_close_matches(flag, known, n=1)), None)


def port(text: str) -> int:
    """A port number, for argparse."""
    if not (text.isascii() and text.isdigit() and int(text) <= 65535):
        raise argparse.ArgumentTypeError(f"{text!r} is not a port number from 0 to 65535")
    return int(text)


class _Words(argparse.HelpFormatter):
    """Breaks descriptions as ever, and leaves examples as they are."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        if text.startswith("examples:\n"):
            return "\n".join(f"{indent}{line}" if line else "" for line in text.splitlines())
        return "\n\n".join(super(_Words, self)._fill_text(part, width, indent) for part in text.split("\n\n"))
