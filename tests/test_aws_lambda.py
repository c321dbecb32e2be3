"""Functions for AWS Lambda as handlers: `portico.aws_lambda`."""

import base64
import functools
import json
import queue
import re
import time
import uuid

import pytest

import portico
from clients import Wire, trusting

ADDED = {"x-forwarded-for": "127.0.0.1", "x-forwarded-proto": "http"}


class Function:
    """A Lambda function that keeps what it is called with."""

    def __init__(self, answer=None):
        self.answer = {"statusCode": 200} if answer is None else answer
        self.called = queue.Queue()

    def __call__(self, event, context):
        json.dumps(event)  # AWS gives JSON, and nothing that is none
        self.called.put((event, context))
        return self.answer

    def event(self):
        return self.called.get_nowait()[0]


@pytest.fixture
def event_of(serve):
    """The event that a request becomes."""

    def event_of(head, body=b"", version="1.0"):
        function = Function()
        head = head if head.endswith("\r\n") else head + "\r\n"
        served = serve(portico.aws_lambda(function, version=version))
        with served.wire() as wire:
            length = f"Content-Length: {len(body)}\r\n" if body else ""
            wire.send(f"{head}Host: api.test:81\r\n{length}\r\n".encode("latin-1") + body)
            assert wire.read().status == 200
        return function.event()

    return event_of


@pytest.fixture
def answer(serve):
    """What a client gets of what a function returns."""

    def answer(given, version="1.0", method="GET"):
        served = serve(portico.aws_lambda(Function(given), version=version))
        with served.wire() as wire:
            return wire.send(f"{method} / HTTP/1.1\r\nHost: a\r\n\r\n").read(method)

    return answer


# ---- events of format 1.0


def test_event_1(event_of):
    head = "POST /caf%C3%A9/b?x=1&y=%20&x=2 HTTP/1.1\r\nContent-Type: text/plain\r\nX-One: 1\r\nx-one: 2\r\nCookie: a=1\r\n"
    event = event_of(head + "User-Agent: tester\r\n", "gr\u00fc\u00df".encode())
    context = event.pop("requestContext")
    port = event["headers"]["x-forwarded-port"]
    several = event["multiValueHeaders"]
    assert several["x-one"] == ["1", "2"]
    assert event["headers"] == {name: values[-1] for name, values in several.items()}
    assert several.items() >= {name: [value] for name, value in ADDED.items()}.items()
    assert event["headers"]["host"] == "api.test:81"
    assert port.isdecimal()
    del event["headers"], event["multiValueHeaders"]
    assert event == {
        "version": "1.0",
        "resource": "/{proxy+}",
        "path": "/caf\u00e9/b",
        "httpMethod": "POST",
        "queryStringParameters": {"x": "2", "y": " "},
        "multiValueQueryStringParameters": {"x": ["1", "2"], "y": [" "]},
        "pathParameters": {"proxy": "caf\u00e9/b"},
        "stageVariables": None,
        "body": "gr\u00fc\u00df",
        "isBase64Encoded": False,
    }
    identity = context.pop("identity")
    assert (identity["sourceIp"], identity["userAgent"], identity["clientCert"]) == ("127.0.0.1", "tester", None)
    assert {value for key, value in identity.items() if key not in ("sourceIp", "userAgent")} == {None}
    assert uuid.UUID(context["requestId"])
    assert abs(context["requestTimeEpoch"] / 1000 - time.time()) < 60
    assert re.fullmatch(r"\d\d/[A-Z][a-z][a-z]/20\d\d:\d\d:\d\d:\d\d \+0000", context["requestTime"])
    assert {**context, "requestId": "", "extendedRequestId": "", "requestTime": "", "requestTimeEpoch": 0} == {
        "accountId": "000000000000",
        "apiId": "portico",
        "domainName": "api.test",
        "domainPrefix": "api",
        "extendedRequestId": "",
        "httpMethod": "POST",
        "path": "/caf\u00e9/b",
        "protocol": "HTTP/1.1",
        "requestId": "",
        "requestTime": "",
        "requestTimeEpoch": 0,
        "resourceId": None,
        "resourcePath": "/{proxy+}",
        "stage": "$default",
    }


