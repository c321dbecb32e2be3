"""Addresses that several processes listen on: what users write, and the sockets that the supervisor holds for them."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Union

from ._errors import ConfigError, ListenError

Address = Union[int, "tuple[str, int]", Mapping[str, Any]]
"""A port of 127.0.0.1, a host and a port, or keywords of `Server.listen`: `port`, `host`, `unix`, `fd`, `tls`,
`backlog`, `proxy_protocol`."""

# That of `Server.listen`, where the setting `backlog` is not changed.
_BACKLOG = 1024
# unix(7): sun_path with its last zero; BSD and macOS have 104 bytes.
LONGEST_PATH = 107 if sys.platform == "linux" else 103


def url_of(address: tuple[str, int] | str, tls: bool) -> str:
    """Where clients find a listener: by host and port, or by the path of a Unix socket."""
    scheme = "https" if tls else "http"
    if isinstance(address, str):
        return f"{scheme}+unix://{address}"
    host, port = address
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


@dataclass(frozen=True)
class Place:
    """An address that was checked."""

    port: int = 0
    host: str = "127.0.0.1"
    unix: str | None = None
    fd: int | None = None
    tls: bool = True
    backlog: int = _BACKLOG
    proxy_protocol: bool = False

    @property
    def key(self) -> str:
        """What tells one socket from another: everything but how it is used."""
        return repr(replace(self, tls=True, backlog=_BACKLOG, proxy_protocol=False))

    def __str__(self) -> str:
        if self.unix is not None:
            return f"unix:{self.unix}"
        if self.fd is not None:
            return f"fd:{self.fd}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


_KNOWN = ", ".join(field.name for field in fields(Place))


def parse(given: Address | Iterable[Address]) -> list[Place]:
    """One address or several, checked. Raises `ConfigError`."""
    # A host and a port is one address, not two.
    alone = isinstance(given, (int, str, Mapping)) or (
        isinstance(given, tuple) and len(given) == 2 and isinstance(given[0], str)
    )
    try:
        several = [given] if alone else list(given)  # type: ignore[arg-type]
    except TypeError:
        several = [given]
    if not several:
        raise ConfigError("listen: at least one address")
    return [_place(address) for address in several]


def _place(address: object) -> Place:
    if isinstance(address, Mapping):
        keywords = dict(address)
    elif isinstance(address, tuple) and len(address) == 2:
        keywords = {"host": address[0], "port": address[1]}
    elif isinstance(address, int):
        keywords = {"port": address}
    else:
        raise ConfigError(f"listen: a port, (host, port), or a dict of keywords of Server.listen, not {address!r}")
    if unknown := keywords.keys() - {field.name for field in fields(Place)}:
        raise ConfigError(f"listen: unknown keyword {min(map(str, unknown))}: {_KNOWN} are known")
    if not {"port", "unix", "fd"} & keywords.keys():
        raise ConfigError(f"listen: a port, the path of a Unix socket or a descriptor is missing in {address!r}")
    if keywords.get("unix") is not None:
        keywords["unix"] = os.fsdecode(keywords["unix"])
    place = Place(**keywords)
    _whole("port", place.port, 0, 65_535)
    _whole("backlog", place.backlog, 1, 65_535)
    if place.fd is not None:
        _whole("fd", place.fd, 0, 2**31 - 1)
    if not isinstance(place.host, str):
        raise ConfigError(f"host: a name or an IP address, not {place.host!r}")
    if not isinstance(place.tls, bool):
        raise ConfigError(f"tls: True or False, not {place.tls!r}")
    if not isinstance(place.proxy_protocol, bool):
        raise ConfigError(f"proxy_protocol: True or False, not {place.proxy_protocol!r}")
    return place


def _whole(name: str, value: object, least: int, most: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise ConfigError(f"{name}: a whole number from {least} to {most}, not {value!r}")


class Held:
    """A socket that the supervisor holds open for its workers: so port 0 is one port for all of them, the address stays
    taken while workers come and go, and what the kernel has queued outlives a worker that dies.

    With `reuse_port` the socket is bound and never listens: it only keeps the address, and each worker listens on a
    socket of its own.

    A socket that is `given` was held by another one until now. Its file is that one's, until `take_over`.
    """

    def __init__(self, place: Place, reuse_port: bool, given: socket.socket | None = None) -> None:
        if reuse_port and place.unix is not None:
            raise ConfigError(f"reuse_port: not for the Unix socket {place.unix}")
        if reuse_port and place.fd is not None:
            raise ConfigError(f"reuse_port: not for the descriptor {place.fd}, whose address is bound already")
        self.place, self.tls = place, place.tls
        self._proxy_protocol = place.proxy_protocol
        self._backlog = place.backlog
        self._reuse_port = reuse_port
        self._file: tuple[int, int] | None = None
        try:
            self._socket = _open(place, reuse_port) if given is None else given
            try:
                # One that was given by its descriptor listens, with whatever backlog its owner wanted.
                if not reuse_port and place.fd is None:
                    self._socket.listen(place.backlog)
                name = self._socket.getsockname()
            except BaseException:
                self._socket.close()
                raise
        except OSError as error:
            text = f"cannot listen on {place}: {error.strerror or error}"
            # The numbers of a host name that was not found are no errno.
            known = error.errno is not None and not isinstance(error, socket.gaierror)
            raise (ListenError(error.errno, text) if known else ListenError(text)) from error
        self.address: tuple[str, int] | str = name if isinstance(name, str) else (name[0], name[1])
        if given is None:
            self.take_over()

    @property
    def url(self) -> str:
        return url_of(self.address, self.tls)

    @property
    def descriptor(self) -> int | None:
        """What a worker inherits; None where it makes a socket of its own."""
        return None if self._reuse_port else self._socket.fileno()

    @property
    def keywords(self) -> dict[str, Any]:
        """What a worker calls `Server.listen` with."""
        spoken = {"tls": self.tls, "proxy_protocol": self._proxy_protocol}
        if not self._reuse_port or isinstance(self.address, str):
            return {"fd": self._socket.fileno(), **spoken}
        host, port = self.address
        return {"host": host, "port": port, "reuse_port": True, "backlog": self._backlog, **spoken}

    def fileno(self) -> int:
        return self._socket.fileno()

    def take_over(self) -> None:
        """From now on the socket's file goes with this one."""
        if isinstance(self.address, str) and self.place.fd is None:
            self._file = _file(self.address)

    def hand_over(self) -> None:
        """Lets go of a socket that another one holds."""
        self._file = None
        self.close()

    def close(self) -> None:
        """Lets go. What workers have inherited goes on listening."""
        self._socket.close()
        # Only our own: a successor may have put its socket there.
        if isinstance(self.address, str) and self._file is not None and _file(self.address) == self._file:
            with contextlib.suppress(OSError):
                os.unlink(self.address)
        self._file = None


