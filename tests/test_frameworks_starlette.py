"""Starlette on portico: every check of `frameworks.py`, and what its own tests expect of a server."""

import asyncio
import contextlib
import functools
import gzip
import threading

import pytest
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.middleware.httpsredirect import HTTPSRedirectMiddleware
from starlette.middleware.sessions import SessionMiddleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import ClientDisconnect
from starlette.responses import (
    FileResponse,
    JSONResponse,
    PlainTextResponse,
    RedirectResponse,
    Response,
    StreamingResponse,
)
from starlette.routing import Host, Mount, Route
from starlette.staticfiles import StaticFiles

import portico
import worker_mains
from clients import GENEROUS, request, trusting, wait_until
from frameworks import LARGE, Checks, of_file

COUNTED = Middleware(SessionMiddleware, secret_key="not for the world", https_only=True)


def site_of(told):
    async def greet(request):
        return JSONResponse({"name": request.path_params["name"], "q": request.query_params.get("q")})

    async def form(request):
        return JSONResponse(dict(await request.form()))

    async def upload(request):
        async with request.form() as form:
            return JSONResponse({**of_file(form["file"].filename, await form["file"].read()), "note": form["note"]})

    async def echo(request):
        return Response(b"".join([piece async for piece in request.stream()]))

    async def large(request):
        return Response(LARGE)

    async def steps(request):
        return StreamingResponse(told.asteps(), media_type="text/event-stream")

    async def endless(request):
        return StreamingResponse(told.aendless())

    async def half(request):
        return StreamingResponse(told.ahalf())

    async def bad(request):
        raise ZeroDivisionError("on purpose")

    async def count(request):
        request.session["seen"] = request.session.get("seen", 0) + 1
        return JSONResponse(request.session["seen"])

    async def moved(request):
        return RedirectResponse(request.url_for("greet", name="moved"))

    async def cookies(request):
        response = Response()
        response.set_cookie("one", "1")
        response.set_cookie("two", "2", httponly=True)
        return response

    routes = [
        Route("/greet/{name}", greet, name="greet"),
        Route("/form", form, methods=["POST"]),
        Route("/upload", upload, methods=["POST"]),
        Route("/echo", echo, methods=["POST"]),
        *(Route(f"/{view.__name__}", view) for view in (large, steps, endless, half, bad, count, moved, cookies)),
    ]
    return Starlette(routes=routes, middleware=[COUNTED])


class TestStarlette(Checks):
    @pytest.fixture
    def site(self, told):
        return portico.asgi(site_of(told))

    def test_what_the_app_raises_is_told(self, served):
        assert served.get("/bad").status == 500
        assert served.errors.next(ZeroDivisionError)[1].path == "/bad"


class TestStarletteBehindMiddleware(Checks):
    """The same with one of Starlette's middlewares that wrap `receive` and `send` in tasks and streams of their own."""

    @pytest.fixture
    def site(self, told):
        async def mark(request, call_next):
            response = await call_next(request)
            response.headers["x-marked"] = "yes"
            return response

        app = site_of(told)
        app.add_middleware(BaseHTTPMiddleware, dispatch=mark)
        return portico.asgi(app)

    def test_an_error_in_the_middle_is_seen(self, served, told):
        # This middleware ends the response as if it were whole, and raises then: more than telling is not left to do.
        told.steps.release()
        served.get("/half")
        assert served.errors.next(ZeroDivisionError)[1].path == "/half"

    def test_it_is_marked(self, client):
        assert client.get("/greet/x").headers["x-marked"] == "yes"


@pytest.fixture
def client_of(serve):
    """A client of a Starlette application that is made of these."""
    with contextlib.ExitStack() as stack:

        def client_of(*routes, http2=True, **more):
            served = serve(portico.asgi(Starlette(routes=list(routes), **more)))
            return stack.enter_context(served.httpx(http2=http2))

        yield client_of


def text(request):
    return PlainTextResponse("some text " * 200)


# ---- request, as in Starlette's test_requests.py


def test_url_and_client(client_of):
    async def tell(request):
        host = request.client.host
        return JSONResponse([str(request.url), host, request.method, request.query_params.getlist("q")])

    client = client_of(Route("/a/{rest:path}", tell))
    url, *rest = client.get("/a/b%20c?q=1&q=2").json()
    assert url.startswith("https://localhost:")
    assert url.endswith("/a/b c?q=1&q=2")
    assert rest == ["127.0.0.1", "GET", ["1", "2"]]


