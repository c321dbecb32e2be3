"""`Forwarded` and `X-Forwarded-`: what trusted proxies tell of a request, and what nobody else can."""

import contextlib
import json
from ast import literal_eval

import pytest
from hypothesis import given
from hypothesis import strategies as st

import portico
from clients import Wire

BOTH = pytest.mark.parametrize("style", ["forwarded", "x-forwarded"])


def tells(request):
    """What it thinks of who has asked."""
    told = {"client": request.client, "scheme": request.scheme, "host": request.host, "url": request.url}
    told["raw"] = [request.headers.get(name) for name in ("host", "forwarded", "x-forwarded-for")]
    return portico.response(200, repr(told), "text/plain")


@pytest.fixture
def behind(serve):
    """Starts a server that believes this machine and 10.0.0.0/8; a function that asks with some headers."""

    def behind(style="x-forwarded", handler=tells, **settings):
        settings.setdefault("trusted_proxies", ("127.0.0.1", "10.0.0.0/8"))
        served = serve(handler, forwarded=style, **settings)
        behind.served = served

        def ask(*headers, host="localhost"):
            lines = "".join(f"{name}: {value}\r\n" for name, value in headers)
            with served.wire() as wire:
                reply = wire.get("/path?q=1", lines, host)
            assert reply.status == 200
            return literal_eval(reply.text) if handler is tells else reply.text

        return ask

    return behind


def test_forwarded_tells_client_scheme_and_host(behind):
    told = behind("forwarded")(("Forwarded", 'for="192.0.2.1:4711";proto=https;host=www.example.com'))
    assert told["client"] == ("192.0.2.1", 4711)
    assert (told["scheme"], told["host"]) == ("https", "www.example.com")
    assert told["url"] == "https://www.example.com/path?q=1"
    assert told["raw"] == ["localhost", 'for="192.0.2.1:4711";proto=https;host=www.example.com', None]


def test_x_forwarded_tells_client_scheme_host_and_port(behind):
    ask = behind("x-forwarded")
    told = ask(
        ("X-Forwarded-For", "6.6.6.6, 192.0.2.1, 10.0.0.3"),
        ("X-Forwarded-Proto", "https"),
        ("X-Forwarded-Host", "www.example.com"),
        ("X-Forwarded-Port", "8443"),
    )
    assert told["client"] == ("192.0.2.1", 0)
    assert told["url"] == "https://www.example.com:8443/path?q=1"
    # The usual port is left out, and one that stands with the host stays.
    told = ask(("X-Forwarded-Proto", "https"), ("X-Forwarded-Port", "443"))
    assert told["url"] == "https://localhost/path?q=1"
    told = ask(("X-Forwarded-Host", "www.example.com:444"), ("X-Forwarded-Port", "445"))
    assert told["url"] == "http://www.example.com:444/path?q=1"


def test_a_port_that_is_empty_is_none(behind):
    ask = behind("x-forwarded")
    for host in ("www.example.com", "192.0.2.7", "[2001:db8::1]"):
        told = ask(("X-Forwarded-Host", f"{host}:"), ("X-Forwarded-Proto", "https"))
        assert (told["host"], told["url"]) == (host, f"https://{host}/path?q=1")
        told = ask(("X-Forwarded-Host", f"{host}:"), ("X-Forwarded-Port", "8080"))
        assert told["host"] == f"{host}:8080"
    assert behind("forwarded")(("Forwarded", 'host="a.test:"'))["host"] == "a.test"
    assert ask(host="a.test:")["url"] == "http://a.test/path?q=1"


def test_one_kind_is_believed_and_never_the_other(behind):
    x = [("X-Forwarded-For", "192.0.2.1"), ("X-Forwarded-Proto", "https"), ("X-Forwarded-Host", "x.test")]
    forwarded = ("Forwarded", "for=192.0.2.2;proto=http;host=f.test")
    told = behind("forwarded")(*x, forwarded)
    assert (told["client"][0], told["url"]) == ("192.0.2.2", "http://f.test/path?q=1")
    assert behind("forwarded")(*x)["client"][0] == "127.0.0.1"
    told = behind("x-forwarded")(forwarded, *x)
    assert (told["client"][0], told["url"]) == ("192.0.2.1", "https://x.test/path?q=1")
    told = behind("off")(forwarded, *x)
    assert (told["client"][0], told["url"]) == ("127.0.0.1", "http://localhost/path?q=1")


@BOTH
def test_who_is_not_trusted_is_not_believed(behind, style):
    ask = behind(style, trusted_proxies=("10.0.0.0/8", "unix"))
    told = ask(
        ("Forwarded", "for=10.0.0.1;proto=https;host=evil.test"),
        ("X-Forwarded-For", "10.0.0.1"),
        ("X-Forwarded-Proto", "https"),
        ("X-Forwarded-Host", "evil.test"),
    )
    assert told["client"][0] == "127.0.0.1"
    assert told["url"] == "http://localhost/path?q=1"
    assert told["raw"][1] == "for=10.0.0.1;proto=https;host=evil.test", "handlers see what came"


