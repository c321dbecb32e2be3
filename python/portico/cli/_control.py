"""The socket by which `portico reload` comes to the server that runs: who may, where it is, and what is said.

One line each way: the client says what it wants, the server answers with an object of JSON and closes."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import socket
import stat
import struct
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from portico import _systemd
from portico._addresses import _file, _is_left_over
from portico._errors import ConfigError
from portico.config import Place

Answer = dict[str, Any]

_LONGEST_LINE = 1_000
_LONGEST_ANSWER = 2**20
# How long a client may take to say what it wants, and a server that says nothing of itself.
_PATIENCE = 5.0


def folders() -> list[Path]:
    """Where the sockets of servers are that say nothing else, the one for new ones first."""
    if own := _systemd.runtime_folder():  # of nobody else
        return [Path(own)]
    found = []
    if os.geteuid() == 0:
        found.append(Path("/run/portico"))
    elif (users := os.environ.get("XDG_RUNTIME_DIR", "")).startswith("/"):
        found.append(Path(users) / "portico")
    return [*found, Path(tempfile.gettempdir()) / f"portico-{os.geteuid()}"]


class Control:
    """The server's side: a socket that only this user, and root, may use."""

    def __init__(self, path: Path | None, commands: Mapping[str, Callable[[], Answer]], succeeds: bool = False) -> None:
        """`commands` answer, each on a thread of its own. One that `succeeds` another takes the place of its socket.
        Raises `ConfigError` where the socket cannot be made."""
        self._commands = commands
        self._socket = socket.socket(socket.AF_UNIX)
        try:
            self.path = path if path is not None else _own_folder() / f"{os.getpid()}.sock"
            _bind(self._socket, self.path, succeeds)
            os.chmod(self.path, 0o600)
            self._socket.listen(16)
            self._file = _file(os.fspath(self.path))
        except OSError as error:
            self._socket.close()
            raise ConfigError(
                f"cannot make the socket for `portico reload` at {path or error.filename}: {error.strerror}; "
                "--control, or `control` in portico.toml, puts it elsewhere"
            ) from error
        threading.Thread(target=self._accept, name="portico-run-control", daemon=True).start()

    def close(self) -> None:
        """Nobody is listened to any more."""
        # Wakes the thread that accepts.
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        if _file(os.fspath(self.path)) == self._file:  # a successor may have put its own there
            with contextlib.suppress(OSError):
                os.unlink(self.path)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._socket.accept()
            except OSError as error:
                if error.errno in (errno.EMFILE, errno.ENFILE, errno.ECONNABORTED, errno.EINTR):
                    threading.Event().wait(0.1)
                    continue
                return
            threading.Thread(target=self._answer, args=(client,), name="portico-run-answer", daemon=True).start()

    def _answer(self, client: socket.socket) -> None:
        with client:
            try:
                client.settimeout(_PATIENCE)
                if not _may(client):
                    return
                with client.makefile("rb") as lines:
                    said = lines.readline(_LONGEST_LINE).decode(errors="replace").strip()
            except OSError:
                return
            command = self._commands.get(said)
            answer = command() if command else {"ok": False, "text": f"it does not know {said!r}"}
            with contextlib.suppress(OSError):
                client.sendall(json.dumps(answer).encode() + b"\n")


def ask(path: Path, what: str, timeout: float | None = None) -> Answer:
    """What a server answers. Raises OSError where none does."""
    with socket.socket(socket.AF_UNIX) as server:
        server.settimeout(_PATIENCE)
        server.connect(os.fspath(path))
        server.sendall(what.encode() + b"\n")
        server.settimeout(timeout)
        with server.makefile("rb") as lines:
            line = lines.readline(_LONGEST_ANSWER)
    try:
        answer = json.loads(line)
    except ValueError:
        raise ConnectionResetError(errno.ECONNRESET, "it ended before it answered") from None
    return answer if isinstance(answer, dict) else {}


def running() -> dict[Path, Answer]:
    """The servers of this user that say nothing of their socket, with what they tell of themselves. Sockets that dead
    ones have left are removed."""
    found = {}
    for path in _sockets():
        try:
            found[path] = ask(path, "status", _PATIENCE)
        except ConnectionRefusedError:
            with contextlib.suppress(OSError):
                path.unlink()
        except OSError:
            continue
    return found


def who_has(place: str) -> Answer | None:
    """What the server of this user that listens on `ADDRESS:PORT` or `unix:PATH` tells of itself, if there is one."""
    return next(
        (told for told in running().values() if any(_is_in_the_way(url, place) for url in told.get("urls", []))), None
    )


def _is_in_the_way(url: str, place: str) -> bool:
    """Whether what listens at `url` leaves nobody else that place."""
    if place.startswith("unix:"):
        return url.partition("+unix://")[2] == place.removeprefix("unix:")
    try:
        there, wanted = Place.parse(url), Place.parse(place)
        found = socket.getaddrinfo(wanted.host, None, type=socket.SOCK_STREAM)
    except (ConfigError, OSError):
        return False
    return any(there.excludes(replace(wanted, host=str(address[0]))) for *_, address in found)


def _sockets() -> Iterator[Path]:
    for folder in folders():
        if _is_own(folder):
            yield from sorted(folder.glob("*.sock"))


def _own_folder() -> Path:
    """The first folder that is there or can be made, and is this user's alone."""
    for folder in folders():
        with contextlib.suppress(OSError):
            folder.mkdir(mode=0o700, exist_ok=True)
            if _is_own(folder) and os.access(folder, os.W_OK):
                _sweep(folder)
                return folder
    raise FileNotFoundError(errno.ENOENT, "there is no folder of this user's alone", str(folders()[-1]))


def _sweep(folder: Path) -> None:
    """Removes the sockets of processes that were killed, and are gone."""
    for path in folder.glob("*.sock"):
        if not path.stem.isdigit():
            continue
        try:
            os.kill(int(path.stem), 0)
        except ProcessLookupError:
            with contextlib.suppress(OSError):
                path.unlink()
        except OSError:
            continue  # it is there, and another user's


def _is_own(folder: Path) -> bool:
    """Whether nobody else can put something there."""
    try:
        found = os.lstat(folder)
    except OSError:
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid() and not found.st_mode & 0o022


def _bind(listening: socket.socket, path: Path, succeeds: bool) -> None:
    """Binds to a path, also where a server that died has left its socket."""
    if succeeds and path.is_socket():
        draft = path.with_name(f".{path.name}.{os.getpid()}")
        listening.bind(os.fspath(draft))
        os.replace(draft, path)
        return
    try:
        listening.bind(os.fspath(path))
    except OSError as error:
        if error.errno != errno.EADDRINUSE or not stat.S_ISSOCK(os.lstat(path).st_mode):
            raise
        if not _is_left_over(os.fspath(path)):
            raise OSError(errno.EADDRINUSE, "another server listens there", str(path)) from error
        os.unlink(path)
        listening.bind(os.fspath(path))


def _may(client: socket.socket) -> bool:
    """Whether it is this user or root. Where the system does not tell, the mode of the socket has said it."""
    if not hasattr(socket, "SO_PEERCRED"):
        return True
    _, user, _ = struct.unpack("3i", client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    return user in (0, os.geteuid())
