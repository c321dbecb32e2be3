"""What a handler sees of a request: every key, over HTTP/1.1 and HTTP/2."""

import collections.abc

import pytest

import portico

KEYS = """httpMethod url version path rawPath queryString queryStringParameters multiValueQueryStringParameters
    headers multiValueHeaders cookies body isBase64Encoded pathParameters""".split()  # noqa: SIM905


@pytest.fixture(params=[False, True], ids=["http1", "http2"])
def ask(serve, request):
    """Sends one request, and gives back what `look(request)` gave in the handler, or raises what it raised."""

    def ask(look, method="GET", path="/", **more):
        seen = []

        def handler(asked):
            try:
                seen.append(look(asked))
            except Exception as exception:
                seen.append(exception)
            return {"statusCode": 200}

        served = serve(handler)
        ask.port = served.port
        with served.httpx(http2=request.param) as client:
            assert client.request(method, path, **more).status_code == 200
        if isinstance(seen[0], Exception):
            raise seen[0]
        return seen[0]

    ask.version = "2" if request.param else "1.1"
    return ask


def test_every_key(ask):
    body = b"\x00\xff{}"
    seen = ask(dict, "POST", "/a%20b/c%20d?x=1&x=2&y=", content=body, headers={"X-One": "1", "Cookie": "k=v"})
    headers, lists = seen.pop("headers"), seen.pop("multiValueHeaders")
    assert seen == {
        "httpMethod": "POST",
        "url": f"https://localhost:{ask.port}/a%20b/c%20d?x=1&x=2&y=",
        "version": ask.version,
        "path": "/a b/c d",
        "rawPath": "/a%20b/c%20d",
        "queryString": "x=1&x=2&y=",
        "queryStringParameters": {"x": "2", "y": ""},
        "multiValueQueryStringParameters": {"x": ["1", "2"], "y": [""]},
        "cookies": {"k": "v"},
        "body": body,
        "isBase64Encoded": False,
        "pathParameters": {},
    }
    assert (headers["x-one"], headers["cookie"], headers["host"]) == ("1", "k=v", f"localhost:{ask.port}")
    assert lists["x-one"] == ["1"]
    assert headers.keys() == lists.keys()


def test_it_is_a_read_only_mapping(ask):
    def look(request):
        assert isinstance(request, collections.abc.Mapping)
        assert len(request) == len(KEYS)
        assert list(request) == list(request.keys()) == KEYS
        assert dict(request) == {key: request[key] for key in KEYS} == dict(request.items())
        assert list(request.values()) == [request[key] for key in KEYS]
        assert all(request[key] is getattr(request, key) for key in KEYS)
        assert request.get("path") == "/"
        assert (request.get("no"), request.get("no", 1)) == (None, 1)
        assert "body" in request
        assert "no" not in request
        assert 1 not in request
        for key in ("no", 1, None):
            with pytest.raises(KeyError):
                request[key]
        with pytest.raises(AttributeError):
            request.path = "/other"
        with pytest.raises(AttributeError):
            request.new = 1
        with pytest.raises(TypeError):
            request["path"] = "/other"
        with pytest.raises(TypeError):
            del request["path"]
        match request:
            case {"httpMethod": "GET", "path": path}:
                return path

    assert ask(look) == "/"


def test_values_are_made_once(ask):
    def look(request):
        return all(request[key] is request[key] for key in KEYS)

    assert ask(look, path="/p?a=b", headers={"cookie": "a=b"}, method="POST", content=b"x")


def test_it_outlives_its_handler(ask):
    request = ask(lambda request: request, "POST", "/late?a=b", content=b"body")
    assert (request.path, request.body, request.queryStringParameters) == ("/late", b"body", {"a": "b"})
    assert "/late" in repr(request)


