"""What people found who tried to break connections in the hands of callbacks, each kept as a test."""

import asyncio
import contextlib
import queue
import threading

import pytest

import portico
from callbacks import Calls
from clients import GENEROUS, Wire, wait_until
from test_by_hand import by_hand, tell

__all__ = ["by_hand"]  # a fixture

KINDS = pytest.mark.parametrize("kind", ["def", "async def"])
GET = "GET / HTTP/1.1\r\nHost: h\r\n\r\n"


def test_a_request_for_another_host_is_misdirected_by_hand_too(serve):
    served = serve(hosts=("public.test", "secret.test"))
    seen = queue.Queue()

    def callback(conn):
        for request in conn.requests():
            seen.put(request.headers["host"])
            conn.respond({"statusCode": 200})

    port = served.server.listen(0, stream=callback).port
    for method, host, status in [
        ("GET", "public.test", 200),
        ("GET", "SECRET.test:443", 421),
        ("HEAD", "secret.test", 421),
    ]:
        with Wire(port, context=served.context(), sni="public.test") as wire:
            reply = wire.send(f"{method} / HTTP/1.1\r\nHost: {host}\r\n\r\n").read(method)
            assert reply.status == status
            if status == 421:
                assert wire.cut() == b""
    assert seen.get(timeout=GENEROUS) == "public.test"
    assert seen.empty()
    error, _ = served.errors.next(portico.RequestError)
    assert (error.reason, error.status) == ("misdirected", 421)


@KINDS
def test_a_server_that_ends_makes_no_upload_complete(stream, kind):
    outcome, begun = queue.Queue(), threading.Event()

    def upload(conn):
        begun.set()
        try:
            outcome.put(conn.read(timeout=GENEROUS))
        except ConnectionAbortedError:
            outcome.put("aborted")
            outcome.put(conn.read(10))
            outcome.put(conn.read(10))
            outcome.put(conn.read())

    async def upload_async(conn):
        begun.set()
        try:
            outcome.put(await conn.read(timeout=GENEROUS))
        except ConnectionAbortedError:
            outcome.put("aborted")
            for n in (10, 10, -1):
                outcome.put(await conn.read(n))

    served = stream(upload if kind == "def" else upload_async)
    with served.connect() as wire:
        wire.send("half")
        assert begun.wait(GENEROUS)
        served.server.close(GENEROUS)
        assert [outcome.get(timeout=GENEROUS) for _ in range(4)] == ["aborted", b"half", b"", b""]


def test_after_its_own_close_a_callback_is_told_of_that(stream):
    def callback(conn):
        conn.close()
        # Until the connection's task is over, and after.
        wait_until(lambda: served.server.stats()["connections_open"] == 0)
        with pytest.raises(portico.ClosedError, match="closed at this end"):
            conn.write(b"x")
        return "done"

    served = stream(calls := Calls(callback))
    with served.connect() as wire:
        assert wire.rest() == b""
    assert calls.outcome() == "done"


def test_bytes_of_a_body_that_is_being_read_are_not_read_raw(by_hand):
    sent = threading.Event()

    async def callback(conn):
        assert await asyncio.to_thread(sent.wait, GENEROUS)
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(conn.read_request(), 1)
        for read in (conn.read(5), conn.read(), conn.read_exactly(5), conn.read_until()):
            with pytest.raises(RuntimeError, match="body is being read"):
                await read
        await conn.write(b"go on")
        await conn.respond(tell(await conn.read_request()))

    with by_hand(callback).connect() as wire:
        wire.send("POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\n\r\n12345")
        sent.set()
        assert wire.file.read(5) == b"go on"
        assert wire.send("67890").read().json()["body"] == "1234567890"


def generator(conn):
    yield conn


async def async_generator(conn):
    yield conn


class Generator:
    def __call__(self, conn):
        yield conn


@pytest.mark.parametrize("callback", [generator, async_generator, Generator()])
def test_a_callback_that_would_do_nothing_is_refused(make_server, callback):
    with pytest.raises(portico.ConfigError, match="has a `yield`"):
        make_server().listen(0, tls=False, stream=callback)


