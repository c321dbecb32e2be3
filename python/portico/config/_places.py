"""Addresses to listen on, as they are written in one line."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from typing import Any

from .._errors import ConfigError

FORMS = "PORT, ADDRESS:PORT, unix:PATH, fd:NUMBER or systemd:NAME, with http:// before it for one in the clear"
_NO_PORTS = ("unix", "fd", "systemd")


@dataclass(frozen=True)
class Place:
    """An address to listen on. One of `port`, `unix`, `fd` and `systemd` says which kind it is."""

    port: int | None = None
    host: str = "127.0.0.1"
    unix: str | None = None
    fd: int | None = None
    systemd: str | None = None
    tls: bool = True
    backlog: int | None = None
    proxy_protocol: bool = False

    @classmethod
    def parse(cls, text: str) -> Place:
        """`8443`, `0.0.0.0:443`, `[::]:443`, `unix:/run/app.sock`, `fd:3`, `systemd:web`; TLS unless `http://` stands
        before it. Raises `ConfigError`."""
        tls = not text.startswith("http://")
        place = text.removeprefix("https://").removeprefix("http://")
        kind, found, rest = place.partition(":")
        if found and rest and kind == "unix" and "\0" not in rest:
            return cls(unix=rest, tls=tls)
        if found and rest and kind == "systemd":
            return cls(systemd=rest, tls=tls)
        if found and kind == "fd":
            return cls(fd=_number(text, rest, "a file descriptor", 65_535), tls=tls)
        host, _, port = place.rstrip("/").rpartition(":")
        if not (port.isascii() and port.isdigit()) or "/" in host:
            raise ConfigError(f"{text!r} is not {FORMS}")
        if ":" in host and not (host.startswith("[") and host.endswith("]")):
            raise ConfigError(f"{text!r}: an IPv6 address stands in brackets, as [::1]:8443")
        return cls(_number(text, port, "a port", 65_535), host.strip("[]") or "127.0.0.1", tls=tls)

    def __str__(self) -> str:
        """Without how it is used."""
        if self.port is not None:
            return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"
        return next(f"{kind}:{getattr(self, kind)}" for kind in _NO_PORTS if getattr(self, kind) is not None)

    def excludes(self, other: Place) -> bool:
        """Whether not both can be listened on. Names of hosts are not looked up."""
        for kind in _NO_PORTS:
            mine, others = getattr(self, kind), getattr(other, kind)
            if mine is not None or others is not None:
                return bool(mine == others)
        if not self.port or self.port != other.port:
            return False
        here, there = ip(self.host), ip(other.host)
        if here is None or there is None or here.version != there.version:
            return self.host == other.host
        return here == there or here.is_unspecified or there.is_unspecified

    def keywords(self) -> dict[str, Any]:
        """What is not as it would be by itself, under the names of `Server.listen`."""
        return {name: value for name, value in vars(self).items() if value != getattr(Place, name)}


def ip(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def _number(text: str, digits: str, what: str, most: int) -> int:
    if not (digits.isascii() and digits.isdigit()) or int(digits) > most:
        raise ConfigError(f"{text!r}: {digits!r} is not {what} from 0 to {most}")
    return int(digits)


def parse_host(text: str) -> tuple[str, dict[str, str]]:
    """`NAME=CERT,KEY`, `NAME=CERT` where both are in one file, `NAME=FILE.pfx` or `NAME=FILE.pfx,PASSWORDFILE`: the
    name, and what `portico.toml` would say of it. Raises `ConfigError`."""
    name, found, files = text.partition("=")
    first, _, second = files.partition(",")
    # What is not UTF-8 comes with surrogates; files may have such names, hosts not.
    if not (found and name.isprintable() and name and first):
        forms = "NAME=CERT,KEY or, with both in one file, NAME=CERT or NAME=FILE.pfx"
        raise ConfigError(f"{text!r} is not {forms}{'' if found else '; an address to listen on goes with --listen'}")
    if first.lower().endswith((".pfx", ".p12")):
        return name, {"pfx": first, **({"password_file": second} if second else {})}
    return name, {"cert": first, "key": second or first}
