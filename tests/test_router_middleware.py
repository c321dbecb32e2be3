"""`Router.add_middleware`: functions around handlers, `def` and `async def`, and what they see when something fails."""

from __future__ import annotations

import asyncio
import contextvars
import threading

import pytest

import portico
from clients import wait_until


def ok(request):
    return {"statusCode": 200, "body": "ok"}


async def ok_later(request):
    await asyncio.sleep(0)
    return {"statusCode": 200, "body": "ok"}


class Log:
    """Middleware that writes down when it is called."""

    def __init__(self):
        self.lines = []

    def pair(self, name, is_async=False):
        def enter(request):
            self.lines.append(f"{name} in")

        def leave(request, response):
            self.lines.append(f"{name} out {response['statusCode']}")

        async def enter_later(request):
            await asyncio.sleep(0)
            enter(request)

        async def leave_later(request, response):
            await asyncio.sleep(0)
            leave(request, response)

        return (enter_later, leave_later) if is_async else (enter, leave)


@pytest.mark.parametrize("is_async", [False, True])
@pytest.mark.parametrize("handler", [ok, ok_later])
@pytest.mark.parametrize("dispatch", ["auto", "asyncio"])
def test_in_order_and_back_in_reverse(serve, handler, is_async, dispatch):
    router, log = portico.Router(), Log()
    router.add_middleware(*log.pair("a"))
    router.add_middleware(*log.pair("b", is_async))
    router.add_route("GET", "/", handler)
    served = serve(router, dispatch=dispatch)
    assert served.get("/").text == "ok"
    assert log.lines == ["a in", "b in", "b out 200", "a out 200"]


def test_early_answers_pass_every_leave_whose_enter_returned(serve):
    router, log = portico.Router(), Log()
    router.add_middleware(*log.pair("a"))
    _, leave = log.pair("b")
    router.add_middleware(lambda request: portico.error(401), leave)
    router.add_middleware(*log.pair("c"))
    router.add_route("GET", "/", lambda request: pytest.fail("it is not called"))
    assert serve(router).get("/").status == 401
    assert log.lines == ["a in", "b out 401", "a out 401"]


@pytest.mark.parametrize("handler", [ok, ok_later])
def test_leave_may_change_or_replace_the_response(serve, handler):
    router = portico.Router()
    router.add_middleware(leave=lambda request, response: {**response, "body": response["body"] + " replaced"})
    router.add_middleware(leave=lambda request, response: portico.add_header(response, "x-seen", "yes") and None)
    router.add_route("GET", "/", handler)
    answer = serve(router).get("/")
    assert (answer.text, answer.header("x-seen")) == ("ok replaced", "yes")


@pytest.mark.parametrize("is_async", [False, True])
def test_404_405_and_options_pass_too(serve, is_async):
    router, log = portico.Router(), Log()
    router.add_route("GET", "/a", ok)
    router.add_middleware(*log.pair("a", is_async))
    router.add_middleware(leave=lambda request, response: portico.add_header(response, "x-cors", "*"))
    served = serve(router)
    for method, path, status, allow in [
        ("GET", "/none", 404, None),
        ("PUT", "/a", 405, "GET, HEAD, OPTIONS"),
        ("OPTIONS", "/a", 204, "GET, HEAD, OPTIONS"),
        ("HEAD", "/a", 200, None),
    ]:
        answer = served.ask(method, path)
        assert (answer.status, answer.header("allow"), answer.header("x-cors")) == (status, allow, "*")
    assert [line for line in log.lines if "out" in line] == ["a out 404", "a out 405", "a out 204", "a out 200"]


def test_what_the_core_and_python_say_of_a_missing_route_is_the_same(serve):
    plain, around = portico.Router(), portico.Router()
    around.add_middleware(enter=lambda request: None)
    served = []
    for router in (plain, around):
        router.add_route("GET", "/a", ok)
        served.append(serve(router))
    for method, path in [("GET", "/b"), ("PUT", "/a"), ("OPTIONS", "/a"), ("HEAD", "/b"), ("BREW", "/a")]:
        one, two = (each.ask(method, path) for each in served)
        ignore = {"date"}
        assert (one.status, one.body) == (two.status, two.body)
        assert {it for it in one.headers if it[0] not in ignore} == {it for it in two.headers if it[0] not in ignore}


def test_middleware_of_an_outer_router_is_around_that_of_an_inner_one(serve):
    outer, inner, log = portico.Router(), portico.Router(), Log()
    inner.add_route("GET", "/x", ok)
    outer.mount("/in", inner)
    outer.mount("/fn", ok)
    outer.add_middleware(*log.pair("outer"))
    inner.add_middleware(*log.pair("inner"))
    served = serve(outer)
    assert [served.get(path).status for path in ("/in/x", "/in/y", "/fn/z")] == [200, 404, 200]
    assert log.lines == [
        *("outer in", "inner in", "inner out 200", "outer out 200"),
        *("outer in", "inner in", "inner out 404", "outer out 404"),
        *("outer in", "outer out 200"),
    ]


