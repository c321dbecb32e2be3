"""`portico run`: a program's handler or application, by the command line, `portico.toml`, or both."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from portico._errors import ConfigError
from portico.config import DEFAULT_FILE, Options, Place, parse_host

from ._arguments import add_command, add_host, add_listen, add_log_level, each

if TYPE_CHECKING:
    from ._arguments import Commands

_KINDS = {
    "asgi": "an ASGI application: Starlette, FastAPI, Django and the like",
    "wsgi": "a WSGI application: Flask, Django and the like",
    "lambda": "a function written for AWS Lambda",
}


def add(commands: Commands) -> None:
    """Adds the command."""
    parser = add_command(
        commands,
        "run",
        "serve a handler or an application of a program",
        "Serves a handler, or an ASGI or WSGI application, in worker processes that are replaced when they die. What "
        "it is is found out by its arguments; where that may be several things, the command asks for --asgi, --wsgi "
        "or --lambda.\n\n"
        f"Everything can stand in a {DEFAULT_FILE} as well (docs/configuration.md); flags win over variables of the "
        f"environment (PORTICO_WORKERS=4), these over the file. Without a handler and --config the {DEFAULT_FILE} of "
        "this folder is taken.\n\n"
        "SIGHUP, and `portico reload`, replace the workers by such with new code, settings and certificates, and lose "
        "no request; SIGTERM and SIGINT finish what is in flight, a second one drops it; SIGUSR1 reopens log files.",
        "  portico run app:hello\n"
        "  portico run shop.asgi:application --asgi --workers 4 --listen 0.0.0.0:443 \\\n"
        "      --host shop.example=shop.crt,shop.key\n"
        "  portico run 'app:make_app()' --listen http://127.0.0.1:8000 --reload\n"
        "  portico run app:hello --set max_headers=50 --set handler_timeout=10\n"
        "  portico run --config /etc/portico.toml",
    )
    parser.add_argument(
        "handler",
        nargs="?",
        metavar="MODULE:NAME",
        help="what answers, as it is imported; MODULE:NAME() calls what makes it",
    )
    kinds = parser.add_mutually_exclusive_group()
    for kind, what in _KINDS.items():
        kinds.add_argument(f"--{kind}", dest="kind", action="store_const", const=kind, help=f"it is {what}")
    parser.add_argument("--factory", action="store_true", help="it makes the handler, and is called without arguments")
    add_config(parser, "$PORTICO_CONFIG, or the one here")
    add_options(parser)
    parser.add_argument(
        "--reload",
        action="store_true",
        help="for development: take changed Python files at once; a mistake is told, and what runs goes on",
    )
    parser.add_argument(
        "--app-dir",
        metavar="DIR",
        help=f"where modules are looked for first (default: that of {DEFAULT_FILE}, or here)",
    )
    parser.set_defaults(run=_run)


def add_config(parser: argparse.ArgumentParser, default: str) -> None:
    """Adds --config."""
    parser.add_argument("--config", type=Path, metavar="FILE", help=f"a {DEFAULT_FILE} (default: {default})")


def add_options(parser: argparse.ArgumentParser, workers: str = "1") -> None:
    """Adds what `run`, `serve` and `check` share: everything that says how it is served."""
    add_host(parser)
    add_listen(parser, "what systemd hands over; else 127.0.0.1:8443, or any port if that is taken")
    parser.add_argument(
        "--workers",
        metavar="N",
        help=f"how many processes (default: {workers}); 0 serves in this one, for debuggers, without a supervisor and "
        "reloads",
    )
    parser.add_argument(
        "--grace", metavar="SECONDS", help="how long what is in flight may take at the end (default: 30)"
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="any setting (docs/settings.md), as often as there are; the value as in TOML, text also without quotes",
    )
    parser.add_argument("--control", metavar="PATH", help="the socket by which `portico reload` comes")
    parser.add_argument("--pid-file", metavar="PATH", help="a file for the number of the process")
    parser.add_argument(
        "--admin",
        metavar="[ADDRESS:]PORT",
        help="where metrics, probes and the dashboard are found (default: nowhere); several workers have their "
        "dashboards at the next ports",
    )
    parser.add_argument(
        "--access-log",
        metavar="FILE",
        help="where each request that has ended gets a line: a file, - or stderr; "
        "--set access_log_format=json says which form",
    )
    parser.add_argument("--trace", action="store_true", default=None, help="print each step of each connection")
    add_log_level(parser, "info")


def options_of(arguments: argparse.Namespace, handler: dict[str, Any] | None, what: str = "DIR") -> Options:
    """What was typed, for `config.load`: the handler that `what` says, and all else. Raises `ConfigError` for what is
    no address, host or setting."""
    here = Path.cwd()
    flags: list[tuple[tuple[str, ...], Any, str]] = []
    named = arguments.config or (Path(text) if (text := os.environ.get("PORTICO_CONFIG")) else None)
    if named is None and handler is None and (here / DEFAULT_FILE).exists():
        named = Path(DEFAULT_FILE)
    if handler is not None:
        flags.append((("handler",), handler, what))
    for name in ("workers", "grace", "log_level", "app_dir", "control", "pid_file", "admin", "trace"):
        if (value := getattr(arguments, name, None)) is not None:
            flags.append(((name,), value, f"--{name.replace('_', '-')}"))
    if arguments.access_log is not None:
        flags.append((("settings", "access_log"), arguments.access_log, "--access-log"))
    each("--listen", Place.parse, arguments.listen)
    flags += [(("listen",), text, "--listen") for text in arguments.listen]
    flags += [(("hosts", name), host, "--host") for name, host in each("--host", parse_host, arguments.host)]
    for text in arguments.set:
        name, found, value = text.partition("=")
        if not found or not name:
            raise ConfigError(f"--set {text!r} is not NAME=VALUE, as max_headers=50")
        flags.append((("settings", name.replace("-", "_")), value, "--set"))
    return Options(named, tuple(flags), here)


def _run(arguments: argparse.Namespace) -> int:
    from portico import _logs, config

    from . import _alone, _supervisor

    options = options_of(arguments, _handler(arguments), "MODULE:NAME")
    configuration, problems = config.load(options)
    problems.raise_any()
    _logs.to_stderr(configuration.log_level)
    if configuration.workers == 0:
        if arguments.reload:
            raise ConfigError("--reload wants a worker that it can replace: leave out --workers 0")
        return _alone.run(options)
    return _supervisor.Supervisor(options, configuration, arguments.reload).run()


def _handler(arguments: argparse.Namespace) -> dict[str, Any] | None:
    """What MODULE:NAME and the flags beside it say. Raises `ConfigError` for such without it."""
    if not arguments.handler:
        if arguments.kind or arguments.factory:
            raise ConfigError(f"--{arguments.kind or 'factory'} says what MODULE:NAME is, which is missing")
        return None
    table = {"call": arguments.handler, "kind": arguments.kind, "factory": arguments.factory or None}
    return {key: value for key, value in table.items() if value}
