"""ASGI applications as handlers: `portico.asgi`, HTTP. Lifespans are in test_lifespan.py."""

import asyncio
import contextlib
import json
import threading

import pytest
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.responses import JSONResponse, PlainTextResponse, StreamingResponse
from starlette.routing import Route

import portico
from clients import GENEROUS, Wire

START = {"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]}
BODY = {"type": "http.response.body", "body": b"fine"}


def app(*messages):
    """An application that sends these."""

    async def app(scope, receive, send):
        for message in messages:
            await send(message)

    return off(app)


def off(app):
    return portico.asgi(app, lifespan="off")


async def answer(send, body, status=200):
    await send({**START, "status": status})
    await send({"type": "http.response.body", "body": body if isinstance(body, bytes) else str(body).encode()})


@pytest.fixture
def scope_of(serve):
    """The scope of a request, as an app sees it, for a client that asks."""

    def scope_of(ask):
        async def app(scope, receive, send):
            seen.append(scope)
            await answer(send, b"")

        seen = []
        ask(serve(off(app)))
        return seen[0]

    return scope_of


# ---- scope


def test_scope(scope_of):
    def ask(served):
        with served.wire() as wire:
            wire.send(
                "POST /caf%C3%A9/./a?x=%20&y HTTP/1.1\r\nHost: example.test\r\nX-B: 1\r\nX-A: 2\r\nX-B:  3 \r\n"
                "X-Latin: \xe9\r\nContent-Length: 0\r\n\r\n"
            )
            assert wire.read().status == 200
            addresses.extend((wire.sock.getsockname(), wire.sock.getpeername()))

    addresses = []
    assert scope_of(ask) == {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": "/caf\u00e9/a",
        "raw_path": b"/caf%C3%A9/./a",
        "query_string": b"x=%20&y",
        "root_path": "",
        "headers": [
            (b"host", b"example.test"),
            (b"x-b", b"1"),
            (b"x-a", b"2"),
            (b"x-b", b"3"),
            (b"x-latin", b"\xe9"),
            (b"content-length", b"0"),
        ],
        "client": addresses[0],
        "server": addresses[1],
        "state": {},
        "extensions": {"http.response.pathsend": {}},
    }


def test_scope_over_http2(scope_of):
    def ask(served):
        with served.httpx() as client:
            assert client.request("propfind", "/two", headers={"Cookie": "a=1"}).status_code == 200

    scope = scope_of(ask)
    assert (scope["http_version"], scope["scheme"], scope["method"]) == ("2", "https", "PROPFIND")
    assert scope["headers"][0][0] == b"host"
    assert (b"cookie", b"a=1") in scope["headers"]
    assert not [name for name, _ in scope["headers"] if name.startswith(b":")]


def test_scope_of_an_old_client(scope_of):
    def ask(served):
        with served.wire() as wire:
            wire.send("GET / HTTP/1.0\r\n\r\n").read()

    scope = scope_of(ask)
    assert (scope["http_version"], scope["headers"]) == ("1.0", [])


def test_a_whole_url_as_target_names_the_host(scope_of):
    def ask(served):
        with served.wire() as wire:
            wire.send("GET http://real.test/p HTTP/1.1\r\nHost: other.test\r\n\r\n").read()

    scope = scope_of(ask)
    assert (scope["headers"], scope["path"]) == ([(b"host", b"real.test")], "/p")


def test_scope_on_a_unix_socket(scope_of, tmp_path):
    def ask(served):
        served.server.listen(unix=tmp_path / "s", tls=False)
        with Wire(0, unix=str(tmp_path / "s")) as wire:
            assert wire.get().status == 200

    scope = scope_of(ask)
    assert (scope["client"], scope["server"]) == (None, (str(tmp_path / "s"), None))


def test_a_scope_belongs_to_its_request(serve):
    async def app(scope, receive, send):
        seen.append((scope.get("mine"), dict(scope["state"]), dict(scope["asgi"]), scope["root_path"]))
        scope["mine"] = scope["root_path"] = scope["state"]["mine"] = scope["asgi"]["mine"] = "changed"
        await answer(send, b"")

    seen = []
    served = serve(off(app))
    assert [served.get().status for _ in range(2)] == [200, 200]
    assert seen[0] == seen[1]


# ---- receive


def test_body_then_disconnect_once_complete(serve):
    async def app(scope, receive, send):
        more = True
        while more:
            message = await receive()
            assert message["type"] == "http.request"
            body.extend(message["body"])
            more = message["more_body"]
        again = asyncio.create_task(receive())
        await asyncio.sleep(0.01)
        messages.append(again.done())
        await answer(send, b"")
        messages.append(await again)
        messages.append(await receive())
        done.set()

    body, messages, done = bytearray(), [], threading.Event()
    assert serve(off(app)).ask("POST", body=b"x" * 100_000).status == 200
    assert done.wait(GENEROUS)
    left = {"type": "http.disconnect"}
    assert (body, messages) == (b"x" * 100_000, [False, left, left])


def test_everybody_who_waits_is_told_of_the_end(serve):
    async def app(scope, receive, send):
        await asyncio.create_task(receive())  # which wants a coroutine
        waiting = [asyncio.ensure_future(receive()) for _ in range(3)]
        await asyncio.wait(waiting, timeout=0.01)
        waiting[0].cancel()
        await asyncio.create_task(send(START))
        await send(BODY)
        told.extend(await asyncio.gather(*waiting, return_exceptions=True))
        done.set()

    told, done = [], threading.Event()
    assert serve(off(app)).get().text == "fine"
    assert done.wait(GENEROUS)
    assert isinstance(told[0], asyncio.CancelledError)
    assert told[1:] == [{"type": "http.disconnect"}] * 2


def test_who_waits_is_told_where_an_app_fails(serve):
    async def app(scope, receive, send):
        async def listen():
            await receive()
            told.put_nowait(await receive())

        tasks.append(asyncio.create_task(listen()))
        await asyncio.sleep(0.01)
        if scope["path"] == "/told":
            return await answer(send, (await told.get())["type"])
        raise ZeroDivisionError("on purpose")

    tasks, told = [], asyncio.Queue()
    served = serve(off(app))
    assert served.get().status == 500
    assert served.get("/told").text == "http.disconnect"


# ---- send


def test_headers_and_status(serve):
    headers = [(b"X-A", b" 1 "), [b"set-cookie", b"a"], (b"set-cookie", b"b"), (b"x-latin", b"\xe9")]
    reply = serve(app({**START, "status": 404, "headers": headers}, BODY)).get()
    assert (reply.status, reply.header("x-a"), reply.all("set-cookie")) == (404, "1", ["a", "b"])
    assert (reply.header("x-latin"), reply.header("content-length")) == ("\u00e9", "4")


@pytest.mark.parametrize("headers", [[], (), None, iter([(b"a", b"b")]), {(b"a", b"b"): 1}], ids=repr)
def test_headers_may_be_any_iterable_or_missing(serve, headers):
    start = {"type": "http.response.start", "status": 200} | ({} if headers is None else {"headers": headers})
    assert serve(app(start, BODY)).get().text == "fine"


@pytest.mark.parametrize(
    ("parts", "body"),
    [
        ([{}], b""),
        ([{"body": b"one"}], b"one"),
        ([{"body": bytearray(b"one")}], b"one"),
        ([{"body": memoryview(b"one")}], b"one"),
        ([{"body": b"one ", "more_body": True}, {"more_body": True}, {"body": b"two"}], b"one two"),
        ([{"body": b"one", "more_body": True}, {"more_body": False}], b"one"),
        ([{"body": bytes(1_000_000)}], bytes(1_000_000)),
    ],
    ids=["none", "bytes", "bytearray", "memoryview", "parts", "nothing last", "large"],
)
def test_bodies(serve, parts, body):
    served = serve(app(START, *({"type": "http.response.body", **part} for part in parts)))
    assert served.get().body == body
    with served.httpx() as client:
        assert client.get("/").content == body


def test_transfer_coding_is_the_servers_choice(serve):
    reply = serve(app({**START, "headers": [(b"Transfer-Encoding", b"chunked")]}, BODY)).get()
    assert (reply.text, reply.header("transfer-encoding")) == ("fine", None)


@pytest.mark.parametrize(("method", "status"), [("HEAD", 200), ("GET", 304)])
def test_length_without_a_body(serve, method, status):
    served = serve(app({**START, "status": status, "headers": [(b"content-length", b"5")]}, {**BODY, "body": b""}))
    with served.wire() as wire:
        for _ in range(2):
            reply = wire.send(f"{method} / HTTP/1.1\r\nHost: h\r\n\r\n").read(method)
            assert (reply.status, reply.header("content-length")) == (status, "5")


WRONG = {
    "no dict": ([None], "a message is a dict"),
    "no type": ([{}], "has a type"),
    "int type": ([{"type": 1}], "has a type"),
    "unknown type": ([{"type": "http.response.push"}], "no message"),
    "websocket": ([{"type": "websocket.accept"}], "no message"),
    "no status": ([{"type": "http.response.start"}], "status is missing"),
    "str status": ([{**START, "status": "200"}], "an int from 100 to 599"),
    "status 1000": ([{**START, "status": 1000}], "an int from 100 to 599"),
    "interim status": ([{**START, "status": 103}], "interim"),
    "dict of headers": ([{**START, "headers": {b"a": b"b"}}], "a [name, value] each"),
    "int headers": ([{**START, "headers": 1}], "an iterable"),
    "header of str": ([{**START, "headers": [("a", "b")]}], "are bytes"),
    "header of three": ([{**START, "headers": [(b"a", b"b", b"c")]}], "a [name, value] each"),
    "line end in a header": ([{**START, "headers": [(b"a", b"b\r\nc: d")]}], "control character"),
    "line end in a name": ([{**START, "headers": [(b"a\r\nb", b"c")]}], "no header name"),
    "pseudo header": ([{**START, "headers": [(b":status", b"200")]}], "no header name"),
    "two starts": ([START, START], "a second"),
    "body first": ([BODY], "before http.response.start"),
    "str body": ([START, {**BODY, "body": "text"}], "bytes, not str"),
    "None for a body": ([START, {**BODY, "body": None}], "bytes, not NoneType"),
    "too short a body": ([{**START, "headers": [(b"content-length", b"5")]}, BODY], "not the length of the body, 4"),
    "too long a body": ([{**START, "headers": [(b"content-length", b"3")]}, BODY], "not the length of the body, 4"),
    "no body": ([{**START, "headers": [(b"content-length", b"3")]}, {**BODY, "body": b""}], "of the body, 0"),
    "nothing": ([], "without an http.response.start"),
    "start only": ([START], "before its last http.response.body"),
    "more promised": ([START, {**BODY, "more_body": True}], "before its last http.response.body"),
}


@pytest.mark.parametrize(("messages", "expected"), WRONG.values(), ids=WRONG)
def test_wrong_messages_are_a_500_and_a_line_in_the_log(serve, caplog, messages, expected):
    # On one thread, where nothing can be sent between two messages.
    served = serve(app(*messages), io_threads=1)
    served.check_wrong_response(expected, caplog)


def test_an_app_may_mend_a_wrong_start(serve):
    async def app(scope, receive, send):
        with pytest.raises(portico.ResponseError):
            await send({**START, "headers": [(b"a", b"\n")]})
        with pytest.raises(portico.ResponseError):
            await send(BODY)
        await answer(send, b"mended")

    assert serve(off(app)).get().text == "mended"


# ---- errors and ends


def test_an_app_that_raises(serve, caplog):
    async def app(scope, receive, send):
        await send({**START, "headers": [(b"x-a", b"b")]})
        await send({**BODY, "more_body": True})
        raise ZeroDivisionError("on purpose")

    # On one thread, where nothing can be sent before it raises.
    served = serve(off(app), io_threads=1)
    reply = served.get("/bad")
    assert (reply.status, reply.header("x-a")) == (500, None)
    assert served.errors.next(ZeroDivisionError)[1].path == "/bad"
    assert "on purpose" in caplog.text


def test_an_app_goes_on_after_its_response(serve):
    async def app(scope, receive, send):
        await answer(send, b"first")
        await asyncio.to_thread(go_on.wait, GENEROUS)
        ended.set()

    go_on, ended = threading.Event(), threading.Event()
    assert serve(off(app)).get().text == "first"
    assert not ended.is_set()
    go_on.set()
    assert ended.wait(GENEROUS)


def test_an_error_after_the_response_is_told(serve, caplog):
    async def app(scope, receive, send):
        await answer(send, b"first")
        raise ZeroDivisionError("too late")

    served = serve(off(app))
    assert served.get("/late").text == "first"
    assert served.errors.next(ZeroDivisionError)[1].path == "/late"
    assert "too late" in caplog.text
    assert served.stat("handler_failures") == 0


def test_a_handler_around_an_app_sees_its_response(serve):
    inner = off(lambda scope, receive, send: answer(send, b"inner", 201))

    async def handler(request):
        response = await inner(request)
        assert response == {"statusCode": 201, "multiValueHeaders": {"content-type": ["text/plain"]}, "body": b"inner"}
        return {**response, "body": b"outer"}

    reply = serve(handler).get()
    assert (reply.status, reply.text) == (201, "outer")


def test_apps_run_side_by_side(serve):
    async def app(scope, receive, send):
        arrived.append(scope)
        if len(arrived) == 20:
            everybody.set()
        await everybody.wait()
        await answer(send, scope["path"])

    arrived, everybody = [], asyncio.Event()
    served = serve(off(app))
    wires = [served.wire() for _ in range(20)]
    for number, wire in enumerate(wires):
        wire.send(f"GET /{number} HTTP/1.1\r\nHost: h\r\n\r\n")
    assert [wire.read().text for wire in wires] == [f"/{number}" for number in range(20)]
    for wire in wires:
        wire.close()


@pytest.mark.parametrize("dispatch", ["auto", "inline", "threads", "asyncio"])
def test_every_dispatch(serve, dispatch):
    assert serve(app(START, BODY), dispatch=dispatch).get().text == "fine"


def test_wrong_arguments():
    with pytest.raises(portico.ConfigError, match="asgi: an application"):
        portico.asgi("module:app")
    with pytest.raises(portico.ConfigError, match="lifespan is"):
        portico.asgi(app, lifespan=True)


# ---- a framework


def test_starlette(serve):
    async def greet(request):
        body = {
            "name": request.path_params["name"],
            "query": dict(request.query_params),
            "body": (await request.body()).decode(),
            "left": await request.is_disconnected(),
            "state": request.state.told,
        }
        return JSONResponse(body, background=BackgroundTask(ran.set))

    async def stream(request):
        async def parts():
            for number in range(3):
                await asyncio.sleep(0)
                yield f"{number} "

        return StreamingResponse(parts())

    async def bad(request):
        raise ZeroDivisionError("on purpose")

    async def marked(request, call_next):
        response = await call_next(request)
        response.headers["x-marked"] = "yes"
        return response

    @contextlib.asynccontextmanager
    async def lifespan(app):
        yield {"told": "at the start"}

    ran = threading.Event()
    site = Starlette(
        routes=[
            Route("/greet/{name}", greet, methods=["POST"]),
            Route("/stream", stream),
            Route("/bad", bad),
            Route("/text", lambda request: PlainTextResponse("from a thread")),
        ],
        middleware=[Middleware(BaseHTTPMiddleware, dispatch=marked)],
        lifespan=lifespan,
    )
    served = serve(portico.asgi(site, lifespan="on"))
    with served.httpx() as client:
        told = client.post("/greet/J%C3%BCrgen?a=1", content=b"hi")
        assert told.json() == {
            "name": "J\u00fcrgen",
            "query": {"a": "1"},
            "body": "hi",
            "left": False,
            "state": "at the start",
        }
        assert told.headers["x-marked"] == "yes"
        assert ran.wait(GENEROUS)
        assert client.get("/stream").text == "0 1 2 "
        assert client.get("/text").text == "from a thread"
        assert client.get("/nowhere").status_code == 404
        assert client.get("/bad").status_code == 500
    assert served.errors.next(ZeroDivisionError)


def test_a_body_that_is_read_with_json(serve):
    async def app(scope, receive, send):
        await answer(send, json.loads((await receive())["body"])["a"])

    assert serve(off(app)).ask("POST", body=b'{"a": 1}').text == "1"