def test_method_server_and_connection(ask):
    def look(request):
        return request.method, isinstance(request.server, portico.Server), request.connection == request.connection

    assert ask(look, "PATCH") == ("PATCH", True, True)


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("", {}),
        ("a", {"a": [""]}),
        ("a=", {"a": [""]}),
        ("=b", {"": ["b"]}),
        ("a=b=c", {"a": ["b=c"]}),
        ("a=1&a=2&b=3", {"a": ["1", "2"], "b": ["3"]}),
        ("a=x+y%20z%2B", {"a": ["x y z+"]}),
        ("a=%7B%22k%22%3A%5B1%5D%7D", {"a": ['{"k":[1]}']}),
        ("a='quoted'&b=%22", {"a": ["'quoted'"], "b": ['"']}),
        ("a=%C3%A9&%C3%A9=b", {"a": ["\u00e9"], "\u00e9": ["b"]}),
        ("a=%FF", {"a": ["\ufffd"]}),
        ("a=%zz%", {"a": ["%zz%"]}),
        ("&&a=1&", {"a": ["1"]}),
        ("a=1;b=2", {"a": ["1;b=2"]}),
        ("a=?&b=/", {"a": ["?"], "b": ["/"]}),
    ],
)
def test_query(serve, query, expected):
    seen = []
    served = serve(lambda request: seen.append(request) or {"statusCode": 200})
    with served.wire() as wire:
        assert wire.get(f"/p?{query}" if query else "/p").status == 200
    assert seen[0].queryString == query
    assert seen[0].multiValueQueryStringParameters == expected
    assert seen[0].queryStringParameters == {name: values[-1] for name, values in expected.items()}


@pytest.mark.parametrize(
    ("raw", "path"),
    [
        ("/", "/"),
        ("/a/b/", "/a/b/"),
        ("/a/./b/../c", "/a/c"),
        ("/../../etc/passwd", "/etc/passwd"),
        ("/a/%2e%2e/%2E%2e%2fetc", "/etc"),
        ("/a/..", "/"),
        ("/%61%20%C3%A9", "/a \u00e9"),
        ("/%ff", "/\ufffd"),
        ("/a%00b", "/a\0b"),
        ("/a+b", "/a+b"),
        ("/a%2fb", "/a/b"),
        ("/{a}|b", "/{a}|b"),
        ("//a", "//a"),
        ("/.a/..b/c..", "/.a/..b/c.."),
    ],
)
def test_path(serve, raw, path):
    seen = []
    served = serve(lambda request: seen.append(request) or {"statusCode": 200})
    with served.wire() as wire:
        assert wire.get(raw).status == 200
    assert (seen[0].path, seen[0].rawPath) == (path, raw)


def test_repeated_headers_are_joined(ask):
    pairs = [("X-A", "1"), ("x-a", "2, 3"), ("X-B", "b"), ("Cookie", "a=1"), ("Cookie", "b=2"), ("X-E", "")]
    request = ask(lambda request: request, headers=pairs)
    assert request.headers["x-a"] == "1, 2, 3"
    assert request.headers["x-e"] == ""
    assert request.multiValueHeaders["x-a"] == ["1", "2, 3"]
    assert request.headers["cookie"] == "a=1; b=2"
    assert request.cookies == {"a": "1", "b": "2"}
    assert all(name == name.lower() for name in request.headers)


def test_header_values_are_latin_1(ask):
    request = ask(lambda request: request, headers=[(b"x-a", "caf\u00e9 \u00ff".encode("latin-1"))])
    assert request.headers["x-a"] == "caf\u00e9 \u00ff"


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        ("a=1; b=2", {"a": "1", "b": "2"}),
        ("a=1;b=2;;", {"a": "1", "b": "2"}),
        ('a="q r"; b=', {"a": "q r", "b": ""}),
        ("a=first; a=second", {"a": "first"}),
        ("a=x=y", {"a": "x=y"}),
        ("alone; a=1", {"": "alone", "a": "1"}),
        ("=alone; other", {"": "alone"}),
        ('"a=1', {'"a': "1"}),
        ("", {}),
        ("; ;", {}),
    ],
)
def test_cookies(ask, sent, expected):
    assert ask(lambda request: request.cookies, headers={"cookie": sent}) == expected


def test_host_of_http_1_0_without_one_is_this_end(serve):
    served = serve(lambda request: {"statusCode": 200, "body": f"{request.version} {request.url}"})
    with served.wire() as wire:
        assert wire.send("GET /p HTTP/1.0\r\n\r\n").read().text == f"1.0 http://127.0.0.1:{served.clear}/p"
