"""What people found who tried to get around TLS's rules; each of these once got through."""

from __future__ import annotations

import datetime
import json
import ssl
import time

import pytest
import trustme

import portico
from certificates import DAY, key_bytes, make_certificate, make_key
from clients import Errors, Wire, request, trusting, wait_until
from test_client_auth import revoke, who
from test_watch import presented, renew

SECOND = datetime.timedelta(seconds=1)


@pytest.fixture(scope="module")
def club():
    return trustme.CA(organization_name="Club")


@pytest.fixture
def members(club):
    return {"client_auth": "required", "client_ca": club.cert_pem.bytes()}


@pytest.mark.parametrize("host", ["admin.test", "anything", "10.1.2.3", "secret.test..", "a.b.wild.test"])
def test_the_default_hosts_rules_are_not_got_around_by_a_named_host(make_server, issue, ca_pem, members, host):
    server = make_server(who)
    server.add_context("public.test", **issue("public.test"))
    server.add_context("secret.test", **issue("secret.test"), **members)
    server.add_context(None, **issue("admin.test"), **members)
    port = server.listen(0).port
    with Wire(port, context=trusting(ca_pem), sni="public.test") as wire:
        assert wire.get(host=host).status == 421
        assert wire.get(host="public.test").status == 200


def test_final_dots_lead_to_the_same_host(make_server, issue, ca_pem, members):
    server = make_server(who)
    server.add_context("public.test", **issue("public.test"))
    server.add_context("secret.test", **issue("secret.test"), **members)
    with Wire(server.listen(0).port, context=trusting(ca_pem), sni="public.test") as wire:
        for dots in (".", "..", "..."):
            assert wire.get(host=f"secret.test{dots}").status == 421


def test_rules_that_were_tightened_hold_for_open_connections(make_server, issue, ca_pem, members):
    server = make_server(who)
    server.add_context("a.test", **issue("a.test"))
    port = server.listen(0).port
    with Wire(port, context=trusting(ca_pem), sni="a.test") as wire:
        assert wire.get(host="a.test").status == 200
        server.remove_context("a.test")
        server.add_context("a.test", **issue("a.test"), **members)
        assert wire.get(host="a.test").status == 421


def visit(port, client, session=None):
    with Wire(port) as wire:
        wire.file.close()
        wire.sock = client.wrap_socket(wire.sock, server_hostname="localhost", session=session)
        wire.file = wire.sock.makefile("rb")
        return wire.get().json(), wire.sock.session


def check_outlived(make_server, issue, ca_pem, club, leaf, lasts, **tls):
    """A client that comes back all the time is let in until then, and not a session longer."""
    errors = Errors()
    server = make_server(who, on_error=errors)
    server.add_context("localhost", **issue("localhost"), client_auth="required", **tls)
    port, client = server.listen(0).port, trusting(ca_pem)
    leaf.configure_cert(client)
    told, session = visit(port, client)
    assert not told["resumed"]
    told, session = visit(port, client, session)
    assert told["resumed"]
    time.sleep(lasts)  # that is what is tested
    with pytest.raises((ssl.SSLError, ConnectionError, AttributeError)):
        visit(port, client, session)
    error, _ = errors.next(portico.HandshakeError)
    assert error.reason == "client_certificate"
    return str(error)


def test_a_session_does_not_outlive_the_clients_certificate(make_server, issue, ca_pem, club):
    now = datetime.datetime.now(datetime.timezone.utc)
    leaf = club.issue_cert("ada@ada.example", not_before=now - DAY, not_after=now + 4 * SECOND)
    told = check_outlived(make_server, issue, ca_pem, club, leaf, 6, client_ca=club.cert_pem.bytes())
    assert "has expired since its session began" in told


def test_a_session_does_not_outlive_the_revocation_list(make_server, issue, ca_pem, club):
    leaf = club.issue_cert("ada@ada.example")
    lists = {"client_ca": club.cert_pem.bytes(), "client_crl": revoke(club, ends=4 * SECOND)}
    assert "client_crl has expired" in check_outlived(make_server, issue, ca_pem, club, leaf, 6, **lists)


def test_watching_tries_again_what_was_not_the_files_fault(make_server, issue, tmp_path):
    """A certificate that becomes valid only later."""
    first = renew(tmp_path, issue)
    errors = Errors()
    server = make_server(on_error=errors)
    server.add_context("localhost", cert=tmp_path / "tls.crt", key=tmp_path / "tls.key", watch=True)
    port = server.listen(0).port
    key = make_key()
    (tmp_path / "tls.key").write_bytes(key_bytes(key))
    (tmp_path / "tls.crt").write_bytes(make_certificate(key, begins=6 * SECOND))
    while "not valid before" not in str(errors.next(portico.CertificateError)[0]):
        pass
    assert presented(port) == first
    wait_until(lambda: presented(port) != first, "the new certificate to be valid")
    assert errors.given.empty(), "what fails in the same way is told once"


def test_the_answer_tells_who_asked(make_server, issue, ca_pem):
    """The check of the tests above: without rules there is nothing to get around."""
    server = make_server(who)
    server.add_context("public.test", **issue("public.test"))
    reply = request(server.listen(0).port, host="public.test", context=trusting(ca_pem))
    assert json.loads(reply.text) == {"peer": None, "resumed": False}
