"""`portico demo`: three hosts on one port of this machine, each with its own certificate and its own handler.

It is also a small example: `run` shows everything that a server of several hosts needs.
"""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import shlex
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import portico
from portico._authority import how_to_trust, user_folder
from portico.demo.board import Board
from portico.demo.certificates import Certificates, keep
from portico.demo.shop import Shop
from portico.demo.site import HOSTS, Site, url_of
from portico.demo.welcome import Welcome

PORT = 8443

# `localhost` answers for the bare addresses as well: clients send no name for those.
_NAMES = {host: [host] for host in HOSTS} | {"localhost": ["localhost", "127.0.0.1", "::1"]}
_ABOUT = {
    "localhost": "your connection, live counters",
    "a.localhost": "a shop",
    "b.localhost": "a bulletin board",
}
# No form of the demo is longer.
_SETTINGS = {"max_request_read_bytes": 64 * 1024}


def run(host: str = "127.0.0.1", port: int | None = None, folder: Path | None = None) -> int:
    """Serves until SIGINT or SIGTERM, finishes what is in flight, and returns the exit code 0.

    `port` 0 lets the machine choose; None is `PORT`, or any free port where that one is taken. `folder` keeps
    the certificates; None is a folder of the user's, or a passing one where that cannot be written.

    Raises `ListenError` for an address that cannot be had, `ConfigError` for a folder that cannot be used."""
    with _certificates(folder) as (certificates, remark), portico.Server(config=_SETTINGS) as server:
        try:
            sites = {name: Site(name, subject) for name, subject in certificates.subjects.items()}
            handlers: dict[str, portico.Handler] = {
                "localhost": Welcome(sites["localhost"]).handle,
                "a.localhost": Shop(sites["a.localhost"]).handle,
                "b.localhost": Board(sites["b.localhost"]).handle,
            }
            for name, pair in certificates.pairs.items():
                server.add_context(name, cert=pair, key=pair, handler=handlers[name])
            default = certificates.pairs["localhost"]
            server.add_context(None, cert=default, key=default, handler=handlers["localhost"])
            listener, taken = _listen(server, host, port)
            _say(_greeting(certificates, listener, [remark, taken]))
            server.serve_forever()
        except KeyboardInterrupt:
            pass  # Ctrl-C before serve_forever was there to take it.
        server.close()
        answered = sum(server.stats()["responses"].values())
        # The terminal has echoed ^C where the line should begin.
        newline = "\n" if sys.stdout.isatty() else ""
        _say(f"{newline}Stopped. Answered {answered} request{'' if answered == 1 else 's'}.")
    return 0


def _listen(server: portico.Server, host: str, port: int | None) -> tuple[portico.Listener, str]:
    """The listener, and what to say if it is not where one would look for it."""
    try:
        return server.listen(PORT if port is None else port, host), ""
    except portico.ListenError as error:
        if port is not None or error.errno != errno.EADDRINUSE:
            raise
    listener = server.listen(0, host)
    return listener, f"Port {PORT} is taken, so this is port {listener.port}."


@contextlib.contextmanager
def _certificates(folder: Path | None) -> Iterator[tuple[Certificates, str]]:
    """The certificates, and what to say if they are not where one would look for them."""
    try:
        kept = keep(folder or user_folder("demo"), _NAMES)
    except OSError as error:
        if folder is not None:
            raise portico.ConfigError(f"cannot keep certificates in {folder}: {error.strerror}") from error
        with tempfile.TemporaryDirectory(prefix="portico-demo-") as passing:
            why = f"{user_folder('demo')} cannot be used ({error.strerror})"
            yield keep(Path(passing), _NAMES), f"{why}, so these certificates last until the end."
    else:
        yield kept, ""


def _greeting(certificates: Certificates, listener: portico.Listener, remarks: list[str]) -> str:
    assert isinstance(listener.address, tuple), "no Unix socket"
    address, port = listener.address
    ca = shlex.quote(str(certificates.ca))
    urls = {name: url_of(name, port) for name in HOSTS}
    # Not every system knows that *.localhost is this machine (RFC 6761 section 6.3), and no proxy does.
    target = _target(address)
    curls = [f"  curl --noproxy '*' --cacert {ca} --resolve {name}:{port}:{target} {url}" for name, url in urls.items()]
    just_now = " just now" if certificates.new_authority else ""
    lines = [
        "Three HTTPS hosts on one port, each with its own certificate and handler:",
        *(f"  {url:<30}{_ABOUT[name]}" for name, url in urls.items()),
        *(remark for remark in remarks if remark),
        "",
        "Try them:",
        *curls,
        "",
        f"Browsers warn until they trust the authority that was made{just_now} for this machine alone:",
        *(f"  {line}" for line in _how_to_trust(certificates.ca)),
        "",
        "Ctrl-C stops the server.",
    ]
    return "\n".join(lines)


def _target(listening: str) -> str:
    """The address for clients on this machine to connect to, as curl's --resolve writes it."""
    address = ipaddress.ip_address(listening)
    if address.version == 4:
        return "127.0.0.1" if address.is_unspecified else str(address)
    return "[::1]" if address.is_unspecified else f"[{address}]"


def _how_to_trust(ca: Path) -> list[str]:
    """How this system and its browsers are told to trust an authority."""
    here = (
        ["macOS", "Firefox"]
        if sys.platform == "darwin"
        else ["Firefox", "Chrome, Chromium", "Debian, Ubuntu", "Fedora, Arch"]
    )
    how = how_to_trust(ca, "portico-demo")
    return [f"{where}: {how[where]}" for where in here]


def _say(text: str) -> None:
    """At once, also into a file or a pipe."""
    print(text, flush=True)
