"""Clients that identify themselves by a certificate."""

from __future__ import annotations

import datetime
import json
import ssl

import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.serialization import Encoding

import portico
from certificates import DAY
from clients import Errors, Wire, request, trusting

FIELDS = ("subject", "issuer", "serial", "names", "not_before", "not_after", "fingerprint")


def who(request):
    """Tells who is asking."""
    shown = request.connection.peer_certificate
    told = shown and {name: getattr(shown, name) for name in FIELDS}
    return {"statusCode": 200, "body": json.dumps({"peer": told, "resumed": request.connection.resumed})}


@pytest.fixture(scope="session")
def club():
    """An authority for clients, apart from the one for servers."""
    return trustme.CA(organization_name="Club")


@pytest.fixture
def member(ca_pem):
    """Client contexts that show a certificate, or none."""

    def member(leaf=None, **tls):
        context = trusting(ca_pem, **tls)
        if leaf:
            leaf.configure_cert(context)
        return context

    return member


@pytest.fixture
def asking(make_server, issue, club):
    """Serves with TLS keywords; the server, its port, and its errors."""

    def asking(**tls):
        errors = Errors()
        server = make_server(who, on_error=errors)
        tls.setdefault("client_ca", club.cert_pem.bytes())
        context = server.add_context("localhost", **issue("localhost"), **tls)
        return server, server.listen(0).port, errors, context

    return asking


def revoke(ca, *leaves, ends=DAY, number=1):
    """A revocation list, PEM."""
    key = serialization.load_pem_private_key(ca.private_key_pem.bytes(), None)
    issuer = x509.load_pem_x509_certificate(ca.cert_pem.bytes()).subject
    now = datetime.datetime.now(datetime.timezone.utc)
    builder = x509.CertificateRevocationListBuilder(issuer, now - 2 * DAY, now + ends)
    for leaf in leaves:
        serial = x509.load_pem_x509_certificate(leaf.cert_chain_pems[0].bytes()).serial_number
        entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(now - DAY).build()
        builder = builder.add_revoked_certificate(entry)
    if number is not None:
        builder = builder.add_extension(x509.CRLNumber(number), critical=False)
    return builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM)


def refused(port, context):
    """Whether the handshake fails; in TLS 1.3 the client is told with the first byte that it reads."""
    with pytest.raises((ssl.SSLError, ConnectionError)), Wire(port, context=context) as wire:
        wire.get()
    return True


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_handlers_see_the_certificate(asking, club, member, version):
    _, port, _, _ = asking(client_auth="required")
    leaf = club.issue_cert("ada@ada.example", "ada.example", "10.0.0.7", common_name="Ada")
    peer = request(port, context=member(leaf, minimum=version, maximum=version)).json()["peer"]
    known = x509.load_pem_x509_certificate(leaf.cert_chain_pems[0].bytes())
    assert "CN=Ada" in peer["subject"]
    assert "Club" in peer["issuer"]
    assert int(peer["serial"], 16) == known.serial_number
    assert peer["fingerprint"] == known.fingerprint(hashes.SHA256()).hex()
    assert peer["not_after"] == known.not_valid_after_utc.timestamp()
    assert peer["not_before"] == known.not_valid_before_utc.timestamp()
    assert {tuple(name) for name in peer["names"]} == {
        ("email", "ada@ada.example"),
        ("DNS", "ada.example"),
        ("IP Address", "10.0.0.7"),
    }


def test_the_certificate_itself(make_server, club, issue, member):
    seen = []

    def handler(request):
        seen.append(request.connection.peer_certificate)
        return {"statusCode": 200}

    server = make_server(handler)
    server.add_context("localhost", **issue("localhost"), client_auth="required", client_ca=club.cert_pem.bytes())
    port, leaf = server.listen(0).port, club.issue_cert("ada@ada.example")
    for _ in range(2):
        request(port, context=member(leaf))
    known = x509.load_pem_x509_certificate(leaf.cert_chain_pems[0].bytes())
    assert seen[0].der == known.public_bytes(Encoding.DER)
    assert isinstance(seen[0], portico.PeerCertificate)
    assert seen[0] == seen[1]
    assert len(set(seen)) == 1
    assert seen[0].serial in repr(seen[0])


def test_required(asking, club, member):
    server, port, errors, _ = asking(client_auth="required")
    assert refused(port, member())
    error, _ = errors.next(portico.HandshakeError)
    assert error.reason == "client_certificate"
    assert "showed no certificate" in str(error)
    assert error.connection.sni == "localhost"
    assert refused(port, member(trustme.CA().issue_cert("eve@eve.example")))
    error, _ = errors.next(portico.HandshakeError)
    assert "UnknownIssuer" in str(error)
    assert server.stats()["handshakes_failed"]["client_certificate"] == 2
    assert request(port, context=member(club.issue_cert("ada@ada.example"))).status == 200


def test_optional(asking, club, member):
    _, port, _, _ = asking(client_auth="optional")
    assert request(port, context=member()).json()["peer"] is None
    assert request(port, context=member(club.issue_cert("ada@ada.example"))).json()["peer"]
    assert refused(port, member(trustme.CA().issue_cert("eve@eve.example")))


def test_nobody_is_asked_by_default(serve, club, member):
    served = serve(who)
    context = served.context()
    club.issue_cert("ada@ada.example").configure_cert(context)
    assert request(served.port, context=context).json()["peer"] is None


