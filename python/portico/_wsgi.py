"""`portico.wsgi`: WSGI applications (PEP 3333) as handlers. Environ and headers are the work of
`rust/python/src/wsgi.rs`."""

from __future__ import annotations

import contextlib
import contextvars
import io
import logging
import threading
from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Any

from ._core import FileBody, __version__, wsgi_environ, wsgi_start
from ._errors import ConfigError, RequestError, ResponseError

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

    from ._core import Request
    from ._handlers import Function
    from ._responses import Response

_logger = logging.getLogger("portico.error")

# The longest body, in bytes, that is sent only when it is whole.
_WHOLE = 2**20
# Bodies of requests from so many bytes on are read by the app as they come. For shorter ones a thread that waits would
# cost more than the memory.
_LONG = 64 * 1024

_ExcInfo = tuple[type[BaseException], BaseException, TracebackType] | tuple[None, None, None]


def wsgi(app: WSGIApplication) -> Function:
    """A WSGI application (PEP 3333) as a handler: Flask, Django, Bottle and the like.

    It goes wherever a handler goes, and runs as any `def` handler does, by the setting `dispatch`. `environ` has
    `portico.request` besides what PEP 3333 lists; headers with an underscore in their name are left out of it, for
    they would pass for those with a hyphen. `wsgi.errors` writes to the logger `portico.error`. A body that is
    announced to have 64 KiB or more is read by the app from `wsgi.input` as it comes, on a thread of the setting
    `stream_threads`; with any other the app is called when it is here. A response that is a list, or has a
    `Content-Length` of 1 MiB at the most, is sent when the app is done and has been closed, so that an error gives a
    whole 500; any other is sent as it comes, from its first part on, by a thread of the setting `stream_threads`.

    Raises `ConfigError` where `app` cannot be called. What an app does against PEP 3333 is a `ResponseError` in the
    log, and a 500 for the client: no `start_response`, a body that is not bytes, a `Content-Length` that is not the
    body's, a header that is the server's business (`Connection`, `Transfer-Encoding` and others).

    >>> import urllib.request
    >>> from portico import testing
    >>> def app(environ, start_response):
    ...     start_response("200 OK", [("Content-Type", "text/plain")])
    ...     return [b"hello ", environ["PATH_INFO"].encode("latin-1")]
    >>> testing.call_on_server(wsgi(app), lambda url: urllib.request.urlopen(url + "/world").read())
    b'hello /world'
    """
    if not callable(app):
        raise ConfigError(f"wsgi: an application is a function of environ and start_response, not {type(app).__name__}")
    return _Application(app)


class _Application:
    """A handler that calls a WSGI application."""

    stream_body_from = _LONG

    def __init__(self, app: WSGIApplication) -> None:
        self._app = app
        # What is the same in every environ. Whatever `dispatch` is, several threads may call the app.
        self._base: dict[str, Any] = {
            "SCRIPT_NAME": "",
            "SERVER_SOFTWARE": f"portico/{__version__}",
            "wsgi.version": (1, 0),
            "wsgi.errors": _errors,
            "wsgi.multithread": True,
            "wsgi.multiprocess": False,
            "wsgi.run_once": False,
            "wsgi.file_wrapper": _FileWrapper,
            # Not of PEP 3333, but widely known: reading to the end of a body without a length is safe.
            "wsgi.input_terminated": True,
        }

    def __call__(self, request: Request) -> Response:
        answer = _Answer()
        rest: _Rest | FileBody | None = None
        # One for the whole response, whichever threads make it: what an app begins with its context variables, as
        # Flask's `stream_with_context` does, it ends where they are known.
        context = contextvars.copy_context()
        environ = wsgi_environ(request, self._base)
        source = environ["wsgi.input"]
        try:
            result = context.run(self._app, environ, answer.start_response)
            try:
                rest = answer.take_file(result) or answer.take(result, context)
            finally:
                if rest is None or isinstance(rest, FileBody):
                    context.run(_close, result)
        finally:
            if _errors.rest:
                _errors.flush()
            if type(source) is _Input and source.refused and rest is None:
                # Whatever the app makes of it: the client is to know that its request was too long, or too slow.
                raise source.refused
        answer.check_started()
        if rest is not None:
            return {"statusCode": answer.status, "headers": answer.headers, "body": rest}
        parts = answer.parts
        body = parts[0] if len(parts) == 1 else b"".join(parts)
        length = answer.headers.get("content-length")
        if length is not None and length != str(len(body)):
            _check_length(length, body, request, answer.status)
        return {"statusCode": answer.status, "headers": answer.headers, "body": body}

    def __repr__(self) -> str:
        return f"portico.wsgi({self._app!r})"


class _Body(io.RawIOBase):
    """The body of a request as it comes."""

    def __init__(self, request: Request) -> None:
        self._pieces = request.stream()
        # What is left of the piece that came last.
        self._left = memoryview(b"")
        self.refused: RequestError | None = None

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        if not self._left:
            try:
                self._left = memoryview(next(self._pieces, b""))
            except RequestError as error:
                self.refused = error
                raise
        size = min(len(buffer), len(self._left))
        buffer[:size] = self._left[:size]
        self._left = self._left[size:]
        return size


class _Input(io.BufferedReader):
    """`wsgi.input` of a body that is still coming."""

    raw: _Body

    @property
    def refused(self) -> RequestError | None:
        """Why the rest of it will not come, where that is the client's fault."""
        return self.raw.refused


def body_input(request: Request) -> _Input:
    """`wsgi.input` for a body that is still coming. Called by the core."""
    return _Input(_Body(request), _LONG)


