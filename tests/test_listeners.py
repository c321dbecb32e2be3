"""Listeners: several of them, of several servers, on every kind of address."""

import errno
import gc
import socket
import ssl
import stat

import pytest

import portico
from clients import Wire, curl, refuses, request, trusting


def named(name):
    return lambda request: {"statusCode": 200, "body": name}


def test_port_0_picks_one_and_tells_it(make_server, issue, ca_pem):
    server = make_server()
    server.add_context("localhost", **issue("localhost"))
    listener = server.listen(0)
    assert 0 < listener.port < 65536
    assert listener.address == ("127.0.0.1", listener.port)
    assert listener.url == f"https://127.0.0.1:{listener.port}"
    assert server.listen(0, tls=False).url.startswith("http://127.0.0.1:")
    assert request(listener.port, context=trusting(ca_pem)).status == 200


def test_several_servers_are_apart(make_server, issue, ca_pem):
    servers = [make_server(named(name)) for name in ("one", "two", "three")]
    for server in servers:
        server.add_context("localhost", **issue("localhost"))
    ports = [server.listen(0).port for server in servers]
    context = trusting(ca_pem)
    assert [request(port, context=context).text for port in ports] == ["one", "two", "three"]
    servers[0].close()
    assert [request(port, context=context).text for port in ports[1:]] == ["two", "three"]
    assert servers[1].stats()["requests"]["1.1"] == 2


def test_several_listeners_of_one_server(make_server, issue, ca_pem):
    server = make_server()
    server.add_context("localhost", **issue("localhost"))
    first, second, clear = server.listen(0), server.listen(0), server.listen(0, tls=False)
    for port, context in ((first.port, trusting(ca_pem)), (second.port, trusting(ca_pem)), (clear.port, None)):
        assert request(port, context=context).status == 200
    first.close()
    assert refuses(first.port)
    assert request(second.port, context=trusting(ca_pem)).status == 200


def test_closed_listeners_connections_go_on(serve):
    served = serve()
    listener = served.server.listen(0, tls=False)
    with Wire(listener.port) as wire:
        assert wire.get().status == 200
        listener.close()
        listener.close()
        assert refuses(listener.port)
        assert wire.get().status == 200


def test_closed_listeners_port_is_free_at_once(make_server):
    server = make_server()
    port = 0
    for _ in range(20):
        listener = server.listen(port, tls=False)
        assert port in (0, listener.port)
        port = listener.port
        assert request(port).status == 200
        listener.close()
    server.listen(port, tls=False)
    server.close()
    assert make_server().listen(port, tls=False).port == port


def test_ipv6(make_server, issue, ca_pem):
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("this machine has no ::1")
    server = make_server(lambda request: {"statusCode": 200, "body": str(request.connection.peername)})
    server.add_context("localhost", **issue("localhost"))
    listener = server.listen(0, "::1")
    assert listener.url == f"https://[::1]:{listener.port}"
    reply = request(listener.port, address="::1", context=trusting(ca_pem))
    assert "::1" in reply.text
    same = server.listen(listener.port, "127.0.0.1", tls=False)
    assert same.port == listener.port, "both families side by side"


@pytest.mark.parametrize("tls", [False, True])
def test_unix_socket(make_server, issue, ca_pem, tmp_path, tls):
    path = tmp_path / "portico.sock"
    server = make_server()
    server.add_context("localhost", **issue("localhost"))
    listener = server.listen(unix=path, tls=tls)
    assert stat.S_ISSOCK(path.stat().st_mode)
    assert listener.port is None
    assert listener.address == str(path)
    assert listener.url == f"http{'s' if tls else ''}+unix://{path}"
    with Wire(None, unix=str(path), context=trusting(ca_pem) if tls else None) as wire:
        assert wire.get("/u").text == "hello /u"
    listener.close()
    assert not path.exists()


def test_unix_socket_of_a_dead_process_is_taken_over(make_server, tmp_path):
    path = tmp_path / "left.sock"
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    make_server().listen(unix=str(path), tls=False)
    with Wire(None, unix=str(path)) as wire:
        assert wire.get().status == 200
    with pytest.raises(portico.ListenError) as caught:
        make_server().listen(unix=str(path), tls=False)
    assert caught.value.errno == errno.EADDRINUSE


def test_curl_over_a_unix_socket(make_server, tmp_path):
    path = tmp_path / "c.sock"
    make_server().listen(unix=path, tls=False)
    assert curl(80, "/c", "--unix-socket", str(path)) == "hello /c"


def test_cleartext_hosts_by_the_host_header(make_server, issue):
    server = make_server(named("server"))
    server.add_context("a.test", **issue("a.test"), handler=named("a"))
    server.add_context("*.b.test", **issue("*.b.test"), handler=named("b"))
    server.add_context("plain.test", **issue("plain.test"))
    port = server.listen(0, tls=False).port
    expected = {"a.test": "a", "A.test:80": "a", "x.b.test": "b", "plain.test": "server", "unknown.test": "server"}
    with Wire(port) as wire:
        assert {host: wire.get(host=host).text for host in expected} == expected
        wire.send("GET / HTTP/1.0\r\n\r\n")
        assert wire.read().text == "server", "HTTP/1.0 without Host"


def test_without_any_handler_for_the_host_404(make_server, issue):
    server = make_server(None)
    server.add_context("a.test", **issue("a.test"), handler=named("a"))
    with Wire(server.listen(0, tls=False).port) as wire:
        assert wire.get(host="b.test").status == 404
        assert wire.get(host="a.test").text == "a"
    assert server.stats()["requests_refused"]["no_handler"] == 1


def test_listener_that_nobody_keeps_goes_on(make_server):
    server = make_server()
    port = server.listen(0, tls=False).port
    gc.collect()
    assert [request(port).status for _ in range(3)] == [200] * 3


def test_inherited_descriptor(make_server):
    server = make_server()
    with socket.create_server(("127.0.0.1", 0)) as inherited:
        port = inherited.getsockname()[1]
        assert server.listen(fd=inherited.fileno(), tls=False).port == port
        assert request(port).status == 200
    assert request(port).status == 200, "the server has a copy of its own"
    with socket.socket() as silent, pytest.raises(portico.ListenError, match="listening"):
        server.listen(fd=silent.fileno(), tls=False)
    for wrong in (-1, 99_999, "3"):
        with pytest.raises((portico.Error, TypeError)):
            server.listen(fd=wrong, tls=False)


def test_tls_without_any_context_is_refused(make_server):
    server = make_server()
    with pytest.raises(portico.ConfigError, match="add_context"):
        server.listen(0)
    assert server.listen(0, tls=False).port


def test_reuse_port(make_server):
    one, two = make_server(named("one")), make_server(named("two"))
    port = one.listen(0, tls=False, reuse_port=True).port
    two.listen(port, tls=False, reuse_port=True)
    assert {request(port).text for _ in range(100)} == {"one", "two"}
    with pytest.raises(portico.ListenError):
        make_server().listen(port, tls=False)


@pytest.mark.parametrize("port", [-1, 65536, "80", 1.5, None, True])
def test_malformed_port(make_server, port):
    with pytest.raises(portico.ConfigError, match="port"):
        make_server().listen(port, tls=False)


def test_clear_listener_refuses_tls_and_the_other_way_round(serve):
    served = serve()
    with pytest.raises(ssl.SSLError):
        request(served.clear, context=served.context())
    with Wire(served.port) as wire:
        assert b"200" not in wire.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n").cut()
    assert served.get().status == 200
