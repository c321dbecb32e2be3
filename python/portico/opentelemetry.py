"""OpenTelemetry: a span for each request, by the semantic conventions for HTTP servers. Needs the extra
`portico[opentelemetry]`, which is the API alone; what becomes of spans is the business of the SDK of a program."""

from __future__ import annotations

import functools
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeVar, cast

try:
    from opentelemetry import context as contexts
    from opentelemetry import propagate, trace
    from opentelemetry.propagators.textmap import Getter
    from opentelemetry.trace import Span, SpanKind, StatusCode, TracerProvider
except ImportError as error:
    raise ImportError("spans need the extra: pip install 'portico[opentelemetry]'") from error

from . import __version__
from ._asgi import Application
from ._core import Request
from ._errors import ConfigError
from ._handlers import Function, is_async
from ._responses import Response
from ._router import Router

__all__ = ["traced"]

Traced = TypeVar("Traced", Function, Router)

# What a method may be called in a span's name; others are strangers' inventions.
_METHODS = frozenset(["GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH", "QUERY"])
# The longest target and user agent that a span shows.
_LONGEST = 2048


def traced(handler: Traced, *, tracer_provider: TracerProvider | None = None) -> Traced:
    """A handler with a span around each of its calls, or a `Router` with one around each of its routes.

    A span is named by method and route, as `GET /users/{id}`, and is a child of the client's where that sends
    `traceparent`, or whatever else the program's propagators read. It is the current span while the handler runs, so
    that what that does becomes its children. A status from 500 on, and an exception, mark it as failed. It ends when
    the handler returns: what a body that is made while it is sent takes, and what a WebSocket does, is not in it.

    `tracer_provider` is by default the program's own (`opentelemetry.trace.set_tracer_provider`). A router is changed
    and returned; its routes' exceptions are seen as the 500 that they become. For an ASGI application there is the
    middleware of OpenTelemetry itself: `portico.asgi(OpenTelemetryMiddleware(app))`.

    Raises `ConfigError` for an ASGI application.

    >>> @traced
    ... def hello(request):
    ...     return {"statusCode": 200, "body": "hello"}
    """
    tracer = trace.get_tracer("portico", __version__, tracer_provider)
    if isinstance(handler, Application):
        raise ConfigError("traced: wrap the ASGI application itself, as in portico.asgi(OpenTelemetryMiddleware(app))")
    if isinstance(handler, Router):
        return _around(handler, tracer)

    @contextmanager
    def spanning(request: Request) -> Iterator[Span]:
        with tracer.start_as_current_span(
            _name(request),
            context=_parent(request),
            kind=SpanKind.SERVER,
            attributes=_attributes(request),
            record_exception=False,
            set_status_on_exception=False,
        ) as span:
            try:
                yield span
            except Exception as error:
                span.record_exception(error)
                span.set_status(StatusCode.ERROR, str(error))
                span.set_attribute("error.type", type(error).__qualname__)
                raise

    wrapped: Any
    if is_async(handler):

        async def wrapped(request: Request) -> Any:
            with spanning(request) as span:
                response: Any = await handler(request)  # type: ignore[misc]
                _end(span, response)
                return response
    else:

        def wrapped(request: Request) -> Any:
            with spanning(request) as span:
                response = handler(request)
                _end(span, response)
                return response

    # With attributes such as `stream_body`.
    functools.update_wrapper(wrapped, handler)
    return cast("Traced", wrapped)


def _around(router: Router, tracer: trace.Tracer) -> Router:
    """Spans by middleware, which every route of a router passes."""
    begun: weakref.WeakKeyDictionary[Request, tuple[Span, object]] = weakref.WeakKeyDictionary()

    def enter(request: Request) -> None:
        span = tracer.start_span(
            _name(request), context=_parent(request), kind=SpanKind.SERVER, attributes=_attributes(request)
        )
        begun[request] = span, contexts.attach(trace.set_span_in_context(span))

    def leave(request: Request, response: Response) -> None:
        span, token = begun.pop(request)
        contexts.detach(token)  # type: ignore[arg-type]
        _end(span, response)
        span.end()

    router.add_middleware(enter, leave)
    return router


def _end(span: Span, response: Any) -> None:
    status = response.get("statusCode") if isinstance(response, dict) else None
    if not isinstance(status, int):
        # It is no response, which the core says to whom it concerns.
        span.set_status(StatusCode.ERROR)
        return
    span.set_attribute("http.response.status_code", status)
    if status >= 500:
        span.set_status(StatusCode.ERROR)
        span.set_attribute("error.type", str(status))


class _Headers(Getter[Request]):
    """How propagators read a request's headers."""

    def get(self, carrier: Request, key: str) -> list[str] | None:
        return carrier.multiValueHeaders.get(key.lower())

    def keys(self, carrier: Request) -> list[str]:
        return list(carrier.multiValueHeaders)


_headers = _Headers()


def _parent(request: Request) -> contexts.Context:
    return propagate.extract(request, context=contexts.Context(), getter=_headers)


def _method(request: Request) -> str:
    return request.method if request.method in _METHODS else "_OTHER"


def _name(request: Request) -> str:
    method = _method(request)
    method = "HTTP" if method == "_OTHER" else method
    return f"{method} {request.route}" if request.route else method


def _attributes(request: Request) -> dict[str, Any]:
    connection = request.connection
    attributes: dict[str, Any] = {
        "http.request.method": _method(request),
        "url.scheme": request.scheme,
        "url.path": request.rawPath[:_LONGEST],
        "network.protocol.name": "http",
        "network.protocol.version": request.version,
    }
    if attributes["http.request.method"] == "_OTHER":
        attributes["http.request.method_original"] = request.method[:_LONGEST]
    if request.queryString:
        attributes["url.query"] = request.queryString[:_LONGEST]
    if request.route:
        attributes["http.route"] = request.route
    agent = request.headers.get("user-agent")
    if agent:
        attributes["user_agent.original"] = agent[:_LONGEST]
    host, port = _host_and_port(request.host)
    if host:
        attributes["server.address"] = host
    if port:
        attributes["server.port"] = port
    if request.client:
        attributes["client.address"] = request.client[0]
    if isinstance(connection.peername, tuple):
        attributes["network.peer.address"] = connection.peername[0]
        attributes["network.peer.port"] = connection.peername[1]
    if request.id:
        attributes["portico.request_id"] = request.id
    return attributes


def _host_and_port(host: str) -> tuple[str, int | None]:
    name, colon, port = host.rpartition(":")
    if colon and port.isdecimal():
        return name.strip("[]"), int(port)
    return host.strip("[]"), None
