"""What the ASGI specification asks of a server, sentence by sentence: ASGI 3.0, HTTP message format 2.5.

Each test has the sentence that it holds portico to. Clients that leave are in test_asgi_disconnects.py, lifespans in test_lifespan.py.
"""

from __future__ import annotations

import asyncio
import http
import threading
from concurrent.futures import ThreadPoolExecutor

import h2.errors
import h2.events
import pytest

import portico
from asgi_messages import BODY, LEFT, PROTOCOLS, START, whole
from clients import GENEROUS, Wire, wait_until


@pytest.fixture
def scope_of(serve_asgi):
    """The scope of the request that `ask(served)` makes."""

    def scope_of(ask):
        async def app(scope, receive, send):
            scopes.append(scope)
            await send(START)
            await send(BODY)

        scopes = []
        ask(serve_asgi(app))
        return scopes[0]

    return scope_of


def sends(*messages):
    async def app(scope, receive, send):
        for message in messages:
            await send(message)

    return app


# ---- Connection scope


@PROTOCOLS
def test_scope_is_a_dict_of_the_types_that_messages_may_have(scope_of, http2):
    """`scope` must be a `dict`; byte strings, Unicode strings, integers, floats, lists, dicts with Unicode keys,
    booleans and None."""

    def check(value):
        if isinstance(value, dict):
            assert all(isinstance(key, str) for key in value)
            list(map(check, value.values()))
        elif isinstance(value, list | tuple):
            list(map(check, value))
        else:
            assert value is None or type(value) in (bytes, str, int, float, bool), value

    def ask(served):
        with served.httpx(http2=http2) as client:
            client.get("/a?b", headers={"x": "y"})

    scope = scope_of(ask)
    assert type(scope) is dict
    check(scope)


@PROTOCOLS
def test_scope_has_every_key_with_its_type(scope_of, http2):
    """The connection scope information passed in `scope` contains (...)"""

    def ask(served):
        ports.append(served.port)
        with served.httpx(http2=http2) as client:
            client.request("patch", "/caf%C3%A9%2Fx?q=%20%C3%A9&r", headers=[("X-Up", "1"), ("x-up", "2")])

    ports = []
    scope = scope_of(ask)
    assert scope["type"] == "http"
    assert scope["asgi"]["version"] == "3.0"
    assert scope["asgi"]["spec_version"] in ("2.4", "2.5")
    assert scope["http_version"] == ("2" if http2 else "1.1")
    assert (scope["method"], scope["scheme"]) == ("PATCH", "https")
    assert scope["path"] == "/caf\u00e9/x"
    assert scope["raw_path"] == b"/caf%C3%A9%2Fx"
    assert scope["query_string"] == b"q=%20%C3%A9&r"
    assert scope["root_path"] == ""
    assert [value for name, value in scope["headers"] if name == b"x-up"] == [b"1", b"2"]
    (host, port), server = scope["client"], scope["server"]
    assert (host, type(port)) == ("127.0.0.1", int)
    assert tuple(server) == ("127.0.0.1", ports[0])
    assert isinstance(scope["state"], dict)
    assert all(isinstance(value, dict) for value in scope["extensions"].values())


def test_query_string_is_empty_without_one(scope_of):
    assert scope_of(lambda served: served.get("/x"))["query_string"] == b""


def test_cleartext_has_the_scheme_http(scope_of):
    def ask(served):
        with served.wire() as wire:
            wire.get()

    assert scope_of(ask)["scheme"] == "http"


def test_order_of_values_and_duplicates_are_preserved(scope_of):
    """Order of header values must be preserved; duplicates are possible and must be preserved as received."""

    def ask(served):
        with served.wire() as wire:
            wire.get(headers="Accept: b\r\nX: 1\r\nAccept: a\r\nX: 1\r\n")

    headers = scope_of(ask)["headers"]
    assert [value for name, value in headers if name == b"accept"] == [b"b", b"a"]
    assert [value for name, value in headers if name == b"x"] == [b"1", b"1"]


