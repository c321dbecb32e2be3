"""The `websocket` scope of `portico.asgi`, over HTTP/1.1 and HTTP/2, with bare apps."""

import asyncio
import logging
import queue
import threading

import pytest
from websockets.asyncio.client import connect as connect_async
from websockets.sync.client import connect

import portico
from clients import GENEROUS, wait_until
from sockets import ASKED, BINARY, TEXT, OverHTTP1, close, frame

ACCEPT = {"type": "websocket.accept"}
CONNECT = {"type": "websocket.connect"}


def off(app, **options):
    return portico.asgi(app, lifespan="off", **options)


async def open_up(receive, send):
    assert await receive() == CONNECT
    await send(ACCEPT)


async def echo(scope, receive, send):
    await open_up(receive, send)
    while (message := await receive())["type"] == "websocket.receive":
        await send({**message, "type": "websocket.send"})


def kept(body):
    """An app, and what its sockets come to: what it returned or raised."""
    outcomes = queue.Queue()

    async def app(scope, receive, send):
        try:
            outcomes.put(await body(scope, receive, send))
        except BaseException as exception:
            outcomes.put(exception)
            raise

    return off(app), lambda: outcomes.get(timeout=GENEROUS)


# ---- scope and messages


def test_scope(serve, open_socket):
    async def app(scope, receive, send):
        scopes.append(scope)
        await send({"type": "websocket.close"})

    scopes = []
    served = serve(off(app))
    one = open_socket(served, "/caf%C3%A9?x=1", ("sec-websocket-protocol", "b, a"), ("x-a", "1"))
    scope = scopes[0]
    headers = dict(scope.pop("headers"))
    assert headers[b"x-a"] == b"1"
    assert headers[b"sec-websocket-version"] == b"13"
    assert headers[b"host"] == b"localhost"
    assert scope == {
        "type": "websocket",
        "asgi": {"version": "3.0", "spec_version": "2.5"},
        "http_version": open_socket.version,
        "scheme": "wss",
        "path": "/café",
        "raw_path": b"/caf%C3%A9",
        "root_path": "",
        "query_string": b"x=1",
        "client": one.wire.sock.getsockname(),
        "server": one.wire.sock.getpeername(),
        "subprotocols": ["b", "a"],
        "state": {},
        "extensions": {"websocket.http.response": {}},
    }


def test_the_scheme_without_tls_and_what_the_lifespan_left(serve):
    async def app(scope, receive, send):
        if scope["type"] == "lifespan":
            scope["state"]["number"] = 7
            await send({"type": "lifespan.startup.complete"})
            await asyncio.Event().wait()
        await send(ACCEPT)
        await send({"type": "websocket.send", "text": f"{scope['scheme']} {scope['state']}"})

    with serve(portico.asgi(app)).wire() as wire:
        assert OverHTTP1(wire).read() == (TEXT, b"ws {'number': 7}")


def test_messages_of_both_kinds(serve, open_socket):
    served = serve(off(echo))
    one = open_socket(served)
    assert one.accepted
    for kind, payload in ((TEXT, "hällo".encode()), (BINARY, b"\0\xff"), (TEXT, b""), (BINARY, b"x" * 200_000)):
        for start in range(0, len(payload) or 1, 8_000):
            end = start + 8_000 >= len(payload)
            one.socket.send(frame(kind if start == 0 else 0, payload[start : start + 8_000], fin=end))
        assert one.socket.read() == (kind, payload)
    one.socket.send(close(1000, "bye"))
    assert one.socket.read_close() == (1000, "bye")
    served.wait_stat("websockets_open", value=0)
    assert served.stat("handler_failures") == 0


