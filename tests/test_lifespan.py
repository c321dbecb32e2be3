"""The lifespan of ASGI applications: startup before the first request, shutdown after the last."""

import asyncio
import contextlib
import threading

import pytest

import portico
import portico.testing
from clients import GENEROUS, Wire, request, wait_until

COMPLETE = {"startup": {"type": "lifespan.startup.complete"}, "shutdown": {"type": "lifespan.shutdown.complete"}}


class App:
    """An application that writes down what happens to it, and on which thread."""

    def __init__(self, startup=COMPLETE["startup"], shutdown=COMPLETE["shutdown"], wait=None):
        self.happened, self.threads, self.answers, self.wait = (
            [],
            set(),
            {"startup": startup, "shutdown": shutdown},
            wait,
        )

    async def __call__(self, scope, receive, send):
        self.threads.add(threading.get_ident())
        if scope["type"] == "lifespan":
            return await self.live(scope, receive, send)
        self.happened.append(scope["path"])
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": repr(scope["state"]).encode()})

    async def live(self, scope, receive, send):
        assert scope["asgi"] == {"version": "3.0", "spec_version": "2.0"}
        scope["state"]["number"] = 1 + self.happened.count("startup")
        for event in ("startup", "shutdown"):
            assert await receive() == {"type": f"lifespan.{event}"}
            if self.wait:
                await asyncio.to_thread(self.wait.wait, GENEROUS)
            self.happened.append(event)
            answer = self.answers[event]
            if isinstance(answer, BaseException):
                raise answer
            if answer is not None:
                await send(answer)
            if answer is not COMPLETE["startup"]:
                return


async def without(scope, receive, send):
    """An application that knows nothing of lifespans."""
    assert scope["type"] == "http"
    await send({"type": "http.response.start", "status": 200})
    await send({"type": "http.response.body", "body": b"without"})


def failed(event, *message):
    return {"type": f"lifespan.{event}.failed"} | dict(zip(["message"], message, strict=False))


# ---- on a loop of the server's own


@pytest.mark.parametrize("mode", ["auto", "on"])
def test_order(serve, mode):
    app = App()
    served = serve(portico.asgi(app, lifespan=mode))
    assert app.happened == ["startup"], "before anybody asks"
    assert served.get("/1").text == "{'number': 1}"
    with served.httpx() as client:
        assert client.get("/2").text == "{'number': 1}"
    served.server.close()
    assert app.happened == ["startup", "/1", "/2", "shutdown"]
    assert len(app.threads) == 1


def test_off(serve):
    app = App()
    served = serve(portico.asgi(app, lifespan="off"))
    assert served.get("/1").text == "{}"
    served.server.close()
    assert app.happened == ["/1"]


def test_state_is_copied_for_each_request(serve):
    async def app(scope, receive, send):
        if scope["type"] == "lifespan":
            scope["state"].update(shared=[], own=0)
            return await App().live(scope, receive, send)
        scope["state"]["shared"].append(scope["path"])
        scope["state"]["own"] += 1
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": repr(scope["state"]).encode()})

    served = serve(portico.asgi(app))
    served.get("/1")
    assert served.get("/2").text == "{'shared': ['/1', '/2'], 'own': 1, 'number': 1}"


def test_an_app_without_one(serve, caplog):
    assert serve(portico.asgi(without)).get().text == "without"
    assert caplog.text == ""


@pytest.mark.parametrize("ends", [None, ZeroDivisionError("early")], ids=["returns", "raises"])
def test_an_app_that_leaves_its_lifespan_early(serve, ends):
    app = App(startup=ends)
    served = serve(portico.asgi(app))
    assert served.get("/1").status == 200
    served.server.close()
    assert app.happened == ["startup", "/1"]


FAILURES = {
    "failed": (App(startup=failed("startup", "no database")), "auto", "failed to start: no database"),
    "failed without a word": (App(startup=failed("startup")), "auto", "it does not say why"),
    "raised": (App(startup=ZeroDivisionError("early")), "on", r"raised ZeroDivisionError\('early'\)"),
    "returned": (App(startup=None), "on", "it returned"),
    "no lifespan": (without, "on", "raised AssertionError"),
    "wrong message": (App(startup={"type": "lifespan.started"}), "on", "no message 'lifespan.started'"),
    "shutdown first": (App(startup=COMPLETE["shutdown"]), "on", "out of turn"),
}


