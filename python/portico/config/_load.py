"""From the command line, the environment and `portico.toml` to one checked `Configuration`."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .. import _core
from .._errors import ConfigError
from ._kinds import Setting, nearest
from ._nodes import Node, Problems, escaped, from_plain, from_text, merged, read_file, table
from ._places import Place
from ._schema import ROOT, SETTING_KEYS
from ._sockets import check_places

DEFAULT_FILE = "portico.toml"
_PREFIX = "PORTICO_"
# What an environment variable may say besides the settings: the keys of the root that are no tables.
_TABLES = {"hosts", "handlers", "sessions", "settings"}
# `--admin` and `PORTICO_ADMIN` say the address alone.
DEFAULTS: dict[str, Any] = {key.name: key.default for key in ROOT.keys}


@dataclass(frozen=True)
class Options:
    """What was typed. A worker process is given this, and reads file and environment again."""

    file: Path | None = None
    """The `portico.toml`; None is none."""
    flags: tuple[tuple[tuple[str, ...], Any, str], ...] = ()
    """Where it belongs, the value, and which flag gave it."""
    app_dir: Path = field(default_factory=Path)
    """Where modules are looked for, where neither the file nor a flag says it."""


@dataclass(frozen=True)
class Configuration:
    """What is to be served, checked as far as that goes without importing it or reading certificates."""

    handler: Any
    """`module:name`, the name of one of `handlers`, or the table of one; None where there is none."""
    handlers: Mapping[str, Mapping[str, Any]]
    hosts: Sequence[tuple[str, Mapping[str, Any]]]
    listen: Sequence[Place]
    """Empty where nothing was said."""
    sessions: Mapping[str, Any] | None
    settings: Mapping[str, Any]
    workers: int
    grace: float
    ready_timeout: float
    log_level: str
    app_dir: Path
    control: Path | None
    pid_file: Path | None
    trace: bool
    admin: Place | None
    admin_token: Path | None
    """A file with it."""
    root: Node
    """Everything that was given, and where."""

    def node(self, *path: str) -> Node:
        """Where something was given; where it was not, the nearest table around it."""
        node = self.root
        for key in path:
            if not isinstance(node.value, dict) or key not in node.value:
                break
            node = node.value[key]
        return node


def load(options: Options, environment: Mapping[str, str] | None = None) -> tuple[Configuration, Problems]:
    """Reads and checks everything. What is wrong is told in the second part, and nothing may then be done with the
    first.

    Flags win over the environment, that over the file. Raises `ConfigError` for a file that cannot be read or is no
    TOML."""
    problems = Problems()
    given = read_file(options.file) if options.file is not None else table({})
    given = merged(given, _from_environment(os.environ if environment is None else environment))
    given = merged(given, _from_flags(options))
    values = ROOT.check(given, (), problems)
    if not problems:
        try:
            _core.check_settings(values.get("settings", {}))
        except ConfigError as error:
            problems.add(given.value["settings"], ("settings",), str(error).replace("setting ", "[settings] ", 1))
    return _configuration(values, given, options, problems), problems


def environment_names() -> dict[str, tuple[str, ...]]:
    """Every variable that is looked at, and where it belongs."""
    own = {key.name: (key.name,) for key in ROOT.keys if key.name not in _TABLES}
    settings = {key.name: ("settings", key.name) for key in SETTING_KEYS}
    return {_PREFIX + name.upper(): path for name, path in {**settings, **own}.items()}


def _from_environment(environment: Mapping[str, str]) -> Node:
    given = table({})
    for name, path in environment_names().items():
        if text := environment.get(name, ""):
            value: Any = text.replace(",", " ").split() if path == ("listen",) else text
            node = (
                Node([Node(one, name) for one in value], name) if isinstance(value, list) else _node(path, text, name)
            )
            given = merged(given, _nested(path, node))
    return given


def _from_flags(options: Options) -> Node:
    given = table({})
    several: dict[tuple[str, ...], list[Node]] = {}
    for path, value, flag in options.flags:
        node = _node(path, value, flag)
        if path == ("listen",) or path[:1] == ("hosts",):
            several.setdefault(path, []).append(node)
        else:
            given = merged(given, _nested(path, node))
    for path, nodes in several.items():
        given = merged(given, _nested(path, Node(nodes, nodes[0].where)))
    return given


def _node(path: tuple[str, ...], value: Any, where: str) -> Node:
    """A value given as text, which is what TOML makes of it where no text is wanted."""
    if not isinstance(value, str):
        return from_plain(value, where)
    kind = next((key.kind for key in (SETTING_KEYS if len(path) > 1 else ROOT.keys) if key.name == path[-1]), None)
    # Of these the core alone knows what they are: texts.
    plain = isinstance(kind, Setting) and not kind.accepts
    node = from_text(value, where)
    return node if isinstance(node.value, list) or not (plain or isinstance(node.value, dict)) else Node(value, where)


def _nested(path: tuple[str, ...], node: Node) -> Node:
    for key in reversed(path):
        node = table({key: node}, node.where)
    return node


def _configuration(values: dict[str, Any], given: Node, options: Options, problems: Problems) -> Configuration:
    hosts = [
        (name, host) for name, several in values.get("hosts", {}).items() for host in several if isinstance(host, dict)
    ]
    handlers = {name: one for name, one in values.get("handlers", {}).items() if isinstance(one, dict)}
    default_dir = options.file.parent if options.file is not None else options.app_dir
    admin = values.get("admin") or {}
    if isinstance(admin, Place):
        admin = {"listen": admin}
    elif values.get("admin") is not None and "listen" not in admin:
        problems.add(given.value["admin"], ("admin", ""), "listen is missing: admin = 9443, say")
    got = {name: values.get(name, DEFAULTS[name]) for name in ("workers", "grace", "ready_timeout", "log_level")}
    configuration = Configuration(
        handler=values.get("handler"),
        handlers=handlers,
        hosts=hosts,
        listen=[place for place in values.get("listen", []) if place is not None],
        sessions=values.get("sessions"),
        settings=values.get("settings", {}),
        app_dir=values.get("app_dir") or default_dir,
        control=values.get("control"),
        pid_file=values.get("pid_file"),
        trace=bool(values.get("trace")),
        admin=admin.get("listen"),
        admin_token=admin.get("token_file"),
        root=given,
        **got,
    )
    _check_hosts(configuration, problems)
    check_places(configuration, problems)
    _check_pid_file(configuration, problems)
    if any(place.proxy_protocol for place in configuration.listen) and not configuration.settings.get(
        "trusted_proxies"
    ):
        problems.add(
            given.value["listen"], ("listen",), "proxy_protocol: [settings] trusted_proxies says whose it is taken from"
        )
    _check_handlers(configuration, problems)
    return configuration


def _check_hosts(configuration: Configuration, problems: Problems) -> None:
    for name, host in configuration.hosts:
        path = ("hosts", name, "")
        node = configuration.node("hosts", name)
        if ("cert" in host) == ("pfx" in host):
            what = "cert and pfx are two ways to say the same" if "cert" in host else "cert or pfx is missing"
            problems.add(node, path, f"{what}: give the file of the certificate as one of them")
        if "key" in host and "pfx" in host:
            problems.add(node, path, "key goes with cert")


def _check_pid_file(configuration: Configuration, problems: Problems) -> None:
    """A pipe has whoever opens it wait, and a device takes a number for something else."""
    path = configuration.pid_file
    with contextlib.suppress(OSError):
        if path is not None and not stat.S_ISREG(os.stat(path).st_mode):
            problems.add(configuration.node("pid_file"), ("pid_file",), f"pid_file: {path} is there, and is no file")


def _check_handlers(configuration: Configuration, problems: Problems) -> None:
    """What refers to a handler refers to one that is there; each table says one thing."""
    known = configuration.handlers
    for path, handler in _all_handlers(configuration):
        node = configuration.node(*path)
        if isinstance(handler, str):
            if ":" not in handler and handler not in known:
                named = nearest(handler, known) if known else "; there are none"
                problems.add(
                    node, path, f"{escaped(path[-1])}: {handler!r} is not module:name, nor one of [handlers]{named}"
                )
        elif isinstance(handler, dict):
            says = [key for key in _SAYS if key in handler]
            if len(says) != 1:
                what = f"both {says[0]} and {says[1]}" if says else "none of these"
                problems.add(
                    node, (*path, ""), f"one of call, files, pages, site and mounts says what it is; here is {what}"
                )
            for key in handler.keys() & _GOES_WITH.keys():
                if says and says[0] not in _GOES_WITH[key]:
                    problems.add(configuration.node(*path, key), (*path, key), f"{key} goes with {_GOES_WITH[key][0]}")


_SAYS = ("call", "files", "pages", "site", "mounts")
_GOES_WITH = {
    **dict.fromkeys(("kind", "factory"), ("call",)),
    **dict.fromkeys(("index", "listing", "dotfiles", "precompressed", "cache_control"), ("files", "site")),
}


def _all_handlers(configuration: Configuration) -> list[tuple[tuple[str, ...], Any]]:
    """Everything that stands where a handler stands, with the way to it."""
    found: list[tuple[tuple[str, ...], Any]] = []
    if configuration.handler is not None:
        found.append((("handler",), configuration.handler))
    found += [
        (("hosts", name, "handler"), host["handler"]) for name, host in configuration.hosts if host.get("handler")
    ]
    found += [(("handlers", name), one) for name, one in configuration.handlers.items()]
    for path, handler in list(found):
        if isinstance(handler, dict):
            mounts = handler.get("mounts") or {}
            found += [((*path, "mounts", prefix), one) for prefix, one in mounts.items() if one is not None]
    return found
