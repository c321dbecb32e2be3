"""Where errors go that no caller is there to catch: the loggers and the `on_error` hook."""

from __future__ import annotations

import functools
import logging
import traceback
from collections.abc import Callable
from types import FunctionType
from typing import TYPE_CHECKING, Any

from ._errors import CertificateError, Error, ListenError, RequestError, SessionError

if TYPE_CHECKING:
    from ._core import Lines, Request

OnError = Callable[[BaseException, Any], object]

_logger = logging.getLogger("portico.error")
access_logger = logging.getLogger("portico.access")
certificate_logger = logging.getLogger("portico.certificate")


def name_of(handler: Callable[..., object]) -> str:
    """What to call a handler: `module.function`, or the class of an object."""
    while True:
        if isinstance(handler, functools.partial):
            handler = handler.func
        elif isinstance(handler, FunctionType) and hasattr(handler, "__wrapped__"):
            handler = handler.__wrapped__
        else:
            break
    named = handler if hasattr(handler, "__qualname__") else type(handler)
    return f"{named.__module__}.{named.__qualname__}"


class InterpreterEnds(SystemExit):
    """Raised in handlers that still run when the interpreter ends: before Python 3.14 a thread that comes back to it
    later aborts the process."""


def _who(request: Request) -> tuple[str, dict[str, object]]:
    """Who asked, and what the request is called: for people, and as attributes of the log record."""
    connection = request.connection
    # Whom a trusted proxy names, else whoever has connected.
    client = request.client or (connection.peername if connection is not None else "")
    if isinstance(client, tuple):
        host, port = client
        peer = f"[{host}]" if ":" in host else host
        peer = f"{peer}:{port}" if port else peer
    else:
        peer = f"unix:{client}"
    extra: dict[str, object] = {"peer": peer, "request_id": request.id, "traceparent": request.traceparent}
    return f" (from {peer}, request id {request.id})" if request.id else f" (from {peer})", extra


class Reports:
    """What one server tells about its errors."""

    lines: Lines
    """The core's last lines, for the dashboard. What the core told first is there already."""

    def __init__(self, on_error: OnError | None) -> None:
        self._on_error = on_error
        self._trace_failed = False

    def handler_failed(self, exception: BaseException, request: Request) -> None:
        """A handler raised, or returned what is no response. Called where the handler ran."""
        if isinstance(exception, InterpreterEnds):
            return
        who, extra = _who(request)
        # Requests that are in each other's way are their client's doing.
        in_the_way = isinstance(exception, SessionError) and exception.reason != "store"
        if isinstance(exception, RequestError) or in_the_way:
            told = f"{request.method} {request.url}: {_words(exception)}{who}"
            _logger.info("%s", told, extra=extra)
            self.lines.note("info", told)
        elif isinstance(exception, Error):
            told = f"handler for {request.method} {request.url}: {_words(exception)}{who}"
            _logger.error("%s", told, extra=extra)
            self.lines.note("error", told)
        else:
            _logger.error(
                "handler for %s %s raised%s", request.method, request.url, who, exc_info=exception, extra=extra
            )
            told = f"handler for {request.method} {request.url} raised {_in_a_line(exception)}{who}"
            self.lines.note("error", told)
        self._tell(exception, request)

    def stream_failed(self, exception: BaseException, callback: Callable[..., object], connection: object) -> None:
        """The callback of a listener for streams raised. Called where it ran."""
        if isinstance(exception, Error):
            told = f"{name_of(callback)} for {connection!r}: {_words(exception)}"
            _logger.error("%s", told)
            self.lines.note("error", told)
        else:
            _logger.error("%s for %r raised", name_of(callback), connection, exc_info=exception)
            self.lines.note("error", f"{name_of(callback)} for {connection!r} raised {_in_a_line(exception)}")
        self._tell(exception, connection)

    def failed(self, exception: BaseException) -> None:
        """A handshake failed, a request was refused, a socket gave an error, or a certificate that changed cannot be
        used. Called on a thread for this only."""
        # What peers do wrong is daily business; what the machine cannot do and what this end has to mend is not.
        level = logging.WARNING if isinstance(exception, (ListenError, CertificateError)) else logging.INFO
        _logger.log(level, "%s", exception)
        self._tell(exception, None)

    def trace_failed(self, exception: BaseException) -> bool:
        """`trace` raised: told the first time. Whether to go on calling it."""
        if isinstance(exception, InterpreterEnds):
            return False
        if not self._trace_failed:
            self._trace_failed = True
            _logger.error("trace raised; it is called on, and what else it raises is not logged", exc_info=exception)
            self.lines.note("error", f"trace raised {_in_a_line(exception)}")
            self._tell(exception, None)
        return True

    def warned(self, message: str) -> None:
        """A certificate ends soon, or one that was reloaded has what clients will mind. Called on the same thread."""
        certificate_logger.warning("%s", message)

    def accessed(self, lines: str) -> None:
        """Lines of the access log, where it goes to a logger. Called on a thread for this only."""
        for line in lines.splitlines():
            access_logger.info("%s", line)

    def log_failed(self, message: str) -> None:
        """The access log cannot be written, or is again."""
        _logger.warning("%s", message)
        self.lines.note("warning", message)

    def dropped(self, count: int) -> None:
        """So many errors of connections came too fast to be told one by one."""
        _logger.warning("%d more errors of connections were counted and not logged", count)

    def _tell(self, exception: BaseException, about: object) -> None:
        if self._on_error is None:
            return
        try:
            self._on_error(exception, about)
        except BaseException:
            _logger.exception("on_error raised")


def _words(exception: BaseException) -> str:
    """What it says; one that cannot say it costs its line no more than that."""
    try:
        return str(exception)
    except Exception:
        return f"{type(exception).__name__}, which cannot be written"


def _in_a_line(exception: BaseException) -> str:
    """What was raised, and where."""
    what = traceback.format_exception_only(type(exception), exception)[-1].strip()
    frame = exception.__traceback__
    while frame is not None and frame.tb_next is not None:
        frame = frame.tb_next
    return what if frame is None else f"{what} ({frame.tb_frame.f_code.co_filename}:{frame.tb_lineno})"