@BOTH
@pytest.mark.parametrize(
    "value", ["unknown", "_hidden", "_SEVKISEK", "192.0.2.1:99999", "localhost", "[::1", "\x80\xff", "192.0.2.1 1"]
)
def test_who_is_hidden_or_no_address_is_nobody(behind, style, value):
    told = behind(style)(("Forwarded", f"for={value};proto=https"), ("X-Forwarded-For", f"6.6.6.6, {value}"))
    assert told["client"] is None


def test_ten_thousand_hops(behind):
    hops = ["10.0.0.1"] * 6000
    told = behind("x-forwarded")(("X-Forwarded-For", ",".join(["192.0.2.1", *hops])))
    assert told["client"] == ("192.0.2.1", 0)
    told = behind("forwarded", max_header_bytes=2**20)(
        ("Forwarded", ",".join(["for=_x", *(f"for={ip}" for ip in hops)]))
    )
    assert told["client"] is None
    told = behind("forwarded", max_headers=10_000, max_header_bytes=2**20)(*[("Forwarded", "for=10.0.0.1")] * 9_000)
    assert told["client"] == ("10.0.0.1", 0)


def test_without_such_headers_the_peer_is_the_client(behind):
    told = behind()()
    assert told["client"][0] == "127.0.0.1"
    assert told["url"] == "http://localhost/path?q=1"


def test_over_http2(behind):
    ask = behind("forwarded")
    del ask
    with behind.served.httpx() as client:
        told = literal_eval(client.get("/path?q=1", headers={"forwarded": "for=192.0.2.1;proto=http"}).text)
    assert (told["client"], told["scheme"]) == (("192.0.2.1", 0), "http"), "what the proxy spoke with it counts"


@given(value=st.one_of(st.binary(max_size=60), st.text('for=",;\\ 10.0.192.2[]:_%', max_size=60).map(str.encode)))
def test_whatever_is_in_them_the_answer_comes(odd_server, value):
    value = bytes(byte for byte in value if byte >= 32 and byte != 127)
    lines = b"".join(name + b": " + value + b"\r\n" for name in (b"Forwarded", b"X-Forwarded-For", b"X-Forwarded-Host"))
    # What a client leaves open before it takes nothing from what the proxy adds.
    lines += b"Forwarded: " + value + b", for=192.0.2.9\r\nX-Forwarded-For: " + value + b",192.0.2.9\r\n"
    for served in odd_server:
        with served.wire() as wire:
            wire.send(b"GET / HTTP/1.1\r\nHost: localhost\r\n" + lines + b"\r\n")
            reply = wire.read()
            assert reply.status == 200
            assert literal_eval(reply.text)["client"] == ("192.0.2.9", 0)


@pytest.fixture(scope="module")
def odd_server():
    with contextlib.ExitStack() as stack:
        servers = []
        for style in ("forwarded", "x-forwarded"):
            testing = stack.enter_context(
                portico.testing.server(tells, forwarded=style, trusted_proxies=("127.0.0.1",))
            )
            servers.append(_Clear(testing.server.listen(0, tls=False).port))
        yield servers


class _Clear:
    def __init__(self, port):
        self.port = port

    def wire(self):
        return Wire(self.port)


# ---- what rests on it


def test_cookies_of_sessions_are_for_tls_where_the_client_speaks_it(behind):
    def handler(request):
        request.session["seen"] = request.session.get("seen", 0) + 1
        return {"statusCode": 200, "body": str(request.session["seen"])}

    behind("x-forwarded", handler)
    with behind.served.wire() as wire:
        reply = wire.get("/", "X-Forwarded-Proto: https\r\n")
        cookie = reply.header("set-cookie")
        assert cookie.startswith("__Host-")
        assert "secure" in cookie.lower()
        again = wire.get("/", f"X-Forwarded-Proto: https\r\nCookie: {cookie.split(';')[0]}\r\n")
        assert again.text == "2"
        plain = wire.get("/", "X-Forwarded-Proto: http\r\n").header("set-cookie")
        assert not plain.startswith("__Host-")
        assert "secure" not in plain.lower()


def test_wsgi_and_asgi_see_them(behind):
    def wsgi(environ, start_response):
        start_response("200 OK", [])
        return [f"{environ.get('REMOTE_ADDR')} {environ['wsgi.url_scheme']} {environ['HTTP_HOST']}".encode()]

    async def asgi(scope, receive, send):
        body = f"{scope['client']} {scope['scheme']}".encode()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
        await send({"type": "http.response.body", "body": body})

    told = [("X-Forwarded-For", "192.0.2.1"), ("X-Forwarded-Proto", "https"), ("X-Forwarded-Host", "www.example.com")]
    assert behind("x-forwarded", portico.wsgi(wsgi))(*told) == "192.0.2.1 https localhost"
    assert behind("x-forwarded", portico.wsgi(wsgi))(("X-Forwarded-For", "_x")) == "None http localhost"
    assert behind("x-forwarded", portico.asgi(asgi, lifespan="off"))(*told) == "('192.0.2.1', 0) https"


