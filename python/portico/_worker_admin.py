"""The admin listener of `Workers`: what each of them says of itself, put together by their supervisor."""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import tempfile
from collections.abc import Mapping

from . import _core
from ._addresses import Address, Held, Place, parse, url_of
from ._errors import ConfigError
from ._server import Server
from ._succession import Inheritance
from ._worker_process import Process


class WorkersAdmin:
    """An admin listener in the supervisor, which asks the workers on Unix sockets in a folder of its own."""

    def __init__(self, given: Address) -> None:
        keywords = dict(given) if isinstance(given, Mapping) else None
        self._token: str | None = None if keywords is None else keywords.pop("token", None)
        if keywords is not None and keywords.get("tls"):
            raise ConfigError(
                "admin: tls: the supervisor has no certificate; put a TLS proxy, or a tunnel, in front of it"
            )
        if not isinstance(self._token, (str, type(None))):
            raise ConfigError(f"admin: token: a str, or None, not {type(self._token).__name__}")
        places = parse(given if keywords is None else keywords)
        if len(places) != 1 or places[0].proxy_protocol:
            raise ConfigError("admin: one address, without proxy_protocol")
        self._place: Place = places[0]
        self._seen = _core.WorkersSeen()
        self._number = itertools.count()
        self._held: Held | None = None
        self._server: Server | None = None
        self._folder = ""

    def open(self, inheritance: Inheritance) -> None:
        """Binds and answers from now on. Raises what `Server.listen_admin` raises."""
        self._held = Held(self._place, False, inheritance.socket_for(self._place))
        try:
            self._folder = tempfile.mkdtemp(prefix="portico-")
            self._server = Server()
            self._server._list()
            self._server._core.listen_admin("", 0, None, self._held.descriptor, False, self._token, self._seen)
        except BaseException:
            self.close()
            raise

    @property
    def held(self) -> list[Held]:
        """The socket, for a successor."""
        return [] if self._held is None else [self._held]

    @property
    def url(self) -> str | None:
        """Where it is; None before it is opened."""
        return None if self._held is None else url_of(self._held.address, False)

    def socket(self, number: int) -> str:
        """Where a new worker is to have its own admin listener. No other worker has had that path."""
        return os.path.join(self._folder, f"{number}.{next(self._number)}")

    def joined(self, process: Process) -> None:
        """It serves, in place of the one that had its number."""
        if process.admin is not None:
            self._seen.joined(str(process.number), process.admin)

    def ended(self, process: Process) -> None:
        """It is gone, and its socket's file with it, also where it was killed."""
        if process.admin is not None:
            self._seen.ended(process.admin)
            with contextlib.suppress(FileNotFoundError):
                os.unlink(process.admin)

    def close(self) -> None:
        """Answers no more. Safe to call twice."""
        if self._server is not None:
            self._server.close(0)
        if self._held is not None:
            self._held.close()
        if self._folder:
            shutil.rmtree(self._folder, ignore_errors=True)
