"""`portico completion SHELL`: the script by which a shell completes the command.

The scripts lie in `completions/`: docs/generate.py writes them by shtab, from the parsers, so that neither it nor
Python is needed when a key is pressed."""

from __future__ import annotations

import argparse
import sys
from importlib import resources
from typing import TYPE_CHECKING

from ._arguments import add_command

if TYPE_CHECKING:
    from ._arguments import Commands

SHELLS = ("bash", "zsh", "fish")


def add(commands: Commands) -> None:
    """Adds the command."""
    parser = add_command(
        commands,
        "completion",
        "print a script that completes this command in a shell",
        "Prints a script for bash, zsh or fish. Where the shell looks for such scripts it is found by itself; for one "
        "session it can be evaluated.",
        "  portico completion bash > ~/.local/share/bash-completion/completions/portico\n"
        "  portico completion zsh > ~/.zfunc/_portico      # with `fpath+=~/.zfunc` before compinit\n"
        "  portico completion fish > ~/.config/fish/completions/portico.fish\n"
        '  eval "$(portico completion bash)"',
    )
    parser.add_argument("shell", choices=SHELLS, metavar="SHELL", help=", ".join(SHELLS))
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    sys.stdout.write(resources.files(__package__).joinpath("completions").joinpath(arguments.shell).read_text("utf-8"))
    return 0