def test_is_disconnected(serve):
    """`Request.is_disconnected()` is false as long as the client waits, and true once it has left."""

    async def poll(request):
        await request.body()
        seen.append(await request.is_disconnected())
        while not await request.is_disconnected():  # noqa: ASYNC110
            await asyncio.sleep(0.002)
        seen.append(True)
        return Response()

    seen = []
    served = serve(portico.asgi(Starlette(routes=[Route("/", poll)])))
    with served.wire() as wire:
        wire.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n")
        wait_until(lambda: seen, "the app to be asked")
    wait_until(lambda: seen == [False, True], "the app to see its client leave")
    assert served.errors.given.empty()


def test_disconnect_while_streaming_is_no_error(serve):
    """`StreamingResponse` raises `ClientDisconnect` when `send` raises: nobody is to hear of that."""

    async def app(scope, receive, send):
        try:
            await StreamingResponse(parts())(scope, receive, send)
        except ClientDisconnect:
            raised.append(True)
            raise

    async def parts():
        while True:
            yield b"x" * 1_000
            await asyncio.sleep(0.001)

    raised = []
    served = serve(portico.asgi(app, lifespan="off"))
    with served.wire() as wire:
        wire.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n")
        assert wire.file.read(2_000)
    wait_until(lambda: raised, "the app to be told")
    served.wait_stat("requests_in_flight", value=0)
    assert served.errors.given.empty()


# ---- responses, as in test_responses.py


def test_background_tasks_run_after_the_response(client_of):
    async def later():
        order.append("begun")
        while "answered" not in order:  # noqa: ASYNC110
            await asyncio.sleep(0.002)
        order.append("done")

    async def view(request):
        return PlainTextResponse("now", background=BackgroundTask(later))

    order = []
    assert client_of(Route("/", view)).get("/").text == "now"
    order.append("answered")
    wait_until(lambda: order[-1] == "done", "the task to end")


@pytest.mark.parametrize("http2", [False, True])
def test_file_responses(client_of, tmp_path, http2):
    (tmp_path / "a.bin").write_bytes(LARGE)

    async def view(request):
        return FileResponse(tmp_path / "a.bin", filename="caf\u00e9.bin")

    client = client_of(Route("/", view), http2=http2)
    answer = client.get("/")
    assert answer.content == LARGE
    assert answer.headers["content-length"] == str(len(LARGE))
    assert "caf%C3%A9.bin" in answer.headers["content-disposition"]
    assert client.head("/").headers["content-length"] == str(len(LARGE))
    part = client.get("/", headers={"range": "bytes=5-9"})
    assert (part.status_code, part.content, part.headers["content-range"]) == (
        206,
        LARGE[5:10],
        f"bytes 5-9/{len(LARGE)}",
    )
    parts = client.get("/", headers={"range": "bytes=0-4, 100-104"})
    assert parts.headers["content-type"].startswith("multipart/byteranges")
    assert client.get("/", headers={"range": f"bytes={len(LARGE)}-"}).status_code == 416


@pytest.mark.parametrize("status", [204, 304])
def test_statuses_without_a_body(client_of, status):
    async def view(request):
        return Response(status_code=status)

    client = client_of(Route("/", view), http2=False)
    assert [(answer.status_code, answer.content) for answer in (client.get("/"), client.get("/"))] == [
        (status, b"")
    ] * 2


def test_http_exceptions_and_handlers(client_of):
    async def view(request):
        raise HTTPException(418, "short and stout", headers={"x-pot": "tea"})

    async def mended(request, error):
        return PlainTextResponse("mended", 503)

    def fails(request):
        raise LookupError

    client = client_of(Route("/tea", view), Route("/mended", fails), exception_handlers={LookupError: mended})
    answer = client.get("/tea")
    assert (answer.status_code, answer.text, answer.headers["x-pot"]) == (418, "short and stout", "tea")
    assert (client.get("/mended").status_code, client.get("/mended").text) == (503, "mended")


def test_sync_views_run_beside_each_other(serve):
    """A `def` view has a thread of anyio's: the loop is not held up."""

    def waits(request):
        both.wait(GENEROUS)
        return PlainTextResponse("through")

    both = threading.Barrier(2)
    served = serve(portico.asgi(Starlette(routes=[Route("/", waits)])))
    with served.wire() as one, served.wire() as two:
        for wire in (one, two):
            wire.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n")
        assert [one.read().text, two.read().text] == ["through", "through"]


# ---- static files, as in test_staticfiles.py


