"""The PROXY protocol, versions 1 and 2: whose connection it is, and who may say so."""

import contextlib
import ipaddress
import logging
import socket
import ssl
import struct
import threading
import time

import pytest

import portico
from clients import GENEROUS, Wire, wait_until
from sockets import OverHTTP1, echo

CLIENT = ("203.0.113.7", 51234)
FRONT = ("198.51.100.1", 443)
V1 = b"PROXY TCP4 203.0.113.7 198.51.100.1 51234 443\r\n"
SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
ALPN, AUTHORITY, CRC32C, UNIQUE_ID, SSL, SSL_VERSION, SSL_CN, SSL_CIPHER = 1, 2, 3, 5, 0x20, 0x21, 0x22, 0x23


def v2(client=CLIENT, front=FRONT, *fields, command=0x21, family=None):
    """A header of version 2 as HAProxy writes it."""
    ips = [ipaddress.ip_address(ip).packed for ip, _ in (client, front)]
    family = family if family is not None else 0x11 if len(ips[0]) == 4 else 0x21
    rest = b"".join(ips) + struct.pack("!HH", client[1], front[1]) + b"".join(fields)
    return SIGNATURE + bytes([command, family]) + struct.pack("!H", len(rest)) + rest


def field(kind, value):
    return bytes([kind]) + struct.pack("!H", len(value)) + value


def tells(request):
    """Who it thinks that has asked."""
    connection, proxy = request.connection, request.connection.proxy
    told = [connection.peername, connection.sockname, request.client, request.scheme, connection.secure, proxy.version]
    return portico.response(200, repr(told), "text/plain")


@pytest.fixture
def proxied(serve):
    """Starts a server whose listener is for proxies on this machine; a function that connects as one of them."""

    def proxied(handler=tells, *, tls=True, settings=None, **listen):
        served = serve(handler, **{"trusted_proxies": ("127.0.0.1",), **(settings or {})})
        proxied.served = served
        proxied.listener = served.server.listen(0, tls=tls, proxy_protocol=True, **listen)

        def connect(header=V1, **more):
            context = served.context(alpn=more.pop("alpn", None)) if tls else None
            return Wire(proxied.listener.port, context=context, before=header, **more)

        return connect

    return proxied


@pytest.mark.parametrize("tls", [True, False], ids=["TLS", "cleartext"])
@pytest.mark.parametrize(
    ("header", "client", "front", "version"),
    [
        (V1, CLIENT, FRONT, 1),
        (b"PROXY TCP6 2001:db8::7 2001:db8::1 51234 443\r\n", ("2001:db8::7", 51234), ("2001:db8::1", 443), 1),
        (v2(), CLIENT, FRONT, 2),
        (v2(("2001:db8::7", 1), ("2001:db8::1", 2)), ("2001:db8::7", 1), ("2001:db8::1", 2), 2),
        (v2(("::ffff:203.0.113.7", 1), ("::1", 2)), ("203.0.113.7", 1), ("::1", 2), 2),
        (v2(family=0x12), CLIENT, FRONT, 2),
    ],
    ids=["v1", "v1 IPv6", "v2", "v2 IPv6", "v2 mapped", "v2 UDP"],
)
def test_the_client_is_whom_the_proxy_names(proxied, tls, header, client, front, version):
    connect = proxied(tls=tls)
    with connect(header) as wire:
        for _ in range(2):
            told = [client, front, client, "https" if tls else "http", tls, version]
            assert wire.get().text == repr(told)


def test_http2_and_its_preface_right_behind_the_header(proxied, serve):
    import h2.config
    import h2.connection
    import h2.events

    connect = proxied(tls=False)
    client = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="utf-8"))
    client.initiate_connection()
    client.send_headers(
        1,
        [(":method", "GET"), (":path", "/"), (":scheme", "http"), (":authority", "localhost")],
        end_stream=True,
    )
    with connect(v2() + client.data_to_send()) as wire:
        body = b""
        while True:
            events = client.receive_data(wire.sock.recv(65536))
            body += b"".join(event.data for event in events if isinstance(event, h2.events.DataReceived))
            if any(isinstance(event, h2.events.StreamEnded) for event in events):
                break
            wire.send(client.data_to_send())
    assert body.decode().startswith(repr([CLIENT, FRONT])[:-1])