@pytest.mark.parametrize(
    "what", [{"bytes": None, "text": "a"}, {"bytes": b"a"}, {"bytes": bytearray(b"a"), "text": None}]
)
def test_what_may_be_sent(serve, what):
    async def app(scope, receive, send):
        await send(ACCEPT)
        await send({"type": "websocket.send", **what})

    with serve(off(app)).wire() as wire:
        assert OverHTTP1(wire).read() == (TEXT if what.get("text") else BINARY, b"a")


def test_accepting_with_a_subprotocol_and_headers(serve, open_socket):
    async def app(scope, receive, send):
        headers = [(b"X-A", b"1"), (b"set-cookie", b"a=1"), (b"set-cookie", b"b=2")]
        await send({**ACCEPT, "subprotocol": scope["subprotocols"][1], "headers": headers})

    one = open_socket(serve(off(app)), "/", ("sec-websocket-protocol", "a, b"))
    assert one.header("sec-websocket-protocol") == "b"
    assert one.header("x-a") == "1"
    assert "b=2" in one.header("set-cookie")
    assert one.socket.read_close() == (1000, "")


WRONG = {
    "no dict": ([None], "no message None"),
    "no type": ([{}], "no message {}"),
    "a message of a request": ([{"type": "http.response.start", "status": 200}], "no message 'http.response.start'"),
    "int for a subprotocol": ([{**ACCEPT, "subprotocol": 1}], "subprotocol: str"),
    "line end in a subprotocol": ([{**ACCEPT, "subprotocol": "a\r\nb"}], "cannot stand in a header"),
    "header of str": ([{**ACCEPT, "headers": [("a", "b")]}], "pairs of bytes"),
    "line end in a header": ([{**ACCEPT, "headers": [(b"a", b"b\r\nc: d")]}], "is no header"),
    "a header of the handshake": ([{**ACCEPT, "headers": [(b"Sec-WebSocket-Accept", b"x")]}], "is the server's"),
    "an extension": ([{**ACCEPT, "headers": [(b"sec-websocket-extensions", b"x")]}], "is the server's"),
    "sending first": ([{"type": "websocket.send", "text": "a"}], "out of turn"),
    "a body first": ([{"type": "websocket.http.response.body", "body": b""}], "out of turn"),
    "nothing": ([], "without a websocket.accept or websocket.close"),
}


@pytest.mark.parametrize(("messages", "expected"), WRONG.values(), ids=WRONG)
def test_wrong_messages_before_the_handshake_are_a_500_and_told(serve, messages, expected):
    async def app(scope, receive, send):
        for message in messages:
            await send(message)

    served = serve(off(app))
    with served.wire() as wire:
        assert wire.get("/", ASKED).status == 500
    assert expected in str(served.errors.next(portico.ResponseError)[0])
    assert served.stat("websockets") == 0


WRONG_LATER = {
    "a second accept": ([ACCEPT], "out of turn"),
    "a response": ([{"type": "websocket.http.response.start", "status": 404}], "out of turn"),
    "nothing to send": ([{"type": "websocket.send"}], "either bytes or text"),
    "too much to send": ([{"type": "websocket.send", "text": "", "bytes": b""}], "either bytes or text"),
    "bytes for text": ([{"type": "websocket.send", "text": b"a"}], "text: str, not bytes"),
    "str for bytes": ([{"type": "websocket.send", "bytes": "a"}], "bytes: bytes, not str"),
    "a code that is not sent": ([{"type": "websocket.close", "code": 1005}], "1000 to 1003"),
    "no code": ([{"type": "websocket.close", "code": None}], "code: a number"),
    "bytes for a reason": ([{"type": "websocket.close", "reason": b"a"}], "reason: str"),
}


@pytest.mark.parametrize(("messages", "expected"), WRONG_LATER.values(), ids=WRONG_LATER)
def test_wrong_messages_after_the_handshake_are_1011_and_told(serve, messages, expected):
    async def app(scope, receive, send):
        for message in [ACCEPT, *messages]:
            await send(message)

    served = serve(off(app))
    with served.wire() as wire:
        assert OverHTTP1(wire, "/wrong").read_close()[0] == 1011
    error, request = served.errors.next(portico.ResponseError)
    assert expected in str(error)
    assert request.path == "/wrong"


