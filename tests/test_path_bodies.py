"""A `pathlib.Path` as the body of a response: sent by the core."""

from __future__ import annotations

import functools
import gzip
import io
import os
import threading

import pytest

import portico
from clients import wait_until

# A client of httpx asks for compression by itself.
AS_IT_IS = {"accept-encoding": "identity"}


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "report.csv"
    path.write_bytes(b"day,visits\n" * 100_000)
    return path


@pytest.fixture(params=["def", "async def"])
def handler(file, request):
    def plain(request):
        return {"statusCode": 200, "headers": {"x-a": "1"}, "body": file}

    async def later(request):
        return plain(request)

    return plain if request.param == "def" else later


@pytest.mark.parametrize("http2", [False, True], ids=["http1", "http2"])
def test_a_path_is_sent(serve, handler, file, http2):
    with serve(handler).httpx(http2=http2) as client:
        client.headers.update(AS_IT_IS)
        answer = client.get("/")
        assert (answer.status_code, answer.content) == (200, file.read_bytes())
        assert answer.headers["content-type"] == "text/csv; charset=utf-8"
        assert (answer.headers["x-a"], answer.headers["accept-ranges"]) == ("1", "bytes")
        assert client.get("/", headers={"if-none-match": answer.headers["etag"]}).status_code == 304
        assert client.get("/", headers={"if-modified-since": answer.headers["last-modified"]}).status_code == 304
        head = client.head("/")
        assert (head.content, head.headers["content-length"]) == (b"", str(file.stat().st_size))
        assert client.get("/", headers={"range": "bytes=4-9"}).content == b"visits"


@pytest.mark.parametrize("size", [0, 1, 16_384, 16_385, 147_456, 147_457, 1_000_000])
def test_any_length(serve, tmp_path, size):
    path = tmp_path / "a"
    path.write_bytes(os.urandom(size))
    with serve(lambda request: {"statusCode": 200, "body": path}).wire() as wire:
        for _ in range(2):
            assert wire.get().body == path.read_bytes()


def test_headers_of_the_handler_stay(serve, file):
    headers = {"Content-Type": "x/y", "ETag": 'W/"mine"', "Last-Modified": "Sun, 06 Nov 1994 08:49:37 GMT"}
    served = serve(lambda request: {"statusCode": 200, "headers": headers, "body": file})
    answer = served.get()
    assert {name: answer.header(name.lower()) for name in headers} == headers
    assert served.get(headers={"if-none-match": '"mine"'}).status == 304
    assert served.get(headers={"range": "bytes=0-1", "if-range": 'W/"mine"'}).status == 200
    assert served.get(headers={"if-modified-since": headers["Last-Modified"]}).status == 304


def test_the_length_may_be_given_where_it_is_true(serve, file):
    length = {"right": str(file.stat().st_size), "wrong": "5"}
    served = serve(
        lambda request: {"statusCode": 200, "headers": {"content-length": length[request.path[1:]]}, "body": file}
    )
    assert served.get("/right").body == file.read_bytes()
    assert served.get("/right", headers={"range": "bytes=4-9"}).header("content-length") == "6"
    assert served.get("/wrong").status == 500
    assert "content-length" in str(served.errors.next(portico.ResponseError)[0])


@pytest.mark.parametrize("status", [201, 404, 500])
def test_another_status_sends_it_whole(serve, file, status):
    served = serve(lambda request: {"statusCode": status, "body": file})
    answer = served.get(headers={"range": "bytes=0-1", "if-match": '"x"'})
    assert (answer.status, answer.body) == (status, file.read_bytes())
    assert answer.header("etag") is None


def test_what_is_posted_is_answered_whole(serve, file):
    answer = serve(lambda request: {"statusCode": 200, "body": file}).ask("POST", headers={"range": "bytes=0-1"})
    assert (answer.status, answer.body) == (200, file.read_bytes())


def test_what_is_no_file(serve, tmp_path, caplog):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to("loop")
    for name, why in (("none", "No such file"), (".", "it is a folder"), ("pipe", "no regular file"), ("loop", "")):
        served = serve(lambda request, name=name: {"statusCode": 200, "body": tmp_path / name})
        served.check_wrong_response(why, caplog)
    served = serve(lambda request: {"statusCode": 200, "body": tmp_path / "a\0b"})
    assert served.get().status == 500


def test_a_link_leads_wherever_the_handler_says(serve, file, tmp_path):
    (tmp_path / "link.txt").symlink_to(file)
    answer = serve(lambda request: {"statusCode": 200, "body": tmp_path / "link.txt"}).get()
    assert (answer.body, answer.header("content-type")) == (file.read_bytes(), "text/plain; charset=utf-8")


