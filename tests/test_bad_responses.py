"""What a handler must not return or raise: always a whole 500, a line in the log and a call of the hook."""

import asyncio
import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

import portico

GOOD = {"statusCode": 200, "body": "good"}
BAD = {
    "nothing": None,
    "empty": {},
    "list": [200, "x"],
    "str": "hello",
    "tuple": (200, {}, "x"),
    "object": object(),
    "class": dict,
    "generator": (each for each in ()),
    "no status": {"body": "x"},
    "bool status": {"statusCode": True},
    "str status": {"statusCode": "200"},
    "float status": {"statusCode": 200.0},
    "None status": {"statusCode": None},
    "status 0": {"statusCode": 0},
    "status 99": {"statusCode": 99},
    "status 600": {"statusCode": 600},
    "status -200": {"statusCode": -200},
    "status 100": {"statusCode": 100},
    "status 101": {"statusCode": 101},
    "huge status": {"statusCode": 2**70},
    "unknown key": {"statusCode": 200, "header": {}},
    "int key": {"statusCode": 200, 1: 2},
    "surrogate key": {"statusCode": 200, "\ud800": 2},
    "headers list": {"statusCode": 200, "headers": [("a", "b")]},
    "headers str": {"statusCode": 200, "headers": "a: b"},
    "CR in header": {"statusCode": 200, "headers": {"a": "b\rc: d"}},
    "LF in header": {"statusCode": 200, "headers": {"a": "b\nc: d"}},
    "CRLF in header": {"statusCode": 200, "headers": {"a": "b\r\n\r\n<html>"}},
    "NUL in header": {"statusCode": 200, "headers": {"a": "b\0"}},
    "beyond Latin-1": {"statusCode": 200, "headers": {"a": "\u20ac"}},
    "surrogate in header": {"statusCode": 200, "headers": {"a": "\ud800"}},
    "control in header": {"statusCode": 200, "headers": {"a": "\x7f"}},
    "int header name": {"statusCode": 200, "headers": {1: "a"}},
    "bytes header name": {"statusCode": 200, "headers": {b"a": "a"}},
    "empty header name": {"statusCode": 200, "headers": {"": "a"}},
    "space in header name": {"statusCode": 200, "headers": {"a b": "c"}},
    "colon in header name": {"statusCode": 200, "headers": {"a:": "c"}},
    "CRLF in header name": {"statusCode": 200, "headers": {"a\r\nb": "c"}},
    "umlaut in header name": {"statusCode": 200, "headers": {"\u00e4": "c"}},
    "pseudo header": {"statusCode": 200, "headers": {":status": "200"}},
    "int header value": {"statusCode": 200, "headers": {"content-length": 4}},
    "None header value": {"statusCode": 200, "headers": {"a": None}},
    "bytes header value": {"statusCode": 200, "headers": {"a": b"b"}},
    "bad value in list": {"statusCode": 200, "headers": {"a": ["b", 1]}},
    "list in list": {"statusCode": 200, "headers": {"a": [["b"]]}},
    "str in multi": {"statusCode": 200, "multiValueHeaders": {"a": "b"}},
    "multi list": {"statusCode": 200, "multiValueHeaders": []},
    "bad value in multi": {"statusCode": 200, "multiValueHeaders": {"a": ["b\n"]}},
    "transfer-encoding": {"statusCode": 200, "headers": {"Transfer-Encoding": "chunked"}, "body": "0\r\n\r\n"},
    "shorter content-length": {"statusCode": 200, "headers": {"content-length": "3"}, "body": "good"},
    "longer content-length": {"statusCode": 200, "headers": {"content-length": "5"}, "body": "good"},
    "junk content-length": {"statusCode": 200, "headers": {"content-length": "x"}, "body": "good"},
    "int body": {"statusCode": 200, "body": 1},
    "dict body": {"statusCode": 200, "body": {"a": 1}},
    "list body": {"statusCode": 200, "body": [7]},
    "object body": {"statusCode": 200, "body": object()},
    "surrogate body": {"statusCode": 200, "body": "\ud800"},
    "bad base64": {"statusCode": 200, "body": "a", "isBase64Encoded": True},
    "not base64": {"statusCode": 200, "body": "!!!!", "isBase64Encoded": True},
    "umlaut in base64": {"statusCode": 200, "body": "\u00e4\u00e4\u00e4\u00e4", "isBase64Encoded": True},
    "int base64": {"statusCode": 200, "body": 4, "isBase64Encoded": True},
    "str flag": {"statusCode": 200, "body": "aGk=", "isBase64Encoded": "yes"},
    "int flag": {"statusCode": 200, "body": "aGk=", "isBase64Encoded": 1},
}


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD)
def test_bad_response_is_a_500_and_told(serve, caplog, bad):
    served = serve(lambda request: bad if request.path == "/bad" else GOOD)
    with served.wire() as wire:
        reply = wire.get("/bad")
        assert (reply.status, reply.text) == (500, "500 Internal Server Error\n")
        assert wire.get("/good").text == "good", "the connection goes on"
    exception, request = served.errors.next()
    assert type(exception) is portico.ResponseError
    assert request.path == "/bad"
    (record,) = [record for record in caplog.records if record.name == "portico.error"]
    assert record.levelno == logging.ERROR
    assert str(exception) in record.getMessage()
    assert "/bad" in record.getMessage()
    served.wait_stat("handler_failures", value=1)


