"""From places to what `Server.listen` and `Workers` are given."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from .. import _addresses, _systemd
from .._errors import ConfigError
from .._worker_admin import Asked
from ._nodes import Node, Problems
from ._places import Place, ip

if TYPE_CHECKING:
    from ._load import Configuration

# The name of a socket that is served in the clear, where systemd hands it over and nobody says more.
_CLEAR = "http"


def addresses(places: Sequence[Place], given: Mapping[str, Sequence[int]] | None = None) -> list[dict[str, Any]]:
    """Keywords of `Server.listen` for each address. Where no place was named, those of the sockets that systemd has
    handed over, if it has: TLS, but in the clear for one with the name `http`. `given` are those sockets, where the
    variables of the environment that tell of them are gone.

    Raises `ConfigError` for a name that systemd has not handed over."""
    given = _systemd.handed_over() if given is None else given
    if not places:
        return [{"fd": fd, "tls": name != _CLEAR} for name, several in given.items() for fd in several]
    found: list[dict[str, Any]] = []
    for place in places:
        keywords = place.keywords()
        name = keywords.pop("systemd", None)
        if name is None:
            found.append(keywords)
            continue
        if name not in given:
            there = f"there is {', '.join(given)}" if given else "it has handed over none (LISTEN_FDS, LISTEN_PID)"
            raise ConfigError(f"listen: systemd has handed over no socket of the name {name!r}; {there}")
        found += [{**keywords, "fd": fd} for fd in given[name]]
    return found


def check_places(configuration: Configuration, problems: Problems) -> None:
    """Tells of addresses that cannot be listened on whatever the machine is, and of such that exclude each other."""
    found: list[tuple[Place, Node, tuple[str, ...]]] = []
    given = configuration.node("listen")
    several = isinstance(given.value, list) and len(given.value) == len(configuration.listen)
    nodes = given.value if several else [given] * len(configuration.listen)
    found += [(place, node, ("listen",)) for place, node in zip(configuration.listen, nodes, strict=True)]
    node = configuration.node("admin", "listen")
    path: tuple[str, ...] = ("admin", "listen") if isinstance(configuration.node("admin").value, dict) else ("admin",)
    if configuration.admin is not None:
        asked = Asked(_addresses.Place(**configuration.admin.keywords()), None, None)
        try:
            found += [(_plain(place), node, path) for place in asked.places(configuration.workers or 1)]
        except ConfigError as error:
            problems.add(node, path, str(error))
    for at, (place, where, way) in enumerate(found):
        _check_path(place.unix, where, way, problems)
        other = next((other for other, _, _ in found[:at] if place.excludes(other)), None)
        if other is not None:
            both = f"{other} and {place} exclude each other" if str(other) != str(place) else f"{place} is there twice"
            problems.add(where, way, f"{way[-1]}: {both}")
    _check_path(configuration.control, configuration.node("control"), ("control",), problems)
    if configuration.admin is not None and configuration.admin_token is None:
        address = ip(configuration.admin.host)
        if address is not None and not (getattr(address, "ipv4_mapped", None) or address).is_loopback:
            problems.add(
                node,
                path,
                f"{path[-1]}: other machines can reach {configuration.admin}, so it needs a token: [admin] token_file; "
                "without one listen on 127.0.0.1",
            )


def _plain(place: _addresses.Place) -> Place:
    return Place(unix=place.unix) if place.unix is not None else Place(place.port, place.host)


def _check_path(socket: str | os.PathLike[str] | None, node: Node, path: tuple[str, ...], problems: Problems) -> None:
    most = _addresses.LONGEST_PATH
    if socket is not None and (length := len(os.fsencode(socket))) > most:
        problems.add(node, path, f"{path[-1]}: the path of a socket has {most} bytes at most, and this one {length}")
