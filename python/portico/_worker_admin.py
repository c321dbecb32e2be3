"""The admin listener of `Workers`: what each of them says of itself, put together by their supervisor."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from . import _core, _systemd
from ._addresses import LONGEST_PATH, Address, Held, Place, Sockets, parse, url_of
from ._errors import ConfigError
from ._interpreter_end import enlist
from ._server import Listener, Server
from ._succession import Inheritance
from ._worker import Admin
from ._worker_process import Process

_LAST_PORT = 65_535
# The most bytes of `/NUMBER.COUNT`, the socket of one worker.
_LONGEST_NAME = 16


@dataclass(frozen=True)
class Asked:
    """What users say by `admin`, checked."""

    place: Place
    token: str | None
    contexts: Callable[[Server], object] | None
    """Gives a server its certificates, for TLS."""

    @classmethod
    def of(cls, given: Address) -> Asked:
        """Raises `ConfigError`."""
        keywords = dict(given) if isinstance(given, Mapping) else {}
        token, contexts = keywords.pop("token", None), keywords.pop("contexts", None)
        if not isinstance(token, (str, type(None))):
            raise ConfigError(f"admin: token: a str, or None, not {type(token).__name__}")
        try:
            places = parse({"tls": False, **keywords} if isinstance(given, Mapping) else given)
        except ConfigError as error:
            raise ConfigError(f"admin: {str(error).removeprefix('listen: ')}") from error
        if len(places) != 1 or places[0].proxy_protocol:
            raise ConfigError("admin: one address, without proxy_protocol")
        place = places[0] if isinstance(given, Mapping) else dataclasses.replace(places[0], tls=False)
        if place.tls and not callable(contexts):
            raise ConfigError(
                "admin: tls: the supervisor has no certificate: give `contexts`, a function that adds them to a server"
            )
        return cls(place, token, contexts)

    def places(self, workers: int) -> list[Place]:
        """The address, and behind it that of the dashboard of each worker: ports that follow, or paths with a number.
        One worker alone has its dashboard at the address itself."""
        place = self.place
        if workers == 1 or place.fd is not None:
            return [place]
        if place.unix is not None:
            return [place, *(dataclasses.replace(place, unix=f"{place.unix}.{number}") for number in range(workers))]
        if place.port + workers > _LAST_PORT:
            raise ConfigError(
                f"admin: the dashboards of {workers} workers take the ports that follow {place.port}, and {_LAST_PORT} "
                "is the last"
            )
        ports = [place.port + 1 + number if place.port else 0 for number in range(workers)]
        return [place, *(dataclasses.replace(place, port=port) for port in ports)]


class Listening:
    """The sockets for so many workers, and who answers at the first of them: the supervisor for several, one alone
    itself."""

    def __init__(self, asked: Asked | None, workers: int, sockets: Sockets) -> None:
        self.asked, self.sockets = asked, sockets
        self._workers = workers
        self._server: Server | None = None
        self._listener: Listener | None = None

    def answer(self, seen: _core.WorkersSeen, before: Listening | None = None) -> None:
        """From now on, for several workers; by the server that did so `before`, where nothing else is asked for. Raises
        what `Server.listen_admin` raises."""
        if self.asked is None or self.is_alone:
            return
        if before is not None and before._server is not None and before.asked == self.asked:
            self._server, self._listener = before._server, before._listener
            return
        self._server = Server()
        if self.asked.contexts is not None:
            self.asked.contexts(self._server)
        enlist(self._server)
        fd, tls = self.sockets.held[0].descriptor, self.asked.place.tls
        listener = self._server._core.listen_admin("", 0, None, fd, tls, self.asked.token, seen)
        self._listener = Listener(listener, self._server)

    @property
    def is_alone(self) -> bool:
        """Whether it is for one worker, which answers at the address itself."""
        return self._workers == 1

    @property
    def dashboards(self) -> list[Held]:
        """By the number of the worker."""
        return self.sockets.held if self.is_alone else self.sockets.held[1:]

    def let_go(self, after: Listening | None = None) -> None:
        """Accepts nobody any more, unless it is the one `after` it that does."""
        if self._listener is not None and (after is None or after._listener is not self._listener):
            self._listener.close()

    def close(self, after: Listening | None = None) -> None:
        """Answers no more."""
        if self._server is not None and (after is None or after._server is not self._server):
            self._server.close(0)


class WorkersAdmin:
    """An admin listener in the supervisor, which asks the workers on Unix sockets in a folder of its own; and the
    sockets on which each worker has one."""

    def __init__(self, given: Address | None) -> None:
        self._asked = None if given is None or given is False else Asked.of(given)
        self._seen = _core.WorkersSeen()
        self._number = itertools.count()
        self.now = Listening(None, 0, Sockets([]))
        self._old: Listening | None = None
        self._folder = ""

    def open(self, workers: int, inheritance: Inheritance) -> Listening:
        """Binds, and answers from now on. Raises what `Server.listen_admin` raises."""
        try:
            places = self._places(self._asked, workers)
            self.now = Listening(self._asked, workers, Sockets(places, False, inheritance.socket_for))
            self.now.answer(self._seen)
        except BaseException:
            self.close()
            raise
        return self.now

    def again(self, given: Address | None, workers: int) -> Listening:
        """For other workers: answers beside what is there, until one of both is told to end, by `swap` or `drop`. None
        is what was given before, False is nowhere."""
        asked = self.now.asked if given is None else None if given is False else Asked.of(given)
        listening = Listening(asked, workers, self.now.sockets.again(self._places(asked, workers)))
        try:
            listening.answer(self._seen, self.now)
        except BaseException:
            self.drop(listening)
            raise
        return listening

    def _places(self, asked: Asked | None, workers: int) -> list[Place]:
        """What is to be bound, with a folder for the sockets of several workers. Raises `ConfigError`."""
        if asked is None:
            return []
        places = asked.places(workers)
        if workers > 1:
            self._folder = self._folder or own_folder()
        return places

    def swap(self, listening: Listening) -> None:
        """Puts it in the place of what is there, which still says what it was asked for until `end_old`."""
        self.now.let_go(listening)
        self.now, self._old = listening, self.now
        listening.sockets.take_over()

    def drop(self, listening: Listening) -> None:
        """Ends what was to come, as the new workers did not."""
        listening.let_go(self.now)
        listening.close(self.now)
        listening.sockets.close()

    def end_old(self) -> None:
        """Ends what was there before the last `swap`."""
        # Taken at once: who reloads and who closes may come here together.
        old, self._old = self._old, None
        if old is not None:
            old.close(self.now)

    @property
    def sockets(self) -> Sockets:
        """For a successor."""
        return self.now.sockets

    @property
    def url(self) -> str | None:
        """Where it is; None without one, and before it is opened."""
        return next(iter(_urls(self.sockets.held)), None)

    @property
    def dashboard_urls(self) -> list[str]:
        return _urls(self.now.dashboards)

    def for_worker(self, number: int, listening: Listening) -> Admin | None:
        """What a new worker is to have of its own. No other worker has had that path."""
        asked = listening.asked
        if asked is None:
            return None
        socket = None if listening.is_alone else os.path.join(self._folder, f"{number}.{next(self._number)}")
        own = listening.dashboards[number : number + 1]
        if not own:
            return Admin(socket, None, None)
        keywords = {"fd": own[0].descriptor, "tls": asked.place.tls, "token": asked.token}
        return Admin(socket, keywords, None if isinstance(own[0].address, str) else own[0].address[1])

    def joined(self, process: Process) -> None:
        """It serves, in place of the one that had its number."""
        if process.admin is not None and process.admin.socket is not None:
            self._seen.joined(str(process.number), process.admin.socket, process.admin.port)

    def ended(self, process: Process) -> None:
        """It is gone, and its socket's file with it, also where it was killed."""
        if process.admin is not None:
            socket = process.admin.socket or ""  # one that nobody asked is counted all the same
            self._seen.ended(socket)
            # Whatever is there instead of it: the worker has to be replaced.
            with contextlib.suppress(OSError):
                os.unlink(socket)

    def close(self) -> None:
        """Answers no more. Safe to call twice."""
        self.end_old()
        self.now.close()
        self.sockets.close()
        if self._folder:
            shutil.rmtree(self._folder, ignore_errors=True)


def own_folder() -> str:
    """A new folder that nobody else may open, for sockets: in the service's own, or a temporary one. Raises
    `ConfigError` where none can be made."""
    service = _systemd.runtime_folder()
    why = ""
    for parent in [service, None] if service else [None]:
        try:
            folder = tempfile.mkdtemp(prefix="portico-", dir=parent)
        except OSError as error:
            why = str(error)
            continue
        if len(os.fsencode(folder)) + _LONGEST_NAME <= LONGEST_PATH:
            return folder
        os.rmdir(folder)
        why = f"{folder} is too long for the path of a socket"
    raise ConfigError(
        f"an admin listener of several workers wants a folder for sockets, and none can be made: {why}; TMPDIR may "
        "name another"
    )


def _urls(held: list[Held]) -> list[str]:
    return [url_of(one.address, one.tls) for one in held]
