"""The smallest templates that escape: `{{name}}` in a file of `assets/` becomes the value of that name."""

from __future__ import annotations

import functools
import html
import re
from collections.abc import Iterable, Mapping
from importlib.resources import files

_HOLE = re.compile(r"\{\{(\w+)\}\}")


class Markup(str):
    """HTML that goes into a template as it is. Everything else is escaped."""


def render(template: str, **values: object) -> Markup:
    """A template of `assets/` with its holes filled. A hole without a value is a KeyError."""

    def fill(hole: re.Match[str]) -> str:
        value = values[hole[1]]
        return value if isinstance(value, Markup) else html.escape(str(value))

    # One pass: what a value holds is never taken for a hole.
    return Markup(_HOLE.sub(fill, asset(template)))


def join(template: str, rows: Iterable[Mapping[str, object]]) -> Markup:
    """A template once for each row."""
    return Markup("".join(render(template, **row) for row in rows))


@functools.cache
def asset(name: str) -> str:
    """The text of a file of `assets/`."""
    return (files(__package__) / "assets" / name).read_text("utf-8")
