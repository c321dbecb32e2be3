"""How the errors of pages are told: by the page's own name and lines."""

from __future__ import annotations

from .._errors import PageError

Place = tuple[str, int]
"""A page and a line of it, from 1 on; 0 where no line is to blame."""


def page_error(place: Place, message: str, reason: str = "syntax") -> PageError:
    """An error at a line of a page."""
    at = f"{place[0]}, line {place[1]}" if place[1] else place[0]
    error = PageError(f"{at}: {message}")
    error.page, error.line = place
    error.reason = reason
    error.status = 503 if reason == "busy" else 500
    return error
