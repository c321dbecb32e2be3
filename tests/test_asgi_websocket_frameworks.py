"""WebSockets of Starlette and FastAPI, by `portico.asgi`."""

import pytest
from fastapi import FastAPI, WebSocket
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocketDisconnect

import portico
from clients import GENEROUS
from secure_websocket import connect
from sockets import CLOSE, TEXT, OverHTTP1, close, frame


async def shout(websocket):
    await websocket.accept(subprotocol="loud" if "loud" in websocket.scope["subprotocols"] else None)
    while True:
        await websocket.send_text((await websocket.receive_text()).upper())


async def deny(websocket):
    await websocket.send_denial_response(PlainTextResponse("members only", 401))


async def refuse(websocket):
    await websocket.close(1008)


async def count(websocket):
    await websocket.accept()
    try:
        async for message in websocket.iter_json():
            await websocket.send_json(message + 1)
    finally:
        await websocket.close(1000, "counted")


def starlette():
    routes = [WebSocketRoute(f"/{it.__name__}", it) for it in (shout, deny, refuse, count)]
    return Starlette(routes=[*routes, Route("/", lambda request: PlainTextResponse("a page"))])


def fastapi():
    app = FastAPI()
    for it in (shout, deny, refuse, count):
        it.__annotations__["websocket"] = WebSocket
        app.websocket(f"/{it.__name__}")(it)

    @app.get("/")
    def page():
        return "a page"

    return app


@pytest.fixture(params=[starlette, fastapi], ids=["Starlette", "FastAPI"])
def site(request, serve):
    return serve(portico.asgi(request.param()))


def test_a_framework_with_a_client_that_people_use(site):
    context = site.context()
    with connect(f"wss://localhost:{site.port}/shout", ssl=context, subprotocols=["loud"]) as client:
        assert client.subprotocol == "loud"
        client.send("hällo")
        assert client.recv(GENEROUS) == "HÄLLO"
    assert "a page" in site.get().text
    site.wait_stat("websockets_open", value=0)
    # Starlette's WebSocketDisconnect is let pass.
    assert site.errors.given.empty()
    assert site.stat("handler_failures") == 0


def test_what_a_framework_answers(site, open_socket):
    denied = open_socket(site, "/deny")
    assert (denied.status, denied.body) == (401, b"members only")
    assert open_socket(site, "/refuse").status == 403
    assert open_socket(site, "/nowhere").status == 403
    counting = open_socket(site, "/count")
    counting.socket.send(frame(TEXT, "41"))
    assert counting.socket.read() == (TEXT, b"42")
    counting.socket.send(close(1000))
    assert counting.socket.read()[0] == CLOSE
    assert site.errors.given.empty()


def test_a_frameworks_exception_without_a_reason_is_a_failure(serve):
    async def leave(websocket):
        await websocket.accept()
        raise WebSocketDisconnect(1000)

    served = serve(portico.asgi(Starlette(routes=[WebSocketRoute("/", leave)])))
    with served.wire() as wire:
        assert OverHTTP1(wire).read_close()[0] == 1011
    assert isinstance(served.errors.next()[0], WebSocketDisconnect)