def test_by_hand_a_body_is_whole(make_server, file):
    from clients import Wire

    told = []

    def by_hand(connection):
        for _ in connection.requests():
            try:
                connection.respond({"statusCode": 200, "body": file})
            except portico.Error as error:
                told.append(str(error))
            except RuntimeError as error:
                told.append(str(error))

    server = make_server()
    listener = server.listen(0, tls=False, stream=by_hand)
    with Wire(listener.port) as wire:
        wire.send("GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
        assert wire.read().status == 500
    wait_until(lambda: told, "the callback to be told")
    assert "whole" in told[0]


def test_many_clients_at_once(serve, file):
    served = serve(lambda request: {"statusCode": 200, "body": file})
    served.clear  # noqa: B018
    answers = []

    def ask():
        with served.wire() as wire:
            answers.extend(wire.get().body == file.read_bytes() for _ in range(5))

    threads = [threading.Thread(target=ask) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [True] * 100


def wrapped(opened, headers=(), **more):
    """A WSGI application that answers with a file."""

    def app(environ, start_response):
        start_response("200 OK", [("Content-Type", "text/csv"), *headers])
        return environ["wsgi.file_wrapper"](opened(), **more)

    return portico.wsgi(app)


def test_wsgi_file_wrapper_is_sent_by_the_core(serve, file):
    opened = []

    def start():
        opened.append(file.open("rb"))
        opened[-1].seek(11)
        return opened[-1]

    content = file.read_bytes()
    with serve(wrapped(start)).wire() as wire:
        assert wire.get().body == content[11:]
        assert wire.get(headers="Range: bytes=0-1\r\n").body == content[11:], "that is the app's business"
        wire.send("HEAD / HTTP/1.1\r\nHost: h\r\n\r\n")
        assert wire.read("HEAD").header("content-length") == str(len(content) - 11)
    assert all(one.closed for one in opened)
    served = serve(wrapped(start, [("Content-Length", "10")]))
    assert served.get().body == content[11:21]


def test_wsgi_file_wrapper_of_anything_else_is_read(serve, file, tmp_path):
    packed = tmp_path / "a.gz"
    packed.write_bytes(gzip.compress(file.read_bytes()))
    assert serve(wrapped(lambda: io.BytesIO(b"bytes"))).get(headers={"connection": "close"}).body == b"bytes"
    length = [("Content-Length", str(file.stat().st_size))]
    opening = functools.partial(gzip.open, packed)
    assert serve(wrapped(opening, length, block_size=1000)).get().body == file.read_bytes()


class TestPathSend:
    """ASGI's extension: an app names a file, and the core sends it."""

    @staticmethod
    def app(path, headers=(), before=()):
        async def app(scope, receive, send):
            assert scope["extensions"]["http.response.pathsend"] == {}
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            for message in before:
                await send(message)
            await send({"type": "http.response.pathsend", "path": str(path)})

        return portico.asgi(app, lifespan="off")

    @pytest.mark.parametrize("http2", [False, True], ids=["http1", "http2"])
    def test_the_file_is_sent_as_the_app_says(self, serve, file, http2):
        app = self.app(file, [(b"content-type", b"text/plain"), (b"content-length", b"%d" % file.stat().st_size)])
        with serve(app).httpx(http2=http2) as client:
            client.headers.update(AS_IT_IS)
            answer = client.get("/", headers={"range": "bytes=1-2"})
            assert (answer.status_code, answer.content) == (200, file.read_bytes())
            assert answer.headers["content-type"] == "text/plain"
            assert client.head("/").headers["content-length"] == str(file.stat().st_size)

    def test_also_where_middleware_sees_the_response(self, serve, file):
        router = portico.Router()
        router.add_middleware(leave=lambda request, response: portico.add_header(response, "x-seen", "1"))
        router.mount("/", self.app(file))
        with serve(router).httpx() as client:
            answer = client.get("/")
            assert (answer.content, answer.headers["x-seen"]) == (file.read_bytes(), "1")

    @pytest.mark.parametrize(
        ("path", "before", "told"),
        [
            ("relative", (), "not absolute"),
            ("/nowhere/at/all", (), "No such file"),
            ("/dev/null", (), "no regular file"),
            (__file__, ({"type": "http.response.body", "body": b"x", "more_body": True},), "after a part of the body"),
        ],
    )
    def test_what_cannot_be_sent_is_told(self, serve, path, before, told):
        served = serve(self.app(path, before=before))
        with served.wire() as wire:
            wire.send("GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
            # Nothing had left by then.
            assert wire.cut().startswith(b"HTTP/1.1 500")
        assert told in str(served.errors.next(portico.ResponseError)[0])

    def test_starlette_uses_it(self, serve, file):
        from starlette.applications import Starlette
        from starlette.responses import FileResponse
        from starlette.routing import Route

        app = Starlette(routes=[Route("/", lambda request: FileResponse(file))])
        with serve(portico.asgi(app)).httpx() as client:
            assert client.get("/").content == file.read_bytes()
            assert client.get("/", headers={"range": "bytes=4-9"}).content == b"visits"