def test_event_1_without_anything(event_of):
    event = event_of("GET / HTTP/1.1")
    assert (event["resource"], event["path"]) == ("/", "/")
    empty = ("queryStringParameters", "multiValueQueryStringParameters", "pathParameters", "body")
    assert [event[name] for name in empty] == [None] * 4
    assert event["isBase64Encoded"] is False


@pytest.mark.parametrize("version", ["1.0", "2.0"])
def test_body_that_is_no_text_is_base64(event_of, version):
    event = event_of("POST / HTTP/1.1", b"\xff\x00\x80", version)
    assert event["isBase64Encoded"] is True
    assert base64.b64decode(event["body"]) == b"\xff\x00\x80"


@pytest.mark.parametrize("version", ["1.0", "2.0"])
def test_headers_are_found_in_any_case(event_of, version):
    headers = event_of("GET / HTTP/1.1\r\nX-Api-Key: k\r\n", version=version)["headers"]
    assert (headers["X-Api-Key"], headers["x-api-key"], headers.get("X-API-KEY")) == ("k", "k", "k")
    assert "X-Api-Key" in headers
    assert "X-Other" not in headers
    assert headers.get("X-Other", "d") == "d"
    with pytest.raises(KeyError, match="x-other"):
        headers["X-Other"]


@pytest.mark.parametrize("version", ["1.0", "2.0"])
def test_client_cannot_forge_where_it_comes_from(event_of, version):
    forged = "X-Forwarded-For: 1.2.3.4\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Port: 443\r\n"
    headers = event_of("GET / HTTP/1.1\r\n" + forged, version=version)["headers"]
    assert headers["x-forwarded-for"] == "1.2.3.4, 127.0.0.1"
    assert headers["x-forwarded-proto"] == "http"
    assert headers["x-forwarded-port"] != "443"


def test_routers_parameters_and_mounts(serve):
    function = Function()
    router = portico.Router()
    router.add_route("GET", "/users/{id}", portico.aws_lambda(function))
    router.mount("/old", portico.aws_lambda(function))
    router.mount("/new", portico.aws_lambda(function, version="2.0"))
    served = serve(router)
    served.get("/users/7")
    event = function.event()
    assert (event["pathParameters"], event["resource"]) == ({"id": "7"}, "/users/7")
    served.get("/old/a%20b")
    event = function.event()
    assert (event["path"], event["requestContext"]["path"]) == ("/a b", "/old/a b")
    assert (event["pathParameters"], event["requestContext"]["resourcePath"]) == ({"proxy": "a b"}, "/{proxy+}")
    served.get("/new/a%20b")
    event = function.event()
    assert (event["rawPath"], event["requestContext"]["http"]["path"]) == ("/a%20b", "/a b")


# ---- events of format 2.0


def test_event_2(event_of):
    head = "PUT /caf%C3%A9?x=1&y=%20&x=2 HTTP/1.1\r\nX-One: 1\r\nx-one: 2\r\nCookie: a=1; b=2\r\nCookie: c=3\r\n"
    event = event_of(head + "User-Agent: tester\r\n", b"text", "2.0")
    context, headers = event.pop("requestContext"), event.pop("headers")
    assert headers.pop("x-forwarded-port").isdecimal()
    assert headers == {
        **ADDED,
        "host": "api.test:81",
        "x-one": "1, 2",
        "user-agent": "tester",
        "content-length": "4",
    }
    assert event == {
        "version": "2.0",
        "routeKey": "$default",
        "rawPath": "/caf%C3%A9",
        "rawQueryString": "x=1&y=%20&x=2",
        "cookies": ["a=1", "b=2", "c=3"],
        "queryStringParameters": {"x": "1,2", "y": " "},
        "body": "text",
        "isBase64Encoded": False,
    }
    http = {"method": "PUT", "path": "/caf\u00e9", "protocol": "HTTP/1.1", "sourceIp": "127.0.0.1"}
    assert context["http"] == {**http, "userAgent": "tester"}
    assert (context["routeKey"], context["stage"], context["domainName"]) == ("$default", "$default", "api.test")
    assert context["authentication"] is None
    assert abs(context["timeEpoch"] / 1000 - time.time()) < 60


def test_event_2_leaves_out_what_is_not_there(event_of):
    event = event_of("GET / HTTP/1.1", version="2.0")
    assert not event.keys() & {"cookies", "queryStringParameters", "pathParameters", "body"}
    assert (event["rawQueryString"], event["isBase64Encoded"]) == ("", False)


