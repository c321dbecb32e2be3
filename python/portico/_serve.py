"""`portico serve`: the files and the server pages of a folder over HTTPS."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from . import _certs, _greeting
from ._files import StaticFiles
from ._serve_pages import PagesAndFiles
from ._server import Listener, Server
from ._trace import Trace
from .config import Place, add_host, addresses, own_certificate


@dataclass(frozen=True)
class Wanted:
    """What the command was asked for."""

    folder: Path
    hosts: Sequence[tuple[str, Mapping[str, str]]]
    """Names, and what `portico.toml` would say of them."""
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
        made = own_certificate() if secure and not wanted.hosts else None
        own = [("default", {"cert": str(made.cert), "key": str(made.key)})] if made else wanted.hosts
        for name, host in own:
            add_host(server, name, host)
        try:
            listeners, remark = _listen(server, wanted.places)
            _greeting.say(_welcome(wanted, listeners, made, [remark, served.remark()]))
            server.serve_forever()
        except KeyboardInterrupt:
            pass  # Ctrl-C before serve_forever was there to take it.
        server.close()
        _greeting.say(_greeting.stopped(server))
    return 0


def _listen(server: Server, places: Sequence[Place]) -> tuple[list[Listener], str]:
    if not places:
        listener, remark = _greeting.listen(server, "127.0.0.1", None)
        return [listener], remark
    return [server.listen(**keywords) for keywords in addresses(places)], ""


def _welcome(wanted: Wanted, listeners: Sequence[Listener], made: _certs.Made | None, remarks: Sequence[str]) -> str:
    lines = [f"Serving {os.path.abspath(wanted.folder)}:"]
    names = [name for name, _ in wanted.hosts if name != "default"] or (["localhost"] if made else [])
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