@pytest.mark.parametrize("is_async", [False, True])
def test_leave_gets_the_500_of_a_handler_that_raises(serve, is_async, caplog):
    router, log = portico.Router(), Log()
    router.add_middleware(*log.pair("a", is_async))
    router.add_middleware(leave=lambda request, response: portico.add_header(response, "x-cors", "*"))

    @router.get("/raises")
    def raises(request):
        raise RuntimeError("it broke")

    @router.get("/none")
    def none(request):
        return None

    @router.post("/json")
    async def reads(request):
        return {"statusCode": 200, "body": str(request.json())}

    served = serve(router)
    for path, kind in (("/raises", RuntimeError), ("/none", portico.ResponseError)):
        answer = served.get(path)
        assert (answer.status, answer.text, answer.header("x-cors")) == (500, "500 Internal Server Error\n", "*")
        _, request = served.errors.next(kind)
        assert request.path == path
    assert "it broke" in caplog.text
    assert "in raises" in caplog.text, "the traceback leads to the handler"
    assert served.stat("handler_failures") == 2
    assert served.ask("POST", "/json", body=b"{").status == 400
    served.errors.next(portico.RequestError)
    assert served.stat("handler_failures") == 2, "that one is the client's mistake"
    assert [line for line in log.lines if "out" in line] == ["a out 500", "a out 500", "a out 400"]


def test_middleware_that_raises_is_a_500_that_the_outer_ones_see(serve):
    router, log = portico.Router(), Log()
    router.add_middleware(*log.pair("a"))
    router.add_middleware(lambda request: 1 / int(request.queryString), lambda request, response: [][1])
    router.add_route("GET", "/", ok)
    served = serve(router)
    assert served.get("/?0").status == 500
    served.errors.next(ZeroDivisionError)
    assert log.lines == ["a in", "a out 500"]
    router = portico.Router()
    router.add_middleware(*log.pair("b"))
    router.add_middleware(leave=lambda request, response: [][1])
    router.add_route("GET", "/", ok)
    served = serve(router)
    assert served.get("/").status == 500
    served.errors.next(IndexError)
    assert log.lines[2:] == ["b in", "b out 500"]


def test_a_wrong_response_of_middleware_is_said(serve):
    router = portico.Router()
    router.add_middleware(enter=lambda request: "stop")
    router.add_route("GET", "/", ok)
    served = serve(router)
    assert served.get("/").status == 500
    assert "not str" in str(served.errors.next(portico.ResponseError)[0])


def test_a_def_that_returns_a_coroutine_is_said(serve):
    router = portico.Router()
    router.add_middleware(enter=lambda request: asyncio.sleep(1))
    router.add_route("GET", "/", ok)
    served = serve(router)
    assert served.get("/").status == 500
    served.errors.next(RuntimeError)


def test_leave_is_called_when_a_coroutine_is_cancelled(serve):
    router, log, began = portico.Router(), Log(), threading.Event()
    router.add_middleware(*log.pair("a"))

    @router.get("/")
    async def waits(request):
        began.set()
        await asyncio.sleep(3600)

    served = serve(router)
    with served.wire() as wire:
        wire.send("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert began.wait(30)
    wait_until(lambda: len(log.lines) == 2, "leave to be called")
    assert log.lines == ["a in", "a out 503"]
    assert served.stat("handler_failures") == 0


@pytest.mark.parametrize("handler", ["def", "async"])
def test_context_variables_reach_the_handler(serve, handler):
    user = contextvars.ContextVar("user", default="nobody")
    router = portico.Router()

    async def enter(request):
        user.set(request.queryString)

    def answer(request):
        return {"statusCode": 200, "body": f"{user.get()} on {threading.current_thread().name}"}

    async def answer_later(request):
        return answer(request)

    router.add_middleware(enter)
    router.add_route("GET", "/", answer if handler == "def" else answer_later)
    text = serve(router).get("/?ada").text
    assert text.startswith("ada on ")
    assert ("portico-asyncio" in text) == (handler == "async"), "a def handler may block, and so runs on another thread"


def test_wsgi_and_asgi_apps_pass_too(serve):
    def wsgi_app(environ, start_response):
        start_response("200 OK", [("X-App", environ["SCRIPT_NAME"])])
        return [b"wsgi"]

    async def asgi_app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": [(b"x-app", b"asgi")]})
        await send({"type": "http.response.body", "body": b"asgi"})

    router, log = portico.Router(), Log()
    router.add_middleware(*log.pair("a"))
    router.mount("/w", portico.wsgi(wsgi_app))
    router.mount("/a", portico.asgi(asgi_app, lifespan="off"))
    served = serve(router)
    assert (served.get("/w/x").header("x-app"), served.get("/a/x").text) == ("/w", "asgi")
    assert log.lines == ["a in", "a out 200"] * 2


def test_middleware_added_while_serving_takes_effect(serve):
    outer, inner, log = portico.Router(), portico.Router(), Log()
    inner.add_route("GET", "/x", ok)
    outer.mount("/in", inner)
    served = serve(outer)
    assert served.get("/in/x").status == 200
    assert [name.rpartition(".")[2] for name in served.server.stats()["handlers"]] == ["ok"]
    outer.add_middleware(*log.pair("outer"))
    inner.add_middleware(*log.pair("inner", True))
    inner.add_route("GET", "/y", ok)
    assert [served.get(path).status for path in ("/in/x", "/in/y", "/none")] == [200, 200, 404]
    assert len(log.lines) == 4 + 4 + 2
    names = served.server.stats()["handlers"]
    assert sum(".ok" in name for name in names) == 2, names


def test_what_is_no_middleware():
    router = portico.Router()
    for arguments, expected in [((), "enter, leave or both"), ((1,), "a function"), ((None, "x"), "a function")]:
        with pytest.raises(portico.ConfigError, match=expected):
            router.add_middleware(*arguments)