def test_nothing_follows_its_own_close(serve):
    async def app(scope, receive, send):
        await open_up(receive, send)
        await send({"type": "websocket.close", "code": 3000, "reason": "enough"})
        with pytest.raises(portico.ResponseError, match="after the end"):
            await send({"type": "websocket.send", "text": "a"})
        with pytest.raises(portico.ResponseError, match="a second"):
            await send({"type": "websocket.close"})
        return await receive()

    app, outcome = kept(app)
    with serve(app).wire() as wire:
        assert OverHTTP1(wire).read_close() == (3000, "enough")
    assert outcome() == {"type": "websocket.disconnect", "code": 3000, "reason": "enough"}


def test_an_app_may_mend_a_wrong_accept(serve, open_socket):
    async def app(scope, receive, send):
        with pytest.raises(portico.ResponseError):
            await send({**ACCEPT, "headers": [(b"upgrade", b"x")]})
        await send(ACCEPT)

    assert open_socket(serve(off(app))).socket.read_close() == (1000, "")


def test_limits_are_those_that_were_given(serve):
    served = serve(off(echo, max_message_bytes=10))
    with served.wire() as wire:
        socket = OverHTTP1(wire)
        socket.send(frame(TEXT, "x" * 10))
        assert socket.read() == (TEXT, b"x" * 10)
        socket.send(frame(TEXT, "x" * 11))
        assert socket.read_close()[0] == 1009
    for wrong in (
        {"max_message_bytes": 0},
        {"ping_interval": -1},
        {"idle_timeout": 0},
        {"origins": "https://good.test"},
        {"compression": None},
    ):
        with pytest.raises(portico.ConfigError, match=f"asgi: {next(iter(wrong))}"):
            off(echo, **wrong)


def test_pings_come_as_often_as_was_said(serve):
    with serve(off(echo, ping_interval=0.01)).wire() as wire:
        assert OverHTTP1(wire).read() == (9, b"")


def test_a_socket_without_messages_is_ended_as_was_said(serve):
    with serve(off(echo, idle_timeout=0.3)).wire() as wire:
        assert OverHTTP1(wire).read_close() == (1001, "idle")


def test_only_origins_that_were_given_reach_the_app(serve, open_socket):
    called = []

    async def app(scope, receive, send):
        called.append(dict(scope["headers"])[b"origin"])
        await echo(scope, receive, send)

    served = serve(off(app, origins=["https://good.test"]))
    assert open_socket(served, "/", ("origin", "https://evil.test")).status == 403
    assert open_socket(served, "/").status == 403
    assert open_socket(served, "/", ("origin", "https://good.test")).accepted
    assert called == [b"https://good.test"]


def test_messages_are_compressed_unless_that_is_turned_off(serve):
    async def app(scope, receive, send):
        await open_up(receive, send)
        text = (await receive())["text"]
        await send({"type": "websocket.send", "text": text})

    for options, extensions in (({}, ["permessage-deflate"]), ({"compression": False}, [])):
        served = serve(off(app, **options))
        with connect(f"ws://localhost:{served.clear}/") as client:
            assert [extension.name for extension in client.protocol.extensions] == extensions
            client.send("hello " * 100)
            assert client.recv(GENEROUS) == "hello " * 100


def test_on_the_programs_own_loop(make_server):
    async def app(scope, receive, send):
        threads.add(threading.get_ident())
        await echo(scope, receive, send)

    async def talk(url, number):
        async with connect_async(url, proxy=None) as client:
            for _ in range(10):
                await client.send(str(number))
                assert await client.recv() == str(number)

    async def main():
        async with make_server(off(app)) as server:
            url = server.listen(0, tls=False).url.replace("http", "ws", 1)
            await asyncio.wait_for(asyncio.gather(*(talk(url, number) for number in range(20))), GENEROUS)
            return server.stats()["websocket_messages_sent"]

    threads = set()
    assert asyncio.run(main()) == 200
    assert threads == {threading.get_ident()}


