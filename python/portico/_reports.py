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
        # Requests that are in each other's way are their client's doing.
        in_the_way = isinstance(exception, SessionError) and exception.reason != "store"
        if isinstance(exception, RequestError) or in_the_way:
            _logger.info("%s %s: %s", request.method, request.url, exception)
            self.lines.note("info", f"{request.method} {request.url}: {exception}")
        elif isinstance(exception, Error):
            _logger.error("handler for %s %s: %s", request.method, request.url, exception)
            self.lines.note("error", f"handler for {request.method} {request.url}: {exception}")
        else:
            _logger.error("handler for %s %s raised", request.method, request.url, exc_info=exception)
            self.lines.note("error", f"handler for {request.method} {request.url} raised {_in_a_line(exception)}")
        self._tell(exception, request)

    def stream_failed(self, exception: BaseException, callback: Callable[..., object], connection: object) -> None:
        """The callback of a listener for streams raised. Called where it ran."""
        if isinstance(exception, Error):
            _logger.error("%s for %r: %s", name_of(callback), connection, exception)
            self.lines.note("error", f"{name_of(callback)} for {connection!r}: {exception}")
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
            self._tell(exception, None)
        return True

    def warned(self, message: str) -> None:
        """A certificate ends soon, or one that was reloaded has what clients will mind. Called on the same thread."""
        certificate_logger.warning("%s", message)

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


def _in_a_line(exception: BaseException) -> str:
    """What was raised, and where."""
    what = traceback.format_exception_only(type(exception), exception)[-1].strip()
    frame = exception.__traceback__
    while frame is not None and frame.tb_next is not None:
        frame = frame.tb_next
    return what if frame is None else f"{what} ({frame.tb_frame.f_code.co_filename}:{frame.tb_lineno})"
