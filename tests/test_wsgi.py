"""WSGI applications as handlers: `portico.wsgi`."""

import json
import logging
import sys
import threading
from wsgiref.validate import validator

import flask
import pytest

import portico
from clients import Wire, wait_until


def told(environ):
    """What of an environ can be told as JSON."""
    return {key: value for key, value in environ.items() if isinstance(value, str | int | bool)}


def tell(environ, start_response):
    """Answers with its environ, and the body that it got."""
    body = environ["wsgi.input"].read().decode("latin-1")
    text = json.dumps({**told(environ), "body": body}).encode()
    start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(text)))])
    return [text]


def app(body=b"fine", status="200 OK", headers=(), **more):
    """An application that gives this."""

    def app(environ, start_response):
        start_response(status, list(headers))
        return body() if callable(body) else body if isinstance(body, list) else [body]

    return app


def ask(serve, app, method="GET", path="/", **more):
    return serve(portico.wsgi(app)).ask(method, path, **more)


# ---- environ


def test_environ(serve):
    served = serve(portico.wsgi(tell))
    with served.wire() as wire:
        wire.send(
            "POST /caf%C3%A9/%e9/a%2Fb/../c?x=%20&y HTTP/1.1\r\nHost: example.test:81\r\nContent-Type: text/plain\r\n"
            "Content-Length: 5\r\nAccept: a\r\nX-One: 1\r\nAccept: b\r\nx-one: 2\r\nX_One: spoofed\r\n"
            "Cookie: a=1\r\nCookie: b=2\r\nX-Latin: \xe9\r\n\r\nhello"
        )
        environ = wire.read().json()
        port = wire.sock.getsockname()[1]
    expected = {
        "REQUEST_METHOD": "POST",
        "SCRIPT_NAME": "",
        # The bytes of the decoded path, one character each; the last ones are no UTF-8.
        "PATH_INFO": "/caf\u00e9".encode().decode("latin-1") + "/\u00e9/a/c",
        "QUERY_STRING": "x=%20&y",
        "CONTENT_TYPE": "text/plain",
        "CONTENT_LENGTH": "5",
        "SERVER_NAME": "127.0.0.1",
        "SERVER_PORT": str(served.clear),
        "SERVER_PROTOCOL": "HTTP/1.1",
        "SERVER_SOFTWARE": f"portico/{portico.__version__}",
        "REMOTE_ADDR": "127.0.0.1",
        "REMOTE_PORT": str(port),
        "HTTP_HOST": "example.test:81",
        "HTTP_ACCEPT": "a,b",
        "HTTP_X_ONE": "1,2",
        "HTTP_COOKIE": "a=1; b=2",
        "HTTP_X_LATIN": "\u00e9",
        "wsgi.url_scheme": "http",
        "wsgi.multithread": True,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
        "wsgi.input_terminated": True,
        "body": "hello",
    }
    assert environ == expected


def test_environ_without_body_or_headers(serve):
    served = serve(portico.wsgi(tell))
    with served.wire() as wire:
        environ = wire.send("GET / HTTP/1.0\r\n\r\n").read().json()
    assert environ["SERVER_PROTOCOL"] == "HTTP/1.0"
    assert environ["QUERY_STRING"] == ""
    assert not {"CONTENT_LENGTH", "CONTENT_TYPE", "HTTP_HOST"} & set(environ)


def test_a_whole_url_as_target_names_the_host(serve):
    served = serve(portico.wsgi(tell))
    with served.wire() as wire:
        environ = wire.send("GET http://real.test/p HTTP/1.1\r\nHost: other.test\r\n\r\n").read().json()
    assert (environ["HTTP_HOST"], environ["PATH_INFO"]) == ("real.test", "/p")


def test_chunked_body_has_its_length(serve):
    served = serve(portico.wsgi(tell))
    with served.wire() as wire:
        wire.send("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n")
        environ = wire.read().json()
    assert (environ["body"], environ["CONTENT_LENGTH"]) == ("abcde", "5")
    assert "HTTP_TRANSFER_ENCODING" not in environ


