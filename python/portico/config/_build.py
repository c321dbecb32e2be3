"""From a `Configuration` to a server that has everything but listeners."""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import re
import socket
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from .. import _authority, _certs
from .._errors import ConfigError, Error
from .._files import StaticFiles
from .._router import Router
from .._serve_pages import PagesAndFiles
from .._server import Listener, Server
from .._trace import print_trace
from .._worker_admin import own_folder
from ..sessions import Sessions
from . import _program
from ._load import Configuration
from ._nodes import Problems

_logger = logging.getLogger("portico.run")

# In the certificate that is made where none is given.
_NAMES = ("localhost", "127.0.0.1", "::1")
_MAX_SECRET_BYTES = 65_536


def build(
    configuration: Configuration,
    problems: Problems,
    closing: contextlib.ExitStack,
    tell: Callable[[str], object] = _logger.warning,
) -> Server | None:
    """A server with its handlers and hosts; None where something is wrong, all of which `problems` then has.

    `closing` ends it, and what of its handlers has to be ended. Where loading one takes long `tell` is called, with a
    line about it."""
    _program.add_to_path(configuration.app_dir)
    handlers = _Handlers(configuration, problems, closing, tell)
    default = handlers.get(configuration.handler, ("handler",))
    if configuration.handler is None and not any(host.get("handler") for _, host in configuration.hosts):
        problems.add(
            configuration.root,
            ("",),
            "there is no handler: type module:name, or write `handler` into portico.toml",
        )
    for name in configuration.handlers:
        handlers.get(name, ("handlers", name))  # also those that nothing refers to
    # Those that are wrong are told already, and what else is wrong is to be found too.
    settings = {} if problems else configuration.settings
    sessions = _sessions(configuration, problems, closing)
    try:
        trace = print_trace if configuration.trace else None
        server = closing.enter_context(Server(default, config=settings, sessions=sessions, trace=trace))
    except ConfigError as error:
        # The core says which of its settings it is.
        named = re.match(r"setting (\w+): ", str(error))
        where = ("settings", named[1]) if named else ("handler",)
        problems.add(configuration.node(*where), where, str(error)[named.end() if named else 0 :])
        # So that the hosts are looked at too.
        server = closing.enter_context(Server())
    for name, host in configuration.hosts:
        if "cert" in host or "pfx" in host:  # what has neither was told
            _add_host(server, configuration, name, host, handlers, problems)
    return None if problems else server


def admin(configuration: Configuration, made: _certs.Made | None) -> dict[str, Any] | None:
    """What `Workers` is given as `admin`; None where there is to be none. Raises `ConfigError`."""
    place = configuration.admin
    if place is None:
        return None
    # Without TLS the same each time, so that a reload finds what is there already, and keeps it.
    contexts = functools.partial(_add_certificates, configuration, made) if place.tls else None
    return {**place.keywords(), "tls": place.tls, "token": _admin_token(configuration), "contexts": contexts}


def listen_admin(server: Server, configuration: Configuration) -> Listener:
    """The admin listener of a server without a supervisor. Raises what `Server.listen_admin` raises."""
    place = configuration.admin
    assert place is not None
    token = _admin_token(configuration)
    return server.listen_admin(place.port or 0, place.host, unix=place.unix, tls=place.tls, token=token)


def check_admin(server: Server, configuration: Configuration, problems: Problems) -> None:
    """Whether there could be one as it is said: for a moment there is, on a port that nobody knows of."""
    if configuration.admin is None:
        return
    path = ("admin", "token_file" if configuration.admin_token is not None else "")
    try:
        with socket.create_server(("127.0.0.1", 0)) as listening:
            # Where no host has a certificate one is made, but not by a check.
            tls = configuration.admin.tls and bool(configuration.hosts)
            server.listen_admin(fd=listening.fileno(), tls=tls, token=_admin_token(configuration)).close()
        if configuration.workers > 1:
            os.rmdir(own_folder())
    except (Error, OSError) as error:
        problems.add(configuration.node(*path), path, str(error))


def _admin_token(configuration: Configuration) -> str | None:
    file = configuration.admin_token
    return None if file is None else _first_line(file).decode(errors="replace")


def _add_certificates(configuration: Configuration, made: _certs.Made | None, server: Server) -> None:
    """The hosts alone, and what was made where there are none."""
    for name, host in configuration.hosts:
        add_host(server, name, {key: value for key, value in host.items() if key != "handler"})
    if made is not None:
        add_host(server, "default", {"cert": made.cert, "key": made.key})


def wants_own_certificate(configuration: Configuration, addresses: Iterable[Mapping[str, Any]]) -> bool:
    """Whether TLS is spoken at one of these addresses or by the admin listener, and no host has a certificate."""
    admin = configuration.admin is not None and configuration.admin.tls
    return not configuration.hosts and (admin or any(keywords.get("tls", True) for keywords in addresses))


def own_certificate() -> _certs.Made:
    """A certificate for this machine alone, kept where the user keeps those of other commands. Raises `ConfigError`."""
    folder = _authority.user_folder("serve")
    wanted = _certs.Wanted(_NAMES, folder, None, folder, days=_certs.DEFAULT_DAYS, force=False, any_name=False)
    with _for_lack_of_a_certificate():
        return _certs.make(wanted)


