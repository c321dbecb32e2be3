"""The chart of a run: a panel for each load, a bar for each contender, drawn as SVG."""

from __future__ import annotations

from pathlib import Path
from statistics import median
from typing import Any

import summary
from summary import Spread

COLOURS = {"portico": "#1a5fb4", "limit": "#c0bfbc", "nginx": "#26a269", "granian": "#e66100"}
OTHERS = "#a5a0b5"
PANEL, GAP, BAR, HEAD, TOP = 560, 40, 20, 46, 70
LABEL, VALUE = 120, 150
COLUMNS = 2
# How much longer than the middle one a bar may be, and how it is marked when cut.
CUT = 3
GASH = 'stroke="white" stroke-width="4"'
FONT = 'font-family="sans-serif" font-size="12"'


def save(results: dict[str, Any], path: Path) -> None:
    path.write_text(draw(results))


def draw(results: dict[str, Any]) -> str:
    """Panels in two columns, each put where the column is shorter. Each has a scale of its own."""
    panels, heights = [], [TOP] * COLUMNS
    for load, title in summary.TITLES.items():
        if not (bars := summary.ranked(results, load)):
            continue
        column = heights.index(min(heights))
        unit = summary.figure(load)[1]
        panels.append(panel(GAP + column * (PANEL + GAP), heights[column], f"{title}, {unit}", bars))
        heights[column] += HEAD + BAR * len(bars) + 20
    width, height = GAP + COLUMNS * (PANEL + GAP), max(heights) + 10
    machine = results["machine"]
    under = (
        f"Server CPU for each request, or memory for each connection; less is better. Whiskers from least to most. "
        f"{results['date']}, {machine['cpu']}, one core for the server."
    )
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" {FONT}>',
            f'<rect width="{width}" height="{height}" fill="white"/>',
            f'<text x="{GAP}" y="30" font-size="18">portico beside other servers</text>',
            f'<text x="{GAP}" y="50" fill="#555">{escape(under)}</text>',
            *panels,
            "</svg>\n",
        ]
    )


def panel(x: float, y: float, title: str, bars: list[tuple[str, Spread]]) -> str:
    """One load: names, bars to a common scale, and figures. Bars that are far too long are cut, or nothing would
    be seen of the others."""
    longest = min(max(value.most for _, value in bars), CUT * median(value.middle for _, value in bars))
    scale = (PANEL - LABEL - VALUE) / (longest or 1)
    out = [f'<text x="{x}" y="{y + 28}" font-size="14" font-weight="bold">{escape(title)}</text>']
    for number, (name, value) in enumerate(bars):
        line = y + HEAD + BAR * number
        begin, middle = x + LABEL, line + BAR / 2
        least, end, most = (begin + scale * min(it, longest) for it in (value.least, value.middle, value.most))
        digits = 2 if value.middle < 100 else 0
        out += [
            f'<text x="{begin - 8}" y="{middle + 4}" text-anchor="end">{escape(name)}</text>',
            f'<rect x="{begin}" y="{line + 3}" width="{end - begin:.1f}" height="{BAR - 6}" fill="{colour(name)}"/>',
            *([f'<path d="M{end - 14:.1f} {line + BAR} l6 {-BAR}" {GASH}/>'] if value.middle > longest else []),
            f'<line x1="{least:.1f}" x2="{most:.1f}" y1="{middle}" y2="{middle}" stroke="#222"/>',
            f'<text x="{most + 6:.1f}" y="{middle + 4}" fill="#222">{value.in_words(digits)}</text>',
        ]
    return "\n".join(out)


def colour(name: str) -> str:
    return COLOURS.get(name.partition("-")[0], OTHERS)


def escape(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;")
