"""What a handler may return, and how it is sent."""

import array
import base64
import email.utils
import json
import re
import time

import pytest

import portico


@pytest.fixture(params=[False, True], ids=["http1", "http2"])
def answer(serve, request):
    """Has a handler return `value`; gives the response that the client sees."""

    def answer(value, method="GET", **more):
        with serve(lambda _: value).httpx(http2=request.param) as client:
            return client.request(method, "/", **more)

    return answer


@pytest.mark.parametrize(
    ("body", "sent"),
    [
        (None, b""),
        ("", b""),
        ("h\u00e9llo \U0001f600", "h\u00e9llo \U0001f600".encode()),
        (b"\x00\xff", b"\x00\xff"),
        (bytearray(b"array"), b"array"),
        (memoryview(b"0123456789")[2:8:2], b"246"),
        (array.array("B", b"abc"), b"abc"),
        (bytes(range(256)) * 5000, bytes(range(256)) * 5000),
        (bytearray(300_000), bytes(300_000)),
    ],
    ids=["None", "empty", "str", "bytes", "bytearray", "memoryview", "array", "large bytes", "large bytearray"],
)
def test_bodies(answer, body, sent):
    response = answer({"statusCode": 200, "body": body})
    assert response.content == sent
    assert response.headers["content-length"] == str(len(sent))


def test_status_alone_is_enough(answer):
    response = answer({"statusCode": 200})
    assert (response.status_code, response.content) == (200, b"")


def test_bytes_that_change_after_the_return_are_sent_as_they_were(serve):
    body = bytearray(b"before")

    class Later(dict):
        pass

    served = serve(lambda request: Later(statusCode=200, body=body))
    assert served.get().body == b"before"
    body[:] = b"after!"
    assert served.get().body == b"after!"


@pytest.mark.parametrize("given", ["aGVsbG8=", b"aGVsbG8=", "", None])
def test_base64(answer, given):
    expected = base64.b64decode(given or "")
    assert answer({"statusCode": 200, "body": given, "isBase64Encoded": True}).content == expected


def test_not_base64(answer):
    assert answer({"statusCode": 200, "body": "aGVsbG8=", "isBase64Encoded": False}).text == "aGVsbG8="


def test_headers(answer):
    response = answer(
        {
            "statusCode": 200,
            "headers": {"X-One": "1", "x-list": ["a", "b"], "x-tuple": ("c",), "x-none": [], "x-latin": "caf\u00e9"},
            "multiValueHeaders": {"Set-Cookie": ["a=1", "b=2; Path=/"], "x-one": ["2"]},
        }
    )
    assert response.headers.get_list("x-one") == ["1", "2"]
    assert response.headers.get_list("x-list") == ["a", "b"]
    assert response.headers.get_list("x-tuple") == ["c"]
    assert "x-none" not in response.headers
    assert (b"x-latin", "caf\u00e9".encode("latin-1")) in [(k.lower(), v) for k, v in response.headers.raw]
    assert response.headers.get_list("set-cookie") == ["a=1", "b=2; Path=/"]


@pytest.mark.parametrize("key", ["headers", "multiValueHeaders"])
@pytest.mark.parametrize("value", [None, {}])
def test_no_headers(answer, key, value):
    assert answer({"statusCode": 200, key: value}).status_code == 200


def test_date_is_added(answer):
    sent = email.utils.parsedate_to_datetime(answer({"statusCode": 200}).headers["date"])
    assert abs(sent.timestamp() - time.time()) < 60


def test_date_of_the_handler_stays(answer):
    then = "Tue, 15 Nov 1994 08:12:31 GMT"
    response = answer({"statusCode": 200, "headers": {"Date": then}})
    assert response.headers.get_list("date") == [then]


@pytest.mark.parametrize("status", [200, 201, 299, 301, 404, 418, 500, 599])
def test_status(answer, status):
    assert answer({"statusCode": status, "body": "x"}).status_code == status


def test_reason_phrase(serve):
    served = serve(lambda request: {"statusCode": int(request.path[1:])})
    with served.wire() as wire:
        for status, line in ((404, b"HTTP/1.1 404 Not Found\r\n"), (299, b"HTTP/1.1 299 ")):
            wire.send(f"GET /{status} HTTP/1.1\r\nHost: h\r\n\r\n")
            first = wire.file.readline()
            assert first.startswith(line.rstrip(b"\r\n"))
            while wire.file.readline() != b"\r\n":
                pass


def test_head_is_answered_from_get(answer):
    response = answer({"statusCode": 200, "headers": {"x-a": "1"}, "body": "0123456789"}, "HEAD")
    assert (response.status_code, response.content) == (200, b"")
    assert (response.headers["content-length"], response.headers["x-a"]) == ("10", "1")


