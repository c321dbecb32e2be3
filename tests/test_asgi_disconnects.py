"""What the ASGI specification asks of a server whose client leaves, or whose app takes too long: each test has the sentence
that it holds portico to."""

from __future__ import annotations

import asyncio
import logging
import threading

import h2.errors
import pytest
from starlette.requests import ClientDisconnect

from asgi_messages import BODY, LEFT, PROTOCOLS, START, whole
from clients import GENEROUS
from frames import H2


@pytest.fixture
def leaving(serve):
    """Clients that send a request and leave without the response."""

    def leaving(served, http2, body=None):
        wire = served.wire() if not http2 else served.tls_wire(alpn=["h2"])
        if http2:
            client = H2(wire)
            stream = client.open(method="POST", end=body is None)
            if body is not None:
                client.data(stream, body, end=True)

            def leave():
                client.connection.reset_stream(stream, h2.errors.ErrorCodes.CANCEL)
                client.flush()
        else:
            wire.send(f"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body or b'')}\r\n\r\n")
            wire.send(body or b"")
            leave = wire.close
        wires.append(wire)
        return leave

    wires = []
    yield leaving
    for wire in wires:
        wire.close()


@PROTOCOLS
def test_disconnect_after_the_response(serve_asgi, http2):
    """`http.disconnect`: if receive is called after a response has been sent."""

    async def app(scope, receive, send):
        await whole(receive)
        await send(START)
        await send(BODY)
        for _ in range(3):
            seen.append(await receive())
        done.set()

    seen, done = [], threading.Event()
    with serve_asgi(app).httpx(http2=http2) as client:
        assert client.get("/").text == "fine"
    assert done.wait(GENEROUS)
    assert seen == [LEFT] * 3


@PROTOCOLS
def test_disconnect_of_a_client_that_leaves_before_the_response(serve_asgi, leaving, http2):
    """`http.disconnect`: after the HTTP connection has been closed. Mainly useful for long-polling."""

    async def app(scope, receive, send):
        seen.append(await whole(receive))
        came.set()
        seen.append(await receive())
        seen.append(await receive())
        await asyncio.sleep(0.01)  # is not cancelled
        done.set()

    seen, came, done = [], threading.Event(), threading.Event()
    served = serve_asgi(app)
    leave = leaving(served, http2, b"body")
    assert came.wait(GENEROUS)
    leave()
    assert done.wait(GENEROUS)
    assert seen == [b"body", LEFT, LEFT]
    served.wait_stat("requests_in_flight", value=0)
    assert served.errors.given.empty()


@PROTOCOLS
@pytest.mark.parametrize("started", [False, True])
def test_send_raises_once_the_client_has_left(serve_asgi, leaving, http2, started):
    """If `send()` is called on a closed connection the server should raise a server-specific subclass of `OSError`."""

    async def app(scope, receive, send):
        await whole(receive)
        if started:
            await send(START)
            await send({**BODY, "more_body": True})
        came.set()
        assert await receive() == LEFT
        for message in (BODY,) if started else (START, START):
            try:
                await send(message)
            except OSError as error:
                raised.append(error)
        done.set()

    raised, came, done = [], threading.Event(), threading.Event()
    leave = leaving(serve_asgi(app), http2)
    assert came.wait(GENEROUS)
    leave()
    assert done.wait(GENEROUS)
    assert len(raised) == (1 if started else 2)


@PROTOCOLS
@pytest.mark.parametrize("wrapped", ["not", "from", "in a group"])
def test_what_send_raised_is_no_error_in_the_log(serve_asgi, leaving, http2, wrapped, caplog):
    """Servers must be prepared to catch this exception if they raised it and should not log it as an error."""

    async def app(scope, receive, send):
        await whole(receive)
        await send(START)
        await send({**BODY, "more_body": True})
        came.set()
        try:
            while True:
                await send({**BODY, "more_body": True})
                await asyncio.sleep(0.001)
        except OSError as error:
            if wrapped == "from":
                raise ClientDisconnect from error
            if wrapped == "in a group":
                raise Group("one", [error]) from None
            raise
        finally:
            done.set()

    came, done = threading.Event(), threading.Event()
    served = serve_asgi(app)
    leave = leaving(served, http2)
    assert came.wait(GENEROUS)
    leave()
    assert done.wait(GENEROUS)
    # Whatever the loop had to say of it, it says before it answers this.
    with served.httpx() as client:
        came.clear()
        with client.stream("GET", "/"):
            assert came.wait(GENEROUS)
    assert served.errors.given.empty()
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


class Group(Exception):
    """As the exception groups of Python 3.11 and of anyio."""

    def __init__(self, message, exceptions):
        super().__init__(message)
        self.exceptions = exceptions


@PROTOCOLS
def test_an_error_that_has_nothing_to_do_with_leaving_is_told(serve_asgi, leaving, http2):
    async def app(scope, receive, send):
        await whole(receive)
        came.set()
        assert await receive() == LEFT
        raise ZeroDivisionError("on purpose")

    came = threading.Event()
    served = serve_asgi(app)
    leave = leaving(served, http2)
    assert came.wait(GENEROUS)
    leave()
    assert served.errors.next(ZeroDivisionError)


def test_an_app_is_cancelled_when_its_time_is_over(serve_asgi):
    """`handler_timeout` is portico's own: what has taken so long is not asked."""

    async def app(scope, receive, send):
        try:
            await asyncio.sleep(GENEROUS)
        except asyncio.CancelledError:
            cancelled.set()
            raise

    cancelled = threading.Event()
    assert serve_asgi(app, handler_timeout=0.2).get().status == 503
    assert cancelled.wait(GENEROUS)
