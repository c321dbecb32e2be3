"""From what a page did to a response."""

from __future__ import annotations

import mimetypes
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from .. import _responses
from .._responses import Response
from ._engine import Ending
from ._folder import SUFFIX, Folder

_HTML = "text/html; charset=utf-8"
_REDIRECTS = (301, 302, 303, 307, 308)


class Reply:
    """The response of a page while it is made. `functions` are what the page may call for
    it, `reserved` the cookies that it may not set."""

    NAMES = (
        "set_status",
        "set_header",
        "add_header",
        "set_cookie",
        "delete_cookie",
        "renew_session",
        "end_session",
        "quote",
    )
    """What a page may call to shape its response, and what becomes of its session."""

    def __init__(self, folder: Folder, functions: Mapping[str, Callable[..., Any]], reserved: Collection[str]) -> None:
        self._reserved = reserved
        self._folder = folder
        self._allowed = functions
        self._response: Response = {"statusCode": 200, "headers": {}}
        self.renews = False
        self.ends = False

    def functions(self) -> dict[str, Callable[..., Any]]:
        """Those functions, by name."""
        return {name: getattr(self, name) for name in self.NAMES}

    def quote(self, value: Any) -> str:
        """Percent-encodes what stands in a URL."""
        return quote(value if isinstance(value, bytes) else str(value), safe="")

    def set_status(self, status: int) -> None:
        if isinstance(status, bool) or not isinstance(status, int) or not 200 <= status <= 599:
            raise ValueError(f"set_status: a number from 200 to 599, not {status!r}")
        self._response["statusCode"] = status

    def set_header(self, name: str, value: str) -> None:
        name, value = _checked(name, value)
        self._response["headers"][name] = value

    def add_header(self, name: str, value: str) -> None:
        _responses.add_header(self._response, *_checked(name, value))

    def set_cookie(self, name: str, value: str, **attributes: Any) -> None:
        self._check_cookie(name)
        try:
            _responses.set_cookie(self._response, name, value, **attributes)
        except Exception as error:
            raise ValueError(str(error)) from None

    def delete_cookie(self, name: str, **attributes: Any) -> None:
        self._check_cookie(name)
        try:
            _responses.delete_cookie(self._response, name, **attributes)
        except Exception as error:
            raise ValueError(str(error)) from None

    def renew_session(self) -> None:
        self.renews = True

    def end_session(self) -> None:
        self.ends = True

    def _check_cookie(self, name: str) -> None:
        """A page that could set it could put its visitor into the session of somebody else."""
        if name in self._reserved:
            raise ValueError(f"cookie {name}: it names the session, and is the server's")

    def finish(self, output: str, ending: Ending | None) -> Response | tuple[Callable[..., Any], tuple[Any, ...]]:
        """The response; or the function that gives it, with its arguments. Raises `ValueError` where the page ended by
        a call that means nothing."""
        if ending is None or (ending.kind == "exit" and not ending.args):
            return self._with(output, _HTML)
        if ending.kind != "exit":
            return self._named(ending.kind, ending.args, ending.options)
        first, *rest = ending.args
        if isinstance(first, bool) or not isinstance(first, int):
            raise ValueError(f"exit: a status, as exit(404), or 0 and a function, not {first!r}")
        if first == 0:
            if not rest or not isinstance(rest[0], str):
                raise ValueError("exit(0, name, ...): the name of a function is missing")
            return self._named(rest[0], tuple(rest[1:]), ending.options)
        if first in _REDIRECTS and rest:
            return self._named("reply_redirect", (rest[0], first), {})
        return self._named("reply_error", (first, *rest), {})

    def _named(
        self, name: str, args: tuple[Any, ...], options: Mapping[str, Any]
    ) -> Response | tuple[Callable[..., Any], tuple[Any, ...]]:
        own: Callable[..., Response] | None = {
            "reply_file": self._file,
            "reply_data": self._data,
            "reply_error": self._error,
            "reply_redirect": self._redirect,
        }.get(name)  # type: ignore[assignment]
        if own is not None:
            try:
                return own(*args, **options)
            except TypeError as error:
                raise ValueError(f"{name}: {error}") from None
        if name in self._allowed:
            return self._allowed[name], args
        raise ValueError(f"exit(0, {name!r}): there is no function of that name")

    def _with(self, body: Any, content_type: str) -> Response:
        self._response["headers"].setdefault("content-type", content_type)
        self._response["body"] = body
        return self._response

    def _file(self, name: str, content_type: str | None = None, filename: str | None = None) -> Response:
        path = self._folder.file("/" + name.lstrip("/")) if isinstance(name, str) else None
        hidden = isinstance(name, str) and any(part.startswith(".") for part in name.split("/"))
        if path is None or hidden or SUFFIX in path.rsplit("/", 1)[-1].lower():
            raise ValueError(f"reply_file: there is no file {name!r} that may be sent")
        kind = content_type or mimetypes.guess_type(path)[0] or "application/octet-stream"
        self._offer(filename)
        return self._with(Path(path), _line("content_type", kind))

    def _data(
        self, data: str | bytes, content_type: str = "application/octet-stream", filename: str | None = None
    ) -> Response:
        if not isinstance(data, (str, bytes)):
            raise ValueError(f"reply_data: str or bytes, not {type(data).__name__}")
        self._offer(filename)
        return self._with(data, _line("content_type", content_type))

    def _error(self, status: int, text: str | None = None) -> Response:
        self.set_status(status)
        # Plain text: what a page says of an error often has something in it that its visitor sent.
        body = _responses.error(status)["body"] if text is None else str(text)
        return self._with(body, "text/plain; charset=utf-8")

    def _redirect(self, url: str, status: int = 302) -> Response:
        if status not in _REDIRECTS or not isinstance(url, str):
            raise ValueError(f"reply_redirect: a URL, and a status of {_REDIRECTS}, not {url!r}, {status!r}")
        self.set_status(status)
        self.set_header("location", _responses.redirect(url, status)["headers"]["location"])
        self._response["body"] = None
        return self._response

    def _offer(self, filename: str | None) -> None:
        """RFC 6266 section 4: a name for what the client saves."""
        if filename is not None:
            self.set_header("content-disposition", f"attachment; filename*=UTF-8''{quote(str(filename), safe='')}")


def _checked(name: object, value: object) -> tuple[str, str]:
    if not isinstance(name, str) or not _responses._TOKEN.fullmatch(name):
        raise ValueError(f"header {name!r}: not the name of a header")
    name = name.lower()
    if name in ("content-length", "transfer-encoding", "connection"):
        raise ValueError(f"header {name}: the server sets it")
    if name == "set-cookie":
        raise ValueError("header set-cookie: set_cookie(name, value) sets cookies")
    return name, _line(f"header {name}", value)


def _line(what: str, value: object) -> str:
    text = str(value)
    if any((character < " " and character != "\t") or character == "\x7f" for character in text):
        raise ValueError(f"{what}: {text!r} is not one line")
    return text