@pytest.mark.parametrize("given", [[], [("host", "localhost")]], ids=["alone", "beside host"])
def test_authority_is_the_host(scope_of, h2_of, given):
    """Pseudo headers must be removed; `:authority` must be added to the start with `host` as the name, or replace any
    host header already present."""

    def ask(served):
        client = h2_of(served)
        assert client.reply(client.open(("x", "1"), *given)).status == 200

    headers = scope_of(ask)["headers"]
    assert headers == [(b"x", b"1"), (b"host", b"localhost")] if given else [(b"host", b"localhost"), (b"x", b"1")]


def test_cookies_of_http_2_are_a_whole(scope_of, h2_of):
    """In HTTP/2 `Cookie` headers may appear repeatedly, or be concatenated by `; `."""

    def ask(served):
        client = h2_of(served)
        client.reply(client.open(("cookie", "a=1"), ("cookie", "b=2")))

    cookies = [value for name, value in scope_of(ask)["headers"] if name == b"cookie"]
    assert b"; ".join(cookies) == b"a=1; b=2"


def test_streams_have_scopes_of_their_own_and_get_their_own_answers(serve_asgi, h2_of):
    """A server should give different scopes to different requests on the same HTTP/2 connection, and correctly multiplex
    the responses back to the stream in which they came."""

    async def app(scope, receive, send):
        scopes.append(scope)
        if len(scopes) == 5:
            all_came.set()
        await all_came.wait()
        await asyncio.sleep(0.01 * (5 - int(scope["path"][1:])))  # the last one answers first
        await send(START)
        await send({**BODY, "body": scope["path"].encode()})

    scopes, all_came = [], asyncio.Event()
    client = h2_of(serve_asgi(app))
    streams = [client.open(path=f"/{number}") for number in range(5)]
    assert [client.reply(stream).text for stream in streams] == [f"/{number}" for number in range(5)]
    assert len({id(scope) for scope in scopes}) == 5


def test_requests_of_one_connection_are_calls_of_their_own(serve_asgi):
    """Your application will be called at the start of the request, and will last until the end of that request, even if
    the underlying socket is still open."""

    async def app(scope, receive, send):
        calls.append(scope["path"])
        await send(START)
        await send(BODY)

    calls = []
    with serve_asgi(app).wire() as wire:
        assert [wire.get(path).status for path in ("/1", "/2")] == [200, 200]
    assert calls == ["/1", "/2"]


# ---- Request: receive


@PROTOCOLS
@pytest.mark.parametrize("size", [0, 1, 100_000, 5_000_000])
def test_body_is_what_the_messages_say_together(serve_asgi, http2, size):
    """`body`: concatenate on further chunks; `more_body` `False`: the request is complete."""

    async def app(scope, receive, send):
        body = await whole(receive)
        await send(START)
        await send({**BODY, "body": str((len(body), body == bytes(size))).encode()})

    with serve_asgi(app).httpx(http2=http2) as client:
        assert client.post("/", content=bytes(size)).text == str((size, True))


def test_chunked_request_is_decoded(serve_asgi):
    """A request with a `chunked` encoded body should be de-chunked by the server."""

    async def app(scope, receive, send):
        body = await whole(receive)
        await send(START)
        await send({**BODY, "body": body})

    with serve_asgi(app).wire() as wire:
        wire.send("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n")
        wire.send("3\r\nabc\r\n1;x=y\r\nd\r\n0\r\nTrailer: t\r\n\r\n")
        assert wire.read().body == b"abcd"


# ---- Response: send


@PROTOCOLS
def test_order_of_response_headers_is_preserved(serve_asgi, http2):
    """`headers`: order must be preserved in the HTTP response."""
    names = ["x-b", "x-a", "set-cookie", "x-b", "set-cookie", "x-c"]
    headers = [(name.encode(), str(number).encode()) for number, name in enumerate(names)]
    served = serve_asgi(sends({**START, "headers": headers}, BODY))
    with served.httpx(http2=http2) as client:
        came = [(name.lower(), value) for name, value in client.get("/").headers.raw if name.lower() in dict(headers)]
    # h2 keeps lines of one name together. Only their order means something (RFC 9110 section 5.3).
    assert came == (sorted(headers, key=lambda line: names.index(line[0].decode())) if http2 else headers)