def test_environ_over_http2_and_tls(serve):
    with serve(portico.wsgi(tell)).httpx() as client:
        answer = client.post("/two?q", content=b"x" * 100_000, headers={"Cookie": "a=1"})
    environ = answer.json()
    assert answer.http_version == "HTTP/2"
    assert (environ["SERVER_PROTOCOL"], environ["wsgi.url_scheme"]) == ("HTTP/2", "https")
    assert environ["HTTP_HOST"].startswith("localhost:")
    assert (len(environ["body"]), environ["CONTENT_LENGTH"]) == (100_000, "100000")


def test_environ_on_a_unix_socket(serve, tmp_path):
    served = serve(portico.wsgi(tell))
    served.server.listen(unix=tmp_path / "s", tls=False)
    with Wire(0, unix=str(tmp_path / "s")) as wire:
        environ = wire.get().json()
    assert (environ["SERVER_NAME"], environ["SERVER_PORT"]) == ("localhost", "80")
    assert "REMOTE_ADDR" not in environ


def test_environ_belongs_to_its_request(serve):
    seen = []

    def app(environ, start_response):
        seen.append((environ["portico.request"], environ.get("mine"), environ["wsgi.version"]))
        environ["mine"] = environ["SCRIPT_NAME"] = "changed"
        start_response("200 OK", [])
        return []

    served = serve(portico.wsgi(app))
    assert [served.get(path).status for path in ("/1", "/2")] == [200, 200]
    assert [(request.path, mine, version) for request, mine, version in seen] == [
        ("/1", None, (1, 0)),
        ("/2", None, (1, 0)),
    ]


def test_input_is_a_file(serve):
    def app(environ, start_response):
        body = environ["wsgi.input"]
        start_response("200 OK", [])
        return [repr([body.read(2), body.readline(), body.readlines(), body.read(), list(body)]).encode()]

    assert ask(serve, app, "POST", body=b"abc\nd\ne").text == repr([b"ab", b"c\n", [b"d\n", b"e"], b"", []])


# ---- answers


def test_status_and_headers(serve):
    reply = ask(
        serve, app(status="404 Nowhere at all", headers=[("X-A", "1"), ("Set-Cookie", "a"), ("set-cookie", "b")])
    )
    assert (reply.status, reply.header("x-a"), reply.all("set-cookie")) == (404, "1", ["a", "b"])
    assert (reply.body, reply.header("content-length")) == (b"fine", "4")


def test_status_without_a_reason(serve):
    assert ask(serve, app(status="418")).status == 418


def late(environ, start_response):
    """A generator: nothing of it runs before its first part is asked for."""
    start_response("200 OK", [])
    yield b""
    yield b"one "
    yield b"two"


def writes(environ, start_response):
    write = start_response("200 OK", [])
    write(b"one ")
    write(b"")
    return [b"two"]


def replaces(environ, start_response):
    start_response("200 OK", [("x-wrong", "yes")])
    try:
        raise ValueError
    except ValueError:
        start_response("200 OK", [], sys.exc_info())
    return (b"one ", b"two")


@pytest.mark.parametrize("app", [late, writes, replaces])
def test_ways_to_answer(serve, app):
    reply = ask(serve, app)
    assert (reply.status, reply.body, reply.header("x-wrong")) == (200, b"one two", None)


@pytest.mark.parametrize("app", [tell, late, writes, replaces])
@pytest.mark.parametrize("method", ["GET", "HEAD", "POST"])
def test_nothing_is_against_the_rules(serve, app, method):
    served = serve(portico.wsgi(validator(typed(app))))
    body = b"a body" if method == "POST" else None
    assert served.ask(method, "/a?b", headers={"X-A": "1", "Cookie": "a=1"}, body=body).status == 200
    with served.httpx() as client:
        assert client.request(method, "/", content=body).status_code == 200
    assert served.errors.given.empty()


def typed(app):
    """The same with a content type, and reading as the validator wants it: with a size."""

    def wrapped(environ, start_response):
        def start(status, headers, *exc_info):
            names = {name.lower() for name, _ in headers}
            return start_response(
                status, headers + [("Content-Type", "a/b")] * ("content-type" not in names), *exc_info
            )

        class Input:
            def __init__(self, given):
                self.given = given

            def read(self):
                return self.given.read(1_000)

        environ = {**environ, "wsgi.input": Input(environ["wsgi.input"])}
        return app(environ, start)

    return wrapped