def test_head_may_tell_a_length_without_making_the_body(answer):
    response = answer({"statusCode": 200, "headers": {"content-length": "12345"}}, "HEAD")
    assert response.headers["content-length"] == "12345"


@pytest.mark.parametrize("status", [204, 205, 304])
@pytest.mark.parametrize("method", ["GET", "HEAD", "POST"])
def test_statuses_without_a_body(serve, status, method):
    served = serve(lambda request: {"statusCode": status, "body": "not to be sent", "headers": {"etag": '"1"'}})
    with served.wire() as wire:
        for _ in range(2):
            reply = wire.send(f"{method} / HTTP/1.1\r\nHost: h\r\n\r\n").read(method)
            assert (reply.status, reply.body, reply.header("etag")) == (status, b"", '"1"')
            if status == 204:
                assert reply.header("content-length") is None, "RFC 9110 section 8.6"
            if status == 205:
                assert reply.header("content-length") == "0", "RFC 9110 section 15.3.6"


def test_framing_headers_are_the_servers(serve):
    headers = {"Content-Length": "2", "Connection": "close", "Keep-Alive": "timeout=5"}
    served = serve(lambda request: {"statusCode": 200, "headers": headers, "body": "ok"})
    with served.wire() as wire:
        reply = wire.get()
        assert (reply.all("content-length"), reply.all("connection"), reply.all("keep-alive")) == (["2"], ["close"], [])
        assert wire.rest() == b"", "a handler may ask to close"


def test_dict_subclasses_are_dicts(answer):
    class Response(dict):
        pass

    class Text(str):
        pass

    assert answer(Response(statusCode=201, headers=Response({Text("x-a"): Text("1")}))).headers["x-a"] == "1"


def test_the_same_dict_twice(serve):
    same = {"statusCode": 200, "headers": {"x-a": "1"}, "body": "same"}
    served = serve(lambda request: same)
    with served.wire() as wire:
        assert [wire.get().text for _ in range(3)] == ["same"] * 3
    assert same == {"statusCode": 200, "headers": {"x-a": "1"}, "body": "same"}


def test_helper_response(answer):
    response = answer(portico.response(201, "h\u00e9"))
    assert (response.status_code, response.text) == (201, "h\u00e9")
    assert response.headers["content-type"] == "text/plain; charset=utf-8"
    assert portico.response(200, b"x")["headers"]["content-type"] == "application/octet-stream"
    assert portico.response(200, "{}", "application/json")["headers"]["content-type"] == "application/json"
    assert answer(portico.response(204)).status_code == 204


def test_helper_redirect(answer):
    response = answer(portico.redirect("/somewhere?a=b c"))
    assert (response.status_code, response.headers["location"]) == (302, "/somewhere?a=b%20c")
    assert portico.redirect("/", status=308)["statusCode"] == 308
    with pytest.raises(portico.ResponseError, match="200"):
        portico.redirect("/", status=200)
    # A header cannot be smuggled in through a URL.
    assert answer(portico.redirect("/\r\nx-evil: 1")).headers["location"] == "/%0D%0Ax-evil:%201"


def test_helper_error(answer):
    response = answer(portico.error(404))
    assert (response.status_code, response.text) == (404, "404 Not Found\n")


def test_helper_add_header(answer):
    made = portico.response(200, "x")
    assert portico.add_header(portico.add_header(made, "vary", "cookie"), "vary", "accept") is made
    assert answer(made).headers.get_list("vary") == ["cookie", "accept"]


def test_helper_cookies(answer):
    made = portico.set_cookie(portico.response(), "sid", "abc", max_age=60)
    portico.delete_cookie(made, "old")
    first, second = answer(made).headers.get_list("set-cookie")
    assert first == "sid=abc; Max-Age=60; Path=/; Secure; HttpOnly; SameSite=Lax"
    assert re.match(r"old=(\"\")?; .*(Max-Age=0|1970)", second)


@pytest.mark.parametrize(
    "cookie",
    [
        {"name": "a b", "value": "1"},
        {"name": "", "value": "1"},
        {"name": "a", "value": "1;2"},
        {"name": "a", "value": "1\r\nx: y"},
        {"name": "a", "value": "1", "path": "/;"},
        {"name": "a", "value": "1", "domain": "x\ny"},
        {"name": "a", "value": "1", "same_site": "sometimes"},
    ],
)
def test_cookies_that_cannot_be(cookie):
    with pytest.raises(portico.ResponseError, match="cookie"):
        portico.set_cookie({"statusCode": 200}, **cookie)


def test_json_round_trip(serve):
    served = serve(lambda request: portico.response(200, json.dumps(request.json()), "application/json"))
    with served.httpx() as client:
        assert client.post("/", json={"a": [1, None, "\u00e9"]}).json() == {"a": [1, None, "\u00e9"]}
