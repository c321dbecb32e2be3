"""`portico serve`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from portico import _logs, config

from ._arguments import add_command
from ._run import add_config, add_options, options_of

if TYPE_CHECKING:
    from ._arguments import Commands


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
    parser.add_argument("--index", default="index.html", metavar="NAME", help="what answers for a folder (%(default)s)")
    parser.add_argument("--listing", action="store_true", help="show what is in a folder without an index")
    parser.add_argument("--dotfiles", action="store_true", help="serve names that begin with a dot as well")
    add_config(parser, "none")
    add_options(parser, "none: this process serves")
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    from . import _alone, _supervisor

    options = options_of(arguments, _handler(arguments))
    configuration, problems = config.load(options)
    problems.raise_any()
    _logs.to_stderr(configuration.log_level)
    # Nothing of a program's own is imported, so nothing has to be supervised unless somebody asks for it.
    if configuration.workers == 0 or "workers" not in configuration.root.value:
        return _alone.run(options)
    return _supervisor.Supervisor(options, configuration, develop=False).run()


def _handler(arguments: argparse.Namespace) -> dict[str, object]:
    table = {"site": str(arguments.folder), "index": arguments.index}
    return {**table, "listing": arguments.listing, "dotfiles": arguments.dotfiles}
