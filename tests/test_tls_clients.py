"""Clients as people have them shake hands and are answered: OpenSSL, curl, Python, browsers, Go."""

from __future__ import annotations

import json
import socket
import ssl

import curl_cffi
import pytest

import tls13
from certificates import pair
from clients import GENEROUS, curl, openssl, request, run, trusting

V12, V13 = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3
ASK = "GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"


def tell(request):
    """Answers with what is known of the connection, and of the request."""
    names = ("sni", "tls_version", "cipher", "key_exchange", "alpn")
    known = {name: getattr(request.connection, name) for name in names}
    return {"statusCode": 200, "body": json.dumps({**known, "version": request.version})}


@pytest.fixture
def served(serve):
    return serve(tell)


@pytest.fixture
def ca(served, tmp_path):
    """The authority's certificate in a file."""
    file = tmp_path / "ca.pem"
    file.write_text(served.testing.ca_pem)
    return file


@pytest.fixture
def both_keys(make_server):
    """A port where one host has an ECDSA and an RSA certificate, both self-signed, and what to trust."""
    server = make_server(tell)
    pairs = [pair("localhost", kind) for kind in ("p256", "rsa")]
    for cert, key in pairs:
        server.add_context("localhost", cert=cert, key=key)
    return server.listen(0).port, b"".join(cert for cert, _ in pairs)


# ---- openssl


@pytest.mark.parametrize("version", ["1_2", "1_3"])
@pytest.mark.parametrize(
    ("offer", "key"), [("ECDSA+SHA256", "id-ecPublicKey"), ("RSA-PSS+SHA256:RSA+SHA256", "rsaEncryption")]
)
def test_openssl_with_each_version_and_key(both_keys, tmp_path, version, offer, key):
    port, trusted = both_keys
    (tmp_path / "ca.pem").write_bytes(trusted)
    told = openssl(port, f"-tls{version}", "-sigalgs", offer, "-CAfile", str(tmp_path / "ca.pem"))
    assert "Verify return code: 0 (ok)" in told
    assert f"TLSv{version.replace('_', '.')}, Cipher is" in told.replace("New, ", "")
    certificate = told[told.index("-----BEGIN") : told.index("-----END")] + "-----END CERTIFICATE-----\n"
    assert key in run("openssl", "x509", "-noout", "-text", input=certificate).stdout


@pytest.mark.parametrize("version", ["1_2", "1_3"])
def test_openssl_resumes_a_session(served, tmp_path, version):
    session = str(tmp_path / "session")
    command = ["openssl", "s_client", "-connect", f"127.0.0.1:{served.port}", "-servername", "localhost",
               f"-tls{version}", "-ign_eof"]  # fmt: skip
    assert "New, TLSv" in run(*command, "-sess_out", session, input=ASK).stdout
    again = run(*command, "-sess_in", session, input=ASK).stdout
    assert "Reused, TLSv" in again
    assert '"sni": "localhost"' in again


# ---- curl


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--http1.1"], {"version": "1.1", "alpn": "http/1.1", "tls_version": "TLSv1.3"}),
        (["--http2"], {"version": "2", "alpn": "h2", "tls_version": "TLSv1.3"}),
        (["--http2", "--tls-max", "1.2"], {"version": "2", "alpn": "h2", "tls_version": "TLSv1.2"}),
        (["--http1.1", "--tls-max", "1.2"], {"version": "1.1", "tls_version": "TLSv1.2"}),
        (["--no-alpn"], {"version": "1.1", "alpn": None}),
    ],
)
def test_curl(served, ca, options, expected):
    told = json.loads(curl(served.port, "/", *options, ca=ca))
    assert {name: told[name] for name in expected} == expected


def test_curl_below_what_is_allowed_is_told_so(served, ca):
    done = run("curl", "--silent", "--show-error", "--cacert", str(ca), "--tls-max", "1.1",
               "--ciphers", "DEFAULT@SECLEVEL=0", "--resolve", f"localhost:{served.port}:127.0.0.1",
               f"https://localhost:{served.port}/")  # fmt: skip
    assert done.returncode == 35, done.stderr
    exception, _ = served.errors.next()
    assert "no version that this host does" in str(exception)


# ---- Python


