"""Values with where they were written: in a file (with the line), in the environment, or on the command line."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .._core import parse_toml
from .._errors import ConfigError

# A file that somebody wrote is not longer.
_MAX_BYTES = 2**20


@dataclass(frozen=True)
class Node:
    """A value: a text, a number, a boolean, None, a list of nodes, or a dict of them."""

    value: Any
    where: str
    """`portico.toml:12`, `--workers`, `PORTICO_WORKERS`."""
    line: int = 0
    """The line in the file; 0 where it is from elsewhere."""
    folder: Path = field(default_factory=Path)
    """What relative paths in it are relative to."""

    def entries(self) -> Iterator[tuple[str, Node]]:
        """Of a table, in the order of their lines."""
        assert isinstance(self.value, dict)
        return iter(sorted(self.value.items(), key=lambda entry: entry[1].line))

    def plain(self) -> Any:
        """The value alone."""
        if isinstance(self.value, dict):
            return {key: node.plain() for key, node in self.value.items()}
        if isinstance(self.value, list):
            return [node.plain() for node in self.value]
        return self.value


@dataclass(frozen=True)
class Problem:
    """Something that somebody has to mend."""

    where: str
    line: int
    table: str
    """The table that it is in, as its head is written; empty outside of one."""
    key: str
    text: str

    def __str__(self) -> str:
        text = f"[{self.table}] {self.text}" if self.table else self.text
        # `--pid-file`, `PORTICO_PID_FILE`: it has been said which key it is.
        if self.where.lower().removeprefix("--").removeprefix("portico_").replace("-", "_") == self.key:
            text = self.text.removeprefix(f"{self.key}: ")
        return escaped(f"{self.where}: {text}" if self.where else text, but="\n")


class Problems:
    """What was found to be wrong."""

    def __init__(self) -> None:
        self.found: list[Problem] = []

    def add(self, node: Node, path: tuple[str, ...], text: str) -> None:
        """`path` leads to the value: the tables it is in, and its key."""
        self.found.append(
            Problem(node.where, node.line, ".".join(map(key_text, path[:-1])), path[-1] if path else "", text)
        )

    def __bool__(self) -> bool:
        return bool(self.found)

    def __str__(self) -> str:
        """All of them, a line for each, in the order of the file; what is from elsewhere comes first."""
        return "\n".join(self.told())

    def told(self) -> list[str]:
        """Each of them, as text."""
        return list(dict.fromkeys(map(str, sorted(self.found, key=lambda problem: problem.line))))

    def raise_any(self) -> None:
        """Raises `ConfigError` with all of them, if there are any."""
        if self.found:
            raise ConfigError(str(self))


def read_file(path: Path) -> Node:
    """What stands in a file. Raises `ConfigError` where it cannot be read or is no TOML, with every line that is
    none."""
    try:
        with open(path, "rb") as file:
            content = file.read(_MAX_BYTES + 1)
        text = content.decode()
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"{path}:{line}: not UTF-8, which TOML is written in") from error
    if len(content) > _MAX_BYTES:
        raise ConfigError(f"{path} is larger than {_MAX_BYTES >> 20} MiB: is it the right file?")
    table, mistakes = parse_toml(text)
    if mistakes:
        raise ConfigError("\n".join(f"{path}:{line}: {escaped(message, but=chr(10))}" for line, message in mistakes))
    folder = path.parent

    def node(line: int, value: Any) -> Node:
        if isinstance(value, dict):
            value = {key: node(*entry) for key, entry in value.items()}
        elif isinstance(value, list):
            value = [node(*entry) for entry in value]
        return Node(value, f"{path}:{line}", line, folder)

    return node(1, table)


def from_text(text: str, where: str) -> Node:
    """A value that was given as text, on the command line or in the environment: as TOML has it, or as it is. Raises
    `ConfigError` where it is not UTF-8."""
    if any("\ud800" <= one <= "\udfff" for one in text):
        raise ConfigError(f"{where}: {os.fsencode(text)!r} is not UTF-8")
    found, mistakes = parse_toml(f"value = {text}")
    return from_plain(text if mistakes or found.keys() != {"value"} else _plain(*found["value"]), where)


def from_plain(value: Any, where: str) -> Node:
    """A value of whatever depth that was given in one place."""
    if isinstance(value, Mapping):
        return Node({key: from_plain(entry, where) for key, entry in value.items()}, where)
    if isinstance(value, list):
        return Node([from_plain(entry, where) for entry in value], where)
    return Node(value, where)


def _plain(_: int, value: Any) -> Any:
    """Without the lines."""
    if isinstance(value, dict):
        return {key: _plain(*entry) for key, entry in value.items()}
    return [_plain(*entry) for entry in value] if isinstance(value, list) else value


def merged(under: Node, over: Node) -> Node:
    """One table over another: its values win, and tables in both are merged too."""
    values = dict(under.value)
    for key, node in over.value.items():
        before = values.get(key)
        both = before is not None and isinstance(before.value, dict) and isinstance(node.value, dict)
        values[key] = merged(before, node) if before is not None and both and key in _MERGED else node
    return Node(values, under.where, under.line, under.folder)


# Tables of which single entries may be given elsewhere. Others are taken whole, as a host with its certificate.
_MERGED = {"settings", "hosts", "handlers", "sessions", "admin"}


def table(entries: Mapping[str, Node], where: str = "") -> Node:
    """A table that was put together."""
    return Node(dict(entries), where)


def key_text(name: str) -> str:
    """A key as TOML has it."""
    bare = name and all(one.isascii() and (one.isalnum() or one in "-_") for one in name)
    return name if bare else escaped(json.dumps(name, ensure_ascii=False))


def escaped(text: str, but: str = "") -> str:
    """With what does not print, or moves the cursor of a terminal, as TOML and JSON escape it."""
    return "".join(one if one.isprintable() or one in but else _escape(one) for one in text)


def _escape(one: str) -> str:
    return f"\\u{ord(one):04x}" if ord(one) <= 0xFFFF else f"\\U{ord(one):08x}"
