"""An HTTPS server that a Python program carries inside it: many host names, each with its certificate and handler.

    import portico

    def hello(request):
        return {"statusCode": 200, "body": f"hello {request.path}\\n"}

    with portico.Server(hello) as server:
        server.add_context("example.com", cert="example.crt", key="example.key")
        server.listen(8443)
        server.serve_forever()

Units are seconds and bytes everywhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from . import sessions
from ._asgi import asgi
from ._certificates import FoundCertificate, find_certificate
from ._connection import AsyncConnection, Connection, StreamCallback, parse_request
from ._contexts import Context
from ._core import ConnectionInfo, PeerCertificate, ProxyInfo, Request, TraceRecord, __version__, settings
from ._errors import (
    CertificateError,
    ClosedError,
    ConfigError,
    Error,
    HandshakeError,
    IncompleteRequest,
    LimitError,
    ListenError,
    PageError,
    RequestError,
    ResponseError,
    SessionError,
    WebSocketError,
    WorkerError,
)
from ._event_loop import new_event_loop
from ._files import StaticFiles
from ._forms import Form, FormFile
from ._lambda import aws_lambda
from ._responses import (
    Response,
    add_header,
    delete_cookie,
    error,
    event_stream,
    redirect,
    response,
    set_cookie,
)
from ._router import Mount, Route, Router
from ._server import Handler, Listener, Server
from ._ticket_keys import RedisTicketKeys
from ._trace import print_trace
from ._websocket import AsyncWebSocket, WebSocket, websocket
from ._worker import Worker
from ._workers import Workers, run_workers
from ._wsgi import wsgi

if TYPE_CHECKING:
    from .pages import PageLimits, Pages

# It is one in all but its base class, which a class of the binding cannot have.
Mapping.register(Request)

__all__ = [
    "AsyncConnection",
    "AsyncWebSocket",
    "CertificateError",
    "ClosedError",
    "ConfigError",
    "Connection",
    "ConnectionInfo",
    "Context",
    "Error",
    "Form",
    "FormFile",
    "FoundCertificate",
    "Handler",
    "HandshakeError",
    "IncompleteRequest",
    "LimitError",
    "ListenError",
    "Listener",
    "Mount",
    "PageError",
    "PageLimits",
    "Pages",
    "PeerCertificate",
    "ProxyInfo",
    "RedisTicketKeys",
    "Request",
    "RequestError",
    "Response",
    "ResponseError",
    "Route",
    "Router",
    "Server",
    "SessionError",
    "StaticFiles",
    "StreamCallback",
    "TraceRecord",
    "WebSocket",
    "WebSocketError",
    "Worker",
    "WorkerError",
    "Workers",
    "__version__",
    "add_header",
    "asgi",
    "aws_lambda",
    "delete_cookie",
    "error",
    "event_stream",
    "find_certificate",
    "new_event_loop",
    "parse_request",
    "print_trace",
    "redirect",
    "response",
    "run_workers",
    "sessions",
    "set_cookie",
    "settings",
    "websocket",
    "wsgi",
]


def __getattr__(name: str) -> Any:
    # pydantic-monty takes a twentieth of a second and 5 MB: those who have pages load it, and need it.
    if name in ("PageLimits", "Pages"):
        from . import pages

        return getattr(pages, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