@pytest.mark.parametrize("header", [V1, v2()], ids=["v1", "v2"])
def test_a_header_in_single_bytes_and_a_request_with_it(proxied, header):
    connect = proxied(tls=False)
    with connect(b"") as wire:
        for byte in header:
            wire.send(bytes([byte]))
        assert wire.get().text.startswith(repr([CLIENT])[:-1])
    with connect(header + b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n") as wire:
        assert wire.read().text.startswith(repr([CLIENT])[:-1])


def test_what_version_2_tells_besides(proxied):
    seen = []

    def handler(request):
        seen.append((request.connection.proxy, request))
        return {"statusCode": 200, "body": request.url}

    connect = proxied(handler, tls=False)
    tls = field(SSL_VERSION, b"TLSv1.3") + field(SSL_CN, b"ada") + field(SSL_CIPHER, b"TLS_AES_128_GCM_SHA256")
    fields = [field(ALPN, b"h2"), field(AUTHORITY, b"example.com"), field(UNIQUE_ID, b"\x00\xff")]
    with connect(v2(CLIENT, FRONT, *fields, field(SSL, b"\x07\0\0\0\0" + tls))) as wire:
        assert wire.get().text == "https://localhost/", "the client speaks TLS, to the proxy"
    proxy, request = seen.pop()
    assert isinstance(proxy, portico.ProxyInfo)
    assert (proxy.version, proxy.local, proxy.alpn, proxy.authority) == (2, False, "h2", "example.com")
    assert (proxy.unique_id, proxy.secure, proxy.tls_version) == (b"\x00\xff", True, "TLSv1.3")
    assert (proxy.cipher, proxy.client_verified, proxy.client_name) == ("TLS_AES_128_GCM_SHA256", True, "ada")
    assert proxy.peername[0] == "127.0.0.1"
    assert proxy.sockname == ("127.0.0.1", proxied.listener.port)
    assert (request.scheme, request.connection.secure) == ("https", False)
    # A certificate that was not found good names nobody.
    with connect(v2(CLIENT, FRONT, field(SSL, b"\x03\0\0\0\x01" + tls))) as wire:
        assert wire.get().status == 200
    proxy, _ = seen.pop()
    assert (proxy.secure, proxy.client_verified, proxy.client_name) == (True, False, None)


@pytest.mark.parametrize(
    ("header", "local"),
    [(v2(command=0x20, family=0), True), (v2(family=0), False), (b"PROXY UNKNOWN\r\n", False)],
    ids=["LOCAL", "v2 unspecified", "v1 UNKNOWN"],
)
def test_where_the_proxy_names_nobody_its_own_address_stays(proxied, header, local):
    def handler(request):
        connection = request.connection
        assert connection.peername == connection.proxy.peername
        assert connection.proxy.local is local
        return {"statusCode": 200, "body": f"{connection.peername[0]} {request.client[0]}"}

    connect = proxied(handler, settings={"max_connections_per_ip": 1, "forwarded": "x-forwarded"})
    with connect(header) as one, connect(header) as two:
        # Nobody is known that could be believed, and the proxy's own address is no client's to be limited.
        assert one.get("/", "X-Forwarded-For: 192.0.2.1\r\n").text == "127.0.0.1 127.0.0.1"
        assert two.get().text == "127.0.0.1 127.0.0.1"


@pytest.mark.parametrize(
    "header",
    [
        b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"PROXY TCP4 203.0.113.7 198.51.100.1 51234 443\nGET / HTTP/1.1\r\n\r\n",
        b"PROXY TCP4 203.0.113.7 198.51.100.1 51234 65536\r\n",
        b"PROXY " + b"1" * 200,
        v2(command=0x31),
        v2(family=0x77),
        v2(CLIENT, FRONT, field(ALPN, b"h2")[:-1]),
        v2(CLIENT, FRONT, field(CRC32C, b"\0\0\0\0")),
        bytes(20),
    ],
)
def test_a_malformed_header_is_the_end(proxied, header, caplog):
    caplog.set_level(logging.INFO, "portico")
    connect = proxied(tls=False)
    with connect(header) as wire:
        assert wire.cut() == b"", "nothing is said to who is no proxy"
    proxied.served.wait_stat("connections_turned_away", "proxy_header")
    wait_until(lambda: "its PROXY header: " in caplog.text, "the line in the log")
    proxied.served.wait_stat("connections_open", value=0)


def test_tls_without_a_header_is_the_end(proxied):
    connect = proxied()
    with pytest.raises((ConnectionError, ssl.SSLError)):
        connect(b"")
    proxied.served.wait_stat("connections_turned_away", "proxy_header")


def test_who_is_not_trusted_is_not_even_read(proxied, caplog):
    caplog.set_level(logging.INFO, "portico")
    connect = proxied(tls=False, settings={"trusted_proxies": ("192.0.2.0/24", "::1")})
    with connect(V1) as wire:
        assert wire.cut() == b""
    proxied.served.wait_stat("connections_turned_away", "untrusted_proxy")
    wait_until(lambda: "none of trusted_proxies" in caplog.text, "the line in the log")


def test_a_slow_header_is_cut(proxied):
    connect = proxied(settings={"header_timeout": 0.3})
    for begun in (b"", V1[:20], v2()[:10], v2()[:20]):
        start = time.monotonic()
        with socket.create_connection(("127.0.0.1", proxied.listener.port), GENEROUS) as sock:
            sock.sendall(begun)
            assert sock.recv(1) == b""
            assert 0.2 < time.monotonic() - start < 10
    assert proxied.served.stat("connections_turned_away", "proxy_timeout") == 4
    with connect(V1) as wire:
        assert wire.get().status == 200


def test_a_proxy_that_leaves_is_counted(proxied):
    connect = proxied(tls=False)
    connect(V1[:20]).close()
    proxied.served.wait_stat("connections_turned_away", "proxy_left")
    proxied.served.wait_stat("connections_open", value=0)


def test_closing_does_not_wait_for_a_header(proxied):
    connect = proxied(tls=False)
    with connect(V1[:20]) as wire:
        wait_until(lambda: proxied.served.stat("connections_open") == 1)
        start = time.monotonic()
        proxied.served.server.close(grace=20)
        assert time.monotonic() - start < 10
        assert wire.cut() == b""


def test_the_clients_of_a_proxy_are_limited_one_by_one(proxied):
    connect = proxied(tls=False, settings={"max_connections_per_ip": 2})
    others = [connect(v2((f"203.0.113.{host}", 1))) for host in range(1, 6)]
    assert all(wire.get().status == 200 for wire in others), "one address, but not one client"
    with connect(v2()) as first, connect(v2()) as second:
        assert (first.get().status, second.get().status) == (200, 200)
        with connect(v2()) as third:
            assert third.cut() == b""
        proxied.served.wait_stat("connections_turned_away", "max_connections_per_ip")
    wait_until(lambda: proxied.served.stat("connections_open") == 5)
    with connect(v2()) as wire:
        assert wire.get().status == 200, "there is room again"
    for wire in others:
        wire.close()


def test_streams_and_websockets_behind_a_proxy(proxied):
    def stream(connection):
        connection.write(f"{connection.peername} {connection.proxy.version}\n".encode())

    for tls in (True, False):
        connect = proxied(tls=tls, stream=stream)
        with connect(v2()) as wire:
            assert wire.rest() == f"{CLIENT} 2\n".encode()
    connect = proxied(portico.websocket(echo))
    with connect(v2()) as wire:
        socket = OverHTTP1(wire)
        assert socket.reply.status == 101
        assert socket.send(b"\x81\x82\0\0\0\0hi").read() == (1, b"hi")


def test_unix_sockets(proxied, serve, tmp_path):
    path = str(tmp_path / "proxy.socket")
    served = serve(tells, trusted_proxies=("unix",))
    served.server.listen(unix=path, tls=False, proxy_protocol=True)
    with Wire(0, unix=path, before=v2()) as wire:
        assert wire.get().text.startswith(repr([CLIENT, FRONT])[:-1])
    paths = b"/client".ljust(108, b"\0") + b"/front".ljust(108, b"\0")
    with Wire(0, unix=path, before=SIGNATURE + b"\x21\x31" + struct.pack("!H", 216) + paths) as wire:
        assert wire.get().text.startswith(repr(["/client", "/front", None])[:-1])
    served = serve(tells, trusted_proxies=("127.0.0.1",))
    path = str(tmp_path / "other.socket")
    served.server.listen(unix=path, tls=False, proxy_protocol=True)
    with Wire(0, unix=path) as wire:
        with contextlib.suppress(ConnectionError):  # It may have been sent away by then.
            wire.send(v2())
        assert wire.cut() == b""
    served.wait_stat("connections_turned_away", "untrusted_proxy")


def test_frameworks_see_the_client(proxied):
    def wsgi(environ, start_response):
        start_response("200 OK", [])
        return [" ".join(environ[key] for key in ("REMOTE_ADDR", "REMOTE_PORT", "wsgi.url_scheme")).encode()]

    async def asgi(scope, receive, send):
        body = f"{scope['client']} {scope['scheme']}".encode()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
        await send({"type": "http.response.body", "body": body})

    tls = field(SSL, b"\x01\0\0\0\x01")
    with proxied(portico.wsgi(wsgi), tls=False)(v2(CLIENT, FRONT, tls)) as wire:
        assert wire.get().text == "203.0.113.7 51234 https"
    with proxied(portico.asgi(asgi, lifespan="off"), tls=False)(v2(CLIENT, FRONT, tls)) as wire:
        assert wire.get().text == f"{CLIENT} https"


def test_trusted_proxies_have_to_be_named(make_server):
    server = make_server()
    with pytest.raises(portico.ConfigError, match="trusted_proxies="):
        server.listen(0, tls=False, proxy_protocol=True)
    with pytest.raises(portico.ConfigError, match="proxy_protocol: True or False"):
        server.listen(0, tls=False, proxy_protocol="yes")
    for wrong in (["localhost"], ["10.0.0.1/8"], "127.0.0.1", ["unix", 1]):
        with pytest.raises(portico.ConfigError, match="trusted_proxies"):
            portico.Server(trusted_proxies=wrong)


def test_a_flood_of_half_headers_keeps_nobody_out(proxied):
    connect = proxied(tls=False)
    half = [connect(V1[:30]) for _ in range(200)]
    done = threading.Event()

    def ask():
        with connect(v2()) as wire:
            assert wire.get().status == 200
        done.set()

    threading.Thread(target=ask).start()
    assert done.wait(GENEROUS)
    for wire in half:
        wire.close()
    proxied.served.wait_stat("connections_open", value=0)
