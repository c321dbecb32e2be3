"""Results of a run: kept as JSON, and summed up for each load and contender."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import idle
from isolation import SCENARIOS
from loads import LOADS

# What the loads are compared by, with its unit and how much of it that is.
CPU = ("cpu_us", "µs", 1.0)
MEMORY = ("each", "KiB", 1024.0)
TITLES = {**{load.name: load.title for load in LOADS}, idle.NAME: idle.TITLE}
ISOLATION = {scenario.name: scenario.title for scenario in SCENARIOS}


@dataclass(frozen=True)
class Spread:
    """One figure over all rounds."""

    least: float
    middle: float
    most: float

    def in_words(self, digits: int) -> str:
        if self.least == self.most:
            return f"{self.middle:.{digits}f}"
        return f"{self.middle:.{digits}f} ({self.least:.{digits}f} to {self.most:.{digits}f})"


def save(results: dict[str, Any], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n")


def measured(results: dict[str, Any], load: str) -> list[str]:
    """Who took part in a load, in the order of the contenders."""
    return list(dict.fromkeys(it["contender"] for it in results["measurements"] if it["load"] == load))


def rounds(results: dict[str, Any], load: str, contender: str) -> list[dict[str, Any]]:
    return [it for it in results["measurements"] if it["load"] == load and it["contender"] == contender]


def spread(results: dict[str, Any], load: str, contender: str, key: str, unit: float = 1.0) -> Spread | None:
    """The least, the median and the most of one figure; none where it was not measured."""
    values = [it[key] / unit for it in rounds(results, load, contender) if it.get(key) is not None]
    return Spread(min(values), median(values), max(values)) if values else None


def figure(load: str) -> tuple[str, str, float]:
    """What a load is compared by."""
    return MEMORY if load == idle.NAME else CPU


def ranked(results: dict[str, Any], load: str) -> list[tuple[str, Spread]]:
    """Contenders and their figure, the smallest first."""
    key, _, unit = figure(load)
    found = [(name, value) for name in measured(results, load) if (value := spread(results, load, name, key, unit))]
    return sorted(found, key=lambda pair: pair[1].middle)


def errors(results: dict[str, Any], load: str, contender: str) -> str:
    """Errors of all rounds."""
    total: dict[str, int] = {}
    for measurement in rounds(results, load, contender):
        for name, count in measurement["errors"].items():
            total[name] = total.get(name, 0) + count
    return ", ".join(f"{count} {name}" for name, count in total.items()) or "0"


def rows(results: dict[str, Any], load: str) -> list[list[str]]:
    """The table of a load, with its head."""
    _, unit, _ = figure(load)
    if load == idle.NAME:
        out = [["Server", f"{unit} for each connection", "MiB with all of them"]]
    else:
        out = [["Server", f"CPU for each request, {unit}", "requests per second", "core busy", "MiB", "errors"]]
    for name, value in ranked(results, load):
        line = [name, value.in_words(1 if load == idle.NAME or value.middle >= 100 else 2)]
        if load != idle.NAME and (rate := spread(results, load, name, "per_second")):
            line.append(rate.in_words(0))
        if load != idle.NAME and (busy := spread(results, load, name, "core_busy")):
            line.append(f"{busy.middle:.0%}")
        if resident := spread(results, load, name, "resident", 2**20):
            line.append(f"{resident.most:.1f}")
        out.append(line if load == idle.NAME else [*line, errors(results, load, name)])
    return out


def isolation_rows(results: dict[str, Any], scenario: str) -> list[list[str]]:
    """The table of a scenario, with its head: medians over the rounds."""
    names = measured(results, scenario)
    keys: list[str] = [
        key for key in rounds(results, scenario, names[0])[0] if key not in ("load", "contender", "round")
    ]
    out = [["Server", *(key.removesuffix("_ms").replace("_", " ") + unit_of(key) for key in keys)]]
    for name in names:
        line = [name]
        for key in keys:
            value = spread(results, scenario, name, key, 2**20 if key.startswith("resident") else 1.0)
            line.append(f"{value.middle:.{digits_of(key, value.middle)}f}" if value else "")
        out.append(line)
    return out


def unit_of(key: str) -> str:
    return ", ms" if key.endswith("_ms") else ", MiB" if key.startswith("resident") else ""


def digits_of(key: str, value: float) -> int:
    if key.endswith("_ms") and value < 100:
        return 2
    return 1 if key.startswith("resident") else 0


def text(results: dict[str, Any]) -> str:
    """Every table, for a terminal."""
    tables = [(title, rows(results, load)) for load, title in TITLES.items() if measured(results, load)]
    tables += [(title, isolation_rows(results, it)) for it, title in ISOLATION.items() if measured(results, it)]
    return "\n\n".join(f"{title}\n{aligned(table)}" for title, table in tables)


def aligned(table: list[list[str]]) -> str:
    widths = [max(len(cell) for cell in column) for column in zip(*table, strict=True)]
    lines = []
    for line in table:
        cells = [
            line[0].ljust(widths[0]),
            *(cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True)),
        ]
        lines.append("  " + "  ".join(cells).rstrip())
    return "\n".join(lines)