# ---- no socket


def test_closing_before_accepting_is_a_403(serve, open_socket):
    async def app(scope, receive, send):
        assert await receive() == CONNECT
        await send({"type": "websocket.close", "code": 3000})
        return await receive()

    app, outcome = kept(app)
    served = serve(app)
    one = open_socket(served)
    assert (one.status, one.body) == (403, b"403 Forbidden\n")
    assert outcome() == {"type": "websocket.disconnect", "code": 1006, "reason": ""}
    assert served.stat("websockets") == 0
    assert served.stat("handler_failures") == 0


@pytest.mark.parametrize("behind", ["server", "router"])
def test_a_denial_with_a_response_of_its_own(serve, open_socket, behind):
    async def app(scope, receive, send):
        headers = [(b"content-type", b"text/plain"), (b"x-a", b"1")]
        await send({"type": "websocket.http.response.start", "status": 401, "headers": headers})
        await send({"type": "websocket.http.response.body", "body": b"who ", "more_body": True})
        await send({"type": "websocket.http.response.body", "body": b"are you?"})

    handler = off(app)
    if behind == "router":
        handler = portico.Router()
        handler.add_middleware(leave=lambda request, response: response)
        handler.mount("/", off(app))
    one = open_socket(serve(handler))
    assert (one.status, one.header("x-a"), one.body) == (401, "1", b"who are you?")


def test_an_app_that_raises_before_accepting_is_a_500_and_told(serve, open_socket):
    async def app(scope, receive, send):
        raise ZeroDivisionError("on purpose")

    served = serve(off(app))
    assert open_socket(served, "/bad").status == 500
    error, request = served.errors.next()
    assert (type(error), request.path) == (ZeroDivisionError, "/bad")


@pytest.mark.parametrize(
    ("status", "asked"),
    [(426, ASKED.replace("13", "8")), (400, ASKED.replace("==", ""))],
)
def test_what_is_no_handshake_does_not_reach_the_app(serve, status, asked):
    async def app(scope, receive, send):
        called.append(scope)

    called = []
    with serve(off(app)).wire() as wire:
        assert wire.get("/", asked).status == status
    assert called == []


def test_the_setting_that_turns_it_off(serve):
    with serve(off(echo), websocket=False).wire() as wire:
        assert wire.get("/", ASKED).status == 501


def test_a_client_that_leaves_before_it_is_accepted(serve):
    async def app(scope, receive, send):
        here.set()
        await asyncio.Event().wait()

    here = threading.Event()
    app, outcome = kept(app)
    served = serve(app)
    wire = served.wire()
    wire.send(f"GET / HTTP/1.1\r\nHost: h\r\n{ASKED}\r\n")
    assert here.wait(GENEROUS)
    wire.close()
    assert isinstance(outcome(), asyncio.CancelledError)


def test_handler_timeout_is_for_the_handshake(serve):
    async def app(scope, receive, send):
        if scope["path"] == "/late":
            await asyncio.Event().wait()
        await open_up(receive, send)
        assert (await receive())["text"] == "still there?"
        await asyncio.sleep(1.2)
        await send({"type": "websocket.send", "text": "yes"})

    app, outcome = kept(app)
    served = serve(app, handler_timeout=1)
    with served.wire() as wire:
        assert wire.get("/late", ASKED).status == 503
    assert isinstance(outcome(), asyncio.CancelledError)
    with served.wire() as wire:
        socket = OverHTTP1(wire)
        socket.send(frame(TEXT, "still there?"))
        assert socket.read() == (TEXT, b"yes")


# ---- the end