def test_http_2(serve):
    function = Function()
    served = serve(portico.aws_lambda(function, version="2.0"))
    with served.httpx() as client:
        assert client.get("/p", headers={"cookie": "a=1; b=2"}).http_version == "HTTP/2"
    event = function.event()
    assert event["requestContext"]["http"]["protocol"] == "HTTP/2.0"
    assert event["cookies"] == ["a=1", "b=2"]
    assert event["headers"]["x-forwarded-proto"] == "https"


@pytest.mark.parametrize("version", ["1.0", "2.0"])
def test_client_certificate(make_server, issue, ca, ca_pem, version):
    function = Function()
    server = make_server(portico.aws_lambda(function, version=version))
    server.add_context("localhost", **issue("localhost"), client_auth="required", client_ca=ca_pem)
    context = trusting(ca_pem)
    ca.issue_cert("ada@example.org", common_name="Ada").configure_cert(context)
    with Wire(server.listen(0).port, context=context) as wire:
        assert wire.get().status == 200
    about = function.event()["requestContext"]
    shown = about["identity"]["clientCert"] if version == "1.0" else about["authentication"]["clientCert"]
    assert "CN=Ada" in shown["subjectDN"]
    assert shown["clientCertPem"].startswith("-----BEGIN CERTIFICATE-----")
    assert time.strptime(shown["validity"]["notBefore"], "%b %d %H:%M:%S %Y GMT") < time.gmtime()


def test_unix_socket(serve, tmp_path):
    function = Function()
    served = serve(portico.aws_lambda(function))
    path = str(tmp_path / "socket")
    served.server.listen(unix=path, tls=False)
    with Wire(0, unix=path) as wire:
        assert wire.get().status == 200
    event = function.event()
    assert event["requestContext"]["identity"]["sourceIp"] == ""
    assert not event["headers"].keys() & ADDED.keys()


# ---- context


def test_context(serve):
    function = Function()
    served = serve(portico.aws_lambda(function))
    assert served.get().status == 200
    assert served.get().status == 200
    (event, context), (_, other) = function.called.get_nowait(), function.called.get_nowait()
    assert context.aws_request_id == event["requestContext"]["requestId"] != other.aws_request_id
    assert (context.function_name, context.function_version) == ("Function", "$LATEST")
    assert context.invoked_function_arn.endswith(":function:Function")
    assert (int(context.memory_limit_in_mb), context.log_group_name) == (128, "/aws/lambda/Function")
    assert context.log_stream_name
    assert (context.identity, context.client_context) == (None, None)
    left = context.get_remaining_time_in_millis()
    assert 800_000 < left <= 900_000
    assert isinstance(left, int)


def test_time_that_is_left_is_that_of_the_handler_timeout(serve):
    function = Function()
    served = serve(portico.aws_lambda(function), handler_timeout=40)
    assert served.get().status == 200
    _, context = function.called.get_nowait()
    assert 10_000 < context.get_remaining_time_in_millis() <= 40_000


# ---- responses


def test_response_1(answer):
    reply = answer(
        {
            "statusCode": 201,
            "headers": {"Content-Type": "text/html", "X-Number": 7, "X-True": True, "X-Both": "one"},
            "multiValueHeaders": {"Set-Cookie": ["a=1", "b=2"], "x-both": ["one", "two"]},
            "body": "gr\u00fc\u00df",
        }
    )
    assert (reply.status, reply.text) == (201, "gr\u00fc\u00df")
    assert (reply.header("content-type"), reply.header("x-number"), reply.header("x-true")) == (
        "text/html",
        "7",
        "true",
    )
    assert reply.all("set-cookie") == ["a=1", "b=2"]
    assert reply.all("x-both") == ["one", "two"], "what stands in both is sent once"


@pytest.mark.parametrize(
    ("version", "content_type"), [("1.0", "application/json"), ("2.0", "text/plain; charset=utf-8")]
)
def test_response_without_a_content_type(answer, version, content_type):
    assert answer({"statusCode": 200, "body": "{}"}, version).header("content-type") == content_type
    assert answer({"statusCode": 204, "headers": None, "body": None}, version).header("content-type") is None


