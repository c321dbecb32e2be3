"""What a value may be: how it is checked, and how a JSON Schema says it."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import _core
from .._errors import ConfigError
from ._nodes import Node, Problems, escaped

Path_ = tuple[str, ...]
_ABSENT = object()
# Settings with such names are paths, but for these words.
_PATHS = ("_folder", "_log")
_NO_PATHS = ("", "-", "stderr", "logging")


class Kind:
    """What a value may be."""

    expected = "anything"
    """In words."""

    def check(self, node: Node, path: Path_, problems: Problems) -> Any:
        """The value as it is to be used. Where it is wrong it is told, and the result is None."""
        value = self.take(node)
        if value is _ABSENT:
            problems.add(node, path, f"{_called(path)}: expected {self.expected}, not {written(node.plain())}")
            return None
        return value

    def take(self, node: Node) -> Any:
        """The value, or `_ABSENT` where it is none of this kind."""
        raise NotImplementedError

    def schema(self) -> dict[str, Any]:
        """As a JSON Schema."""
        raise NotImplementedError


class Text(Kind):
    expected = "a text"

    def take(self, node: Node) -> Any:
        return node.value if isinstance(node.value, str) and node.value else _ABSENT

    def schema(self) -> dict[str, Any]:
        return {"type": "string", "minLength": 1}


@dataclass(frozen=True)
class PathTo(Kind):
    """The path of a file or folder, which is not looked at yet; a relative one is relative to the file it stands in."""

    what: str = "file"

    @property
    def expected(self) -> str:  # type: ignore[override]
        return f"the path of a {self.what}"

    def take(self, node: Node) -> Any:
        if not isinstance(node.value, str) or not node.value or "\0" in node.value:
            return _ABSENT
        return located(node.value, node.folder)

    def check(self, node: Node, path: Path_, problems: Problems) -> Any:
        try:
            return super().check(node, path, problems)
        except ConfigError as error:
            problems.add(node, path, f"{_called(path)}: {error}")
            return None

    def schema(self) -> dict[str, Any]:
        return {"type": "string", "minLength": 1}


class Switch(Kind):
    expected = "true or false"

    def take(self, node: Node) -> Any:
        return node.value if isinstance(node.value, bool) else _ABSENT

    def schema(self) -> dict[str, Any]:
        return {"type": "boolean"}


@dataclass(frozen=True)
class Whole(Kind):
    least: int
    most: int

    @property
    def expected(self) -> str:  # type: ignore[override]
        return f"a whole number from {self.least} to {self.most}"

    def take(self, node: Node) -> Any:
        number = node.value
        fits = isinstance(number, int) and not isinstance(number, bool) and self.least <= number <= self.most
        return number if fits else _ABSENT

    def schema(self) -> dict[str, Any]:
        return {"type": "integer", "minimum": self.least, "maximum": self.most}


@dataclass(frozen=True)
class Seconds(Kind):
    least: float = 0.0
    most: float = 86_400.0

    @property
    def expected(self) -> str:  # type: ignore[override]
        return f"a number of seconds from {self.least:g} to {self.most:g}"

    def take(self, node: Node) -> Any:
        number = node.value
        fits = isinstance(number, (int, float)) and not isinstance(number, bool) and self.least <= number <= self.most
        return float(number) if fits else _ABSENT

    def schema(self) -> dict[str, Any]:
        return {"type": "number", "minimum": self.least, "maximum": self.most}


@dataclass(frozen=True)
class Choice(Kind):
    words: tuple[str, ...]

    @property
    def expected(self) -> str:  # type: ignore[override]
        return f"one of {', '.join(self.words)}"

    def take(self, node: Node) -> Any:
        return node.value if node.value in self.words else _ABSENT

    def schema(self) -> dict[str, Any]:
        return {"enum": list(self.words)}


@dataclass(frozen=True)
class Several(Kind):
    """A list, or one alone."""

    kind: Kind
    tells: str = ""

    @property
    def expected(self) -> str:  # type: ignore[override]
        return self.tells or f"{self.kind.expected}, or a list of such"

    def check(self, node: Node, path: Path_, problems: Problems) -> Any:
        nodes = node.value if isinstance(node.value, list) else [node]
        return [self.kind.check(one, path, problems) for one in nodes]

    def schema(self) -> dict[str, Any]:
        one = self.kind.schema()
        return {"anyOf": [one, {"type": "array", "items": one, "minItems": 1}]}


@dataclass(frozen=True)
class OneOf(Kind):
    """A text, or a table that says more."""

    text: Kind
    table: Kind

    @property
    def expected(self) -> str:  # type: ignore[override]
        return f"{self.text.expected}, or a table"

    def check(self, node: Node, path: Path_, problems: Problems) -> Any:
        return (self.table if isinstance(node.value, dict) else self.text).check(node, path, problems)

    def schema(self) -> dict[str, Any]:
        return {"anyOf": [self.text.schema(), self.table.schema()]}


@dataclass(frozen=True)
class Setting(Kind):
    """A setting of `Server`, which the core checks."""

    name: str
    accepts: Mapping[str, Any]

    @property
    def expected(self) -> str:  # type: ignore[override]
        python = next(str(one["expected"]) for one in _core.settings() if one["name"] == self.name)
        return _as_toml(python)

    def check(self, node: Node, path: Path_, problems: Problems) -> Any:
        value = node.plain()
        if value == "none" and "none" in self.expected:
            value = None  # TOML has no word for it.
        if isinstance(value, str) and self.expected.startswith("a list of"):
            value = [value]
        if isinstance(value, str) and self.name.endswith(_PATHS) and value not in _NO_PATHS:
            value = str(node.folder / value)
        try:
            # What settings have to do with each other is checked where all are known, in `load`.
            _core.check_settings({"trusted_proxies": ("unix",), self.name: value})
        except ConfigError as error:
            problems.add(node, path, _as_toml(str(error).removeprefix("setting ")))
        return value

    def schema(self) -> dict[str, Any]:
        return dict(self.accepts)


@dataclass(frozen=True)
class Key:
    """An entry of a table."""

    name: str
    kind: Kind
    doc: str
    default: Any = None
    """What holds where it is not given; for people, as text, where it is no plain value."""


@dataclass(frozen=True)
class Table(Kind):
    """A table with keys that are known."""

    keys: tuple[Key, ...]
    expected = "a table"

    def check(self, node: Node, path: Path_, problems: Problems) -> Any:
        if not isinstance(node.value, dict):
            problems.add(node, path, f"{_called(path)}: expected a table, not {written(node.plain())}")
            return {}
        known = {key.name: key for key in self.keys}
        values = {}
        for name, entry in node.entries():
            if name in known:
                values[name] = known[name].kind.check(entry, (*path, name), problems)
            else:
                problems.add(entry, (*path, name), f"unknown key `{escaped(name)}`{nearest(name, known)}")
        return values

    def schema(self) -> dict[str, Any]:
        properties = {key.name: {"description": key.doc, **key.kind.schema()} for key in self.keys}
        return {"type": "object", "properties": properties, "additionalProperties": False}


@dataclass(frozen=True)
class Named(Kind):
    """A table of things that have names of their own."""

    kind: Kind
    expected = "a table"

    def check(self, node: Node, path: Path_, problems: Problems) -> Any:
        if not isinstance(node.value, dict):
            problems.add(node, path, f"{_called(path)}: expected a table, not {written(node.plain())}")
            return {}
        return {name: self.kind.check(entry, (*path, name), problems) for name, entry in node.entries()}

    def schema(self) -> dict[str, Any]:
        return {"type": "object", "additionalProperties": self.kind.schema()}


def located(text: str, folder: Path) -> Path:
    """A path as it is written: relative to that folder, and `~` is a home. Raises `ConfigError`."""
    try:
        return folder / Path(text).expanduser()
    except RuntimeError as error:
        raise ConfigError(f"{text!r}: there is no home for {Path(text).parts[0]}") from error


def nearest(name: str, known: Iterable[str]) -> str:
    """`: did you mean ...?`, or what there is."""
    names = [escaped(one) for one in known]
    found = difflib.get_close_matches(name, names, n=1)
    return f": did you mean `{found[0]}`?" if found else f"; there is {', '.join(names)}"


def written(value: Any) -> str:
    """A value as TOML has it, more or less, and not too long."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict):
        return "a table"
    if isinstance(value, list):
        return "a list"
    text = escaped(f'"{value}"' if isinstance(value, str) else str(value))
    return text if len(text) <= 80 else f"{text[:76]}..."


def _as_toml(text: str) -> str:
    """What the core says of settings, for who writes TOML and not Python."""
    for python, toml in (("or None", 'or "none"'), ("a tuple", "a list"), ("True or False", "true or false")):
        text = text.replace(python, toml)
    return text


def _called(path: Path_) -> str:
    return escaped(path[-1]) if path else "the whole"