@pytest.mark.parametrize(
    ("said", "code", "reason"),
    [(close(3001, "later"), 3001, "later"), (close(), 1005, ""), (frame(TEXT, b"\xff"), 1007, None), (None, 1006, "")],
    ids=["code", "no code", "broken rule", "lost"],
)
def test_how_it_ended(serve, open_socket, said, code, reason):
    async def app(scope, receive, send):
        await open_up(receive, send)
        first = await receive()
        assert await receive() == first, "as often as it is asked for"
        with pytest.raises(OSError, match=str(code)):
            await send({"type": "websocket.send", "text": "a"})
        with pytest.raises(OSError, match=str(code)):
            await send({"type": "websocket.close"})
        return first

    app, outcome = kept(app)
    served = serve(app)
    one = open_socket(served)
    assert one.accepted
    if said:
        one.socket.send(said)
    else:
        one.leave()
    ended = outcome()
    assert ended["type"] == "websocket.disconnect"
    assert ended["code"] == code
    assert reason is None or ended["reason"] == reason
    served.wait_stat("websockets_open", value=0)
    assert served.stat("handler_failures") == 0


def test_an_app_that_raises_is_1011_and_told(serve, open_socket):
    async def app(scope, receive, send):
        await open_up(receive, send)
        await receive()
        raise ZeroDivisionError("on purpose")

    served = serve(off(app))
    one = open_socket(served, "/bad")
    one.socket.send(frame(TEXT, "a"))
    assert one.socket.read_close()[0] == 1011
    error, request = served.errors.next()
    assert (type(error), request.path) == (ZeroDivisionError, "/bad")
    served.wait_stat("handler_failures")


@pytest.mark.parametrize("wrapped", [False, True])
def test_what_comes_of_a_client_that_left_is_no_failure(serve, caplog, wrapped):
    async def app(scope, receive, send):
        await send(ACCEPT)
        while True:
            try:
                await send({"type": "websocket.send", "bytes": bytes(1000)})
            except OSError as error:
                if wrapped:
                    raise RuntimeError("a framework's own") from error
                raise

    caplog.set_level(logging.INFO, "portico.error")
    app, outcome = kept(app)
    served = serve(app)
    with served.wire() as wire:
        assert OverHTTP1(wire).read() == (BINARY, bytes(1000))
    assert isinstance(outcome(), RuntimeError if wrapped else BrokenPipeError)
    wait_until(lambda: "the client has left" in caplog.text)
    assert served.stat("handler_failures") == 0
    assert served.errors.given.empty()


def test_a_failure_after_the_client_has_left_is_told(serve):
    async def app(scope, receive, send):
        await open_up(receive, send)
        await receive()
        raise ZeroDivisionError("on purpose")

    served = serve(off(app))
    with served.wire() as wire:
        OverHTTP1(wire).send(close())
        assert isinstance(served.errors.next()[0], ZeroDivisionError)


def test_the_server_ends(serve, open_socket):
    async def app(scope, receive, send):
        await open_up(receive, send)
        return await receive()

    app, outcome = kept(app)
    served = serve(app)
    one = open_socket(served)
    closing = threading.Thread(target=served.server.close, kwargs={"grace": GENEROUS})
    closing.start()
    assert one.socket.read_close()[0] == 1001
    one.socket.send(close(1001))
    assert outcome()["code"] == 1001
    closing.join(GENEROUS)
    assert not closing.is_alive()


def test_an_app_that_does_not_end_is_cancelled_with_the_grace(serve):
    async def app(scope, receive, send):
        await send(ACCEPT)
        await send({"type": "websocket.send", "text": "here"})
        await asyncio.Event().wait()

    app, outcome = kept(app)
    served = serve(app)
    with served.wire() as wire:
        assert OverHTTP1(wire).read() == (TEXT, b"here")
        served.server.close(grace=0.1)
        assert isinstance(outcome(), asyncio.CancelledError)
    assert served.errors.given.empty()
