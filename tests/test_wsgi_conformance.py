"""What PEP 3333 asks of a server, sentence by sentence, where test_wsgi.py does not already."""

from __future__ import annotations

import contextvars
import io
import sys
import threading
from wsgiref.util import FileWrapper

import pytest

import portico
from clients import GENEROUS, wait_until


def fine(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"fine"]


@pytest.fixture
def environ_of(serve):
    """The environ of a request that `ask(served)` makes."""

    def environ_of(ask):
        def app(environ, start_response):
            seen.append(environ)
            return fine(environ, start_response)

        seen = []
        ask(serve(portico.wsgi(app)))
        return seen[0]

    return environ_of


def test_environ_is_a_dict_of_native_strings(environ_of):
    """A builtin Python dictionary, not a subclass; CGI variables are native strings."""
    environ = environ_of(lambda served: served.get("/a?b"))
    assert type(environ) is dict
    assert all(type(value) is str for name, value in environ.items() if name.isupper())
    required = {
        "REQUEST_METHOD",
        "SCRIPT_NAME",
        "PATH_INFO",
        "QUERY_STRING",
        "SERVER_NAME",
        "SERVER_PORT",
        "SERVER_PROTOCOL",
    }
    assert required <= set(environ)


def test_an_app_may_change_its_environ(environ_of):
    """The application is allowed to modify the dictionary in any way it desires."""
    environ = environ_of(lambda served: served.get())
    environ.update(a=1)
    environ.clear()


def test_a_url_can_be_made_of_the_environ(environ_of):
    """SERVER_NAME and SERVER_PORT can never be empty; with HTTP_HOST, SCRIPT_NAME and PATH_INFO they make the URL."""
    ports = []

    def ask(served):
        ports.append(served.port)
        served.get("/a%20b?c=d")

    environ = environ_of(ask)
    assert (environ["wsgi.url_scheme"], environ["SERVER_PORT"]) == ("https", str(ports[0]))
    assert (environ["SERVER_NAME"], environ["REMOTE_ADDR"]) == ("127.0.0.1", "127.0.0.1")
    assert (environ["SCRIPT_NAME"], environ["PATH_INFO"], environ["QUERY_STRING"]) == ("", "/a b", "c=d")


def test_multithread_is_told_as_it_is(serve):
    """`wsgi.multithread`: true if the application may be simultaneously invoked by another thread."""

    def app(environ, start_response):
        told.append(environ["wsgi.multithread"])
        both.wait(GENEROUS)
        return fine(environ, start_response)

    told, both = [], threading.Barrier(2)
    served = serve(portico.wsgi(app), dispatch="threads")
    with served.wire() as one, served.wire() as two:
        for wire in (one, two):
            wire.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n")
        assert [one.read().status, two.read().status] == [200, 200]
    assert told == [True, True]


def test_reading_past_the_body_is_an_end_of_file(serve):
    """A server should not attempt to read past the client-specified Content-Length, and should simulate an end-of-file."""

    def app(environ, start_response):
        body = environ["wsgi.input"]
        start_response("200 OK", [])
        return [repr([body.read(2), body.readline(), list(body), body.read(1), body.read()]).encode()]

    with serve(portico.wsgi(app)).wire() as wire:
        wire.send("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 7\r\n\r\nabc\nd\neGET / HTTP/1.1\r\nHost: h\r\n\r\n")
        assert wire.read().text == repr([b"ab", b"c\n", [b"d\n", b"e"], b"", b""])
        assert wire.read().text == repr([b"", b"", [], b"", b""])


def test_start_response_takes_positions_and_returns_write(serve):
    """`start_response(status, response_headers, exc_info=None)` returns a `write(body_data)` callable."""

    def app(environ, start_response):
        write = start_response("200 OK", [("X-A", "1")], None)
        write(b"one ")
        write(b"two ")
        return [b"three"]

    assert serve(portico.wsgi(app)).get().text == "one two three"