def check_own_certificate() -> None:
    """Raises `ConfigError` where `own_certificate` could not keep one, as far as that can be told without doing it."""
    folder = _authority.user_folder("serve")
    # The nearest that is there, in which the others would be made.
    there = next(one for one in (folder, *folder.parents) if os.path.lexists(one))
    with _for_lack_of_a_certificate():
        if not there.is_dir():
            raise ConfigError(f"cannot keep the authority in {folder}: {there} is no folder")
        if not os.access(there, os.W_OK | os.X_OK):
            raise ConfigError(f"cannot keep the authority in {folder}: {there} may not be written")


@contextlib.contextmanager
def _for_lack_of_a_certificate() -> Iterator[None]:
    try:
        yield
    except ConfigError as error:
        why = error.why if isinstance(error, _certs.CertsError) else str(error)
        raise ConfigError(
            f"no host has a certificate, and none can be made: {why}. Give --host NAME=CERT,KEY, or hosts in "
            "portico.toml, or listen in the clear by http://"
        ) from error


def add_host(server: Server, name: str, host: Mapping[str, Any], handler: Any = None) -> None:
    """A context by what `portico.toml` says of a host; the name `default` is every other. Raises `ConfigError`."""
    keywords = {"watch": True, **host}
    if secret := keywords.pop("password_file", None):
        keywords["password"] = _first_line(Path(secret))
    server.add_context(None if name == "default" else name, handler=handler, **keywords)


class _Handlers:
    """Every handler of a configuration, made once."""

    def __init__(
        self,
        configuration: Configuration,
        problems: Problems,
        closing: contextlib.ExitStack,
        tell: Callable[[str], object],
    ) -> None:
        self._tell = tell
        self._configuration = configuration
        self._problems = problems
        self._closing = closing
        self._made: dict[str, Any] = {}
        self._being_made: list[str] = []

    def get(self, given: Any, path: tuple[str, ...]) -> Any:
        """The handler that `module:name`, a name or a table says; None where there is none or it is wrong."""
        if given is None:
            return None
        if isinstance(given, Mapping):
            return self._make(given, path)
        if ":" in given:
            return self._make({"call": given}, path)
        if given in self._being_made:
            around = " in ".join([*self._being_made, given])
            self._problems.add(self._configuration.node(*path), path, f"{around}: a handler is mounted in itself")
            return None
        if given not in self._made and given in self._configuration.handlers:
            self._being_made.append(given)
            self._made[given] = self._make(self._configuration.handlers[given], ("handlers", given))
            self._being_made.pop()
        return self._made.get(given)

    def _make(self, table: Mapping[str, Any], path: tuple[str, ...]) -> Any:
        try:
            if "call" in table:
                return _program.load(table["call"], table.get("kind", "auto"), table.get("factory", False), self._tell)
            if "files" in table:
                return self._files(table["files"], table)
            if "site" in table:
                served = PagesAndFiles(table["site"], self._files(table["site"], table))
                self._closing.callback(served.close)
                if remark := served.remark():
                    _logger.info("%s", remark)
                return served
            if "pages" in table:
                from ..pages import Pages

                pages = Pages(table["pages"])
                self._closing.callback(pages.close)
                return pages
        except ConfigError as error:
            key = next(key for key in ("call", "files", "site", "pages") if key in table)
            node = self._configuration.node(*path)
            # A handler may be a text alone, or be typed, without a table around.
            at = (*path, key) if isinstance(node.value, dict) and node.line else path
            self._problems.add(self._configuration.node(*at), at, f"{at[-1]}: {error}" if key != "call" else str(error))
            return None
        return self._router(table.get("mounts", {}), path)

    @staticmethod
    def _files(folder: Path, table: Mapping[str, Any]) -> StaticFiles:
        options = ("index", "listing", "dotfiles", "precompressed", "cache_control")
        return StaticFiles(folder, **{name: table[name] for name in options if name in table})

    def _router(self, mounts: Mapping[str, Any], path: tuple[str, ...]) -> Router | None:
        router = Router()
        for prefix, given in mounts.items():
            way = (*path, "mounts", prefix)
            handler = self.get(given, way)
            try:
                if handler is not None:
                    router.mount(prefix, handler)
            except ConfigError as error:
                self._problems.add(self._configuration.node(*way), way, str(error))
        return router


def _add_host(
    server: Server,
    configuration: Configuration,
    name: str,
    host: Mapping[str, Any],
    handlers: _Handlers,
    problems: Problems,
) -> None:
    path = ("hosts", name, "")
    own = {**host}
    handler = handlers.get(own.pop("handler", None), ("hosts", name, "handler"))
    try:
        add_host(server, name, own, handler)
    except ConfigError as error:
        problems.add(configuration.node("hosts", name), path, str(error))


def _sessions(configuration: Configuration, problems: Problems, closing: contextlib.ExitStack) -> Sessions | None:
    if configuration.sessions is None:
        return None
    keywords = dict(configuration.sessions)
    node = configuration.node("sessions")
    try:
        if secret := keywords.pop("secret_file", None):
            keywords["secret"] = [line for line in _read(secret).splitlines() if line]
        return closing.enter_context(Sessions(**keywords))
    except ConfigError as error:
        problems.add(node, ("sessions", ""), str(error).removeprefix("sessions: "))
        return None


def _first_line(path: Path) -> bytes:
    lines = _read(path).splitlines()
    return lines[0] if lines else b""


def _read(path: Path) -> bytes:
    """A file with a secret. Raises `ConfigError`."""
    try:
        with open(path, "rb") as file:
            return file.read(_MAX_SECRET_BYTES)
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from error
