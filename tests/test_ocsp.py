"""OCSP responses that are sent with a certificate."""

from __future__ import annotations

import datetime

import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp

import portico
from certificates import DAY
from clients import run, wait_until

GOOD, REVOKED = ocsp.OCSPCertStatus.GOOD, ocsp.OCSPCertStatus.REVOKED


def vouch(ca, pem, *, status=GOOD, begins=-2 * DAY, ends=DAY):
    """What the authority says of a certificate, DER."""
    leaf = x509.load_pem_x509_certificate(pem)
    issuer = x509.load_pem_x509_certificate(ca.cert_pem.bytes())
    key = serialization.load_pem_private_key(ca.private_key_pem.bytes(), None)
    now = datetime.datetime.now(datetime.timezone.utc)
    revoked = now - DAY if status is REVOKED else None
    builder = ocsp.OCSPResponseBuilder().add_response(
        cert=leaf,
        issuer=issuer,
        algorithm=hashes.SHA1(),
        cert_status=status,
        this_update=now + begins,
        next_update=now + ends if ends is not None else None,
        revocation_time=revoked,
        revocation_reason=None,
    )
    builder = builder.responder_id(ocsp.OCSPResponderEncoding.NAME, issuer)
    return builder.sign(key, hashes.SHA256()).public_bytes(Encoding.DER)


def stapled(port):
    """What openssl says of the response that it was sent."""
    told = run("openssl", "s_client", "-connect", f"127.0.0.1:{port}", "-servername", "localhost", "-status", input="")
    return told.stdout


@pytest.fixture
def leaf(ca):
    return ca.issue_cert("localhost")


@pytest.fixture
def pair(leaf):
    return {"cert": leaf.cert_chain_pems[0].bytes(), "key": leaf.private_key_pem.bytes()}


def test_it_is_sent_from_bytes_and_from_a_file(make_server, ca, pair, tmp_path):
    file = tmp_path / "leaf.ocsp"
    file.write_bytes(vouch(ca, pair["cert"]))
    for source in (file, file.read_bytes()):
        server = make_server()
        server.add_context("localhost", **pair, ocsp=source)
        assert "Cert Status: good" in stapled(server.listen(0).port)


def test_none_is_sent_without(make_server, pair):
    server = make_server()
    server.add_context("localhost", **pair)
    assert "no response sent" in stapled(server.listen(0).port)


def test_it_is_replaced_and_goes_with_its_certificate(make_server, ca, pair, issue):
    server = make_server()
    context = server.add_context("localhost", **pair)
    port = server.listen(0).port
    context.replace(ocsp=vouch(ca, pair["cert"], ends=None))
    assert "Cert Status: good" in stapled(port)
    context.replace(**issue("localhost"))
    assert "no response sent" in stapled(port)


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda ca, cert: vouch(ca, cert, ends=-DAY), "expired at"),
        (lambda ca, cert: vouch(ca, cert, status=REVOKED), "revoked"),
        (lambda ca, cert: vouch(ca, ca.issue_cert("other.test").cert_chain_pems[0].bytes()), "for another certificate"),
        (lambda ca, cert: b"junk", "it is no response in DER"),
        (lambda ca, cert: b"", "it is empty"),
        (lambda ca, cert: vouch(ca, cert)[:-20], "it is no response in DER"),
        (
            lambda ca, cert: ocsp.OCSPResponseBuilder.build_unsuccessful(
                ocsp.OCSPResponseStatus.TRY_LATER
            ).public_bytes(Encoding.DER),
            "TryLater",
        ),
    ],
)
def test_one_that_clients_would_refuse_is_refused_here(make_server, ca, pair, make, why):
    server = make_server()
    context = server.add_context("localhost", **pair)
    with pytest.raises(portico.CertificateError, match=f"OCSP response.*{why}"):
        context.replace(ocsp=make(ca, pair["cert"]))
    assert "no response sent" in stapled(server.listen(0).port)


def test_one_that_ends_is_sent_no_longer(make_server, pair, ca):
    server = make_server()
    server.add_context("localhost", **pair, ocsp=vouch(ca, pair["cert"], ends=datetime.timedelta(seconds=6)))
    port = server.listen(0).port
    assert "Cert Status: good" in stapled(port)
    wait_until(lambda: "no response sent" in stapled(port), "the end of the response")


def test_rsa_too(make_server, ca):
    leaf = ca.issue_cert("localhost", key_type=trustme.KeyType.RSA)
    cert = leaf.cert_chain_pems[0].bytes()
    server = make_server()
    server.add_context("localhost", cert=cert, key=leaf.private_key_pem.bytes(), ocsp=vouch(ca, cert))
    assert "Cert Status: good" in stapled(server.listen(0).port)


def test_one_of_another_authority_or_from_the_future_is_refused(make_server, ca, pair):
    server = make_server()
    # Of the same serial number, by another authority.
    known = x509.load_pem_x509_certificate(pair["cert"])
    stranger = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "Other")])
    key = ec.generate_private_key(ec.SECP256R1())
    other = (
        x509.CertificateBuilder()
        .subject_name(known.subject)
        .issuer_name(stranger)
        .public_key(key.public_key())
        .serial_number(known.serial_number)
        .not_valid_before(known.not_valid_before_utc)
        .not_valid_after(known.not_valid_after_utc)
        .sign(key, hashes.SHA256())
    )
    with pytest.raises(portico.CertificateError, match="of another authority than"):
        server.add_context("localhost", **pair, ocsp=vouch(ca, other.public_bytes(Encoding.PEM)))
    with pytest.raises(portico.CertificateError, match="begins in the future"):
        server.add_context("localhost", **pair, ocsp=vouch(ca, pair["cert"], begins=DAY / 2))
