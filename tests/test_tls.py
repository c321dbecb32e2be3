"""The handshake: versions, ALPN, what it tells of itself, and what happens when it fails."""

import json
import re
import socket
import ssl
import threading

import pytest

import portico
from clients import GENEROUS, Wire, openssl, request, run, trusting

V12, V13 = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3
ATTRIBUTES = ("sni", "tls_version", "cipher", "key_exchange", "alpn", "peername", "sockname", "secure", "id")


def tell(request):
    """Answers with what is known of the connection."""
    known = {name: getattr(request.connection, name) for name in ATTRIBUTES}
    return {"statusCode": 200, "body": json.dumps(known)}


@pytest.mark.parametrize(("version", "told"), [(V12, "TLSv1.2"), (V13, "TLSv1.3")])
def test_both_versions(serve, version, told):
    served = serve(tell)
    reply = request(served.port, context=served.context(minimum=version, maximum=version))
    assert reply.json()["tls_version"] == told


@pytest.fixture
def limited(make_server, issue, ca_pem):
    """Serves with TLS keywords of `add_context`."""

    def limited(**tls):
        server = make_server(tell)
        server.add_context("localhost", **issue("localhost"), **tls)
        return server.listen(0).port

    return limited


def test_min_version(limited, ca_pem):
    port = limited(min_version="1.3")
    with pytest.raises(ssl.SSLError, match="protocol version"):
        request(port, context=trusting(ca_pem, maximum=V12))
    assert request(port, context=trusting(ca_pem)).json()["tls_version"] == "TLSv1.3"


def test_max_version(limited, ca_pem):
    port = limited(max_version="1.2")
    with pytest.raises(ssl.SSLError, match="protocol version"):
        request(port, context=trusting(ca_pem, minimum=V13))
    assert request(port, context=trusting(ca_pem)).json()["tls_version"] == "TLSv1.2"


@pytest.mark.parametrize(
    ("tls", "why"),
    [
        ({"min_version": "1.1"}, "min_version"),
        ({"max_version": "1.4"}, "max_version"),
        ({"min_version": 1.2}, "min_version"),
        ({"min_version": "1.3", "max_version": "1.2"}, "min_version is above max_version"),
        ({"alpn": ["h3"]}, "alpn"),
        ({"alpn": "h3"}, "alpn"),
        ({"alpn": [1]}, "alpn"),
    ],
)
def test_rules_that_make_no_sense(limited, tls, why):
    with pytest.raises(portico.ConfigError, match=why):
        limited(**tls)


@pytest.mark.parametrize(
    ("offered", "chosen"),
    [
        (["h2", "http/1.1"], "h2"),
        (["http/1.1", "h2"], "h2"),
        (["http/1.1"], "http/1.1"),
        (["foo", "http/1.1"], "http/1.1"),
        (None, None),
    ],
)
def test_alpn(serve, offered, chosen):
    served = serve(tell)
    with served.tls_wire(alpn=offered) as wire:
        assert wire.sock.selected_alpn_protocol() == chosen
        if chosen != "h2":
            assert wire.get().json()["alpn"] == chosen


@pytest.mark.parametrize("alpn", [("http/1.1",), "http/1.1"])
def test_alpn_of_one_host(limited, ca_pem, alpn):
    port = limited(alpn=alpn)
    with Wire(port, context=trusting(ca_pem, alpn=["h2", "http/1.1"])) as wire:
        assert wire.sock.selected_alpn_protocol() == "http/1.1"
        assert wire.get().status == 200


def test_no_common_protocol_is_told(serve):
    served = serve()
    with pytest.raises(ssl.SSLError, match="no application protocol"):
        served.tls_wire(alpn=["foo"])
    served.wait_stat("handshakes_failed", "incompatible")


@pytest.mark.parametrize(("off", "left"), [("http2", "http/1.1"), ("http1", "h2")])
def test_protocol_that_is_off_is_not_offered(serve, off, left):
    served = serve(**{off: False})
    with served.tls_wire(alpn=["h2", "http/1.1"]) as wire:
        assert wire.sock.selected_alpn_protocol() == left


