"""`portico serve`: the files and the server pages of a folder over HTTPS."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from . import _authority, _certs, _greeting
from ._errors import ConfigError
from ._files import StaticFiles
from ._serve_pages import PagesAndFiles
from ._server import Listener, Server
from ._trace import Trace

# In the certificate that is made where none is given.
_NAMES = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True)
class Host:
    """A host name and its certificate."""

    name: str | None
    """None answers for every name that is not another's."""
    cert: Path
    key: Path
    """The file of the certificate where both are in one."""

    @classmethod
    def parse(cls, text: str) -> Host:
        """`NAME=CERT` or `NAME=CERT,KEY`; the name `default` is every other. Raises ConfigError."""
        name, found, files = text.partition("=")
        cert, _, key = files.partition(",")
        if not (found and name and cert):
            raise ConfigError(f"--host {text!r} is not NAME=CERT,KEY or, with both in one file, NAME=CERT")
        return cls(None if name == "default" else name, Path(cert), Path(key or cert))


@dataclass(frozen=True)
class Place:
    """An address to listen on."""

    host: str
    port: int
    tls: bool

    @classmethod
    def parse(cls, text: str) -> Place:
        """`PORT`, `ADDRESS:PORT` or `[ADDRESS]:PORT`, in the clear with `http://` before it. Raises ConfigError."""
        place = text.removeprefix("https://")
        tls = not place.startswith("http://")
        host, _, port = place.removeprefix("http://").rstrip("/").rpartition(":")
        if not (port.isascii() and port.isdigit() and int(port) <= 65_535):
            raise ConfigError(f"--listen {text!r} is not PORT, ADDRESS:PORT or http://ADDRESS:PORT")
        return cls(host.strip("[]") or "127.0.0.1", int(port), tls)


@dataclass(frozen=True)
class Wanted:
    """What the command was asked for."""

    folder: Path
    hosts: Sequence[Host]
    places: Sequence[Place]
    index: str
    listing: bool
    dotfiles: bool
    trace: Trace | None
    """Who is told what connections do."""


def run(wanted: Wanted) -> int:
    """Serves until SIGINT or SIGTERM, finishes what is in flight, and returns the exit code 0.

    Raises `ConfigError` for folders and certificates that cannot be used, `ListenError` for addresses not to be had."""
    files = StaticFiles(wanted.folder, index=wanted.index, listing=wanted.listing, dotfiles=wanted.dotfiles)
    served = PagesAndFiles(wanted.folder, files)
    with contextlib.closing(served), Server(served, trace=wanted.trace) as server:
        secure = not wanted.places or any(place.tls for place in wanted.places)
        made = _own_certificate() if secure and not wanted.hosts else None
        for host in [Host(None, made.cert, made.key)] if made else wanted.hosts:
            server.add_context(host.name, cert=host.cert, key=host.key, watch=True)
        try:
            listeners, remark = _listen(server, wanted.places)
            _greeting.say(_welcome(wanted, listeners, made, [remark, served.remark()]))
            server.serve_forever()
        except KeyboardInterrupt:
            pass  # Ctrl-C before serve_forever was there to take it.
        server.close()
        _greeting.say(_greeting.stopped(server))
    return 0


def _own_certificate() -> _certs.Made:
    """One for this machine, kept where the user keeps the demo's."""
    folder = _authority.user_folder("serve")
    return _certs.make(
        _certs.Wanted(_NAMES, folder, None, folder, days=_certs.DEFAULT_DAYS, force=False, any_name=False)
    )


def _listen(server: Server, places: Sequence[Place]) -> tuple[list[Listener], str]:
    if not places:
        listener, remark = _greeting.listen(server, "127.0.0.1", None)
        return [listener], remark
    return [server.listen(place.port, place.host, tls=place.tls) for place in places], ""


def _welcome(wanted: Wanted, listeners: Sequence[Listener], made: _certs.Made | None, remarks: Sequence[str]) -> str:
    lines = [f"Serving {os.path.abspath(wanted.folder)}:"]
    names = [host.name for host in wanted.hosts if host.name is not None] or (["localhost"] if made else [])
    for listener in listeners:
        if listener.url.startswith("https:") and names:
            lines += [f"  https://{name}:{listener.port}/" for name in names]
        else:
            lines.append(f"  {listener.url}/")
    lines += [remark for remark in remarks if remark]
    if made:
        secure = next(listener for listener in listeners if listener.url.startswith("https:"))
        assert isinstance(secure.address, tuple), "no Unix socket"
        just_now = " just now" if made.authority.new else ""
        lines += [
            "",
            "Try it:",
            f"  {_greeting.curl(made.authority.ca, 'localhost', secure.address)}",
            "",
            f"Browsers warn until they trust the authority that was made{just_now} for this machine alone:",
            *(f"  {line}" for line in _greeting.trusting(made.authority.ca, "portico-serve")),
        ]
    return "\n".join([*lines, "", "Ctrl-C stops the server."])
