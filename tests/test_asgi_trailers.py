"""Trailers of ASGI applications: the specification's extension `http.response.trailers`, over HTTP/1.1 and HTTP/2."""

import asyncio
import contextlib
import gzip
import threading

import h2.errors
import h2.events
import pytest

import portico
from clients import GENEROUS, Reply, curl, run
from frames import H2

START = {
    "type": "http.response.start",
    "status": 200,
    "headers": [(b"content-type", b"application/octet-stream"), (b"trailer", b"x-sum, x-time")],
    "trailers": True,
}
BODY = {"type": "http.response.body", "body": b"fine"}
# More than is looked at before the head is sent, so it leaves before anything can go wrong behind it.
LONG = {**BODY, "body": bytes(20_000)}
TRAILERS = {"type": "http.response.trailers", "headers": [(b"x-sum", b"abc"), (b"x-time", b" 5 ms ")]}
SENT = [("x-sum", "abc"), ("x-time", "5 ms")]
TAKES = ("TE", "trailers")

PROTOCOLS = pytest.mark.parametrize("http2", [False, True], ids=["h1", "h2"])


def app(*messages, after=lambda: None):
    """An application that sends these."""

    async def app(scope, receive, send):
        for message in messages:
            await send(message)
        after()

    return portico.asgi(app, lifespan="off")


@pytest.fixture
def ask():
    """Asks a server, by bytes or frames of one's own: the reply, and its trailers, None where the response breaks off."""
    with contextlib.ExitStack() as stack:

        def ask(served, http2, *headers, method="GET", path="/"):
            wire = stack.enter_context(served.wire())
            if not http2:
                lines = "".join(f"{name}: {value}\r\n" for name, value in headers)
                wire.send(f"{method} {path} HTTP/1.1\r\nHost: localhost\r\n{lines}\r\n")
                return read(wire, method)
            client = H2(wire)
            stream = client.open(*((name.lower(), value) for name, value in headers), method=method, path=path)
            return read_stream(client, stream)

        yield ask


def lines(wire):
    """Header lines up to an empty one."""
    while (line := wire.file.readline()) != b"\r\n":
        assert line.endswith(b"\r\n"), f"it breaks off in {line}"
        name, value = line.decode().rstrip("\r\n").split(": ", 1)
        yield name, value


def read(wire, method="GET"):
    version, status, _ = wire.file.readline().decode().split(" ", 2)
    reply = Reply(int(status), list(lines(wire)), b"", version)
    if reply.header("transfer-encoding") != "chunked":
        if method != "HEAD":
            reply.body = wire.file.read(int(reply.header("content-length") or 0))
        return reply, []
    assert reply.header("content-length") is None
    while (size := wire.file.readline()) != b"0\r\n":
        if not size:
            return reply, None
        piece = wire.file.read(int(size, 16) + 2)
        assert piece.endswith(b"\r\n")
        reply.body += piece[:-2]
    return reply, list(lines(wire))


def read_stream(client, stream):
    head = client.wait_for((h2.events.ResponseReceived, h2.events.StreamReset), stream)
    headers = list(head.headers)
    reply, trailers = Reply(int(headers.pop(0)[1]), headers, b"", "HTTP/2"), []
    kinds = (h2.events.DataReceived, h2.events.TrailersReceived, h2.events.StreamEnded, h2.events.StreamReset)
    while not isinstance(event := client.wait_for(kinds, stream), h2.events.StreamEnded):
        if isinstance(event, h2.events.StreamReset):
            assert event.error_code == h2.errors.ErrorCodes.INTERNAL_ERROR
            return reply, None
        if isinstance(event, h2.events.DataReceived):
            reply.body += event.data
        else:
            trailers = list(event.headers)
    return reply, trailers


# ---- to whom they are offered


@PROTOCOLS
@pytest.mark.parametrize(
    ("headers", "method", "offered"),
    [
        ([TAKES], "GET", True),
        ([("TE", "trailers"), ("Connection", "TE")], "POST", True),
        ([], "GET", False),
        ([TAKES], "HEAD", False),
    ],
    ids=["asked", "as RFC 9110 has it", "not asked", "HEAD"],
)
def test_they_are_offered_where_the_client_takes_them(http2, headers, method, offered, serve, ask):
    async def app(scope, receive, send):
        seen.append(scope["extensions"])
        await send({**START, "trailers": False})
        await send(BODY)

    if http2:
        headers = [header for header in headers if header[0] == "TE"]
    seen = []
    ask(serve(portico.asgi(app, lifespan="off")), http2, *headers, method=method)
    assert seen == [{"http.response.pathsend": {}, **({"http.response.trailers": {}} if offered else {})}]


