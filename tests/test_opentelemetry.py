"""Spans of OpenTelemetry, as its own SDK collects them."""

from __future__ import annotations

import asyncio

import pytest

import portico
from clients import wait_until

pytest.importorskip("opentelemetry.sdk")

from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from portico.opentelemetry import traced

TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


class Spans:
    def __init__(self):
        self.exporter = InMemorySpanExporter()
        self.provider = TracerProvider()
        self.provider.add_span_processor(SimpleSpanProcessor(self.exporter))

    def traced(self, handler):
        return traced(handler, tracer_provider=self.provider)

    def child(self):
        """A span of the handler's own."""
        return self.provider.get_tracer("test").start_as_current_span("child")

    def ended(self, number):
        wait_until(lambda: len(self.exporter.get_finished_spans()) >= number, f"{number} spans")
        return self.exporter.get_finished_spans()


@pytest.fixture
def spans():
    return Spans()


def test_a_span_by_the_conventions(serve, spans):
    @spans.traced
    def handler(request):
        with spans.child():
            return {"statusCode": 201, "body": "made"}

    served = serve(handler)
    with served.httpx() as client:
        assert client.post("/a%20b?c=d", headers={"user-agent": "probe/1", "traceparent": TRACE}).status_code == 201
    child, span = spans.ended(2)
    attributes = dict(span.attributes)
    assert attributes.pop("network.peer.port") > 0
    assert attributes == {
        "http.request.method": "POST",
        "http.response.status_code": 201,
        "url.scheme": "https",
        "url.path": "/a%20b",
        "url.query": "c=d",
        "network.protocol.name": "http",
        "network.protocol.version": "2",
        "server.address": "localhost",
        "server.port": served.port,
        "client.address": "127.0.0.1",
        "network.peer.address": "127.0.0.1",
        "user_agent.original": "probe/1",
    }
    assert (span.name, span.kind, span.status.status_code) == ("POST", SpanKind.SERVER, StatusCode.UNSET)
    assert trace.format_trace_id(span.context.trace_id) == TRACE[3:35]
    assert trace.format_span_id(span.parent.span_id) == TRACE[36:52]
    assert child.parent.span_id == span.context.span_id


def test_coroutines_keep_their_spans_apart(serve, spans):
    @spans.traced
    async def handler(request):
        await asyncio.sleep(0.01)
        with spans.child() as child:
            child.set_attribute("path", request.path)
            await asyncio.sleep(0.01)
        return {"statusCode": 200}

    served = serve(handler)

    async def ask():
        import httpx

        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{served.clear}") as client:
            await asyncio.gather(*(client.get(f"/{n}") for n in range(20)))

    asyncio.run(ask())
    ended = spans.ended(40)
    by_id = {span.context.span_id: span for span in ended if span.kind == SpanKind.SERVER}
    children = [span for span in ended if span.kind == SpanKind.INTERNAL]
    assert len(by_id) == len(children) == 20
    for child in children:
        assert by_id[child.parent.span_id].attributes["url.path"] == child.attributes["path"]
    assert all(span.parent is None for span in by_id.values())


def test_failures(serve, spans):
    @spans.traced
    def handler(request):
        if request.path == "/raises":
            raise LookupError("nothing there")
        return {"statusCode": int(request.path[1:])} if request.path != "/none" else None

    served = serve(handler)
    for path, status in [("/raises", 500), ("/503", 503), ("/404", 404), ("/none", 500)]:
        assert served.get(path).status == status
    raised, failed, missing, none = spans.ended(4)
    assert raised.attributes["error.type"] == "LookupError"
    assert raised.events[0].attributes["exception.message"] == "nothing there"
    assert (failed.attributes["error.type"], failed.attributes["http.response.status_code"]) == ("503", 503)
    codes = [span.status.status_code for span in (raised, failed, missing, none)]
    assert codes == [StatusCode.ERROR, StatusCode.ERROR, StatusCode.UNSET, StatusCode.ERROR]


@pytest.mark.parametrize("is_async", [False, True], ids=["def", "async def"])
def test_routers_name_spans_by_route(serve, spans, is_async):
    def plain(request):
        with spans.child():
            return {"statusCode": 200}

    async def on_loop(request):
        await asyncio.sleep(0)
        with spans.child():
            return {"statusCode": 200}

    router = portico.Router()
    spans.traced(router)
    router.add_route("GET", "/users/{id}", on_loop if is_async else plain)
    outer = portico.Router()
    outer.mount("/api", router)
    served = serve(outer)
    assert served.get("/api/users/7").status == 200
    assert served.get("/api/nowhere").status == 404
    child, span, missing = spans.ended(3)
    assert (span.name, span.attributes["http.route"]) == ("GET /api/users/{id}", "/api/users/{id}")
    assert child.parent.span_id == span.context.span_id
    assert missing.attributes["http.response.status_code"] == 404


def test_strangers_do_not_name_spans(serve, spans):
    served = serve(spans.traced(lambda request: {"statusCode": 200}))
    assert served.ask("BREW", "/").status == 200
    (span,) = spans.ended(1)
    assert span.name == "HTTP"
    assert span.attributes["http.request.method"] == "_OTHER"
    assert span.attributes["http.request.method_original"] == "BREW"


def test_what_a_handler_is_stays(serve, spans):
    def upload(request):
        return {"statusCode": 200, "body": str(sum(map(len, request.stream())))}

    upload.stream_body = True
    handler = spans.traced(upload)
    assert handler.stream_body
    served = serve(handler)
    with served.httpx() as client:
        assert client.post("/", content=iter([b"x" * 10_000] * 10)).text == "100000"
    assert any(name.endswith("upload") for name in served.server.stats()["handlers"])


def test_asgi_applications_have_their_own(spans):
    async def app(scope, receive, send): ...

    with pytest.raises(portico.ConfigError, match="wrap the ASGI application itself"):
        spans.traced(portico.asgi(app))