def test_http1_that_is_off_is_not_spoken_without_alpn_either(serve):
    served = serve(http1=False)
    with served.tls_wire() as wire:
        assert b" 200 " not in wire.send("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").cut()
    with served.wire() as wire:
        assert b" 200 " not in wire.send("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").cut()


@pytest.mark.parametrize(
    ("sent", "reason"),
    [
        (b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", "not_tls"),
        (bytes(range(255, -1, -1)), "not_tls"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(506), "protocol"),
        (b"", "left"),
        (b"\x16\x03\x01\x02\x00\x01\x00", "left"),
    ],
    ids=["plain HTTP", "garbage", "malformed hello", "nothing", "half a hello"],
)
def test_broken_handshake_is_counted_reported_and_harmless(serve, sent, reason):
    served = serve()
    with Wire(served.port) as wire:
        name = ":".join(map(str, wire.sock.getsockname()))
        wire.send(sent)
        if reason == "left":
            wire.half_close()
        assert b"HTTP" not in wire.cut()
    exception, request = served.errors.next()
    assert type(exception) is portico.HandshakeError
    assert isinstance(exception, ConnectionError)
    assert exception.reason == reason
    assert request is None
    assert name in str(exception)
    assert f"127.0.0.1:{served.port}" in str(exception)
    assert exception.connection.sockname == ("127.0.0.1", served.port)
    assert ":".join(map(str, exception.connection.peername)) == name
    served.wait_stat("handshakes_failed", reason)
    assert served.get().status == 200


def test_client_that_distrusts_the_certificate_is_reported_with_its_name(serve):
    served = serve()
    with pytest.raises(ssl.SSLCertVerificationError):
        request(served.port, context=ssl.create_default_context())
    exception, _ = served.errors.next(portico.HandshakeError)
    assert "localhost" in str(exception)


def test_unknown_name_is_reported_with_peer_and_name(serve, caplog):
    served = serve()
    with caplog.at_level("INFO", "portico.error"):
        with pytest.raises(ssl.SSLError, match="unrecognized name"):
            served.get(host="Unknown.test")
        exception, _ = served.errors.next(portico.HandshakeError)
    assert exception.reason == "unknown_name"
    assert exception.connection.sni == "unknown.test"
    assert "unknown.test" in str(exception)
    assert re.search(r"127\.0\.0\.1:\d+", str(exception))
    assert str(exception) in caplog.text


def test_silent_client_is_cut_while_others_are_served(serve):
    served = serve(handshake_timeout=1, io_threads=1)
    silent = [Wire(served.port) for _ in range(5)]
    try:
        silent[0].send(b"\x16\x03\x01")
        for _ in range(5):
            assert served.get().status == 200
        assert [wire.cut() for wire in silent] == [b""] * 5
    finally:
        for wire in silent:
            wire.close()
    served.wait_stat("handshakes_failed", "timeout", 5)
    exception, _ = served.errors.next(portico.HandshakeError)
    assert "handshake_timeout" in str(exception)


def test_what_a_tls_connection_tells(serve):
    served = serve(tell)
    with served.tls_wire(alpn=["http/1.1"]) as wire:
        told = wire.get().json()
        again = wire.get().json()
        cipher = wire.sock.cipher()[0]
        assert told["peername"] == list(wire.sock.getsockname())
        assert told["sockname"] == list(wire.sock.getpeername())
    assert told == again
    assert (told["sni"], told["secure"], told["alpn"]) == ("localhost", True, "http/1.1")
    assert told["cipher"] == cipher
    assert told["key_exchange"]
    with served.tls_wire() as wire:
        assert wire.get().json()["id"] != told["id"]


def test_tls_1_2_tells_its_cipher_by_the_iana_name(serve):
    served = serve(tell)
    context = served.context(maximum=V12, ciphers="ECDHE-ECDSA-AES128-GCM-SHA256")
    told = request(served.port, context=context).json()
    assert told["cipher"] == "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256"


def test_what_a_cleartext_connection_tells(serve):
    served = serve(tell)
    with served.wire() as wire:
        told = wire.get().json()
    assert told["secure"] is False
    assert [told[name] for name in ("sni", "tls_version", "cipher", "key_exchange", "alpn")] == [None] * 5


@pytest.mark.parametrize(("group", "told"), [("X25519", "X25519"), ("P-256", "secp256r1"), ("P-384", "secp384r1")])
def test_key_exchange_is_the_one_agreed_on(serve, tmp_path, group, told):
    served = serve(tell)
    ask = "GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    done = run("openssl", "s_client", "-connect", f"127.0.0.1:{served.port}", "-servername", "localhost",
               "-groups", group, "-quiet", "-ign_eof", input=ask)  # fmt: skip
    assert json.loads(done.stdout[done.stdout.index("{") :])["key_exchange"].lower() == told.lower()


