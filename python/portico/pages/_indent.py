"""The indentation of code in tags. A tag may stand anywhere in its page, so what counts is how its lines stand to each
other; where it goes in the program is for the compiler."""

from __future__ import annotations

import io
import textwrap
import token
import tokenize
from dataclasses import dataclass


@dataclass(frozen=True)
class Code:
    """The code of one tag, its first line at depth 0."""

    lines: tuple[str, ...]
    fixed: frozenset[int]
    """Lines, from 0 on, that begin within a string and stay as they are."""
    skipped: int
    """How many lines of the tag come before the first of these."""
    opens: bool
    """Whether it ends with a block that is open."""
    last: str
    """Its last statement, or the beginning of it."""


class BadIndentation(Exception):
    """Lines of a tag do not stand to each other as Python wants. `line` is which, from 0 on."""

    def __init__(self, message: str, line: int) -> None:
        super().__init__(message)
        self.line = line


def normalise(text: str, column: int) -> Code:
    """The code of a tag. `column` is where on its line the tag's text begins."""
    lines = text.split("\n")
    skipped = 0
    while lines and not lines[0].strip():
        skipped += 1
        column = 0
        del lines[0]
    while lines and not lines[-1].strip():
        lines.pop()
    if not lines:
        return Code((), frozenset(), skipped, False, "")
    # The first line stands where it stands on the page; or else its own place says nothing, and the others are taken
    # to stand as deep as it does, or within it.
    first = lines[0].lstrip()
    aligned = [" " * (column + len(lines[0]) - len(first)) + first, *lines[1:]]
    candidates = [_dedent("\n".join(aligned)).split("\n")]
    if not skipped and len(lines) > 1:
        rest = _dedent("\n".join(lines[1:]))
        inner, fixed = rest.split("\n"), _within_strings(rest)
        nested = [line if number in fixed or not line else "    " + line for number, line in enumerate(inner)]
        candidates += [[first, *inner], [first, *nested]]
    failure: BadIndentation | None = None
    for candidate in candidates:
        try:
            return _look(candidate, skipped)
        except BadIndentation as error:
            failure = failure or error
    assert failure
    raise BadIndentation(str(failure), skipped + failure.line)


def split(code: str) -> tuple[list[str], frozenset[int]]:
    """Lines of code, and which of them begin within a string."""
    return code.split("\n"), _within_strings(code)


def _look(lines: list[str], skipped: int) -> Code:
    """Looks at code whose first line is at depth 0. Raises `BadIndentation`."""
    code = "\n".join(lines)
    tokens = _tokens(code)
    depth, last_depth = 0, 0
    opened, ended = False, True
    statement = (1, 0)
    significant = False
    for one in tokens:
        if one.type == token.INDENT:
            if not opened:
                raise BadIndentation("unexpected indent", one.start[0] - 1)
            depth += 1
        elif one.type == token.DEDENT:
            depth -= 1
        elif one.type == token.NEWLINE:
            ended = True
        elif one.type not in (token.COMMENT, token.NL, token.ENDMARKER, token.ENCODING):
            if ended:
                if opened and depth <= last_depth and significant:
                    raise BadIndentation("expected an indented block", one.start[0] - 1)
                statement, last_depth, ended = one.start, depth, False
            significant = True
            opened = one.type == token.OP and one.string == ":" and _ends_statement(tokens, one)
    if not significant:
        return Code((), frozenset(), skipped, False, "")
    if opened and last_depth:
        raise BadIndentation(
            "a block that a tag leaves open begins at the depth of the tag's first line", statement[0] - 1
        )
    last = lines[statement[0] - 1][statement[1] :]
    return Code(tuple(lines), _within_strings(code), skipped, opened, last)


def _ends_statement(tokens: list[tokenize.TokenInfo], colon: tokenize.TokenInfo) -> bool:
    following = tokens[tokens.index(colon) + 1 :]
    one = next((one for one in following if one.type != token.COMMENT), None)
    return one is None or one.type in (token.NEWLINE, token.ENDMARKER)


def _tokens(code: str) -> list[tokenize.TokenInfo]:
    found: list[tokenize.TokenInfo] = []
    try:
        for one in tokenize.generate_tokens(io.StringIO(code + "\n").readline):
            found.append(one)
    except IndentationError as error:
        raise BadIndentation(error.msg, (error.lineno or 1) - 1) from None
    except (tokenize.TokenError, SyntaxError):
        pass  # What is no Python is found where the whole is parsed, with a better message.
    return found


def _within_strings(code: str) -> frozenset[int]:
    fixed: set[int] = set()
    # From Python 3.12 on the parts of an f-string are tokens; before, and for other strings, it is one token.
    begins = {getattr(token, name) for name in ("FSTRING_START", "TSTRING_START") if hasattr(token, name)}
    ends = {getattr(token, name) for name in ("FSTRING_END", "TSTRING_END") if hasattr(token, name)}
    open_at: list[int] = []
    try:
        found = _tokens(code)
    except BadIndentation:
        return frozenset()
    for one in found:
        if one.type in begins:
            open_at.append(one.start[0])
        elif one.type in ends and open_at:
            fixed.update(range(open_at.pop(), one.end[0]))
        elif one.type == token.STRING:
            fixed.update(range(one.start[0], one.end[0]))
    return frozenset(fixed)


def _dedent(code: str) -> str:
    """Dedents all but what begins within a string."""
    lines = code.split("\n")
    fixed = _within_strings(textwrap.dedent(code)) | _within_strings(code.lstrip())
    margins = [
        len(line) - len(line.lstrip())
        for number, line in enumerate(lines)
        if line.strip() and number not in fixed and not line.lstrip().startswith("#")
    ]
    margin = min(margins, default=0)
    return "\n".join(
        line if number in fixed else line[min(margin, len(line) - len(line.lstrip())) :]
        for number, line in enumerate(lines)
    )
