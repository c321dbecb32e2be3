"""`portico.testing`: what users' own tests are written with."""

import ssl
import threading
import urllib.error
import urllib.request

import pytest

import portico
import portico.testing
from clients import Wire, request

pytest_plugins = ["pytester"]


def hello(request):
    return {"statusCode": 200, "body": f"hello {request.connection.sni}"}


def fetch(url, context=None):
    with urllib.request.urlopen(url, context=context, timeout=30) as response:
        return response.read().decode()


def test_server_runs_and_is_closed():
    with portico.testing.server(hello) as server:
        assert fetch(server.url, server.ssl_context) == "hello localhost"
        assert server.url == server.urls["localhost"] == f"https://localhost:{server.port}"
        assert isinstance(server.server, portico.Server)
        with pytest.raises(urllib.error.URLError, match="CERTIFICATE_VERIFY_FAILED"):
            fetch(server.url, ssl.create_default_context())
    with pytest.raises(urllib.error.URLError):
        fetch(server.url, server.ssl_context)


def test_server_is_closed_when_the_body_raises():
    with pytest.raises(ZeroDivisionError), portico.testing.server(hello) as server:
        raise ZeroDivisionError
    with pytest.raises(portico.ClosedError):
        server.server.listen(0)


def test_several_hosts_each_with_its_certificate():
    with portico.testing.server(hello, hosts=("a.test", "b.test")) as server:
        assert list(server.urls) == ["a.test", "b.test"]
        for host in ("a.test", "b.test"):
            assert request(server.port, host=host, context=server.ssl_context).text == f"hello {host}"
            with Wire(server.port, context=server.ssl_context, sni=host) as wire:
                assert wire.sock.getpeercert()["subjectAltName"] == (("DNS", host),)


def test_handlers_by_host():
    handlers = {"a.test": lambda request: {"statusCode": 201}, "b.test": lambda request: {"statusCode": 202}}
    with portico.testing.server(handlers, hosts=tuple(handlers)) as server:
        assert request(server.port, host="a.test", context=server.ssl_context).status == 201
        assert request(server.port, host="b.test", context=server.ssl_context).status == 202


def test_settings_are_passed_on():
    with portico.testing.server(hello, max_request_read_bytes=1) as server:
        assert request(server.port, "POST", body=b"xx", context=server.ssl_context).status == 413
    with pytest.raises(portico.ConfigError), portico.testing.server(hello, max_request_bytes=1):
        pass


def test_ca_pem_is_what_signed_them():
    with portico.testing.server(hello) as server:
        context = ssl.create_default_context(cadata=server.ca_pem)
        assert request(server.port, context=context).status == 200


def test_two_servers_at_once():
    with portico.testing.server(hello) as one, portico.testing.server(hello) as two:
        assert one.port != two.port
        assert fetch(one.url, two.ssl_context) == fetch(two.url, one.ssl_context)


def test_call_on_server():
    here = threading.get_ident()

    def client(url):
        assert threading.get_ident() != here
        return fetch(url)

    assert portico.testing.call_on_server(lambda request: {"statusCode": 200, "body": "hi"}, client) == "hi"


def test_call_on_server_raises_what_the_client_raises():
    def client(url):
        raise KeyError(url)

    with pytest.raises(KeyError, match="http://127"):
        portico.testing.call_on_server(hello, client)


def test_call_on_server_takes_settings_and_async_handlers():
    async def handler(request):
        return {"statusCode": 200, "body": request.headers["x-a"]}

    def client(url):
        with pytest.raises(urllib.error.HTTPError, match="431"):
            fetch(urllib.request.Request(url, headers={f"x-{n}": "y" for n in range(10)}))
        return fetch(urllib.request.Request(url, headers={"x-a": "y"}))

    assert portico.testing.call_on_server(handler, client, max_headers=8) == "y"


def test_the_fixture(portico_server):
    server = portico_server(hello)
    assert fetch(server.url, server.ssl_context) == "hello localhost"
    other = portico_server(hello, hosts=("a.test",))
    assert request(other.port, host="a.test", context=other.ssl_context).text == "hello a.test"


def test_the_fixture_closes_after_the_test(pytester):
    pytester.makepyfile(
        """
        import pytest, portico
        kept = []

        def test_first(portico_server):
            kept.append(portico_server(lambda request: {"statusCode": 200}).server)

        def test_second():
            with pytest.raises(portico.ClosedError):
                kept[0].listen(0)
        """
    )
    pytester.runpytest_subprocess("-p", "no:cacheprovider").assert_outcomes(passed=2)