def test_large_body_arrives_whole(serve):
    body = bytes(range(256)) * 4_096
    assert ask(serve, app([body])).body == body
    assert ask(serve, app([body, body])).body == body * 2


@pytest.mark.parametrize(
    ("method", "status", "length", "announced"), [("HEAD", "200 OK", "5", "5"), ("GET", "304 Not Modified", "5", "5")]
)
def test_length_without_a_body(serve, method, status, length, announced):
    served = serve(portico.wsgi(app([], status=status, headers=[("Content-Length", length)])))
    with served.wire() as wire:
        wire.send(f"{method} / HTTP/1.1\r\nHost: h\r\n\r\n")
        reply = wire.read(method)
        assert (reply.header("content-length"), reply.body) == (announced, b"")
        assert wire.send(f"{method} / HTTP/1.1\r\nHost: h\r\n\r\n").read(method).status == reply.status


# ---- what an app must not do


def no_start(environ, start_response):
    return [b"x"]


def no_start_no_body(environ, start_response):
    return []


def twice(environ, start_response):
    start_response("200 OK", [])
    start_response("500 Oh", [])
    return []


def writes_str(environ, start_response):
    start_response("200 OK", [])("x")
    return []


def too_late(environ, start_response):
    start_response("200 OK", [])
    yield b"said"
    try:
        raise portico.ResponseError("a body was begun")
    except ValueError:
        start_response("500 Oh", [], sys.exc_info())


