"""Writes the tables of docs/performance.md from the results of a run.

    python loadtest/bench/report.py loadtest/results/2025-01-01-1200.json

A table stands between `<!-- begin bench NAME -->` and `<!-- end bench NAME -->`; everything around it is written by
hand. The chart beside the results is drawn anew.
"""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path
from typing import Any

import bounds
import chart
import environment
import summary
from contenders import ROOT

PAGE = ROOT / "docs" / "performance.md"
MARKED = re.compile(r"(<!-- begin bench (?P<name>[\w-]+) -->\n).*?(<!-- end bench (?P=name) -->)", re.DOTALL)


def markdown(table: list[list[str]]) -> str:
    head, *lines = table
    rule = ["---"] * len(head)
    return "".join(
        "| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n" for line in (head, rule, *lines)
    )


def machine(results: dict[str, Any]) -> str:
    """Where and with what it was measured."""
    versions = ", ".join(f"{name} {version}" for name, version in merged(results["versions"]).items())
    left_out = "".join(f" Left out: {name}, because {why}." for name, why in results["left_out"].items())
    return f"{results['date']}, commit {results['commit']}. {environment.in_words(results)}.\n\n{versions}.{left_out}\n"


def merged(versions: dict[str, str]) -> dict[str, str]:
    """The forms of one server named once."""
    return {name.partition("-")[0] if "-" in name else name: version for name, version in versions.items()}


def picture(results: dict[str, Any], path: Path) -> str:
    drawn = path.with_suffix(".svg")
    chart.save(results, drawn)
    return f"![CPU for each request by load and server]({os.path.relpath(drawn, PAGE.parent)})\n"


def section(name: str, results: dict[str, Any], path: Path) -> str:
    match name:
        case "machine":
            return machine(results)
        case "chart":
            return picture(results, path)
        case "bounds":
            return markdown(bounds.rows(results))
    if not summary.measured(results, name):
        return "Not measured.\n"
    return markdown(summary.isolation_rows(results, name) if name in summary.ISOLATION else summary.rows(results, name))


def main(arguments: list[str]) -> int:
    if len(arguments) != 1:
        sys.exit("usage: python loadtest/bench/report.py RESULT.json")
    path = Path(arguments[0]).resolve()
    results = json.loads(path.read_text())
    page = PAGE.read_text()
    found = {match["name"] for match in MARKED.finditer(page)}
    if missing := {"machine", "chart", "bounds", *summary.TITLES, *summary.ISOLATION} ^ found:
        sys.exit(f"{PAGE.name} lacks these sections, or has them for nothing: {', '.join(sorted(missing))}")
    PAGE.write_text(MARKED.sub(lambda it: f"{it[1]}{section(it['name'], results, path)}{it[3]}", page))
    print(f"{PAGE.relative_to(ROOT)}: written")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