@pytest.mark.parametrize(("app", "mode", "expected"), FAILURES.values(), ids=FAILURES)
def test_listen_raises_where_startup_fails(make_server, app, mode, expected):
    server = make_server(portico.asgi(app, lifespan=mode))
    for _ in range(2):
        with pytest.raises(portico.ListenError, match=expected):
            server.listen(0, tls=False)
    assert server.stats()["connections_open"] == 0


def test_listen_may_be_tried_again(make_server):
    app = App(startup=failed("startup", "not yet"))
    server = make_server(portico.asgi(app))
    with pytest.raises(portico.ListenError, match="not yet"):
        server.listen(0, tls=False)
    app.answers["startup"] = COMPLETE["startup"]
    assert request(server.listen(0, tls=False).port).text == "{'number': 2}"
    server.close()
    assert app.happened == ["startup", "startup", "/", "shutdown"]


@pytest.mark.parametrize("error", [failed("shutdown", "lost a file"), ZeroDivisionError("lost a file")], ids=repr)
def test_a_failure_at_the_end_is_logged(serve, caplog, error):
    served = serve(portico.asgi(App(shutdown=error)))
    served.server.close()
    assert "lost a file" in caplog.text


def test_an_error_in_between_is_logged(serve, caplog):
    async def app(scope, receive, send):
        if scope["type"] == "http":
            return await without(scope, receive, send)
        await receive()
        await send(COMPLETE["startup"])
        raise ZeroDivisionError("in between")

    served = serve(portico.asgi(app))
    wait_until(lambda: "in between" in caplog.text)
    assert served.get().text == "without"


def test_close_waits_for_the_shutdown(make_server):
    gate = threading.Event()
    gate.set()
    app = App(wait=gate)
    server = make_server(portico.asgi(app))
    server.listen(0, tls=False)
    gate.clear()
    threading.Timer(0.3, gate.set).start()
    server.close()
    assert app.happened == ["startup", "shutdown"]


def test_shutdown_comes_after_the_last_request(serve):
    inside = threading.Event()

    class Slow(App):
        async def __call__(self, scope, receive, send):
            if scope["type"] == "http":
                inside.set()
                await asyncio.sleep(0.1)
            await super().__call__(scope, receive, send)

    app = Slow()
    served = serve(portico.asgi(app))
    with served.wire() as wire:
        wire.send("GET /last HTTP/1.1\r\nHost: h\r\n\r\n")
        assert inside.wait(GENEROUS)
        closing = threading.Thread(target=served.server.close)
        closing.start()
        assert wire.read().status == 200
    closing.join(GENEROUS)
    assert app.happened == ["startup", "/last", "shutdown"]


def test_each_server_has_a_lifespan_of_its_own(serve):
    app = App()
    handler = portico.asgi(app)
    first, second = serve(handler), serve(handler)
    assert (first.get("/1").text, second.get("/2").text) == ("{'number': 1}", "{'number': 2}")
    first.server.close()
    assert second.get("/3").text == "{'number': 2}"
    second.server.close()
    assert app.happened == ["startup", "startup", "/1", "/2", "shutdown", "/3", "shutdown"]


def test_hosts_may_share_one(serve):
    app, other = App(), App()
    handler = portico.asgi(app)
    hosts = {"a.test": handler, "b.test": handler, "c.test": portico.asgi(other)}
    served = serve(hosts, hosts=tuple(hosts))
    assert [served.get(f"/{host}", host=host).status for host in hosts] == [200, 200, 200]
    served.server.close()
    assert app.happened == ["startup", "/a.test", "/b.test", "shutdown"]
    assert other.happened == ["startup", "/c.test", "shutdown"]