@pytest.mark.parametrize("version", ["1.0", "2.0"])
def test_response_in_base64(answer, version):
    encoded = base64.b64encode(b"\xff\x00").decode()
    headers = {"content-type": "image/png", "Content-Length": "4", "Transfer-Encoding": "chunked"}
    reply = answer({"statusCode": "200", "headers": headers, "body": encoded, "isBase64Encoded": True}, version)
    assert (reply.body, reply.header("content-type"), reply.header("content-length")) == (b"\xff\x00", "image/png", "2")
    assert reply.header("transfer-encoding") is None


def test_response_of_a_load_balancer_has_a_description(answer):
    assert answer({"statusCode": 200, "statusDescription": "200 OK", "body": "x"}).text == "x"


def test_response_2_with_cookies(answer):
    given = {"statusCode": 200, "headers": {"X-A": "1"}, "cookies": ["a=1; Secure", "b=2"], "body": "x"}
    reply = answer(given, "2.0")
    assert (reply.header("x-a"), reply.all("set-cookie"), reply.text) == ("1", ["a=1; Secure", "b=2"], "x")


@pytest.mark.parametrize(
    ("given", "body"),
    [
        ({"a": [1, None]}, '{"a": [1, null]}'),
        ("Hello", "Hello"),
        ([1], "[1]"),
        (7, "7"),
        ({"body": "x"}, '{"body": "x"}'),
    ],
)
def test_response_2_that_is_bare(answer, given, body):
    reply = answer(given, "2.0")
    assert (reply.status, reply.header("content-type"), reply.text) == (200, "application/json", body)


def test_answer_to_head_has_no_body(answer):
    reply = answer({"statusCode": 200, "body": "hello"}, method="HEAD")
    assert (reply.header("content-length"), reply.body) == ("5", b"")


# ---- errors


@pytest.mark.parametrize(
    ("version", "given", "expected"),
    [
        ("1.0", "text", "statusCode, not str"),
        ("1.0", {"body": "x"}, "statusCode"),
        ("1.0", {"statusCode": "many"}, "statusCode"),
        ("1.0", {"statusCode": 200, "body": {"a": 1}}, "body: str or None"),
        ("1.0", {"statusCode": 200, "body": b"x"}, "isBase64Encoded for bytes"),
        ("1.0", {"statusCode": 200, "body": "?", "isBase64Encoded": True}, "base64"),
        ("1.0", {"statusCode": 200, "headers": ["a"]}, "headers: a dict"),
        ("1.0", {"statusCode": 200, "headers": {"a": ["1"]}}, "one value"),
        ("1.0", {"statusCode": 200, "headers": {"a": None}}, "header a"),
        ("1.0", {"statusCode": 200, "headers": {1: "a"}}, "the name of a header"),
        ("1.0", {"statusCode": 200, "headers": {"a": "1\r\nb: 2"}}, "header"),
        ("1.0", {"statusCode": 200, "multiValueHeaders": {"a": "1"}}, "a list of values"),
        ("1.0", {"statusCode": 200, "cookies": ["a=1"]}, "cookies"),
        ("2.0", {"statusCode": 200, "cookies": "a=1"}, "cookies: a list"),
        ("2.0", {"statusCode": 200, "statusDescription": "x"}, "statusDescription"),
        ("2.0", {1, 2}, "has to be JSON"),
    ],
)
def test_what_is_no_response(serve, caplog, version, given, expected):
    function = Function(given)
    served = serve(portico.aws_lambda(function, version=version))
    served.check_wrong_response(expected, caplog)


def test_function_that_raises(serve):
    def function(event, context):
        raise ZeroDivisionError

    served = serve(portico.aws_lambda(function))
    assert served.get("/x").status == 500
    _, request = served.errors.next(ZeroDivisionError)
    assert request.path == "/x"


async def _coroutine(event, context):
    pass


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ((7,), "event and context, not int"),
        ((lambda request: {},), "cannot be called with event and context"),
        ((_coroutine,), "async def"),
        ((functools.partial(_coroutine),), "async def"),
        ((lambda event, context: {}, "3.0"), "version"),
    ],
)
def test_what_is_no_function_for_lambda(given, expected):
    with pytest.raises(portico.ConfigError, match=expected):
        portico.aws_lambda(given[0], **({"version": given[1]} if given[1:] else {}))