@pytest.mark.parametrize("exception", [GeneratorExit, asyncio.CancelledError])
def test_what_a_coroutine_raises_itself_is_told(stream, exception):
    if exception is asyncio.CancelledError and not hasattr(asyncio.Task, "cancelling"):
        pytest.skip("before Python 3.11 a task cannot tell")

    async def callback(conn):
        if await conn.read(1) == b"x":
            raise exception
        await conn.write(b"fine")

    served = stream(callback)
    with served.connect() as wire:
        assert wire.send("x").rest() == b""
    served.errors.next(exception)
    with served.connect() as wire:
        assert wire.send("y").rest() == b"fine"


def test_wrong_arguments_of_reads(stream):
    def callback(conn):
        for wrong in (3, "\n", None):
            with pytest.raises(TypeError, match="separator: bytes"):
                conn.read_until(wrong)
        with pytest.raises(ValueError, match="limit: a number of bytes"):
            conn.read_until(limit=-1)
        with pytest.raises(ValueError, match="n: a number of bytes"):
            conn.read_exactly(-1)
        with pytest.raises(portico.LimitError):
            conn.read_exactly(1 << 70)
        with pytest.raises(AttributeError, match="'Connection' object has no attribute 'send'"):
            conn.send(b"x")
        return "done"

    served = stream(calls := Calls(callback))
    with served.connect():
        assert calls.outcome() == "done"


@pytest.mark.parametrize("wrong", [1 << 70, 1.5, "3", True, -1])
def test_wrong_limits_of_parse_request(wrong):
    with pytest.raises(portico.ConfigError, match="max_headers"):
        portico.parse_request(GET.encode(), max_headers=wrong)


def test_parse_request_says_where_the_next_one_begins():
    with pytest.raises(portico.RequestError) as caught:
        portico.parse_request((GET + "GET /next").encode())
    assert caught.value.end == len(GET)


@KINDS
def test_what_a_callback_raises_is_told_with_its_connection(stream, kind):
    def fail(conn):
        raise ZeroDivisionError

    async def fail_async(conn):
        raise ZeroDivisionError

    served = stream(fail if kind == "def" else fail_async)
    with served.connect() as wire:
        name = wire.sock.getsockname()
        assert wire.rest() == b""
    _, connection = served.errors.next(ZeroDivisionError)
    assert isinstance(connection, portico.Connection if kind == "def" else portico.AsyncConnection)
    assert connection.peername[1] == name[1]
    served.wait_stat("handler_failures", value=1)


@pytest.mark.parametrize("response", [{"body": "x"}, 3, {"statusCode": 200, "body": iter([b"x"])}], ids=str)
@KINDS
def test_a_response_that_cannot_be_sent_is_a_500(by_hand, kind, response):
    def callback(conn):
        conn.respond(response if conn.read_request() else None)

    async def callback_async(conn):
        await conn.respond(response if await conn.read_request() else None)

    served = by_hand(callback if kind == "def" else callback_async)
    with served.connect() as wire:
        assert wire.send(GET).read().status == 500
        assert wire.rest() == b""
    served.errors.next((portico.ResponseError, RuntimeError))
    served.wait_stat("responses", "5xx", value=1)


def test_a_response_that_cannot_be_sent_adds_nothing_to_ones_own_bytes(by_hand):
    def callback(conn):
        conn.read_request()
        conn.write(b"own")
        with contextlib.suppress(portico.ResponseError):
            conn.respond({})

    with by_hand(callback).connect() as wire:
        assert wire.send(GET).rest() == b"own"


def test_a_timeout_names_the_setting_where_it_is_that(stream):
    def callback(conn):
        with pytest.raises(TimeoutError, match=r"within 0.1 s$"):
            conn.read(1, timeout=0.1)
        with pytest.raises(TimeoutError, match=r"within 0.2 s \(stream_timeout\)$"):
            conn.read(1)
        return "done"

    served = stream(calls := Calls(callback), settings={"stream_timeout": 0.2})
    with served.connect():
        assert calls.outcome() == "done"
