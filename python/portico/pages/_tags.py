"""The text of a page, taken apart into text and tags."""

from __future__ import annotations

import re
from dataclasses import dataclass

from ._errors import page_error

_TAG = re.compile(r"<%(?P<literal>%)|<%(?P<kind>[=\-#]?)(?P<code>(?:%%>|%(?!%?>)|[^%])*?)(?P<close>-?%>)", re.DOTALL)
_BLANK = re.compile(r"[ \t]*(?:\n|\Z)")


@dataclass
class Piece:
    """Text between tags, or a tag."""

    kind: str
    """`text`, `code`, `=` or `-`."""
    text: str
    line: int
    column: int = 0
    """Where on its line a tag's code begins."""


def split(page: str, text: str) -> list[Piece]:
    """Text and tags, in order. Lines that hold one tag of code and nothing else leave no text, nor does what follows
    `-%>` on its line where that is white space."""
    text = text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")
    pieces: list[Piece] = []
    end = 0
    for tag in _TAG.finditer(text):
        line_start = text.rfind("\n", 0, tag.start()) + 1
        between = text[end : tag.start()]
        _check_open(page, text, end, tag.start())
        blank = _BLANK.match(text, tag.end())
        first = not text[line_start : tag.start()].strip(" \t")
        alone = tag["kind"] in ("", "#") and blank is not None and first
        _add_text(pieces, between.rstrip(" \t") if alone else between, _line(text, end))
        end = blank.end() if blank and (alone or tag["close"] == "-%>") else tag.end()
        if tag["literal"]:
            _add_text(pieces, "<%", _line(text, tag.start()))
        elif tag["kind"] != "#":
            kind = tag["kind"] or "code"
            start = tag.start("code")
            pieces.append(Piece(kind, tag["code"].replace("%%>", "%>"), _line(text, start), start - line_start))
    _check_open(page, text, end, len(text))
    _add_text(pieces, text[end:], _line(text, end))
    return pieces


def _line(text: str, position: int) -> int:
    return text.count("\n", 0, position) + 1


def _check_open(page: str, text: str, start: int, end: int) -> None:
    """What is left over as text has no beginning of a tag in it."""
    if (found := text.find("<%", start, end)) >= 0:
        raise page_error((page, _line(text, found)), "<% without a %>")


def _add_text(pieces: list[Piece], text: str, line: int) -> None:
    if not text:
        return
    if pieces and pieces[-1].kind == "text":
        pieces[-1].text += text
    else:
        pieces.append(Piece("text", text, line))
