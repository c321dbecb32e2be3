"""`portico reload`: tells the server that runs to take new code, settings and certificates, and says what came of
it."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from portico import config
from portico._errors import ConfigError

from . import _control
from ._arguments import add_command
from ._exits import Exit

if TYPE_CHECKING:
    from ._arguments import Commands


def add(commands: Commands) -> None:
    """Adds the command."""
    parser = add_command(
        commands,
        "reload",
        "have the server that runs take new code, settings and certificates",
        "Tells a server that `portico run` has started to start new workers, which import the program and read "
        "portico.toml and the certificates anew, and to end the old ones when the new ones serve. No request is lost. "
        "Waits until it is done, and says what came of it: where the new workers do not come to serve, the old ones go "
        "on, why is told, and the exit code is 1.\n\n"
        "Without arguments it finds the server of this user, if there is one only. SIGHUP to the process does the "
        "same, and says what came of it in its log.",
        "  portico reload\n  portico reload --pid 1234\n  portico reload --config /etc/portico.toml",
    )
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--pid", type=int, help="the number of its process")
    which.add_argument("--control", type=Path, metavar="PATH", help="the socket that it was given by --control")
    which.add_argument("--config", type=Path, metavar="FILE", help="its portico.toml, where that names the socket")
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    path = _path(arguments)
    if path is None:
        return Exit.NOBODY
    try:
        answer = _control.ask(path, "reload")
    except OSError as error:
        print(f"portico reload: nobody answers at {path}: {error.strerror or error}", file=sys.stderr)
        return Exit.NOBODY
    if not answer.get("ok"):
        print(f"portico reload: not reloaded, what ran goes on:\n{answer.get('text')}", file=sys.stderr)
        return Exit.MISTAKE
    print(answer.get("text"))
    return Exit.DONE


def _path(arguments: argparse.Namespace) -> Path | None:
    """Where the server listens; None where there is none, or more than one, which was told."""
    if arguments.control is not None:
        return Path(arguments.control)
    if arguments.config is not None:
        configuration, problems = config.load(config.Options(arguments.config))
        if configuration.control is not None:
            return configuration.control
        problems.raise_any()
        raise ConfigError(f"{arguments.config} names no `control`; leave out --config, or say --pid")
    running = _control.running()
    if arguments.pid is not None:
        running = {path: told for path, told in running.items() if told.get("pid") == arguments.pid}
    else:
        # A predecessor that finishes what is in flight, while its successor serves.
        running = {path: told for path, told in running.items() if told.get("state") != "closing"}
    if len(running) == 1:
        return next(iter(running))
    if not running:
        told = "no server of this user" if arguments.pid is None else f"no server with the number {arguments.pid}"
        where = ", ".join(map(str, _control.folders()))
        print(f"portico reload: {told} was found in {where}; --control says where it is", file=sys.stderr)
    else:
        print("portico reload: several servers run; say which by --pid:", file=sys.stderr)
        for one in running.values():
            print(f"  --pid {one.get('pid')}  {one.get('text')}", file=sys.stderr)
    return None
