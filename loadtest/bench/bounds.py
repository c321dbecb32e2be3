"""What portico wants to cost beside others, as ratios, and whether a run reached that."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import idle
import summary

GRANIAN = ("granian-wsgi", "granian-asgi", "granian-rsgi")


@dataclass(frozen=True)
class Bound:
    what: str
    load: str
    ours: str
    others: tuple[str, ...]
    """The best of these counts."""
    most: float
    other_load: str = ""
    """Where the others are measured under another load."""

    def against(self) -> str:
        name = "granian's best" if self.others == GRANIAN else " or ".join(self.others)
        return f"{name}, {summary.TITLES[self.other_load]}" if self.other_load else name


BOUNDS = (
    Bound("HTTP/1.1 hello, `def`", "h1", "portico-auto", ("nginx",), 1.0),
    Bound("HTTP/1.1 hello, `def`", "h1", "portico-auto", ("granian-wsgi",), 0.65),
    Bound("HTTP/2 hello, `def`", "h2", "portico-auto", ("nginx",), 0.5),
    Bound("HTTP/2 hello, `def`", "h2", "portico-auto", GRANIAN, 0.35),
    Bound("HTTP/1.1 hello, `async def`", "h1", "portico-async", ("granian-asgi",), 0.55),
    Bound("HTTP/2 hello, `async def`", "h2", "portico-async", ("granian-asgi",), 0.5),
    Bound("HTTP/1.1 hello, ASGI", "h1", "portico-asgi", ("granian-asgi",), 0.65),
    Bound("HTTP/2 hello, ASGI", "h2", "portico-asgi", ("granian-asgi",), 0.6),
    Bound("`async def` that awaits `sleep(0)`", "suspend", "portico-async", ("granian-asgi",), 0.75),
    Bound("`async def` that awaits `sleep(0)`", "suspend", "portico-async", ("granian-asgi",), 0.75, "h1"),
    Bound("New connection, resumed", "resumed", "portico-auto", ("nginx",), 1.0),
    Bound("New connection, full handshake", "full", "portico-auto", ("nginx",), 0.4),
    Bound("Idle TLS connection, memory", idle.NAME, "portico-auto", ("nginx",), 0.95),
    Bound("1 MiB from Python `bytes`", "large", "portico-auto", GRANIAN, 0.85),
    Bound("1 MiB from Python `bytes`", "large", "portico-auto", ("nginx",), 0.5),
    Bound("File of 1 KiB", "static_1k", "portico-static", ("nginx",), 1.0),
    Bound("File of 100 KiB", "static_100k", "portico-static", ("nginx",), 0.8),
    Bound("File of 10 MiB", "static_10m", "portico-static", ("nginx",), 0.7),
    Bound("ASGI through Starlette", "starlette", "portico-asgi", ("granian-asgi",), 0.85),
    Bound("ASGI through Starlette", "starlette", "portico-asgi", ("uvicorn",), 0.85),
    Bound("WebSocket echo, ASGI", "websocket", "portico-asgi", ("uvicorn", "granian-asgi"), 0.7),
    *(
        Bound(f"{summary.TITLES[load]}, `def`", load, "portico-auto", ("limit",), 1.15)
        for load in ("h1", "h2", "headers", "resumed", "full", "upload", "large")
    ),
)


def middle(results: dict[str, Any], load: str, contender: str) -> float | None:
    key, _, unit = summary.figure(load)
    value = summary.spread(results, load, contender, key, unit)
    return value.middle if value else None


def rows(results: dict[str, Any]) -> list[list[str]]:
    """The table of the bounds, with its head. A ratio of two medians; what was not measured says so."""
    out = [["Load", "Beside", "portico", "the other", "Ratio", "Bound", ""]]
    for bound in BOUNDS:
        ours = middle(results, bound.load, bound.ours)
        beside = [middle(results, bound.other_load or bound.load, other) for other in bound.others]
        known = [value for value in beside if value is not None]
        line = [bound.what, bound.against()]
        if ours is None or not known:
            out.append([*line, "", "", "", f"≤ {bound.most}", "not measured"])
            continue
        unit, best = summary.figure(bound.load)[1], min(known)
        ratio = ours / best
        verdict = "reached" if ratio <= bound.most else "**missed**"
        out.append([*line, f"{ours:.2f} {unit}", f"{best:.2f} {unit}", f"{ratio:.2f}", f"≤ {bound.most}", verdict])
    return out