def test_an_app_that_is_added_while_the_server_listens(serve, issue):
    gate = threading.Event()
    app = App(wait=gate)
    served = serve(lambda request: {"statusCode": 200, "body": "plain"})
    assert served.clear, "it listens"
    served.server.add_context("late.test", **issue("late.test"), handler=portico.asgi(app))
    with served.wire() as wire:
        wire.send("GET /1 HTTP/1.1\r\nHost: late.test\r\n\r\n")
        assert served.get().text == "plain"
        assert app.happened == [], "the request waits"
        gate.set()
        assert wire.read().text == "{'number': 1}"
    served.server.close()
    assert app.happened == ["startup", "/1", "shutdown"]


def test_an_app_that_is_added_and_fails(serve, issue, caplog):
    served = serve(lambda request: {"statusCode": 200, "body": "plain"})
    app = portico.asgi(App(startup=failed("startup", "no database")))
    assert served.clear, "it listens"
    served.server.add_context("late.test", **issue("late.test"), handler=app)
    wait_until(lambda: "no database" in caplog.text)
    with served.wire() as wire:
        assert wire.get(host="late.test").status == 500
        assert served.errors.next(portico.ListenError)
        assert wire.get(host="localhost").text == "plain"


def test_a_server_that_is_closed_during_startup(make_server):
    gate, told = threading.Event(), []
    app = App(wait=gate)
    server = make_server(portico.asgi(app))

    def listen():
        with pytest.raises(portico.ClosedError) as raised:
            server.listen(0, tls=False)
        told.append(str(raised.value))

    thread = threading.Thread(target=listen)
    thread.start()
    wait_until(lambda: app.threads)
    server.close(0)
    gate.set()
    thread.join(GENEROUS)
    assert told
    assert app.happened == []


def test_without_a_listener_nothing_happens(make_server):
    app = App()
    make_server(portico.asgi(app)).close()
    assert app.happened == []


# ---- on the running loop


def test_async_with(serve):
    app = App()

    async def main():
        async with portico.Server(portico.asgi(app)) as server:
            assert app.happened == ["startup"]
            port = server.listen(0, tls=False).port
            text = (await asyncio.to_thread(request, port, path="/1")).text
        assert app.happened == ["startup", "/1", "shutdown"]
        return text

    assert asyncio.run(main()) == "{'number': 1}"
    assert app.threads == {threading.get_ident()}


@pytest.mark.parametrize("before", [True, False])
def test_async_with_an_app_that_is_added(issue, before):
    app = App()

    async def main():
        async with portico.Server() as server:
            if before:
                server.add_context("late.test", **issue("late.test"), handler=portico.asgi(app))
            port = server.listen(0, tls=False).port
            if not before:
                server.add_context("late.test", **issue("late.test"), handler=portico.asgi(app))
            with contextlib.closing(Wire(port)) as wire:
                return (await asyncio.to_thread(wire.get, "/1", host="late.test")).text

    assert asyncio.run(main()) == "{'number': 1}"
    assert app.happened == ["startup", "/1", "shutdown"]


def test_async_with_raises_where_startup_fails():
    async def main():
        async with portico.Server(portico.asgi(App(startup=failed("startup", "no database")))):
            raise AssertionError("not reached")

    with pytest.raises(portico.ListenError, match="no database"):
        asyncio.run(main())


def test_async_with_ended_by_another_thread():
    app = App()

    async def main():
        async with portico.Server(portico.asgi(app)) as server:
            server.listen(0, tls=False)
            threading.Thread(target=server.close).start()
            await asyncio.wait_for(asyncio.gather(server.wait_closed(), server.wait_closed()), GENEROUS)
            assert app.happened == ["startup", "shutdown"]

    asyncio.run(main())
    assert app.happened == ["startup", "shutdown"]


def test_serve_forever_waits_for_the_shutdown(make_server):
    gate = threading.Event()
    app = App()
    server = make_server(portico.asgi(app))
    server.listen(0, tls=False)
    app.wait = gate
    threading.Timer(0.1, server.close).start()
    threading.Timer(0.3, gate.set).start()
    server.serve_forever()
    assert app.happened == ["startup", "shutdown"]