@PROTOCOLS
def test_transfer_encoding_is_ignored_and_content_encoding_the_apps(serve_asgi, http2):
    """You may send a `Transfer-Encoding` header, but the server must ignore it. `Content-Encoding` the application still
    controls."""
    headers = [(b"transfer-encoding", b"gzip, chunked"), (b"content-encoding", b"x-own")]
    with serve_asgi(sends({**START, "headers": headers}, BODY)).httpx(http2=http2) as client:
        answer = client.get("/")
    assert (answer.content, answer.headers["content-encoding"]) == (b"fine", "x-own")
    assert "transfer-encoding" not in answer.headers


@PROTOCOLS
def test_bodies_are_concatenated(serve_asgi, http2):
    """`body`: concatenated onto any previous `body` values; if missing `b""`; `more_body`: if missing `False`."""
    parts = [
        {"body": b"one ", "more_body": True},
        {"more_body": True},
        {"body": b"", "more_body": True},
        {"body": b"two"},
    ]
    with serve_asgi(sends(START, *({"type": "http.response.body", **part} for part in parts))).httpx(
        http2=http2
    ) as client:
        assert client.get("/").text == "one two"


@PROTOCOLS
def test_data_is_flushed_before_send_returns(serve_asgi, http2):
    """Protocol servers must flush any data passed to them into the send buffer before returning from a send call."""

    async def app(scope, receive, send):
        await send(START)
        for number in range(3):
            await send({**BODY, "body": b"%d" % number, "more_body": True})
            while not go_on.acquire(blocking=False):  # noqa: ASYNC110
                await asyncio.sleep(0.002)
        await send({**BODY, "body": b"end"})

    go_on = threading.Semaphore(0)
    plain = {"accept-encoding": "identity"}
    with serve_asgi(app).httpx(http2=http2) as client, client.stream("GET", "/", headers=plain) as answer:
        parts = answer.iter_raw()
        for number in range(3):
            assert next(parts) == b"%d" % number
            go_on.release()
        assert b"".join(parts) == b"end"


def test_body_without_a_length_for_an_old_client(serve_asgi):
    """A response with no `Content-Length` may be chunked as the server sees fit: HTTP/1.0 knows no chunks."""

    async def app(scope, receive, send):
        await send(START)
        await send({**BODY, "body": b"one ", "more_body": True})
        await asyncio.sleep(0.01)
        await send({**BODY, "body": b"two"})

    with serve_asgi(app).wire() as wire:
        head, body = wire.send("GET / HTTP/1.0\r\n\r\n").rest().split(b"\r\n\r\n")
    assert body == b"one two"
    assert b"transfer-encoding" not in head.lower()


@PROTOCOLS
def test_what_follows_the_end_is_ignored(serve_asgi, http2):
    """If `False`, response will be taken as complete and closed, and any further messages on the channel will be
    ignored."""

    async def app(scope, receive, send):
        await send(START)
        await send(BODY)
        for message in (BODY, {**BODY, "more_body": True}, START):
            assert await send(message) is None
        done.set()

    done = threading.Event()
    served = serve_asgi(app)
    with served.httpx(http2=http2) as client:
        assert [client.get("/").text for _ in range(2)] == ["fine", "fine"]
    assert done.wait(GENEROUS)
    assert served.errors.given.empty()


WRONG = {
    "unknown type": {"type": "http.response.unheard"},
    "no type": {"status": 200},
    "no status": {"type": "http.response.start"},
    "status of str": {**START, "status": "200"},
    "header of str": {**START, "headers": [("a", "b")]},
    "pseudo header": {**START, "headers": [(b":status", b"200")]},
    "body of str": {**BODY, "body": "text"},
    "body too early": BODY,
    "of a websocket": {"type": "websocket.accept"},
    "no dict": [("type", "http.response.start")],
}