def test_post_quantum_key_exchange(serve):
    if "MLKEM768" not in run("openssl", "list", "-kem-algorithms").stdout:
        pytest.skip("this openssl has no ML-KEM (it came with 3.5)")
    told = openssl(serve().port, "-groups", "X25519MLKEM768")
    assert "X25519MLKEM768" in told


@pytest.mark.parametrize("version", [V12, V13])
def test_sessions_are_resumed(serve, version):
    served = serve()
    context = served.context(minimum=version, maximum=version)
    with Wire(served.port, context=context) as wire:
        assert wire.get().status == 200
        session = wire.sock.session
    with (
        socket.create_connection(("127.0.0.1", served.port), 30) as sock,
        context.wrap_socket(sock, server_hostname="localhost", session=session) as again,
    ):
        assert again.session_reused


def shake_hands(served, sock):
    """Does all of a TLS 1.3 handshake but sending its last flight, which is in the returned BIO."""
    received, sent = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = served.context(minimum=V13).wrap_bio(received, sent, server_hostname="localhost")
    while True:
        try:
            tls.do_handshake()
            return tls, received, sent
        except ssl.SSLWantReadError:
            sock.sendall(sent.read())
            received.write(sock.recv(65536))


def test_the_ticket_leaves_with_the_first_answer(serve):
    called, answer = threading.Event(), threading.Event()

    def handler(request):
        called.set()
        answer.wait(GENEROUS)
        return {"statusCode": 200, "body": "hello"}

    served = serve(handler, dispatch="threads")
    with socket.create_connection(("127.0.0.1", served.port), GENEROUS) as sock:
        tls, received, sent = shake_hands(served, sock)
        tls.write(b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n")
        sock.sendall(sent.read())
        assert called.wait(GENEROUS)
        sock.setblocking(False)
        with pytest.raises(BlockingIOError):
            sock.recv(1)
        answer.set()
        sock.settimeout(GENEROUS)
        received.write(sock.recv(65536))
        assert tls.read().startswith(b"HTTP/1.1 200")
        assert tls.session.has_ticket


def test_the_ticket_does_not_wait_for_a_request_that_is_not_there(serve):
    served = serve(tell)
    with socket.create_connection(("127.0.0.1", served.port), GENEROUS) as sock:
        tls, received, sent = shake_hands(served, sock)
        sock.sendall(sent.read())
        received.write(sock.recv(65536))
        with pytest.raises(ssl.SSLWantReadError):
            tls.read()
        assert tls.session.has_ticket


def test_the_end_is_told_by_close_notify(serve):
    served = serve()
    with served.tls_wire() as wire:
        assert wire.get(headers="Connection: close\r\n").status == 200
        # Without close_notify this raises SSLEOFError: anybody could have cut it.
        assert wire.rest() == b""


def test_handshakes_are_counted(serve):
    served = serve()
    for _ in range(3):
        served.get()
    assert served.stat("handshakes") == 3
    assert sum(served.stat("handshakes_failed").values()) == 0
