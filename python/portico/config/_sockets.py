"""From places to what `Server.listen` and `Workers` are given."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from .. import _systemd
from .._errors import ConfigError
from ._places import Place

# The name of a socket that is served in the clear, where systemd hands it over and nobody says more.
_CLEAR = "http"
_LAST_PORT = 65_535


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


def admin_addresses(place: Place | None, workers: int) -> list[dict[str, Any]]:
    """Keywords for the admin listener of each worker: ports that follow each other, or paths with a number."""
    if place is None:
        return []
    if place.unix is not None:
        paths = [place.unix, *(f"{place.unix}.{number}" for number in range(1, workers))]
        return [dataclasses.replace(place, unix=path).keywords() for path in paths]
    port = place.port or 0
    if port + workers - 1 > _LAST_PORT:
        raise ConfigError(f"admin: {workers} workers take as many ports from {port} on, and {_LAST_PORT} is the last")
    ports = [port + number if port else 0 for number in range(max(1, workers))]
    return [dataclasses.replace(place, port=port).keywords() for port in ports]
