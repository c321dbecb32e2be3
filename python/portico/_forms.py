"""Forms that a request brought: `request.form()`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class FormFile:
    """A file of a multipart form (RFC 7578)."""

    name: str
    """The name of the field."""
    filename: str
    """The name of the file as the client gave it: never to be used as a path."""
    content_type: str | None
    """The type that the client claims."""
    data: bytes
    """The content."""

    @property
    def size(self) -> int:
        """The length of the content in bytes."""
        return len(self.data)


class Form(Mapping[str, "str | FormFile"]):
    """The fields of a form by name: `str`, or `FormFile` where a file was sent. A repeated name gives its last
    value; `getlist` gives all of them."""

    def __init__(self, parts: list[tuple[str, str | None, str | None, bytes]]) -> None:
        self._fields: dict[str, list[str | FormFile]] = {}
        for name, filename, content_type, data in parts:
            value: str | FormFile
            if filename is None:
                value = data.decode("utf-8", "replace")
            else:
                value = FormFile(name, filename, content_type, data)
            self._fields.setdefault(name, []).append(value)

    def __getitem__(self, name: str) -> str | FormFile:
        return self._fields[name][-1]

    def __iter__(self) -> Iterator[str]:
        return iter(self._fields)

    def __len__(self) -> int:
        return len(self._fields)

    def getlist(self, name: str) -> list[str | FormFile]:
        """Every value of a name, in order; empty where there is none."""
        return list(self._fields.get(name, ()))

    def __repr__(self) -> str:
        return f"<portico form with {', '.join(self._fields) or 'no fields'}>"
