"""TLS sessions that are taken up again, also by another process or machine."""

from __future__ import annotations

import json
import os
import ssl
import subprocess

import pytest

import portico
from clients import GENEROUS, Wire, trusting

V12, V13 = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3


def tell(request):
    return {"statusCode": 200, "body": json.dumps({"resumed": request.connection.resumed})}


def visit(port, client, session=None, sni="localhost"):
    """One request: whether its session was an earlier one, and the session for the next."""
    with Wire(port) as wire:
        wire.file.close()
        wire.sock = client.wrap_socket(wire.sock, server_hostname=sni, session=session)
        wire.file = wire.sock.makefile("rb")
        told = wire.get(host=sni).json()
        assert wire.sock.session_reused == told["resumed"]
        return told["resumed"], wire.sock.session


@pytest.fixture
def start(make_server, issue):
    """Starts one of several servers that have a host in common."""
    certificate = issue("localhost", "other.test")

    def start(**tls):
        server = make_server(tell)
        for host in ("localhost", "other.test"):
            server.add_context(host, **certificate, **tls)
        return server, server.listen(0).port

    return start


@pytest.mark.parametrize("version", [V12, V13])
def test_handlers_see_that_a_session_was_taken_up(start, ca_pem, version):
    _, port = start()
    client = trusting(ca_pem, minimum=version, maximum=version)
    resumed, session = visit(port, client)
    assert not resumed
    resumed, session = visit(port, client, session)
    assert resumed


@pytest.mark.parametrize("version", [V12, V13])
def test_who_shares_keys_takes_up_each_others_sessions(start, ca_pem, version):
    keys = [os.urandom(32)]
    (_, one), (_, two) = start(ticket_keys=keys), start(ticket_keys=keys)
    client = trusting(ca_pem, minimum=version, maximum=version)
    _, session = visit(one, client)
    assert visit(two, client, session)[0]


def test_who_shares_none_does_not(start, ca_pem):
    (_, one), (_, two), (_, three) = start(), start(), start(ticket_keys=[os.urandom(32)])
    client = trusting(ca_pem)
    _, session = visit(one, client)
    assert not visit(two, client, session)[0]
    assert not visit(three, client, session)[0]


def test_a_session_is_one_hosts(start, ca_pem):
    _, port = start(ticket_keys=[os.urandom(32)])
    client = trusting(ca_pem)
    _, session = visit(port, client)
    assert not visit(port, client, session, sni="other.test")[0]


def test_keys_rotate(start, ca_pem):
    old, new = os.urandom(32), os.urandom(48)
    server, port = start(ticket_keys=[old])
    client = trusting(ca_pem)
    _, first = visit(port, client)
    context = server.contexts[0]
    assert context.host == "localhost"
    context.replace(ticket_keys=[new, old])
    resumed, second = visit(port, client, first)
    assert resumed
    context.replace(ticket_keys=[new])
    assert visit(port, client, second)[0], "it was sealed anew"
    assert not visit(port, client, first)[0]


def test_keys_from_files(start, ca_pem, tmp_path):
    file = tmp_path / "tickets.key"
    file.write_bytes(os.urandom(80))
    server, port = start(ticket_keys=[file])
    client = trusting(ca_pem)
    _, session = visit(port, client)
    server.contexts[0].reload()
    assert visit(port, client, session)[0]
    file.write_bytes(os.urandom(80))
    server.contexts[0].reload()
    assert not visit(port, client, session)[0]


def test_a_new_certificate_does_not_end_sessions(start, ca_pem, issue):
    server, port = start()
    client = trusting(ca_pem)
    _, session = visit(port, client)
    server.contexts[0].replace(**issue("localhost"))
    assert visit(port, client, session)[0]


@pytest.mark.parametrize(
    ("keys", "error", "why"),
    [
        ([b"short"], portico.CertificateError, "5 bytes long"),
        (["/no/such/key"], portico.ConfigError, r"ticket_keys= \(12 characters\)"),
        (b"0" * 32, portico.ConfigError, "ticket_keys: a list"),
        ("/no/such/key", portico.ConfigError, "ticket_keys: a list"),
        ([7], portico.ConfigError, "ticket_keys"),
        (7, portico.ConfigError, "ticket_keys"),
    ],
)
def test_keys_that_are_none(start, keys, error, why):
    with pytest.raises(error, match=why):
        start(ticket_keys=keys)


def test_a_key_is_never_shown(start):
    with pytest.raises(portico.CertificateError) as error:
        start(ticket_keys=[b"swordfish"])
    assert "swordfish" not in str(error.value)


def test_early_data_is_not_taken(start, tmp_path):
    """0-RTT data can be replayed by whoever sees it (RFC 8446 section 8)."""
    _, port = start()
    ask = b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    session = tmp_path / "session"
    connect = ["openssl", "s_client", "-connect", f"127.0.0.1:{port}", "-servername", "localhost", "-tls1_3"]
    subprocess.run([*connect, "-sess_out", session, "-ign_eof"], input=ask, capture_output=True, timeout=GENEROUS)
    told = subprocess.run(
        [*connect, "-sess_in", session, "-ign_eof"], input=ask, capture_output=True, timeout=GENEROUS
    ).stdout.decode()
    assert '{"resumed": true}' in told
    assert "Max Early Data: 0" in told
