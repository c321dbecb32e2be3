"""What the parsers of several commands have in common."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from portico._trace import Trace

    Commands: TypeAlias = argparse._SubParsersAction[argparse.ArgumentParser]

DEFAULT_LISTEN = "127.0.0.1:8443, or any port if that is taken"


def add_trace(parser: argparse.ArgumentParser) -> None:
    """Adds --trace."""
    parser.add_argument("--trace", action="store_true", default=None, help="print each step of each connection")


def trace(arguments: argparse.Namespace) -> Trace | None:
    """Who is told what connections do."""
    from portico._trace import print_trace

    return print_trace if arguments.trace else None


def add_command(commands: Commands, name: str, short: str, long: str, examples: str = "") -> argparse.ArgumentParser:
    """A parser for a command. `examples` are lines of commands, which keep their breaks."""
    return commands.add_parser(
        name,
        help=short,
        description=long,
        epilog=f"examples:\n{examples}" if examples else None,
        formatter_class=_Words,
    )


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