@pytest.mark.parametrize(
    ("te", "offered"),
    [
        ("gzip;q=0.5, Trailers", True),
        ("trailers,gzip", True),
        ("", False),
        ("trailer", False),
        ("xtrailers", False),
        ("gzip;trailers", False),
    ],
)
def test_te_is_a_list(te, offered, serve, ask):
    served = serve(app(START, BODY, TRAILERS))
    reply, trailers = ask(served, False, ("TE", te))
    assert (reply.body, trailers) == (b"fine", SENT if offered else [])


def test_several_lines_of_te_are_one_list(serve, ask):
    served = serve(app(START, BODY, TRAILERS))
    assert ask(served, False, ("TE", "gzip"), TAKES)[1] == SENT


# ---- what is sent


@PROTOCOLS
def test_they_follow_the_body(http2, serve, ask):
    served = serve(app(START, {**BODY, "body": b"so ", "more_body": True}, BODY, TRAILERS))
    reply, trailers = ask(served, http2, TAKES)
    assert (reply.status, reply.body, trailers) == (200, b"so fine", SENT)
    assert reply.header("trailer") == "x-sum, x-time"
    assert served.stat("responses", "2xx") == 1


@PROTOCOLS
def test_the_body_need_not_come_in_pieces(http2, serve, ask):
    reply, trailers = ask(serve(app(START, BODY, TRAILERS)), http2, TAKES)
    assert (reply.body, trailers) == (b"fine", SENT)


@PROTOCOLS
def test_there_may_be_no_body(http2, serve, ask):
    reply, trailers = ask(serve(app(START, {"type": "http.response.body"}, TRAILERS)), http2, TAKES)
    assert (reply.status, reply.body, trailers) == (200, b"", SENT)


@PROTOCOLS
@pytest.mark.parametrize("body", [b"fine", b""])
def test_they_follow_a_body_whose_length_was_said(http2, body, serve, ask):
    """Over HTTP/1.1 it comes in chunks then, without the length: there is no other place for them."""
    length = (b"content-length", str(len(body)).encode())
    start = {**START, "headers": [*START["headers"], length]}
    reply, trailers = ask(serve(app(start, {**BODY, "body": body}, TRAILERS)), http2, TAKES)
    assert (reply.body, trailers) == (body, SENT)
    assert reply.header("content-length") == (str(len(body)) if http2 else None)


@PROTOCOLS
def test_they_may_come_in_several_messages(http2, serve, ask):
    first, second = ({**TRAILERS, "headers": [header]} for header in TRAILERS["headers"])
    served = serve(app(START, BODY, {**first, "more_trailers": True}, {**second, "more_trailers": False}))
    assert ask(served, http2, TAKES)[1] == SENT


@PROTOCOLS
def test_there_may_be_none_in_the_end(http2, serve, ask):
    served = serve(app(START, BODY, {"type": "http.response.trailers"}))
    reply, trailers = ask(served, http2, TAKES)
    assert (reply.body, trailers) == (b"fine", [])


@PROTOCOLS
def test_one_name_may_come_twice(http2, serve, ask):
    twice = {**TRAILERS, "headers": iter([[b"X-Step", b"1"], (b"x-step", b"2")])}
    assert ask(serve(app(START, BODY, twice)), http2, TAKES)[1] == [("x-step", "1"), ("x-step", "2")]


@PROTOCOLS
def test_the_body_leaves_before_they_are_known(http2, serve):
    async def app(scope, receive, send):
        await send(START)
        await send(BODY)
        await asyncio.to_thread(went_on.wait, GENEROUS)
        await send(TRAILERS)

    went_on = threading.Event()
    with serve(portico.asgi(app, lifespan="off")).wire() as wire:
        if http2:
            client = H2(wire)
            stream = client.open(("te", "trailers"))
            assert client.wait_for(h2.events.DataReceived, stream).data == b"fine"
            went_on.set()
            assert list(client.wait_for(h2.events.TrailersReceived, stream).headers) == SENT
        else:
            wire.send("GET / HTTP/1.1\r\nHost: localhost\r\nTE: trailers\r\n\r\n")
            while wire.file.readline() != b"\r\n":
                pass
            assert wire.file.read(9) == b"4\r\nfine\r\n"
            went_on.set()
            assert wire.file.readline() == b"0\r\n"
            assert list(lines(wire)) == SENT