def test_status_of_an_error_takes_the_place_of_the_first(serve):
    """If `exc_info` is provided and no headers have been output yet, start_response should replace the stored headers."""

    def app(environ, start_response):
        start_response("200 OK", [("X-A", "1"), ("Content-Type", "a/b")])
        try:
            raise ZeroDivisionError
        except ZeroDivisionError:
            start_response("503 Oh", [("X-B", "2")], sys.exc_info())
        return [b"sorry"]

    reply = serve(portico.wsgi(app)).get()
    assert (reply.status, reply.text) == (503, "sorry")
    assert (reply.header("x-a"), reply.header("x-b")) == (None, "2")


def test_error_after_the_headers_were_sent_is_raised(serve):
    """If `exc_info` is provided, and the HTTP headers have already been sent, start_response must raise an error."""

    def app(environ, start_response):
        start_response("200 OK", [])
        yield b"one"
        try:
            raise ZeroDivisionError("on purpose")
        except ZeroDivisionError:
            try:
                start_response("500 Oh", [], sys.exc_info())
            except ZeroDivisionError as error:
                raised.append(error)
        yield b"two"

    raised = []
    with serve(portico.wsgi(app)).httpx() as client:
        assert client.get("/").text == "onetwo"
    assert len(raised) == 1


def test_blocks_are_not_delayed(serve):
    """WSGI servers must not delay the transmission of any block; each is sent before the next is asked for."""

    def app(environ, start_response):
        start_response("200 OK", [])
        for number in range(3):
            yield b"%d" % number
            assert go_on.acquire(timeout=GENEROUS)

    go_on = threading.Semaphore(0)
    with serve(portico.wsgi(app)).httpx() as client, client.stream("GET", "/") as answer:
        parts = answer.iter_raw()
        for number in range(3):
            assert next(parts) == b"%d" % number
            go_on.release()
        assert list(parts) == []


def test_what_has_close_is_closed_once_and_last(serve):
    """If the iterable returned by the application has a close() method, the server must call it upon completion."""

    class Parts:
        def __iter__(self):
            yield b"one"
            yield b"two"
            order.append("made")

        def close(self):
            order.append("closed")

    def app(environ, start_response):
        start_response("200 OK", [])
        return Parts()

    order = []
    with serve(portico.wsgi(app)).httpx() as client:
        assert client.get("/").text == "onetwo"
    wait_until(lambda: order == ["made", "closed"], "it to be closed")


def test_what_has_close_is_closed_when_the_client_leaves(serve):
    """Or when the request is terminated early by an application error or a client's disconnect."""

    class Parts:
        def __iter__(self):
            while True:
                yield b"x" * 100_000

        def close(self):
            closed.set()

    def app(environ, start_response):
        start_response("200 OK", [])
        return Parts()

    closed = threading.Event()
    with serve(portico.wsgi(app)).wire() as wire:
        wire.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n")
        assert wire.file.read(1_000)
    assert closed.wait(GENEROUS)


def test_a_file_may_be_the_body(serve, tmp_path):
    """`wsgi.file_wrapper` is the server's choice; an app that finds none takes a wrapper of its own."""
    content = bytes(range(256)) * 4_000
    (tmp_path / "a").write_bytes(content)

    class File(io.FileIO):
        def close(self):
            super().close()
            closed.set()

    def app(environ, start_response):
        start_response("200 OK", [])
        return environ.get("wsgi.file_wrapper", FileWrapper)(File(tmp_path / "a"), 10_000)

    closed = threading.Event()
    with serve(portico.wsgi(app)).httpx() as client:
        assert client.get("/").content == content
    assert closed.wait(GENEROUS)


def test_context_variables_last_as_long_as_the_response(serve):
    """Not of PEP 3333, but what Flask's `stream_with_context` relies on: a token that is made in one part of a
    response is good in the next, whichever threads make them, and nothing of it reaches the next request."""

    def app(environ, start_response):
        start_response("200 OK", [])
        return parts()

    def parts():
        before = variable.get("nothing")
        token = variable.set("mine")
        yield before.encode()
        yield variable.get().encode()
        variable.reset(token)
        yield variable.get("gone").encode()

    variable = contextvars.ContextVar("variable")
    with serve(portico.wsgi(app)).httpx() as client:
        assert [client.get("/").text for _ in range(5)] == ["nothingminegone"] * 5