@pytest.mark.parametrize("version", [V12, V13])
@pytest.mark.parametrize("ciphers", ["ECDHE+AESGCM", "ECDHE+CHACHA20"])
def test_python(served, version, ciphers):
    context = served.context(minimum=version, maximum=version, ciphers=ciphers)
    assert request(served.port, context=context).json()["tls_version"] == version.name.replace("_", ".").replace(
        "v1.", "v1."
    )


@pytest.mark.parametrize(("ciphers", "key"), [("ECDHE+ECDSA+AESGCM", "ECDSA"), ("ECDHE+aRSA+AESGCM", "RSA")])
def test_python_with_each_key(both_keys, ciphers, key):
    port, trusted = both_keys
    told = request(port, context=trusting(trusted, maximum=V12, ciphers=ciphers)).json()
    assert f"ECDHE_{key}_WITH" in told["cipher"]


def test_python_verifies_strictly(served):
    """As Python 3.13 does by default: RFC 5280 to the letter."""
    context = served.context()
    context.verify_flags |= ssl.VERIFY_X509_STRICT | ssl.VERIFY_X509_PARTIAL_CHAIN
    assert request(served.port, context=context).status == 200


# ---- browsers


POST_QUANTUM = ("chrome131", "chrome150", "firefox135", "firefox147", "safari260")
BEFORE = ("chrome99", "chrome110", "safari155", "safari184", "safari260_ios", "edge101")


def browse(browser, port, ca):
    with curl_cffi.Session(impersonate=browser, verify=str(ca), timeout=GENEROUS, trust_env=False) as session:
        return session.get(f"https://localhost:{port}/").json()


@pytest.mark.parametrize("browser", [*POST_QUANTUM, *BEFORE])
def test_browsers(served, ca, browser):
    told = browse(browser, served.port, ca)
    assert (told["sni"], told["tls_version"], told["alpn"], told["version"]) == ("localhost", "TLSv1.3", "h2", "2")
    if browser in POST_QUANTUM:
        assert told["key_exchange"] == "X25519MLKEM768"


# ---- Go


def go_hello():
    """What crypto/tls of Go 1.24 sends, in its order: two key shares, the first post-quantum; no padding, no GREASE."""
    shares = [(4588, 1216), (29, 32)]
    share = b"".join(tls13.numbers(group) + tls13.sized(bytes([9]) * length) for group, length in shares)
    suites = (0xC02B, 0xC02F, 0xC02C, 0xC030, 0xCCA9, 0xCCA8, 0xC009, 0xC013, 0xC00A, 0xC014, 0x1301, 0x1302, 0x1303)
    signatures = (0x0804, 0x0403, 0x0807, 0x0805, 0x0806, 0x0401, 0x0501, 0x0601, 0x0503, 0x0603)
    return tls13.client_hello(
        tls13.server_name("localhost"),
        tls13.extension(11, tls13.sized(b"\0", 1)),
        tls13.extension(0xFF01, b"\0"),
        tls13.extension(23, b""),
        tls13.extension(18, b""),
        tls13.extension(5, b"\1\0\0\0\0"),
        tls13.extension(10, tls13.sized(tls13.numbers(4588, 29, 23, 24, 25))),
        tls13.extension(13, tls13.sized(tls13.numbers(*signatures))),
        tls13.extension(50, tls13.sized(tls13.numbers(*signatures))),
        tls13.extension(16, tls13.sized(tls13.sized(b"h2", 1) + tls13.sized(b"http/1.1", 1))),
        tls13.extension(43, tls13.sized(tls13.numbers(0x0304, 0x0303), 1)),
        tls13.extension(51, tls13.sized(share)),
        ciphers=suites,
        session=bytes(range(32)),
    )


def test_a_hello_as_go_sends_it_is_answered(served):
    """Its keys are invented, so the server's answer is as far as it goes; the ML-KEM one is even a valid point."""
    with socket.create_connection(("127.0.0.1", served.port), GENEROUS) as sock:
        sock.sendall(tls13.records(go_hello()))
        answer = sock.recv(5)
        assert answer[0] == tls13.HANDSHAKE
        length = int.from_bytes(answer[3:5], "big")
        body = sock.recv(length, socket.MSG_WAITALL)
    assert body[0] == 2
    assert tls13.numbers(tls13.KEY_SHARE) in body
    # X25519MLKEM768 with a ciphertext and a share of 1120 bytes.
    assert tls13.numbers(4588, 1120) in body
