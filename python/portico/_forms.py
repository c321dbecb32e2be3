"""Forms that a request brought: `request.form()`. Reading them is `rust/core/src/http/form/`."""

from __future__ import annotations

import asyncio
import io
import os
from collections.abc import Generator, Iterator, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ._core import FormContent, FormStream

    Part = tuple[str, str] | tuple[str, str, str | None, FormContent]

_PIECE = 64 * 1024


class FormFile(io.BufferedIOBase):
    """A file of a multipart form (RFC 7578), open for reading: `read`, `seek`, iteration by lines, and whatever else a
    binary file has. It is in memory, or in a temporary file without a name, which goes with the last of its form's
    files."""

    name: str
    """The name of the field."""
    filename: str
    """The name of the file as the client gave it: never to be used as a path. Empty where no file was chosen."""
    content_type: str | None
    """The type that the client claims."""
    size: int
    """The length of the content in bytes."""

    def __init__(self, name: str, filename: str, content_type: str | None, content: FormContent) -> None:
        self.name, self.filename, self.content_type, self.size = name, filename, content_type, content.size
        self._content = content
        self._at = 0

    def read(self, size: int | None = -1, /) -> bytes:
        """The next `size` bytes, or all that are left. Raises `OSError`, and `ValueError` once it is closed."""
        data = self._content.read_at(self._at, self.size if size is None or size < 0 else size)
        self._at += len(data)
        return data

    def read1(self, size: int = -1, /) -> bytes:
        """The next bytes, `size` at most, else 64 KiB."""
        return self.read(_PIECE if size < 0 else size)

    def peek(self, size: int = 0, /) -> bytes:
        """Some of the next bytes, which stay the next."""
        return self._content.read_at(self._at, max(size, io.DEFAULT_BUFFER_SIZE))

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        """Where to go on reading: an offset from the beginning, from here (`whence=1`) or from the end (2)."""
        self._check()
        if whence not in (os.SEEK_SET, os.SEEK_CUR, os.SEEK_END):
            raise ValueError(f"whence: 0, 1 or 2, not {whence}")
        at = offset + (0, self._at, self.size)[whence]
        if at < 0:
            raise ValueError(f"cannot seek to {at}, before the beginning")
        self._at = at
        return at

    def tell(self) -> int:
        """How much was read."""
        self._check()
        return self._at

    def readable(self) -> bool:
        """True."""
        self._check()
        return True

    def seekable(self) -> bool:
        """True."""
        self._check()
        return True

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes all of it to `path`, where it is there whole or not at all: it is written beside it, with the
        permissions of a new file, and takes the place of what is there. What the client calls the file has no part in
        it.

        Raises `OSError`: among others `IsADirectoryError`, `FileNotFoundError` where the folder is not there, and
        `FileExistsError` for a device, pipe or socket. Blocks: in a coroutine it is
        `await asyncio.to_thread(file.save, path)`."""
        self._content.save(os.fspath(path))

    def close(self) -> None:
        """Lets the content go."""
        # Also called for one whose making failed.
        content = self.__dict__.get("_content")
        if content is not None:
            content.close()
        super().close()

    def _check(self) -> None:
        if self.closed:
            raise ValueError("the file of the form is closed")

    def __repr__(self) -> str:
        return f"<portico form file {self.filename!r} of {self.size} bytes>"


class Form(Mapping[str, "str | FormFile"]):
    """The fields of a form by name: `str`, or `FormFile` where a file was sent. A repeated name gives its last
    value; `getlist` gives all of them.

    Awaiting it gives itself, once it has come: `form = await request.form()`. A context manager, also for `async with`,
    that closes the files at its end; without that they are closed when nobody has them any more."""

    def __init__(self, parts: list[Part], coming: FormStream | None = None) -> None:
        self._values: dict[str, list[str | FormFile]] = {}
        self._coming = coming
        self._reading = asyncio.Lock()
        self._fill(parts)

    def _fill(self, parts: list[Part]) -> None:
        for part in parts:
            value = part[1] if len(part) == 2 else FormFile(*part)
            self._values.setdefault(part[0], []).append(value)

    @property
    def _fields(self) -> dict[str, list[str | FormFile]]:
        if self._coming is not None:
            raise RuntimeError("the form is still coming: it is `await request.form()`")
        return self._values

    async def _read(self) -> Form:
        """Takes the form as it comes. Writing to the disk is left to another thread."""
        async with self._reading:
            if self._coming is not None:
                try:
                    self._fill(await _take(self._coming))
                except BaseException:
                    # A cancelled task may be kept by its traceback; the disk is not to wait for that.
                    self._coming.abandon()
                    raise
                self._coming = None
        return self

    def __await__(self) -> Generator[Any, None, Form]:
        return self._read().__await__()

    def __getitem__(self, name: str) -> str | FormFile:
        return self._fields[name][-1]

    def __iter__(self) -> Iterator[str]:
        return iter(self._fields)

    def __len__(self) -> int:
        return len(self._fields)

    def getlist(self, name: str) -> list[str | FormFile]:
        """Every value of a name, in order; empty where there is none."""
        return list(self._fields.get(name, ()))

    def close(self) -> None:
        """Closes the files."""
        for values in self._values.values():
            for value in values:
                if isinstance(value, FormFile):
                    value.close()

    def __enter__(self) -> Form:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    async def __aenter__(self) -> Form:
        return await self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        if self._coming is not None:
            return "<portico form that is still coming>"
        return f"<portico form with {', '.join(self._values) or 'no fields'}>"


async def _take(stream: FormStream) -> list[Part]:
    """The fields of a form, once it has come."""
    loop = asyncio.get_running_loop()
    while True:
        future = loop.create_future()
        whole = stream.poll(future)
        if whole or stream.is_to_be_written():
            await loop.run_in_executor(None, stream.write)
        if whole:
            return stream.parts()
        if whole is None:
            await future
        else:
            await asyncio.sleep(0)
