"""`portico demo`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from ._arguments import add_command, port

if TYPE_CHECKING:
    from ._arguments import Commands


def add(commands: Commands) -> None:
    """Adds the command."""
    parser = add_command(
        commands,
        "demo",
        "serve a working site on https://localhost",
        "Serves four HTTPS hosts on one port, with certificates of its own making.",
        "  portico demo\n  portico demo --host 0.0.0.0 --port 443",
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument("--port", type=port, help="port, 0 for any free one (default: 8443, or any if taken)")
    parser.add_argument(
        "--folder",
        type=Path,
        metavar="DIR",
        help="where to keep the certificates (default: portico/demo in $XDG_DATA_HOME or ~/.local/share)",
    )
    parser.add_argument("--trace", action="store_true", help="print each step of each connection to standard error")
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    from portico import demo, print_trace

    trace = print_trace if arguments.trace else None
    return demo.run(arguments.host, arguments.port, arguments.folder, trace=trace)