def _none_known(place: Place) -> socket.socket | None:
    return None


class Sockets:
    """Those of several addresses, in their order, for as long as the same workers are there. `known` is asked for one
    that was held by another process."""

    def __init__(
        self,
        places: Iterable[Place],
        reuse_port: bool = False,
        known: Callable[[Place], socket.socket | None] = _none_known,
    ) -> None:
        self.held: list[Held] = []
        self._reuse_port = reuse_port
        self._before: list[Held] = []
        # Of these the addresses that are left out.
        self._left: list[Held] = []
        try:
            for place in places:
                self.held.append(Held(place, reuse_port, known(place)))
        except BaseException:
            self.close()
            raise

    def again(self, places: Iterable[Place]) -> Sockets:
        """For those addresses: the sockets that are held, and new ones. These stay, until `take_over` of the others."""
        left = list(self.held)

        def known(place: Place) -> socket.socket | None:
            # Several may be alike, as with port 0: each is used once.
            for one in left:
                if one.place.key == place.key:
                    left.remove(one)
                    return _again(one.fileno())
            return None

        made = Sockets(places, self._reuse_port, known)
        made._before, made._left = self.held, left
        return made

    def take_over(self) -> None:
        """From now on they are these alone, and those of before, here or in another process, are closed."""
        for one in self._before:
            if one in self._left:
                one.close()
            else:
                one.hand_over()
        self._before, self._left = [], []
        for one in self.held:
            one.take_over()

    def hand_over(self) -> None:
        """Lets go of sockets that another process holds."""
        for one in self.held:
            one.hand_over()

    def close(self) -> None:
        """Lets go. What they were stays to be asked for."""
        for one in self.held:
            one.close()


def _open(place: Place, reuse_port: bool) -> socket.socket:
    if place.unix is not None:
        return _unix(place.unix)
    if place.fd is None:
        return _inet(place, reuse_port)
    given = _again(place.fd)  # the descriptor stays the caller's
    if given.type != socket.SOCK_STREAM or not given.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        given.close()
        raise OSError(errno.EINVAL, "that is no socket that listens")
    return given


def _again(descriptor: int) -> socket.socket:
    """The same socket under another descriptor. Not `socket.dup`: it would have accepting block in every process that
    has the socket, which they do on their event loops."""
    return socket.socket(fileno=os.dup(descriptor))


def _inet(place: Place, reuse_port: bool) -> socket.socket:
    """Binds to the first address of a host that can be bound to, as the core does (`listener.rs`)."""
    last = OSError(errno.ENOENT, "the host name has no address")
    for family, kind, protocol, _, address in socket.getaddrinfo(place.host, place.port, type=socket.SOCK_STREAM):
        bound = socket.socket(family, kind, protocol)
        try:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if reuse_port:
                bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            if family == socket.AF_INET6:
                bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            bound.bind(address)
            return bound
        except OSError as error:
            bound.close()
            last = error
    raise last


def _unix(path: str) -> socket.socket:
    """Binds to a path, also where a process that died has left its socket."""
    bound = socket.socket(socket.AF_UNIX)
    try:
        try:
            bound.bind(path)
        except OSError as error:
            if error.errno != errno.EADDRINUSE or not _is_left_over(path):
                raise
            os.unlink(path)
            bound.bind(path)
        return bound
    except BaseException:
        bound.close()
        raise


def _is_left_over(path: str) -> bool:
    """Whether that is a socket on which nobody listens."""
    if not stat.S_ISSOCK(os.lstat(path).st_mode):
        return False
    with socket.socket(socket.AF_UNIX) as probe:
        # A server that is busy may have a full queue.
        probe.setblocking(False)
        return probe.connect_ex(path) == errno.ECONNREFUSED


def _file(path: str) -> tuple[int, int] | None:
    """Device and inode."""
    with contextlib.suppress(OSError):
        found = os.lstat(path)
        return found.st_dev, found.st_ino
    return None