@pytest.mark.parametrize("message", WRONG.values(), ids=WRONG)
def test_an_invalid_event_raises_out_of_send(serve_asgi, message):
    """If a server receives an invalid event dictionary (unknown type, missing keys, wrong types) it should raise an
    exception out of the `send` awaitable back to the application."""

    async def app(scope, receive, send):
        if isinstance(message, dict) and "body" in message and isinstance(message["body"], str):
            await send(START)
        with pytest.raises(portico.ResponseError):
            await send(message)
        if isinstance(message, dict) and isinstance(message.get("body"), str):
            return await send(BODY)
        await send(START)
        await send(BODY)

    assert serve_asgi(app).get().text == "fine"


def test_additional_keys_are_no_error(serve_asgi):
    """The presence of additional keys in the event dictionary should not raise an exception."""
    assert serve_asgi(sends({**START, "later": 1}, {**BODY, "later": None})).get().text == "fine"


def test_status_may_be_an_enum(serve_asgi):
    assert serve_asgi(sends({**START, "status": http.HTTPStatus.NOT_FOUND}, BODY)).get().status == 404


@PROTOCOLS
def test_an_error_of_the_app_ends_its_request_alone(serve_asgi, http2):
    """Servers are free to surface errors that bubble up, but they must terminate the application instance and its
    associated connection."""

    async def app(scope, receive, send):
        if scope["path"] == "/bad":
            raise ZeroDivisionError("on purpose")
        await send(START)
        await send(BODY)

    served = serve_asgi(app)
    with served.httpx(http2=http2) as client:
        assert [client.get(path).status_code for path in ("/", "/bad", "/")] == [200, 500, 200]
    assert served.errors.next(ZeroDivisionError)


@PROTOCOLS
def test_an_error_in_the_middle_is_seen_by_the_client(serve_asgi, h2_of, http2):
    async def app(scope, receive, send):
        await send(START)
        await send({**BODY, "more_body": True})
        while not go_on.is_set():  # noqa: ASYNC110
            await asyncio.sleep(0.002)
        raise ZeroDivisionError("on purpose")

    go_on = threading.Event()
    served = serve_asgi(app)
    if http2:
        client = h2_of(served)
        stream = client.open()
        assert client.wait_for(h2.events.ResponseReceived, stream)
        go_on.set()
        assert client.wait_for(h2.events.StreamReset, stream)
    else:
        with served.wire() as wire:
            wire.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n")
            assert wire.file.readline() == b"HTTP/1.1 200 OK\r\n"
            go_on.set()
            assert not wire.cut().endswith(b"0\r\n\r\n")
    assert served.errors.next(ZeroDivisionError)


@PROTOCOLS
def test_receive_and_send_may_wait_at_once(serve_asgi, http2):
    """`receive` and `send` are awaitable callables: an app may await one in a task beside the other."""

    async def app(scope, receive, send):
        await whole(receive)
        listening = asyncio.create_task(receive())
        await send(START)
        for _ in range(20):
            await asyncio.create_task(send({**BODY, "body": b"x" * 10_000, "more_body": True}))
        await send({**BODY, "body": b""})
        ends.append(await listening)

    ends = []
    with serve_asgi(app).httpx(http2=http2) as client:
        assert len(client.get("/").content) == 200_000
    wait_until(lambda: ends == [LEFT], "the app to hear of the end")


def test_many_clients_at_once(serve_asgi):
    async def app(scope, receive, send):
        body = await whole(receive)
        await send(START)
        await send({**BODY, "body": body[:10], "more_body": True})
        await asyncio.sleep(0)
        await send({**BODY, "body": body[10:]})

    served = serve_asgi(app)

    def client(number):
        with Wire(served.port, context=served.context()) as wire, served.httpx() as other:
            assert wire.get().status == 200
            return all(
                other.post("/", content=b"%d" % n * 20).content == b"%d" % n * 20 for n in range(number, number + 20)
            )

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(client, range(8)))
