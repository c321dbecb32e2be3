"""A contender's processes: started on their core, measured through /proc, and ended with all their children."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import time
from pathlib import Path
from types import TracebackType

import https
from contenders import HERE, Contender, Site

# How long a server may take to answer its first request, and to end.
START = 20.0
END = 5.0


class ServerFailed(Exception):
    """A server did not come up, or died; with the end of what it printed."""


def free_port() -> int:
    """One that nobody uses now. The servers of others cannot tell which they got, so it is not left to them."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Server:
    """A contender that runs, from entering to leaving."""

    def __init__(self, contender: Contender, app: str, core: int, folder: Path, environment: dict[str, str]) -> None:
        self.contender = contender
        self.core = core
        self.site = Site(app, free_port(), folder)
        self.environment = {**os.environ, "PORTICO_BENCH_APP": app, "PYTHONPATH": str(HERE), **environment}
        self.log = folder / f"{contender.name}.log"

    @property
    def port(self) -> int:
        return self.site.port

    def __enter__(self) -> Server:
        command = self.contender.command(self.site)
        with self.log.open("wb") as log:
            # A session of its own: all its processes can be found and ended, and Ctrl-C is ours alone.
            self.process = subprocess.Popen(
                ["taskset", "--cpu-list", str(self.core), *command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=self.environment,
                cwd=self.site.folder,
                start_new_session=True,
            )
        try:
            self.wait_until_it_answers()
        except BaseException:
            self.end()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.end()

    def wait_until_it_answers(self) -> None:
        deadline = time.monotonic() + START
        while True:
            self.check()
            try:
                why = https.first_answer(self.port)
            except OSError as error:
                why = str(error)
            # An older version of TLS would be other work than that of the others.
            if why == "200 by TLSv1.3":
                return
            if time.monotonic() > deadline:
                raise ServerFailed(f"no answer within {START:.0f} s ({why}){self.tail()}")
            time.sleep(0.05)

    def check(self) -> None:
        """Raises `ServerFailed` where the server is gone."""
        if (status := self.process.poll()) is not None:
            raise ServerFailed(f"ended with status {status}{self.tail()}")

    def tail(self) -> str:
        """The end of what it printed."""
        printed = self.log.read_text(errors="replace").strip().splitlines()[-8:]
        return "".join(f"\n      | {line}" for line in printed)

    def processes(self) -> list[int]:
        """The server and its children: those of its session."""
        found = []
        for entry in os.scandir("/proc"):
            if entry.name.isdecimal():
                with contextlib.suppress(OSError, ProcessLookupError):
                    # After the name in parentheses: state, parent, group, session.
                    fields = Path(entry.path, "stat").read_text().rpartition(")")[2].split()
                    if int(fields[3]) == self.process.pid and fields[0] != "Z":
                        found.append(int(entry.name))
        return found

    def cpu(self) -> float:
        """Seconds of CPU that its processes have used, in user and system mode: utime and stime of /proc, which have
        steps of 10 ms, from the clock behind them."""
        total = 0.0
        for pid in self.processes():
            with contextlib.suppress(OSError):
                # The clock of a process, as clock_getcpuclockid(3) makes it on Linux.
                total += time.clock_gettime((~pid << 3) | 2)
        return total

    def resident(self) -> int:
        """Resident size of all its processes in bytes."""
        total = 0
        for pid in self.processes():
            with contextlib.suppress(OSError):
                sizes = re.findall(r"^Rss:\s+(\d+) kB", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.MULTILINE)
                total += int(sizes[0]) * 1024
        return total

    def end(self) -> None:
        """Ends every process of its session, gently first."""
        for how, patience in ((signal.SIGTERM, END), (signal.SIGKILL, END)):
            for pid in self.processes():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, how)
            deadline = time.monotonic() + patience
            while self.process.poll() is None or self.processes():
                if time.monotonic() > deadline:
                    break
                time.sleep(0.02)
            else:
                return
