"""From places to what `Server.listen` and `Workers` are given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .. import _systemd
from .._errors import ConfigError
from ._places import Place

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