def test_they_follow_a_body_that_the_windows_hold_up(serve):
    """HTTP/2 keeps them behind what the client has not let come yet."""
    body = bytes(300_000)
    with serve(app(START, {**BODY, "body": body}, TRAILERS)).wire() as wire:
        client = H2(wire)
        client.windows(1_000)
        reply, trailers = read_stream(client, client.open(("te", "trailers")))
        assert (reply.body, trailers) == (body, SENT)


def test_the_connection_goes_on(serve):
    served = serve(app(START, BODY, TRAILERS))
    with served.wire() as wire:
        for _ in range(3):
            wire.send("GET / HTTP/1.1\r\nHost: localhost\r\nTE: trailers\r\n\r\n")
            reply, trailers = read(wire)
            assert (reply.body, trailers) == (b"fine", SENT)
        # Each has what it asks for, in one connection and one read.
        wire.send("GET / HTTP/1.1\r\nHost: localhost\r\nTE: trailers\r\n\r\nGET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert [read(wire)[1], read(wire)[1]] == [SENT, []]


def test_a_long_list_is_sent_whole(serve, ask):
    many = [(f"x-{number}".encode(), b"v" * 100) for number in range(1_000)]
    served = serve(app(START, BODY, {**TRAILERS, "headers": many}))
    expected = [(name.decode(), value.decode()) for name, value in many]
    assert ask(served, False, TAKES)[1] == expected


# ---- where they are not


@PROTOCOLS
@pytest.mark.parametrize("more_body", [False, True])
def test_who_does_not_ask_gets_the_same_without(http2, more_body, serve, ask):
    body = [{**BODY, "more_body": True}, {**BODY, "body": b""}] if more_body else [BODY]
    served = serve(app(START, *body, {**TRAILERS, "more_trailers": True}, TRAILERS))
    reply, trailers = ask(served, http2)
    assert (reply.status, reply.body, trailers) == (200, b"fine", [])
    if not more_body:
        assert reply.header("content-length") == "4"


@PROTOCOLS
@pytest.mark.parametrize(("method", "status"), [("HEAD", 200), ("GET", 204), ("GET", 304)])
def test_a_response_without_a_body_has_none(http2, method, status, serve, ask):
    sent = threading.Event()
    messages = [{**START, "status": status}, {"type": "http.response.body"}, TRAILERS]
    served = serve(app(*messages, after=sent.set))
    reply, trailers = ask(served, http2, TAKES, method=method)
    assert (reply.status, reply.body, trailers) == (status, b"", [])
    assert reply.header("transfer-encoding") is None
    assert sent.wait(GENEROUS), "it is no failure of the app's"


def test_http_1_0_has_none(serve):
    with serve(app(START, {**BODY, "more_body": True}, BODY, TRAILERS)).wire() as wire:
        wire.send("GET / HTTP/1.0\r\nTE: trailers\r\n\r\n")
        head, _, body = wire.rest().partition(b"\r\n\r\n")
        assert body == b"finefine"
        assert b"chunked" not in head


@PROTOCOLS
def test_an_app_that_does_not_announce_them_has_none(http2, serve, ask):
    """The response ends with its body, and what follows the end is ignored."""
    served = serve(app({**START, "trailers": False}, BODY, TRAILERS))
    reply, trailers = ask(served, http2, TAKES)
    assert (reply.body, trailers, reply.header("content-length")) == (b"fine", [], "4")


def test_a_handler_that_calls_the_app_is_not_offered_any(serve, ask):
    """Its response is returned, and a dict has no place for them."""

    async def inner(scope, receive, send):
        seen.append(scope["extensions"])
        for message in (START, BODY, TRAILERS):
            await send(message)

    async def outer(request):
        return await called(request)

    seen, called = [], portico.asgi(inner, lifespan="off")
    reply, trailers = ask(serve(outer), False, TAKES)
    assert (reply.body, trailers) == (b"fine", [])
    assert list(seen[0]) == ["http.response.pathsend"]


def test_a_file_has_none(serve, ask, tmp_path):
    file = tmp_path / "f"
    file.write_bytes(b"file")
    served = serve(app(START, {"type": "http.response.pathsend", "path": str(file)}, TRAILERS))
    reply, trailers = ask(served, False, TAKES)
    assert (reply.body, trailers) == (b"file", [])


# ---- compression


TEXT = b"a line of text\n" * 500


def compressed(*announced, trailers):
    headers = [(b"content-type", b"text/plain"), *((b"trailer", name) for name in announced)]
    return app({**START, "headers": headers}, {**BODY, "body": TEXT}, {**TRAILERS, "headers": trailers})


@PROTOCOLS
def test_they_follow_a_compressed_body(http2, serve, ask):
    served = serve(compressed(trailers=TRAILERS["headers"]))
    reply, trailers = ask(served, http2, TAKES, ("Accept-Encoding", "gzip"))
    assert reply.header("content-encoding") == "gzip"
    assert (gzip.decompress(reply.body), trailers) == (TEXT, SENT)


def test_a_digest_that_is_announced_keeps_the_body_as_it_is(serve, ask):
    digest = (b"content-digest", b"sha-256=:AA==:")
    served = serve(compressed(b"X-Sum, Content-Digest", trailers=[digest]))
    reply, trailers = ask(served, False, TAKES, ("Accept-Encoding", "gzip"))
    assert reply.header("content-encoding") is None
    assert (reply.body, trailers) == (TEXT, [("content-digest", "sha-256=:AA==:")])


def test_what_would_be_wrong_of_a_compressed_body_is_not_said(serve, ask):
    served = serve(compressed(trailers=[(b"repr-digest", b"sha-256=:AA==:"), (b"etag", b'"1"'), (b"x-sum", b"abc")]))
    reply, trailers = ask(served, False, TAKES, ("Accept-Encoding", "gzip"))
    assert reply.header("content-encoding") == "gzip"
    assert trailers == [("etag", 'W/"1"'), ("x-sum", "abc")]


# ---- what is wrong


NEVER = ["content-length", "transfer-encoding", "host", "authorization", "set-cookie", "content-type", "trailer", "TE"]
WRONG = {
    **{name: ([(name.encode(), b"x")], f"trailer {name.lower()}: it has no meaning behind a body") for name in NEVER},
    "a pseudo-header": ([(b":status", b"200")], "is no header name"),
    "a name with a space": ([(b"x y", b"")], "is no header name"),
    "a line end": ([(b"x-a", b"1\r\nx-b: 2")], "has a control character"),
    "text": ([("x-a", "1")], "name and value are bytes"),
    "no pair": ([(b"x-a",)], "a [name, value] each"),
    "no list": (5, "http.response.trailers: headers: an iterable"),
    "too many": ([(b"x-a", b"")] * 1_001, "more than 1000 trailers"),
}


@PROTOCOLS
@pytest.mark.parametrize(("headers", "message"), WRONG.values(), ids=WRONG)
def test_a_wrong_one_is_an_error_of_the_app(http2, headers, message, serve, ask):
    """The client sees that the response breaks off. The app is told whoever asks."""
    served = serve(app(START, LONG, {**TRAILERS, "headers": headers}))
    for takes in ([TAKES], []):
        reply, trailers = ask(served, http2, *takes)
        # A reset overtakes what HTTP/2 has not sent yet.
        assert reply.body == LONG["body"] or (takes and http2)
        assert (reply.status, trailers) == (200, None if takes else [])
        assert message in str(served.errors.next(portico.ResponseError)[0])


@PROTOCOLS
def test_a_wrong_one_before_anything_was_sent_is_a_500(http2, serve, ask):
    served = serve(app(START, BODY, {**TRAILERS, "headers": [(b"host", b"x")]}))
    reply, trailers = ask(served, http2, TAKES)
    assert (reply.status, reply.text, trailers) == (500, "500 Internal Server Error\n", [])


@PROTOCOLS
def test_an_app_may_mend_a_wrong_one(http2, serve, ask):
    async def app(scope, receive, send):
        await send(START)
        await send(BODY)
        await send({**TRAILERS, "headers": TRAILERS["headers"][:1], "more_trailers": True})
        for wrong in ([(b"x-good", b"1"), (b"host", b"x")], [(b"x-a", b"")] * 1_000):
            with pytest.raises(portico.ResponseError):
                await send({**TRAILERS, "headers": wrong})
        await send({**TRAILERS, "headers": TRAILERS["headers"][1:]})

    assert ask(serve(portico.asgi(app, lifespan="off")), http2, TAKES)[1] == SENT


TURNS = {
    "trailers before the start": ([TRAILERS, START, BODY, TRAILERS], 0, "before http.response.start"),
    "trailers before the body": ([START, TRAILERS, BODY, TRAILERS], 1, "before the last http.response.body"),
    "trailers within the body": (
        [START, {**BODY, "body": b"", "more_body": True}, TRAILERS, BODY, TRAILERS],
        2,
        "before the last http.response.body",
    ),
    "a body after the last": ([START, BODY, BODY, TRAILERS], 2, "http.response.trailers is due"),
    "a file after the last": (
        [START, BODY, {"type": "http.response.pathsend", "path": __file__}, TRAILERS],
        2,
        "http.response.trailers is due",
    ),
    "a second start": ([START, BODY, START, TRAILERS], 2, "a second http.response.start"),
}


@PROTOCOLS
@pytest.mark.parametrize(("messages", "wrong", "text"), TURNS.values(), ids=TURNS)
def test_messages_out_of_turn(http2, messages, wrong, text, serve, ask):
    async def app(scope, receive, send):
        for number, message in enumerate(messages):
            if number != wrong:
                await send(message)
                continue
            with pytest.raises(portico.ResponseError, match=text):
                await send(message)

    reply, trailers = ask(serve(portico.asgi(app, lifespan="off")), http2, TAKES)
    assert (reply.body, trailers) == (b"fine", SENT), "the response goes on"


@PROTOCOLS
def test_after_the_last_everything_is_ignored(http2, serve, ask):
    done = threading.Event()
    served = serve(app(START, BODY, TRAILERS, TRAILERS, BODY, START, after=done.set))
    assert ask(served, http2, TAKES)[1] == SENT
    assert done.wait(GENEROUS)


@PROTOCOLS
@pytest.mark.parametrize("messages", [[], [{**TRAILERS, "more_trailers": True}]], ids=["none", "more"])
def test_an_app_that_leaves_the_last_one_out_has_not_completed_its_response(http2, messages, serve, ask):
    served = serve(app(START, LONG, *messages))
    reply, trailers = ask(served, http2, TAKES)
    assert (reply.status, trailers) == (200, None)
    error, _ = served.errors.next(portico.ResponseError)
    assert "before its last http.response.trailers" in str(error)
    # Without a client that takes them nothing is missing.
    assert ask(served, http2)[1] == []


@PROTOCOLS
def test_a_body_that_is_shorter_than_said_breaks_off(http2, serve, ask):
    start = {**START, "headers": [(b"content-length", b"20001")]}
    served = serve(app(start, LONG, TRAILERS))
    assert ask(served, http2, TAKES)[1] is None
    assert "1 bytes shorter" in str(served.errors.next(portico.ResponseError)[0])


@PROTOCOLS
def test_an_app_whose_client_has_left_is_told(http2, serve):
    async def app(scope, receive, send):
        await send(START)
        await send(BODY)
        while (await receive())["type"] != "http.disconnect":
            pass
        try:
            await send(TRAILERS)
        except BrokenPipeError as error:
            raised.append(error)
        told.set()

    raised, told = [], threading.Event()
    served = serve(portico.asgi(app, lifespan="off"))
    with served.wire() as wire:
        if http2:
            client = H2(wire)
            assert client.wait_for(h2.events.DataReceived, client.open(("te", "trailers")))
        else:
            wire.send("GET / HTTP/1.1\r\nHost: localhost\r\nTE: trailers\r\n\r\n")
            assert wire.file.readline()
    assert told.wait(GENEROUS)
    assert len(raised) == 1


# ---- other people's clients


def test_curl_shows_them(serve):
    served = serve(app(START, BODY, TRAILERS))
    for version in ("--http1.1", "--http2-prior-knowledge"):
        shown = curl(served.clear, "/", version, "-H", "TE: trailers", "--dump-header", "-")
        assert "x-sum: abc" in shown
        assert "x-time: 5 ms" in shown


def test_nghttp_shows_them(serve):
    served = serve(app(START, BODY, TRAILERS))
    done = run("nghttp", "-v", "-n", "-H", "te: trailers", f"http://127.0.0.1:{served.clear}/")
    received = [line for line in done.stdout.splitlines() if "recv (stream_id" in line]
    assert received[-2].endswith("x-sum: abc"), done.stdout
    assert received[-1].endswith("x-time: 5 ms")