class _Answer:
    """What one request's app has said so far."""

    __slots__ = ("begun", "headers", "parts", "status")

    def __init__(self) -> None:
        self.status = 0
        self.headers: dict[str, str | list[str]] = {}
        self.parts: list[bytes] = []
        # Whether any of it is on its way.
        self.begun = False

    def start_response(
        self, status: str, headers: list[tuple[str, str]], exc_info: _ExcInfo | None = None, /
    ) -> Callable[[bytes], None]:
        """As in PEP 3333: with `exc_info` it replaces what was said before, unless a part of the body has been."""
        if exc_info is None:
            if self.status:
                raise ResponseError("start_response was called twice; only an error may do that, with exc_info")
        else:
            try:
                if (self.parts or self.begun) and exc_info[1] is not None:
                    raise exc_info[1].with_traceback(exc_info[2])
            finally:
                exc_info = None  # it refers to this frame
        self.status, self.headers = wsgi_start(status, headers)
        return self.write

    def write(self, data: bytes) -> None:
        """The old way to give parts of the body."""
        if not isinstance(data, bytes):
            raise ResponseError(f"write: bytes, not {type(data).__name__}")
        if data:
            self.parts.append(data)

    def take(self, result: Iterable[bytes], context: contextvars.Context) -> _Rest | None:
        """Takes what the app gives: all of it, or, where it is to be sent as it comes, the first part; then this
        returns the whole."""
        is_here = isinstance(result, (list, tuple))
        parts = _parts(result, None if is_here else context)
        for part in parts:
            # Generators may call start_response as late as for their first part.
            self.check_started()
            self.parts.append(part)
            if not is_here and not self._is_short():
                self.begun = True
                return _Rest(self.parts, parts, result, context)
        return None

    def take_file(self, result: Iterable[bytes]) -> FileBody | None:
        """What the core sends from a file; None for what Python has to read."""
        if not isinstance(result, _FileWrapper) or self.parts or not self.status:
            return None
        file, length = result.file, self.headers.get("content-length")
        # Of others the descriptor may lead to something else than what they give, as with gzip.
        raw = file.raw if isinstance(file, (io.BufferedReader, io.BufferedRandom)) else file
        if not isinstance(raw, io.FileIO):
            return None
        with contextlib.suppress(OSError):  # it is no regular file
            most = int(length) if isinstance(length, str) and length.isdecimal() else None
            return FileBody(file.fileno(), file.tell(), most)
        return None

    def _is_short(self) -> bool:
        length = self.headers.get("content-length")
        return isinstance(length, str) and length.isdecimal() and int(length) <= _WHOLE

    def check_started(self) -> None:
        if not self.status:
            raise ResponseError("a WSGI app has to call start_response before it gives a body")


class _FileWrapper:
    """`wsgi.file_wrapper`: a file as a body. A regular one is sent by the core, from where it stands; of any other file
    `block_size` bytes are read at a time."""

    def __init__(self, file: Any, block_size: int = 64 * 1024) -> None:
        self.file = file
        self._block_size = block_size

    # Its own iterator, as that of wsgiref: closing what `iter` gave, as werkzeug does for ranges, closes the file.
    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        part: bytes = self.file.read(self._block_size)
        if not part:
            raise StopIteration
        return part

    def close(self) -> None:
        _close(self.file)


class _Rest:
    """A body that is sent as it comes. Not a generator: one that was never begun, as for HEAD, closes nothing."""

    def __init__(
        self, first: list[bytes], parts: Iterator[bytes], result: Iterable[bytes], context: contextvars.Context
    ) -> None:
        # Those that are here, and what `write` adds to them.
        self._here = first
        self._parts = parts
        self._result = result
        self._context = context

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        if not self._here:
            self._here.append(next(self._parts))
        part = b"".join(self._here)
        self._here.clear()
        return part

    def close(self) -> None:
        self._context.run(_close, self._result)


def _parts(result: Iterable[object], context: contextvars.Context | None) -> Iterator[bytes]:
    """What it gives, without what is empty; each is made in `context`, where there is one."""
    try:
        parts = iter(result) if context is None else _within(context, context.run(iter, result))
    except TypeError:
        raise ResponseError(f"a WSGI app returns an iterable of bytes, not {type(result).__name__}") from None
    for part in parts:
        if not isinstance(part, bytes):
            raise ResponseError(f"a WSGI app gives bytes, not {type(part).__name__}")
        if part:
            yield part


def _within(context: contextvars.Context, parts: Iterator[object]) -> Iterator[object]:
    end = object()
    while (part := context.run(next, parts, end)) is not end:
        yield part


def _close(result: object) -> None:
    close = getattr(result, "close", None)
    if close is not None:
        close()


def _check_length(length: object, body: bytes, request: Request, status: int) -> None:
    """A length without its body may answer HEAD, or stand in a 304 (RFC 9110 section 8.6)."""
    bodiless = not body and (request.method == "HEAD" or status == 304)
    if not (bodiless and isinstance(length, str) and length.isdecimal()):
        raise ResponseError(f"header content-length: {length!r} is not the length of the body, {len(body)}")


class _ErrorStream(threading.local):
    """`wsgi.errors`: whole lines to the log, however they are cut in pieces. Each thread has a line of its own."""

    rest = ""

    def write(self, text: str, /) -> int:
        lines, newline, rest = text.rpartition("\n")
        if newline:
            self._log(self.rest + lines)
            self.rest = rest
        else:
            self.rest += rest
        return len(text)

    def writelines(self, lines: Iterable[str], /) -> None:
        self.write("".join(lines))

    def flush(self) -> None:
        rest, self.rest = self.rest, ""
        self._log(rest)

    def _log(self, text: str) -> None:
        if text.strip():
            _logger.error("%s", text)


_errors = _ErrorStream()