def test_starlette_makes_urls_of_it(behind):
    from starlette.applications import Starlette
    from starlette.responses import PlainTextResponse
    from starlette.routing import Route

    async def index(request):
        return PlainTextResponse(f"{request.url_for('index')} {request.client.host}")

    app = Starlette(routes=[Route("/path", index, name="index")])
    ask = behind("forwarded", portico.asgi(app))
    assert ask(("Forwarded", "for=192.0.2.1;proto=https")) == "https://localhost/path 192.0.2.1"


def test_lambda_functions_see_them(behind):
    def function(event, context):
        headers = event["headers"]
        client = event["requestContext"]["identity"]["sourceIp"]
        body = f"{client} {headers['x-forwarded-proto']} {headers['x-forwarded-for']}"
        return {"statusCode": 200, "body": body}

    ask = behind("x-forwarded", portico.aws_lambda(function))
    told = ask(("X-Forwarded-For", "192.0.2.1"), ("X-Forwarded-Proto", "https"))
    assert told == "192.0.2.1 https 192.0.2.1, 127.0.0.1"


def by_lambda(event, context):
    names = ("x-forwarded-proto", "x-forwarded-port", "x-forwarded-for", "host")
    told = [event["headers"].get(name) for name in names]
    return {"statusCode": 200, "body": json.dumps([*told, event["requestContext"]["domainName"]])}


@pytest.mark.parametrize("version", ["1.0", "2.0"])
def test_lambda_functions_get_the_port_and_the_host_of_the_client(behind, version):
    ask = behind("x-forwarded", portico.aws_lambda(by_lambda, version=version))
    own = str(behind.served.clear)
    client, here = [("X-Forwarded-For", "192.0.2.1")], "192.0.2.1, 127.0.0.1"
    for told, expected in (
        ([("X-Forwarded-Proto", "https"), ("X-Forwarded-Port", "8443")], ["https", "8443"]),
        ([("X-Forwarded-Proto", "https")], ["https", "443"]),
        ([("X-Forwarded-Proto", "http")], ["http", "80"]),
        ([("X-Forwarded-Host", "a.test:81")], ["http", "81"]),
        ([], ["http", own]),
    ):
        host = dict(told).get("X-Forwarded-Host", "localhost").partition(":")[0]
        assert json.loads(ask(*client, *told)) == [*expected, here, "localhost", host], told
    # What whoever is no proxy says of it counts for nothing.
    ask = behind("x-forwarded", portico.aws_lambda(by_lambda, version=version), trusted_proxies=("10.0.0.1",))
    told = json.loads(ask(("X-Forwarded-Proto", "https"), ("X-Forwarded-Port", "1"), ("X-Forwarded-Host", "evil.test")))
    assert told == ["http", str(behind.served.clear), "127.0.0.1", "localhost", "localhost"]


def test_lambda_functions_behind_a_proxy_on_a_unix_socket(serve, tmp_path):
    served = serve(portico.aws_lambda(by_lambda), forwarded="x-forwarded", trusted_proxies=("unix",))
    served.server.listen(unix=tmp_path / "socket", tls=False)
    with Wire(0, unix=str(tmp_path / "socket")) as wire:
        lines = "X-Forwarded-For: 192.0.2.1\r\nX-Forwarded-Proto: https\r\n"
        assert json.loads(wire.get("/", lines).text) == ["https", "443", "192.0.2.1", "localhost", "localhost"]


def test_the_real_host_finds_the_handler(serve):
    def named(name):
        return lambda request: {"statusCode": 200, "body": f"{name} {request.host}"}

    handlers = {name: named(name[:3]) for name in ("one.test", "two.test")}
    served = serve(handlers, hosts=None, forwarded="x-forwarded", trusted_proxies=("127.0.0.1",))
    with served.wire() as wire:
        assert wire.get("/", "X-Forwarded-Host: two.test\r\n", "one.test").text == "one two.test"
    with served.tls_wire("one.test") as wire:
        assert wire.get("/", "X-Forwarded-Host: two.test\r\n", "one.test").text == "one two.test", "and no 421"


def test_behind_the_proxy_protocol_the_client_it_names_has_to_be_trusted(behind):
    behind("x-forwarded")
    port = behind.served.server.listen(0, tls=False, proxy_protocol=True).port
    for client, believed in (("10.0.0.9", "192.0.2.1"), ("203.0.113.7", "203.0.113.7")):
        with Wire(port, before=f"PROXY TCP4 {client} 198.51.100.1 5 443\r\n".encode()) as wire:
            told = literal_eval(wire.get("/", "X-Forwarded-For: 192.0.2.1\r\n").text)
            assert told["client"][0] == believed


def test_settings_that_would_believe_everybody():
    with pytest.raises(portico.ConfigError, match="trusted_proxies="):
        portico.Server(forwarded="forwarded")
    with pytest.raises(portico.ConfigError, match="one of off, forwarded, x-forwarded"):
        portico.Server(forwarded="x-real-ip", trusted_proxies=("127.0.0.1",))
