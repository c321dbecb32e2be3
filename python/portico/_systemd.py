"""What a service manager and its service say to each other: sockets that are handed over, and `sd_notify`.

The protocols are a few variables and datagrams (sd_listen_fds(3), sd_notify(3)), which are promised to stay as they
are; a library would be longer than its use."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import time
from collections.abc import Mapping

from ._errors import ConfigError

# The first descriptor that is handed over: SD_LISTEN_FDS_START.
_FIRST = 3
# For a successor of this process.
_HANDED_ON = "PORTICO_SYSTEMD_SOCKETS"
# Nobody hands over more.
_MOST = 1_000
# sd_watchdog_enabled(3): what fits into 64 bits.
_LONGEST = 2**64 - 1


def handed_over(environment: Mapping[str, str] | None = None) -> dict[str, list[int]]:
    """The descriptors of the sockets that the service manager has opened, by the name that it gave them
    (`FileDescriptorName=`, by default that of the socket unit); none where they are not meant for this process.

    Raises `ConfigError` where what it says is no number."""
    environment = os.environ if environment is None else environment
    if handed_on := environment.get(_HANDED_ON):
        return _handed_on(handed_on)
    if environment.get("LISTEN_PID") != str(os.getpid()):
        return {}
    count = environment.get("LISTEN_FDS", "0")
    if not (count.isascii() and count.isdigit() and len(count) <= len(str(_MOST)) and int(count) <= _MOST):
        raise ConfigError(f"LISTEN_FDS: a number of sockets up to {_MOST}, not {count[:80]!r}")
    names = environment.get("LISTEN_FDNAMES", "").split(":")
    found: dict[str, list[int]] = {}
    for number in range(int(count)):
        name = names[number] if number < len(names) and names[number] else "unknown"
        found.setdefault(name, []).append(_FIRST + number)
    return found


def _handed_on(text: str) -> dict[str, list[int]]:
    """What a predecessor tells by `hand_on`."""
    with contextlib.suppress(ValueError, RecursionError):
        found = json.loads(text)
        if isinstance(found, dict) and all(_are_descriptors(numbers) for numbers in found.values()):
            return found
    raise ConfigError(f"{_HANDED_ON}: it is for portico's own use, and says {text!r}")


def _are_descriptors(numbers: object) -> bool:
    return isinstance(numbers, list) and all(type(number) is int and 0 <= number < 2**31 for number in numbers)


def runtime_folder() -> str | None:
    """The folder of the service that this process is, for what lasts as long as it does (systemd.exec(5)); of several
    the first. None without one."""
    return os.environ.get("RUNTIME_DIRECTORY", "").split(":")[0] or None


def hand_on(sockets: Mapping[str, list[int]]) -> None:
    """Tells a process that this one starts, to take its place, what was handed over: names, and the numbers by which it
    finds the sockets among those that it is given. It is the one that gives signs of life from then on."""
    if sockets:
        os.environ[_HANDED_ON] = json.dumps(sockets)
    os.environ.pop("WATCHDOG_PID", None)


def forget_handed_over() -> None:
    """Takes the variables away, so that no program that this one starts takes them for its own."""
    for name in ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", _HANDED_ON):
        os.environ.pop(name, None)


class Manager:
    """The service manager that has started this process, if one has, and what it wants to be told.

    It is told from any thread. Where it does not listen nothing happens: a server does not end for want of a
    listener. Raises `ConfigError` where what it wants cannot be understood."""

    def __init__(self, environment: Mapping[str, str] | None = None) -> None:
        environment = os.environ if environment is None else environment
        path = environment.get("NOTIFY_SOCKET", "")
        # An abstract name is written with @ for its first byte, which is none.
        self._address = "\0" + path[1:] if path.startswith("@") else path if path.startswith("/") else ""
        wanted = environment.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        usec = _usec(environment.get("WATCHDOG_USEC", "")) if wanted else 0
        self.watchdog: float | None = usec / 2e6 if usec else None
        """How often, in seconds, a sign of life is due: twice in the time after which it would act."""

    def ready(self, status: str) -> None:
        """Everything listens: at the start, and after a reload."""
        self._tell("READY=1", f"STATUS={status}")

    def reloading(self) -> None:
        """A reload has begun. `Type=notify-reload` wants to know when, to tell it from an earlier one."""
        self._tell("RELOADING=1", f"MONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")

    def stopping(self) -> None:
        """The end has begun."""
        self._tell("STOPPING=1", "STATUS=finishing what is in flight")

    def status(self, text: str) -> None:
        """A line for `systemctl status`."""
        self._tell(f"STATUS={text}")

    def alive(self) -> None:
        """A sign of life."""
        self._tell("WATCHDOG=1")

    def main_pid(self, pid: int) -> None:
        """Another process goes on as the service."""
        self._tell(f"MAINPID={pid}")

    def _tell(self, *lines: str) -> None:
        if not self._address:
            return
        text = "\n".join(" ".join(line.splitlines()) for line in lines)
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as told:
            # A manager that is busy is waited for, but not for ever.
            told.settimeout(1.0)
            told.connect(self._address)
            told.sendall(text.encode(errors="replace"))


def _usec(text: str) -> int:
    """Microseconds; 0 where nothing is said."""
    if not text:
        return 0
    # By its length first: `int` raises for thousands of digits.
    number = int(text) if text.isascii() and text.isdigit() and len(text) <= len(str(_LONGEST)) else -1
    if not 0 <= number <= _LONGEST:
        raise ConfigError(f"WATCHDOG_USEC: a number of microseconds up to {_LONGEST}, not {text[:80]!r}")
    return number
