"""The blocks of code in the docs, and what runs those that make up a page: files are written, commands run in their order,
servers stay until the next one is started.

What stands behind the language of a block:

    python                    a program of its own, which tests/test_docs.py runs
    python file=app.py        a file that commands further down use; so it is with any language
    console                   commands, each behind `$ `; what follows one is what it prints, `...` standing for anything
    console server            the same, but the last of them stays, a server, and what stayed before ends
    console server also       ... and what stayed before stays too
    console server foreign    ... another server than portico: it is ended by SIGTERM, whatever it says to that
    ... fragment              shown only; Python must be Python all the same
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from clients import GENEROUS

FENCE = re.compile(r"^```(?P<info>[^`\n]*)\n(?P<code>.*?)^```$", re.M | re.S)
# Ports that pages name; each page is given free ones in their place.
PORTS = re.compile(r"\b(?:8000|8001|8080|8081|8443|8444|9000|9001|9090|9443)\b")


# What no test may run on somebody's machine.
NEVER = re.compile(r"\b(sudo|kill|killall|pkill|systemctl|docker|apt|apt-get|reboot|useradd|mount)\b")


@dataclass(frozen=True)
class Block:
    language: str
    words: tuple[str, ...]
    code: str
    line: int

    @property
    def file(self) -> str | None:
        (name,) = [word.removeprefix("file=") for word in self.words if word.startswith("file=")] or [None]
        return name

    @property
    def is_fragment(self) -> bool:
        return "fragment" in self.words


def blocks(page: Path) -> Iterator[Block]:
    """The blocks of a page, but for directives of the site (`{toctree}`)."""
    text = page.read_text()
    for found in FENCE.finditer(text):
        language, *words = found["info"].split() or [""]
        if not language.startswith("{"):
            yield Block(language, tuple(words), found["code"], text.count("\n", 0, found.start()) + 1)


def belongs_to_a_page(block: Block) -> bool:
    """Whether a block is a part of what its page builds up."""
    return not block.is_fragment and (block.file is not None or block.language == "console")


@dataclass(frozen=True)
class Command:
    line: str
    expected: str


def commands(code: str) -> list[Command]:
    found = []
    for part in re.split(r"^\$ ", code, flags=re.M)[1:]:
        line, *rest = part.split("\n")
        while line.endswith("\\"):
            line = f"{line[:-1]}{rest.pop(0).strip()}"
        found.append(Command(line, "\n".join(rest)))
    return found


def needed(page: Path) -> set[str]:
    """Programs of the system that the commands of a page call."""
    called = {
        command.line.split()[0]
        for block in blocks(page)
        if belongs_to_a_page(block)
        for command in commands(block.code)
    }
    return called & {"curl", "nginx", "openssl", "redis-server"}


class Site:
    """A folder in which the blocks of a page, or of several, are run."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / ".venv").symlink_to(sys.prefix)
        self._ports: dict[str, str] = {}
        self._servers: list[tuple[subprocess.Popen[str], Path, bool]] = []
        self._environment = {
            "PATH": f"{Path(sys.prefix, 'bin')}:{os.environ['PATH']}:/usr/sbin",
            "HOME": str(folder),
            "TERM": "dumb",
            "LANG": "C.UTF-8",
            "NO_PROXY": "*",
            "no_proxy": "*",
            "PYTHONUNBUFFERED": "1",
            "COLUMNS": "80",
        }

    def run(self, block: Block) -> None:
        if block.file is not None:
            path = self.folder / block.file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(self._with_free_ports(block.code))
            return
        if found := NEVER.search(block.code):
            raise AssertionError(f"{found[0]} is not run by a test: say `console fragment`")
        given = commands(self._with_free_ports(block.code))
        assert given, "no line that begins with `$ `: what is to be run?"
        *before, last = given
        for command in before:
            self._call(command)
        if "server" in block.words:
            if "also" not in block.words:
                self.stop()
            self._serve(last, "foreign" in block.words)
        else:
            self._call(last)

    def _with_free_ports(self, text: str) -> str:
        return PORTS.sub(lambda found: self._ports.setdefault(found[0], str(free_port())), text)

    def _call(self, command: Command) -> None:
        done = subprocess.run(
            ["bash", "-c", command.line],
            cwd=self.folder,
            env=self._environment,
            capture_output=True,
            text=True,
            timeout=GENEROUS,
            stdin=subprocess.DEVNULL,
            check=False,
        )
        said = f"{done.stdout}{done.stderr}\n{self._said()}"
        assert done.returncode == 0, f"{command.line} ended with {done.returncode}:\n{said}"
        if command.expected.strip():
            assert matches(command.expected, done.stdout), f"{command.line} printed\n{done.stdout}"

    def _serve(self, command: Command, foreign: bool) -> None:
        """Starts a server, and waits until it has printed what it should, or listens."""
        path = self.folder / f".output-{len(self._servers)}"
        errors = path.with_name(f".errors-{len(self._servers)}")
        open_before = self._open_ports()
        with path.open("w") as output, errors.open("w") as said:
            server = subprocess.Popen(
                ["bash", "-c", f"exec {command.line}"],
                cwd=self.folder,
                env=self._environment,
                stdout=output,
                stderr=said,
                stdin=subprocess.DEVNULL,
                text=True,
                start_new_session=True,
            )
        self._servers.append((server, errors, foreign))
        expected, end = command.expected.strip(), time.monotonic() + GENEROUS
        while not (matches(expected, path.read_text()) if expected else self._open_ports() > open_before):
            assert server.poll() is None, f"{command.line} ended:\n{self._said()}"
            assert time.monotonic() < end, f"{command.line} does not serve:\n{self._said()}"
            time.sleep(0.02)  # a foreign server tells nobody when it listens

    def _open_ports(self) -> set[int]:
        return {int(port) for port in self._ports.values() if listens(int(port))}

    def _said(self) -> str:
        return "".join(path.read_text() for path in sorted(self.folder.glob(".[eo][ru]*-?")))

    def stop(self) -> None:
        """Ends the servers as Ctrl-C does, the last one first."""
        try:
            for server, errors, foreign in reversed(self._servers):
                server.send_signal(signal.SIGTERM if foreign else signal.SIGINT)
                server.wait(GENEROUS)
                said = errors.read_text()
                assert foreign or not re.search("^Traceback|panicked", said, re.M), said
        finally:
            self.kill()

    def kill(self) -> None:
        """Ends what is left of the servers, and what they have started."""
        while self._servers:
            server, *_ = self._servers.pop()
            with contextlib.suppress(ProcessLookupError):
                os.killpg(server.pid, signal.SIGKILL)
            server.wait()


def matches(expected: str, printed: str) -> bool:
    parts = (re.escape(part) for part in expected.strip().split("..."))
    return re.fullmatch(".*".join(parts), printed.strip(), re.S) is not None


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
