"""The source of a server page as HTML that is read: tags, words of Python, text and comments have a colour each."""

from __future__ import annotations

import html
import keyword
import re
from collections.abc import Iterator

from portico.demo.templates import Markup

_TAG = re.compile(r"<%(?!%).*?(?<!%)%>", re.DOTALL)
# An element whose attributes have tags in them is in pieces.
_HTML = re.compile(r"</?[a-zA-Z][^<>]*>?|<!doctype[^<>]*>|<!--.*?-->|^\"[^<>]*>", re.DOTALL)
_WORDS = "|".join(keyword.kwlist)
_CODE = re.compile(
    rf"""(?P<comment>\#[^\n]*)|(?P<text>[rbf]?(?:"[^"\n]*"|'[^'\n]*'))|(?P<word>\b(?:{_WORDS}|end)\b)""", re.VERBOSE
)


def highlight(source: str) -> Markup:
    """Markup that reads, without its tags, as the source does. Colours come from the style sheet, by class."""
    return Markup("".join(_parts(source)))


def _parts(source: str) -> Iterator[str]:
    at = 0
    for tag in _TAG.finditer(source):
        yield from _marked(_HTML, source[at : tag.start()], "html")
        text = tag[0]
        opening = text[:3] if text[2] in "=-#" else text[:2]
        closing = text[-3:] if text.endswith("-%>") and len(text) > 5 else text[-2:]
        code = text[len(opening) : len(text) - len(closing)]
        yield _span("tag", opening)
        yield _span("comment", code) if opening == "<%#" else "".join(_marked(_CODE, code, ""))
        yield _span("tag", closing)
        at = tag.end()
    yield from _marked(_HTML, source[at:], "html")


def _marked(pattern: re.Pattern[str], text: str, kind: str) -> Iterator[str]:
    at = 0
    for found in pattern.finditer(text):
        yield html.escape(text[at : found.start()])
        yield _span(kind or found.lastgroup or "", found[0])
        at = found.end()
    yield html.escape(text[at:])


def _span(kind: str, text: str) -> str:
    return f'<span class="{kind}">{html.escape(text)}</span>'
