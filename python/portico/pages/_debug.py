"""What a failed page tells its visitor, where that was asked for."""

from __future__ import annotations

import html
import itertools

from .._errors import PageError
from .._responses import Response, response
from ._folder import Folder

_AROUND = 4


def page(error: PageError, folder: Folder) -> Response:
    """A page about an error, with the lines around it. Everything in it is escaped."""
    lines = []
    path = folder.file(error.page)
    if path is not None and error.line:
        first = max(error.line - _AROUND, 1)
        try:
            with open(path, encoding="utf-8", errors="replace") as file:
                for number, line in enumerate(itertools.islice(file, first - 1, error.line + _AROUND), first):
                    mark = "&gt;" if number == error.line else " "
                    lines.append(f"{mark} {number:4} {html.escape(line.rstrip())}")
        except OSError:
            lines = []
    body = (
        "<!doctype html><meta charset=utf-8><title>500</title>"
        f"<h1>{html.escape(error.page)}</h1><pre>{html.escape(str(error))}</pre><pre>" + "\n".join(lines) + "</pre>\n"
    )
    answer = response(500, body, "text/html; charset=utf-8")
    answer["headers"]["content-security-policy"] = "default-src 'none'"
    return answer