def test_each_host_has_its_rule(asking, club, member, issue):
    server, port, _, _ = asking(client_auth="required")
    server.add_context("open.test", **issue("open.test"))
    assert request(port, host="open.test", context=member()).status == 200
    assert refused(port, member())
    # Nobody comes in by the open door and asks for the other host.
    with Wire(port, context=member(), sni="open.test") as wire:
        assert wire.get(host="localhost").status == 421


def test_the_contexts_of_one_host_have_the_same_rule(asking, issue):
    server, *_ = asking(client_auth="required")
    with pytest.raises(portico.ConfigError, match=r"client_auth.*localhost"):
        server.add_context("localhost", **issue("localhost", key_type=trustme.KeyType.RSA))
    assert len(server.contexts) == 1


def test_expired_client_certificate(asking, club, member):
    _, port, errors, _ = asking(client_auth="required")
    now = datetime.datetime.now(datetime.timezone.utc)
    leaf = club.issue_cert("old@old.example", not_before=now - 3 * DAY, not_after=now - DAY)
    assert refused(port, member(leaf))
    error, _ = errors.next(portico.HandshakeError)
    assert error.reason == "client_certificate"
    assert "expired" in str(error)


def test_revoked(asking, club, member):
    good, bad = club.issue_cert("good@club.example"), club.issue_cert("bad@club.example")
    _, port, errors, _ = asking(client_auth="required", client_crl=revoke(club, bad))
    assert request(port, context=member(good)).status == 200
    assert refused(port, member(bad))
    error, _ = errors.next(portico.HandshakeError)
    assert "Revoked" in str(error) or "revoked" in str(error)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_session_from_before_the_revocation_is_not_taken_up(asking, club, member, version):
    leaf = club.issue_cert("bad@club.example")
    _, port, _, context = asking(client_auth="required", client_crl=revoke(club))
    client = member(leaf, minimum=version, maximum=version)
    with Wire(port, context=client) as wire:
        wire.get()
        session = wire.sock.session

    def again():
        with Wire(port) as wire:
            wire.sock = client.wrap_socket(wire.sock, server_hostname="localhost", session=session)
            wire.file = wire.sock.makefile("rb")
            return wire.get().json()

    told = again()
    assert told["resumed"]
    assert "bad@club.example" in str(told["peer"]["names"]), "it is known in a resumed session too"
    context.replace(client_crl=revoke(club, leaf))
    with pytest.raises((ssl.SSLError, ConnectionError)):
        again()


def test_client_ca_is_replaced(asking, club, member):
    _, port, _, context = asking(client_auth="required")
    other = trustme.CA()
    leaf = other.issue_cert("new@new.example")
    assert refused(port, member(leaf))
    context.replace(client_ca=club.cert_pem.bytes() + other.cert_pem.bytes())
    assert request(port, context=member(leaf)).status == 200
    assert request(port, context=member(club.issue_cert("ada@ada.example"))).status == 200


@pytest.mark.parametrize(
    ("tls", "error", "why"),
    [
        ({"client_auth": "maybe"}, portico.ConfigError, "client_auth"),
        ({"client_auth": True}, portico.ConfigError, "client_auth"),
        ({"client_auth": "required", "client_ca": None}, portico.ConfigError, "client_ca"),
        ({"client_auth": "none"}, portico.ConfigError, "client_auth"),
        ({"client_auth": "optional", "client_ca": b"junk"}, portico.CertificateError, "client_ca 4 bytes given"),
        ({"client_auth": "optional", "client_ca": "/no/such"}, portico.CertificateError, "/no/such"),
        ({"client_auth": "optional", "client_ca": "-----BEGIN X-----"}, portico.CertificateError, "client_ca"),
        ({"client_auth": "optional", "client_crl": b"junk"}, portico.CertificateError, "client_crl"),
    ],
)
def test_what_cannot_be_used(asking, tls, error, why):
    with pytest.raises(error, match=why):
        asking(**tls)


def test_an_old_revocation_list_is_refused_where_it_is_given(asking, club):
    with pytest.raises(portico.CertificateError, match=r"client_crl.*expired at"):
        asking(client_auth="required", client_crl=revoke(club, ends=-DAY))


def test_a_list_without_number_is_refused_with_what_to_do(asking, club):
    with pytest.raises(portico.CertificateError, match=r"client_crl.*no CRL number.*5\.2\.3.*crlnumber = FILE"):
        asking(client_auth="required", client_crl=revoke(club, number=None))


def test_a_list_of_none_of_the_authorities_is_refused(asking, club):
    other = trustme.CA(organization_name="Other club")
    same_name = trustme.CA(organization_name="Club")
    for stranger in (other, same_name):
        with pytest.raises(portico.CertificateError, match=r"client_crl.*signed by an authority in client_ca"):
            asking(client_auth="required", client_crl=revoke(stranger))
    asking(client_auth="required", client_crl=revoke(other) + revoke(club))


def test_http2_requests_see_it_too(asking, club, member):
    import httpx

    _, port, _, _ = asking(client_auth="required")
    context = member(club.issue_cert("ada@ada.example"))
    with httpx.Client(http2=True, verify=context, trust_env=False) as client:
        answer = client.get(f"https://localhost:{port}/")
    assert answer.http_version == "HTTP/2"
    assert answer.json()["peer"]