class Odd(BaseException):
    """Derives from no Exception."""


RAISED = [ValueError("why"), Exception(), SystemExit(3), KeyboardInterrupt(), GeneratorExit(), Odd(), StopIteration()]


@pytest.mark.parametrize("raised", [*RAISED, asyncio.CancelledError()], ids=lambda each: type(each).__name__)
@pytest.mark.parametrize("dispatch", ["threads", "inline", "asyncio", "async def"])
def test_handler_that_raises_is_a_500_and_the_server_goes_on(serve, caplog, raised, dispatch):
    def handler(request):
        if request.path == "/bad":
            raise raised
        return GOOD

    async def async_handler(request):
        return handler(request)

    served = serve(async_handler) if dispatch == "async def" else serve(handler, dispatch=dispatch)
    with served.wire() as wire:
        for _ in range(3):
            reply = wire.get("/bad")
            assert (reply.status, reply.text) == (500, "500 Internal Server Error\n")
            assert wire.get("/good").text == "good"
    exception, request = served.errors.next(BaseException)
    # A StopIteration cannot leave a coroutine as such (PEP 479).
    assert exception is raised or (dispatch == "async def" and exception.__cause__ is raised)
    assert request.path == "/bad"
    record = next(record for record in caplog.records if record.name == "portico.error")
    assert record.exc_info[1] is exception, "with its traceback"
    assert "in handler" in caplog.text


def test_request_error_that_a_handler_lets_pass_is_the_clients_fault(serve):
    def handler(request):
        error = portico.RequestError("no such thing")
        error.status = int(request.path[1:])
        raise error

    served = serve(handler)
    for status, answered in ((404, 404), (422, 422), (400, 400), (200, 500), (503, 500)):
        assert served.get(f"/{status}").status == answered


def test_500_over_http2(serve):
    served = serve(lambda request: {} if request.path == "/bad" else GOOD)
    with served.httpx() as client:
        assert client.get("/bad").status_code == 500
        assert client.get("/good").text == "good"


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.binary(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
NAMES = st.text(max_size=6) | st.sampled_from(["content-length", "transfer-encoding", "connection", "date", "x-a"])
HEADERS = st.dictionaries(NAMES, st.text(max_size=8) | st.lists(st.text(max_size=8), max_size=3) | JUNK, max_size=3)
RESPONSES = JUNK | st.fixed_dictionaries(
    {"statusCode": st.integers(90, 620) | st.just(200) | JUNK},
    optional={
        "headers": HEADERS | JUNK,
        "multiValueHeaders": HEADERS | JUNK,
        "body": st.text() | st.binary() | JUNK,
        "isBase64Encoded": st.booleans() | JUNK,
        "other": JUNK,
    },
)


@pytest.mark.parametrize("dispatch", ["threads", "inline"])
def test_whatever_is_returned_the_client_gets_a_whole_response(serve, dispatch):
    returned = [None]
    served = serve(lambda request: returned[0] if request.path == "/junk" else GOOD, dispatch=dispatch)

    @given(RESPONSES)
    def check(junk):
        returned[0] = junk
        with served.wire() as wire:
            reply = wire.get("/junk")
            if reply.status != 500 or reply.text != "500 Internal Server Error\n":
                assert reply.status == junk["statusCode"]
                assert set(junk) <= {"statusCode", "headers", "multiValueHeaders", "body", "isBase64Encoded"}
            # Had it been more or less than a response, this answer would not follow it.
            if reply.header("connection") != "close":
                assert wire.get("/good").text == "good"
            else:
                assert wire.rest() == b""

    check()
