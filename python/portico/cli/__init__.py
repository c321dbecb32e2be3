"""The command line, `portico COMMAND`. Each command is a module here, which adds its parser and what runs it."""

from __future__ import annotations

import argparse
import errno
import os
import re
import sys
import traceback

from portico import Error, ListenError, __version__

from . import _certs, _check, _completion, _control, _demo, _reload, _run, _serve
from ._arguments import refuse_unknown
from ._exits import Exit

# What can be done about an address that cannot be had.
_ADVICE = {
    errno.EADDRINUSE: "; another program has it (`ss -ltnp` says which): end that one, or listen elsewhere",
    errno.EACCES: "; ports below 1024 want root or CAP_NET_BIND_SERVICE (docs/deployment.md), a socket a folder that "
    "may be written",
    errno.EADDRNOTAVAIL: "; it is none of this machine's addresses: 0.0.0.0 and [::] are all of them",
}


def main(argv: list[str] | None = None) -> int:
    """Runs one command and returns its exit code, one of `Exit`: 0 when all went well, 1 for what the user can mend and
    3 for an address that cannot be had (both told on standard error), 70 for a bug, 130 after an interrupt that came
    before there was anything to stop.

    `argv` is what follows the program's name, by default that of `sys.argv`. Wrong arguments end the program
    with code 2, as argparse does."""
    arguments = parse(argv)
    try:
        code: int = arguments.run(arguments)
        if sys.stdout is not None:  # as in `portico run … >&-`
            sys.stdout.flush()
        return code
    except Error as error:
        refused = error if isinstance(error, ListenError) and not error._of_app else None
        print(f"portico {arguments.command}: {error}{_advice(refused) if refused else ''}", file=sys.stderr)
        return Exit.ADDRESS if refused else Exit.MISTAKE
    except BrokenPipeError:
        # Whoever read our output has left, as in `portico demo | head`. At its end the interpreter flushes
        # standard output once more, and must not complain then.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return Exit.MISTAKE
    except KeyboardInterrupt:
        return Exit.INTERRUPTED
    except Exception:
        traceback.print_exc()
        print(f"portico {arguments.command}: this should not happen: please report it", file=sys.stderr)
        return Exit.BUG


def _advice(error: ListenError) -> str:
    place = re.search(r"cannot listen on (\S+): ", str(error))
    mine = _control.who_has(place[1]) if place and error.errno == errno.EADDRINUSE else None
    if mine is None:
        return _ADVICE.get(error.errno or 0, "")
    pid = mine["pid"]
    return (
        f"; portico has it already, with the pid {pid} ({mine['text']}): `portico reload --pid {pid}` has it take "
        f"new code, `kill {pid}` ends it"
    )


def parse(argv: list[str] | None) -> argparse.Namespace:
    """What was typed. Ends the program where that is wrong, with the usage of the command that it was typed for."""
    parser = parser_of_all()
    arguments, unknown = parser.parse_known_args(argv)
    if unknown:
        (commands,) = (action for action in parser._actions if isinstance(action, argparse._SubParsersAction))
        refuse_unknown(commands.choices[arguments.command], unknown)
    return arguments


def parser_of_all() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="portico",
        description="An HTTPS server for many host names.",
        epilog="Each command says more: portico run --help. Exit codes: "
        + "; ".join(f"{code.value} {code.meaning}" for code in Exit)
        + ".",
    )
    parser.add_argument("--version", action="version", version=f"portico {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for command in (_demo, _serve, _run, _check, _reload, _certs, _completion):
        command.add(commands)
    return parser
