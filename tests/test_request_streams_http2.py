"""Bodies of requests that handlers take as they come, over HTTP/2."""

import asyncio
import queue
import random
import threading
from contextlib import suppress

import h2.errors
import h2.events
import pytest

import portico
from frames import H2

both = pytest.mark.parametrize("kind", ["def", "async def"])


@pytest.fixture
def serve_h2(serve):
    """HTTP/2 by hand, in the clear, to a server of its own."""
    wires = []

    def serve_h2(handler, **settings):
        handler.stream_body = True
        served = serve(handler, **settings)
        wires.append(served.wire())
        return served, H2(wires[-1])

    yield serve_h2
    for wire in wires:
        wire.close()


def counting(kind, each=lambda piece: None):
    """A handler, `def` or `async def`, that calls `each(piece)` and answers with how much there was."""

    def plain(request):
        size = 0
        for piece in request.stream():
            each(piece)
            size += len(piece)
        return {"statusCode": 200, "body": str(size)}

    async def coroutine(request):
        size = 0
        async for piece in request.stream():
            each(piece)
            size += len(piece)
        return {"statusCode": 200, "body": str(size)}

    return plain if kind == "def" else coroutine


@both
def test_pieces_come_while_the_client_still_sends(kind, serve_h2):
    seen = queue.Queue()
    served, client = serve_h2(counting(kind, seen.put))
    stream = client.open(method="POST", end=False)
    for piece in (b"one", b"two", b"six"):
        client.data(stream, piece)
        assert seen.get(timeout=20) == piece
    client.data(stream, b"", end=True)
    assert client.reply(stream).text == "9"
    assert served.stat("requests", "2") == 1


@both
def test_with_a_time_out_for_handlers_too(kind, serve_h2):
    seen = queue.Queue()
    _, client = serve_h2(counting(kind, seen.put), handler_timeout=20)
    stream = client.open(method="POST", end=False)
    client.data(stream, b"one")
    assert seen.get(timeout=20) == b"one"
    client.data(stream, b"two", end=True)
    assert client.reply(stream).text == "6"


@both
def test_100_continue_is_sent_when_the_handler_asks(kind, serve_h2):
    called, ask = threading.Event(), threading.Event()

    def plain(request):
        called.set()
        ask.wait(20)
        return {"statusCode": 200, "body": b"".join(request.stream())}

    async def coroutine(request):
        called.set()
        await asyncio.get_running_loop().run_in_executor(None, ask.wait, 20)
        return {"statusCode": 200, "body": await request.read()}

    _, client = serve_h2(plain if kind == "def" else coroutine)
    stream = client.open(("expect", "100-continue"), method="POST", end=False)
    assert called.wait(20)
    # What the server says to this comes after whatever it has said.
    client.connection.ping(b"12345678")
    client.flush()
    first = client.wait_for((h2.events.InformationalResponseReceived, h2.events.PingAckReceived))
    assert isinstance(first, h2.events.PingAckReceived)
    ask.set()
    interim = client.wait_for((h2.events.InformationalResponseReceived, h2.events.ResponseReceived), stream)
    assert [tuple(header) for header in interim.headers] == [(":status", "100")]
    client.data(stream, b"hello", end=True)
    assert client.reply(stream).body == b"hello"


def test_no_100_continue_after_an_answer(serve_h2):
    def handler(request):
        return {"statusCode": 403}

    _, client = serve_h2(handler)
    stream = client.open(("expect", "100-continue"), method="POST", end=False)
    first = client.wait_for((h2.events.InformationalResponseReceived, h2.events.ResponseReceived), stream)
    assert isinstance(first, h2.events.ResponseReceived)
    assert dict(first.headers)[":status"] == "403"
    assert client.reply(client.open()).status == 403, "the connection goes on"


def test_no_100_continue_to_a_client_that_has_reset_meanwhile(serve_h2):
    called, ask, over = threading.Event(), threading.Event(), queue.Queue()

    def handler(request):
        if request.path == "/later":
            return {"statusCode": 200}
        called.set()
        ask.wait(20)
        try:
            over.put(b"".join(request.stream()))
        except Exception as error:
            over.put(error)
        return {"statusCode": 200}

    _, client = serve_h2(handler)
    stream = client.open(("expect", "100-continue"), method="POST", end=False)
    assert called.wait(20)
    client.connection.reset_stream(stream)
    client.flush()
    client.connection.ping(b"12345678")
    client.flush()
    assert client.wait_for(h2.events.PingAckReceived)
    ask.set()
    assert isinstance(over.get(timeout=20), Exception)
    # The client of this test would not bear a head on that stream.
    assert client.reply(client.open(path="/later")).status == 200


def test_trailers_are_dropped(serve_h2):
    seen = queue.Queue()
    _, client = serve_h2(counting("def", seen.put))
    stream = client.open(method="POST", end=False)
    client.data(stream, b"one")
    assert seen.get(timeout=20) == b"one"
    client.connection.send_headers(stream, [("x-trailer", "1")], end_stream=True)
    client.flush()
    assert client.reply(stream).text == "3"