@pytest.mark.parametrize("http2", [False, True])
def test_static_files(client_of, tmp_path, http2):
    (tmp_path / "index.html").write_text("<p>index")
    (tmp_path / "a.txt").write_text("a text")
    client = client_of(Mount("/s", StaticFiles(directory=tmp_path, html=True)), http2=http2)
    answer = client.get("/s/a.txt")
    assert (answer.text, answer.headers["content-type"]) == ("a text", "text/plain; charset=utf-8")
    again = client.get("/s/a.txt", headers={"if-none-match": answer.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert client.get("/s/").text == "<p>index"
    assert client.get("/s/none").status_code == 404
    assert client.get("/s/%2e%2e/frameworks.py").status_code == 404
    assert client.post("/s/a.txt").status_code == 405


# ---- middleware, as in tests/middleware


@pytest.mark.parametrize("http2", [False, True])
def test_gzip(client_of, http2):
    async def streamed(request):
        async def parts():
            for _ in range(10):
                yield b"some text " * 20
                await asyncio.sleep(0.001)

        return StreamingResponse(parts())

    client = client_of(
        Route("/", text), Route("/streamed", streamed), middleware=[Middleware(GZipMiddleware)], http2=http2
    )
    for path in ("/", "/streamed"):
        with client.stream("GET", path, headers={"accept-encoding": "gzip"}) as answer:
            raw = b"".join(answer.iter_raw())
        assert answer.headers["content-encoding"] == "gzip"
        assert gzip.decompress(raw) == b"some text " * 200
        assert len(raw) < 500
        plain = client.get(path, headers={"accept-encoding": "identity"})
        assert (plain.text, plain.headers.get("content-encoding")) == ("some text " * 200, None)


def test_cors(client_of):
    cors = Middleware(
        CORSMiddleware, allow_origins=["https://other.test"], allow_methods=["GET"], allow_headers=["X-A"]
    )
    client = client_of(Route("/", text), middleware=[cors])
    asks = {
        "origin": "https://other.test",
        "access-control-request-method": "GET",
        "access-control-request-headers": "X-A",
    }
    answer = client.options("/", headers=asks)
    assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (200, "https://other.test")
    assert client.get("/", headers={"origin": "https://other.test"}).headers["vary"] == "Origin, accept-encoding"
    assert client.options("/", headers={**asks, "origin": "https://evil.test"}).status_code == 400


def test_hosts(client_of):
    async def other(request):
        return PlainTextResponse("other")

    client = client_of(Host("other.test", Route("/", other)), Route("/", text))
    assert client.get("/", headers={"host": "localhost"}).text.startswith("some text")
    client = client_of(Route("/", text), middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=["good.test"])])
    assert client.get("/", headers={"host": "localhost"}).status_code == 400


def test_https_redirect(serve):
    app = Starlette(routes=[Route("/", text)], middleware=[Middleware(HTTPSRedirectMiddleware)])
    served = serve(portico.asgi(app))
    assert served.get("/").status == 200
    with served.wire() as wire:
        reply = wire.get("/?a=1", host="example.test")
    assert (reply.status, reply.header("location")) == (307, "https://example.test/?a=1")


# ---- lifespan, state, workers


def test_state_is_one_for_all_requests(client_of):
    @contextlib.asynccontextmanager
    async def lifespan(app):
        ends.append("begun")
        yield {"seen": []}
        ends.append("ended")

    async def see(request):
        request.state.seen.append(request.url.path)
        request.state.mine = "this request's"
        return JSONResponse(request.state.seen)

    async def mine(request):
        return JSONResponse(hasattr(request.state, "mine"))

    ends = []
    client = client_of(Route("/see", see), Route("/mine", mine), lifespan=lifespan)
    assert [client.get("/see").json() for _ in range(2)] == [["/see"], ["/see", "/see"]]
    assert client.get("/mine").json() is False
    assert ends == ["begun"]


def test_below_a_mount_of_a_router(serve):
    """`url_for` and `root_path` know of the prefix that portico has taken off."""

    async def link(request):
        return JSONResponse([request.url.path, request.scope["root_path"], str(request.url_for("link", name="b"))])

    router = portico.Router()
    router.mount("/below", portico.asgi(Starlette(routes=[Route("/{name}", link, name="link")])))
    served = serve(router)
    path, root, url = served.get("/below/a").json()
    assert (path, root) == ("/below/a", "/below")
    assert url == f"https://localhost:{served.port}/below/b"


def test_several_workers(issue, ca_pem):
    """Each process has the app's lifespan for itself."""
    main = functools.partial(worker_mains.serve_starlette, **issue("localhost"))
    with portico.Workers(main, workers=2, listen=0) as workers:
        seen = {}
        wait_until(
            lambda: seen.update([request(workers.ports[0], context=trusting(ca_pem)).json()]) or len(seen) == 2,
            "both workers to answer",
        )
        assert set(seen) == {str(pid) for pid in workers.pids}
        assert set(seen.values()) == {"begun"}
