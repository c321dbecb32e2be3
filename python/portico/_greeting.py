"""What commands that serve have in common: a port that is free, and words on how to reach and to trust the server."""

from __future__ import annotations

import errno
import ipaddress
import os
import shlex
import sys
from pathlib import Path

from ._authority import how_to_trust
from ._errors import ListenError
from ._server import Listener, Server

PORT = 8443


def listen(server: Server, host: str, port: int | None) -> tuple[Listener, str]:
    """A listener, and what to say if it is not where one would look for it. `port` None is `PORT`, or any free one
    where that is taken. Raises `ListenError`."""
    try:
        return server.listen(PORT if port is None else port, host), ""
    except ListenError as error:
        if port is not None or error.errno != errno.EADDRINUSE:
            raise
    listener = server.listen(0, host)
    return listener, f"Port {PORT} is taken, so this is port {listener.port}."


def curl(ca: Path, name: str, address: tuple[str, int]) -> str:
    """The command that asks a host of a listener. Not every system knows that *.localhost is this machine (RFC 6761
    section 6.3), and no proxy does."""
    listening, port = address
    url = f"https://{name}:{port}/"
    return f"curl --noproxy '*' --cacert {shlex.quote(str(ca))} --resolve {name}:{port}:{_target(listening)} {url}"


def trusting(ca: Path, nickname: str) -> list[str]:
    """How this system and its browsers are told to trust an authority, a line for each."""
    here = (
        ["macOS", "Firefox"]
        if sys.platform == "darwin"
        else ["Firefox", "Chrome, Chromium", "Debian, Ubuntu", "Fedora, Arch"]
    )
    how = how_to_trust(ca, nickname)
    return [f"{where}: {how[where]}" for where in here]


def stopped(server: Server) -> str:
    """The last line: what a closed server has done."""
    answered = sum(server.stats()["responses"].values())
    # The terminal has echoed ^C where the line should begin.
    newline = "\n" if sys.stdout.isatty() else ""
    return f"{newline}Stopped. Answered {answered} request{'' if answered == 1 else 's'}."


def say(text: str) -> None:
    """At once, also into a file or a pipe."""
    print(text, flush=True)


def say_while_serving(text: str) -> None:
    """The same of a server that serves already: where nobody can read it, as with a full disk, it goes on."""
    try:
        say(text)
    except (OSError, ValueError):
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - so that the end does not fail of it either


def _target(listening: str) -> str:
    """The address for clients on this machine to connect to, as curl's --resolve writes it."""
    address = ipaddress.ip_address(listening)
    if address.version == 4:
        return "127.0.0.1" if address.is_unspecified else str(address)
    return "[::1]" if address.is_unspecified else f"[{address}]"
