"""`portico demo`: four hosts on one port of this machine, each with its own certificate and its own handler.

It is also a small example: `run` shows everything that a server of several hosts needs.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

import portico
from portico import _greeting
from portico._authority import user_folder
from portico._trace import Trace
from portico.demo.board import Board
from portico.demo.certificates import Certificates, keep
from portico.demo.lobby import Lobby
from portico.demo.shop import Shop
from portico.demo.site import HOSTS, Site, url_of
from portico.demo.welcome import Welcome

# `localhost` answers for the bare addresses as well: clients send no name for those.
_NAMES = {host: [host] for host in HOSTS} | {"localhost": ["localhost", "127.0.0.1", "::1"]}
_ABOUT = {
    "localhost": "your connection, live counters",
    "a.localhost": "a shop",
    "b.localhost": "a bulletin board",
    "pages.localhost": "server pages in a sandbox, a clock, a chat, a video",
}
# No form of the demo is longer.
_SETTINGS = {"max_request_read_bytes": 64 * 1024}
# The clock never ends by itself, and whoever presses Ctrl-C should not wait for who looks at it. In seconds.
_GRACE = 2.0


def run(
    host: str = "127.0.0.1", port: int | None = None, folder: Path | None = None, *, trace: Trace | None = None
) -> int:
    """Serves until SIGINT or SIGTERM, finishes what is in flight, and returns the exit code 0.

    `port` 0 lets the machine choose; None is `PORT`, or any free port where that one is taken. `folder` keeps
    the certificates; None is a folder of the user's, or a passing one where that cannot be written. `trace` is told
    what connections do.

    Raises `ListenError` for an address that cannot be had, `ConfigError` for a folder that cannot be used."""
    with (
        _certificates(folder) as (certificates, remark),
        contextlib.ExitStack() as closing,
        portico.Server(config=_SETTINGS, trace=trace) as server,
    ):
        try:
            sites = {name: Site(name, subject) for name, subject in certificates.subjects.items()}
            lobby = Lobby(sites["pages.localhost"])
            closing.callback(lobby.close)
            handlers: dict[str, portico.Handler] = {
                "localhost": Welcome(sites["localhost"]).handle,
                "a.localhost": Shop(sites["a.localhost"]).handle,
                "b.localhost": Board(sites["b.localhost"]).handle,
                "pages.localhost": lobby.router,
            }
            for name, pair in certificates.pairs.items():
                server.add_context(name, cert=pair, key=pair, handler=handlers[name])
            default = certificates.pairs["localhost"]
            server.add_context(None, cert=default, key=default, handler=handlers["localhost"])
            listener, taken = _greeting.listen(server, host, port)
            _greeting.say(_welcome(certificates, listener, [remark, taken]))
            server.serve_forever(_GRACE)
        except KeyboardInterrupt:
            pass  # Ctrl-C before serve_forever was there to take it.
        server.close(_GRACE)
        _greeting.say(_greeting.stopped(server))
    return 0


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


def _welcome(certificates: Certificates, listener: portico.Listener, remarks: list[str]) -> str:
    assert isinstance(listener.address, tuple), "no Unix socket"
    urls = {name: url_of(name, listener.address[1]) for name in HOSTS}
    just_now = " just now" if certificates.new_authority else ""
    lines = [
        "Four HTTPS hosts on one port, each with its own certificate and handler:",
        *(f"  {url:<30}{_ABOUT[name]}" for name, url in urls.items()),
        *(remark for remark in remarks if remark),
        "",
        "Try them:",
        *(f"  {_greeting.curl(certificates.ca, name, listener.address)}" for name in HOSTS),
        "",
        f"Browsers warn until they trust the authority that was made{just_now} for this machine alone:",
        *(f"  {line}" for line in _greeting.trusting(certificates.ca, "portico-demo")),
        "",
        "Ctrl-C stops the server.",
    ]
    return "\n".join(lines)
