"""What a page sees of its request and of its host."""

from __future__ import annotations

import inspect
from collections.abc import Collection
from typing import Any

from .._core import Request
from .._forms import Form, FormFile
from ._calls import HostObject

_EAGER = ("method", "path")
_LAZY = (
    "url",
    "version",
    "rawPath",
    "root_path",
    "queryString",
    "queryStringParameters",
    "multiValueQueryStringParameters",
    "headers",
    "cookies",
    "body",
    "text",
    "files",
    "secure",
    "peername",
)


class _Facts:
    """A request, as pages see it: `request.path` and so on, and `request.json()`."""

    def __init__(self, request: Request, hidden: Collection[str]) -> None:
        self._request = request
        self._hidden = hidden

    def __getattr__(self, name: str) -> Any:
        if name in _EAGER or name in _LAZY:
            return getattr(self._request, name)
        raise AttributeError(f"'request' has no attribute {name!r}")

    @property
    def headers(self) -> dict[str, str]:
        return headers(self._request, self._hidden)

    @property
    def cookies(self) -> dict[str, str]:
        """All but the session's own, which is nobody's business but the server's."""
        return {name: value for name, value in self._request.cookies.items() if name not in self._hidden}

    @property
    def files(self) -> list[dict[str, Any]]:
        form = _form(self._request)
        if form is None:
            return []
        return [
            {"name": one.name, "filename": one.filename, "content_type": one.content_type, "data": one.read()}
            for name in form
            for one in form.getlist(name)
            if isinstance(one, FormFile)
        ]

    @property
    def secure(self) -> bool:
        return self._request.scheme == "https"

    @property
    def peername(self) -> str:
        client = self._request.client
        return client[0] if client else ""

    def json(self) -> Any:
        return self._request.json()


def facts(request: Request, hidden: Collection[str]) -> HostObject:
    """`request` of a page, without the cookies of those names."""
    return HostObject(_Facts(request, hidden), eager_attrs=_EAGER, lazy_attrs=_LAZY, allowed_methods=("json",))


def headers(request: Request, hidden: Collection[str]) -> dict[str, str]:
    """`headers` of a page: by name in lower case, without the cookies of those names."""
    found = dict(request.headers)
    if any(name in request.cookies for name in hidden):
        kept = (part.strip() for part in found.get("cookie", "").split(";"))
        found["cookie"] = "; ".join(part for part in kept if part.split("=")[0].strip() not in hidden)
        if not found["cookie"]:
            del found["cookie"]
    return found


def query(request: Request) -> dict[str, str]:
    """`query` of a page: the last value of each name in the URL, and of the fields of a form."""
    values = dict(request.queryStringParameters)
    for name, value in (_form(request) or {}).items():
        if isinstance(value, str):
            values[name] = value
    return values


def public_methods(made: type) -> tuple[str, ...]:
    """The methods of a class that a page may call: those whose names do not begin with an underscore."""
    names = []
    for name in dir(made):
        if name.startswith("_"):
            continue
        member = inspect.getattr_static(made, name)
        if inspect.isfunction(member) or isinstance(member, (staticmethod, classmethod)):
            names.append(name)
    return tuple(names)


def _form(request: Request) -> Form | None:
    kind = request.headers.get("content-type", "").split(";")[0].strip().lower()
    if kind not in ("application/x-www-form-urlencoded", "multipart/form-data"):
        return None
    return request.form()
