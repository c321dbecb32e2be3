"""`portico check --print`: every value that holds, and where it was said."""

from __future__ import annotations

import json
from typing import Any

from ._kinds import Table, written
from ._load import Configuration
from ._nodes import Node, key_text
from ._schema import ROOT, SETTINGS


def effective(configuration: Configuration) -> str:
    """As TOML, with a comment for each value; what nobody gave with its default."""
    root = configuration.root
    lines = _values(root, ROOT)
    lines += _settings(root.value.get("settings"))
    for name in ("sessions", "handlers", "hosts"):
        if name in root.value:
            lines += _tables(root.value[name], name)
    return "\n".join(lines)


def _values(root: Node, table: Table) -> list[str]:
    """What stands outside of tables."""
    rows = []
    for key in table.keys:
        node = root.value.get(key.name)
        if key.name in ("hosts", "handlers", "sessions", "settings"):
            continue
        if node is not None:
            rows.append((f"{key.name} = {_toml(node.plain())}", node.where))
        elif key.default is not None:
            text = "" if isinstance(key.default, str) and " " in key.default else f"{key.name} = {_toml(key.default)}"
            rows.append((text or f"# {key.name}: {key.default}", "default"))
    return _aligned(rows)


def _settings(given: Node | None) -> list[str]:
    rows = []
    for key in SETTINGS.keys:
        node = given.value.get(key.name) if given is not None else None
        value = key.default if node is None else node.plain()
        rows.append((f"{key.name} = {_toml(value)}", "default" if node is None else node.where))
    return ["", "[settings]", *_aligned(rows)]


def _tables(node: Node, *path: str) -> list[str]:
    head = ".".join(map(key_text, path))
    if isinstance(node.value, list):
        several = [one for one in node.value if isinstance(one.value, dict)]
        return [line for one in several for line in _table(one, f"[[{head}]]")]
    values = {key: one for key, one in node.value.items() if not isinstance(one.value, dict) and not _is_tables(one)}
    lines = _table(Node(values, node.where), f"[{head}]") if values else []
    for key, one in node.entries():
        if key not in values:
            lines += _tables(one, *path, key)
    return lines


def _table(node: Node, head: str) -> list[str]:
    return [
        "",
        head,
        *_aligned([(f"{key_text(key)} = {_toml(one.plain())}", one.where) for key, one in node.entries()]),
    ]


def _is_tables(node: Node) -> bool:
    return isinstance(node.value, list) and any(isinstance(one.value, dict) for one in node.value)


def _aligned(rows: list[tuple[str, str]]) -> list[str]:
    width = min(60, max((len(text) for text, _ in rows), default=0))
    return [f"{text:<{width}}  # {where}" for text, where in rows]


def _toml(value: Any) -> str:
    if isinstance(value, str):
        # The escapes of JSON are those of TOML.
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(_toml, value))}]"
    if isinstance(value, dict):
        return f"{{ {', '.join(f'{key_text(key)} = {_toml(one)}' for key, one in value.items())} }}"
    return '"none"' if value is None else written(value)