def test_an_error_after_the_body_began_is_told(serve):
    served = serve(portico.wsgi(too_late))
    with served.wire() as wire:
        wire.send("GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        assert not wire.cut().endswith(b"0\r\n\r\n")
    assert "a body was begun" in str(served.errors.next(portico.ResponseError)[0])


async def a_coroutine(environ, start_response):
    pass


WRONG = {
    "no start_response": (no_start, "start_response before"),
    "nothing at all": (no_start_no_body, "start_response before"),
    "two starts": (twice, "twice"),
    "write of str": (writes_str, "write: bytes, not str"),
    "coroutine": (a_coroutine, "not coroutine"),
    "None": (app(lambda: None), "an iterable of bytes, not NoneType"),
    "str": (app(lambda: "text"), "bytes, not str"),
    "bytes": (app(lambda: b"text"), "bytes, not int"),
    "list of str": (app(["text"]), "bytes, not str"),
    "int status": (app(status=200), "status: a str"),
    "long status": (app(status="2000 OK"), "three digits"),
    "words for a status": (app(status="OK"), "three digits"),
    "status with a line end": (app(status="200 OK\r\nA: b"), "three digits"),
    "interim status": (app(status="100 Continue"), "interim"),
    "status 099": (app(status="099 What"), "100 to 599"),
    "tuple of headers": (lambda e, s: s("200 OK", ()) and [], "a list of"),
    "dict of headers": (lambda e, s: s("200 OK", {}) and [], "a list of"),
    "header of three": (app(headers=[("a", "b", "c")]), "(name, value)"),
    "header of bytes": (app(headers=[(b"a", b"b")]), "are str"),
    "int header": (app(headers=[("a", 1)]), "are str"),
    "line end in a header": (app(headers=[("a", "b\r\nc: d")]), "control character"),
    "line end in a name": (app(headers=[("a\r\nc", "b")]), "no header name"),
    "connection": (app(headers=[("Connection", "close")]), "header connection"),
    "transfer-encoding": (app(headers=[("Transfer-Encoding", "chunked")]), "header transfer-encoding"),
    "too short a body": (app(headers=[("Content-Length", "5")]), "'5' is not the length of the body, 4"),
    "too long a body": (app(headers=[("Content-Length", "3")]), "'3' is not the length of the body, 4"),
    "no body": (app([], headers=[("Content-Length", "3")]), "'3' is not the length of the body, 0"),
    "junk length": (app(headers=[("Content-Length", "x")]), "'x' is not the length of the body, 4"),
    "two lengths": (app(headers=[("Content-Length", "4"), ("Content-Length", "4")]), "is not the length"),
}


@pytest.mark.parametrize(("app", "expected"), WRONG.values(), ids=WRONG)
def test_wrong_answers_are_a_500_and_a_line_in_the_log(serve, caplog, app, expected):
    served = serve(portico.wsgi(app))
    served.check_wrong_response(expected, caplog)


def test_an_app_has_to_be_callable():
    with pytest.raises(portico.ConfigError, match="wsgi: an application"):
        portico.wsgi("module:app")


# ---- errors and ends


class Parts:
    """An iterable that is closed, and fails as told."""

    def __init__(self, fail=False):
        self.fail, self.closed = fail, 0

    def __iter__(self):
        yield b"one"
        if self.fail:
            raise ZeroDivisionError("in the middle")

    def close(self):
        self.closed += 1


@pytest.mark.parametrize("fail", [False, True])
def test_what_an_app_returns_is_closed(serve, fail):
    parts = Parts(fail)
    served = serve(portico.wsgi(app(lambda: parts)))
    with served.wire() as wire:
        wire.send("GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").cut()
    wait_until(lambda: parts.closed == 1, "it to be closed")
    if fail:
        error, _ = served.errors.next(ZeroDivisionError)
        assert "in the middle" in str(error)


def test_it_is_closed_where_its_parts_are_wrong(serve):
    parts = Parts()
    parts.__class__ = type("Wrong", (Parts,), {"__iter__": lambda self: iter([1])})
    assert ask(serve, app(lambda: parts)).status == 500
    assert parts.closed == 1


def test_an_app_that_raises(serve, caplog):
    def app(environ, start_response):
        start_response("200 OK", [("Content-Length", "4")])
        raise ZeroDivisionError("on purpose")

    served = serve(portico.wsgi(app))
    assert served.get("/bad").status == 500
    assert served.errors.next(ZeroDivisionError)[1].path == "/bad"
    assert "on purpose" in caplog.text


def test_errors_go_to_the_log(serve, caplog):
    def app(environ, start_response):
        errors = environ["wsgi.errors"]
        print("first", "line", file=errors)
        errors.writelines(["second ", "line\nthird\nnot "])
        errors.write("finished")
        errors.flush()
        errors.write("left")
        start_response("200 OK", [])
        return []

    with caplog.at_level(logging.ERROR, "portico.error"):
        assert ask(serve, app).status == 200
    assert [record.getMessage() for record in caplog.records] == [
        "first line",
        "second line\nthird",
        "not finished",
        "left",
    ]


# ---- with others


def test_apps_run_side_by_side(serve):
    both = threading.Barrier(2)

    def app(environ, start_response):
        both.wait(30)
        start_response("200 OK", [])
        return [environ["PATH_INFO"].encode()]

    served = serve(portico.wsgi(app), dispatch="threads")
    with served.wire() as one, served.wire() as two:
        for wire, path in ((one, "/1"), (two, "/2")):
            wire.send(f"GET {path} HTTP/1.1\r\nHost: h\r\n\r\n")
        assert [one.read().text, two.read().text] == ["/1", "/2"]


@pytest.mark.parametrize("dispatch", ["auto", "inline", "threads", "asyncio"])
def test_every_dispatch(serve, dispatch):
    assert serve(portico.wsgi(late), dispatch=dispatch).get().text == "one two"


def test_an_app_for_one_host(serve):
    hosts = {"a.test": portico.wsgi(late), "b.test": lambda request: {"statusCode": 200, "body": "b"}}
    served = serve(hosts, hosts=tuple(hosts))
    assert (served.get(host="a.test").text, served.get(host="b.test").text) == ("one two", "b")


def test_flask(serve):
    site = flask.Flask("site")

    @site.post("/greet/<name>")
    def greet(name):
        answer = flask.jsonify(name=name, form=flask.request.form.to_dict(), secure=flask.request.is_secure)
        answer.set_cookie("seen", "yes")
        return answer

    @site.get("/bad")
    def bad():
        raise ZeroDivisionError("on purpose")

    served = serve(portico.wsgi(site))
    with served.httpx() as client:
        answer = client.post("/greet/J%C3%BCrgen", data={"a": "1 2"})
        assert answer.json() == {"name": "J\u00fcrgen", "form": {"a": "1 2"}, "secure": True}
        assert client.cookies["seen"] == "yes"
        assert client.get("/bad").status_code == 500
        assert client.get("/nowhere").status_code == 404