@both
def test_the_window_closes_on_a_client_whose_handler_does_not_read(kind, serve_h2):
    go = threading.Event()

    def plain(request):
        go.wait(20)
        return {"statusCode": 200, "body": str(sum(map(len, request.stream())))}

    async def coroutine(request):
        await asyncio.get_running_loop().run_in_executor(None, go.wait, 20)
        return {"statusCode": 200, "body": str(len(await request.read()))}

    # The time in which nothing is read for want of room is not the client's.
    settings = {"max_request_read_bytes": 2**23, "body_timeout": 0.5}
    _, client = serve_h2(plain if kind == "def" else coroutine, **settings)
    client.wait_for(h2.events.RemoteSettingsChanged)
    stream = client.open(method="POST", end=False)
    client.wire.sock.settimeout(1.5)
    with suppress(TimeoutError):
        client.send_body(stream, bytes(4 * 2**20))
    left = client.unsent
    assert 64 * 1024 < 4 * 2**20 - len(left) < 2**20
    # A file of a socket that has timed out reads no more.
    client.wire.sock.settimeout(20)
    client.wire.file = client.wire.sock.makefile("rb")
    go.set()
    client.send_body(stream, left)
    assert not client.unsent
    client.data(stream, b"", end=True)
    assert client.reply(stream).text == str(4 * 2**20)


@both
def test_a_body_over_the_limit_raises_in_the_stream_and_is_answered_413(kind, serve_h2):
    seen = queue.Queue()
    served, client = serve_h2(counting(kind, seen.put), max_request_read_bytes=1000)
    stream = client.open(method="POST", end=False)
    client.data(stream, bytes(1000))
    assert len(seen.get(timeout=20)) == 1000
    client.data(stream, b"x")
    assert client.reply(stream).status == 413
    error, _ = served.errors.next(portico.LimitError)
    assert error.status == 413


@both
def test_a_body_that_is_declared_too_long_is_refused_without_its_handler(kind, serve_h2):
    seen = queue.Queue()
    _, client = serve_h2(counting(kind, seen.put), max_request_read_bytes=1000)
    stream = client.open(("content-length", "1001"), method="POST", end=False)
    assert client.reply(stream).status == 413
    assert seen.empty()


@both
def test_a_body_without_progress_is_answered_408(kind, serve_h2):
    _, client = serve_h2(counting(kind), body_timeout=0.3)
    stream = client.open(method="POST", end=False)
    client.data(stream, b"x")
    assert client.reply(stream).status == 408


@pytest.mark.parametrize("way", ["reset", "closed"])
def test_a_client_that_leaves_within_its_body_is_a_connection_error_in_the_stream(way, serve_h2):
    called, raised = threading.Event(), queue.Queue()

    def handler(request):
        called.set()
        try:
            return {"statusCode": 200, "body": request.body}
        except ConnectionError as error:
            raised.put(error)
            raise

    served, client = serve_h2(handler)
    stream = client.open(method="POST", end=False)
    client.data(stream, b"half")
    assert called.wait(20)
    if way == "reset":
        client.connection.reset_stream(stream, h2.errors.ErrorCodes.CANCEL)
        client.flush()
    else:
        client.wire.close()
    assert isinstance(raised.get(timeout=20), ConnectionResetError)
    served.wait_stat("requests_aborted")


@both
def test_an_answer_before_the_body_ends_asks_for_no_more_of_it(kind, serve_h2):
    def plain(request):
        return {"statusCode": 403, "body": b"no" * 50_000}

    async def coroutine(request):
        return {"statusCode": 403, "body": b"no" * 50_000}

    served, client = serve_h2(plain if kind == "def" else coroutine)
    stream = client.open(method="POST", end=False)
    reply = client.reply(stream)
    assert (reply.status, reply.body) == (403, b"no" * 50_000)
    reset = client.wait_for(h2.events.StreamReset, stream)
    assert reset.error_code == h2.errors.ErrorCodes.NO_ERROR
    # The client did nothing wrong, and the connection is as good as before.
    assert served.stat("requests_aborted") == 0
    stream = client.open()
    assert client.reply(stream).status == 403


@both
@pytest.mark.parametrize("direct", [True, False], ids=["the stream itself", "a generator"])
def test_an_echo_goes_both_ways_at_once(kind, direct, serve):
    def plain(request):
        return {"statusCode": 200, "body": request.stream() if direct else (piece for piece in request.stream())}

    async def coroutine(request):
        async def pieces():
            async for piece in request.stream():
                yield piece

        return {"statusCode": 200, "body": request.stream() if direct else pieces()}

    handler = plain if kind == "def" else coroutine
    handler.stream_body = True
    sent = random.Random(1).randbytes(10 * 2**20)
    served = serve(handler)
    with served.wire() as wire:
        client = H2(wire)
        client.wait_for(h2.events.RemoteSettingsChanged)
        stream = client.open(method="POST", end=False)
        client.data(stream, sent[:5])
        first = client.wait_for(h2.events.DataReceived, stream)
        assert first.data == sent[:5], "what came is sent back while the rest is not there"
        client.send_body(stream, sent[5:])
        assert not client.unsent
        client.data(stream, b"", end=True)
        # The head, which came before the first piece, is still among the events.
        assert sent[5:] == client.body(stream)
