"""Certificates that browsers mind are served as they are, and what browsers will say is told, once, in words."""

import datetime
import ipaddress
import logging
import re
import ssl

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import AuthorityInformationAccessOID, ExtendedKeyUsageOID

import portico.testing
from certificates import DAY, DER, PEM, Chain, build, key_bytes, make_key
from clients import Wire, request, run, trusting
from portico.demo.certificates import keep

LOGGER = "portico.certificate"


def serve(make_server, cert, key, host="localhost"):
    """Adds it, shakes hands with it, and returns its warnings."""
    server = make_server()
    context = server.add_context(host, cert=cert, key=key)
    anybody = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    anybody.check_hostname, anybody.verify_mode = False, ssl.CERT_NONE
    # Old signatures are refused by the client's own rules else.
    anybody.set_ciphers("DEFAULT:@SECLEVEL=0")
    with Wire(server.listen(0).port, context=anybody, sni=host or "localhost") as wire:
        shown = wire.sock.getpeercert(binary_form=True)
    assert shown == x509.load_pem_x509_certificates(cert)[0].public_bytes(DER)
    return context.warnings


def self_signed(key=None, **more):
    key = key or make_key()
    return build(key, **more).public_bytes(PEM), key_bytes(key)


def usage(oid):
    return [x509.ExtendedKeyUsage([oid])]


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (
            lambda: self_signed(names=[]),
            [
                "names no host in subjectAltName.*ERR_CERT_COMMON_NAME_INVALID",
                "self-signed.*ERR_CERT_AUTHORITY_INVALID",
            ],
        ),
        (
            lambda: self_signed(common=["localhost", "www.localhost", "x"], names=[]),
            ["has 3 common names.*RFC 9525", "ERR_CERT_COMMON_NAME_INVALID", "ERR_CERT_AUTHORITY_INVALID"],
        ),
        (lambda: self_signed(common=["a", "localhost"]), ["has 2 common names", "ERR_CERT_AUTHORITY_INVALID"]),
        (lambda: self_signed(rsa.generate_private_key(65537, 4096)), ["ERR_CERT_AUTHORITY_INVALID"]),
        (
            lambda: self_signed(ends=3650 * DAY),
            [
                "ERR_CERT_AUTHORITY_INVALID",
                "valid for 3651 days.*ERR_CERT_VALIDITY_TOO_LONG.*825.*200 days from 2026-03-15, 100 from 2027-03-15, 47 from 2029-03-15",
            ],
        ),
        (
            lambda: self_signed(names=["other.test", "*.localhost"]),
            [r"does not cover localhost, only other.test, \*.localhost: .*ERR_CERT_COMMON_NAME_INVALID", "AUTHORITY"],
        ),
    ],
    ids=[
        "only a common name",
        "several common names, no SAN",
        "several common names",
        "RSA of 4096 bits",
        "ten years",
        "another name",
    ],
)
def test_real_peoples_certificates_are_served_with_a_warning(make_server, caplog, made, said):
    cert, key = made()
    warnings = serve(make_server, cert, key)
    assert len(warnings) == len(said)
    for warning, expected in zip(warnings, said, strict=True):
        assert_matches(expected, warning)
    logged = [record for record in caplog.records if record.name == LOGGER]
    assert [record.levelno for record in logged] == [logging.WARNING] * len(said)
    assert all(
        record.getMessage() == f"for host localhost: {warning}"
        for record, warning in zip(logged, warnings, strict=True)
    )


def assert_matches(expected, warning):
    assert re.search(expected, warning), warning
    assert re.match(r"certificate \d+ bytes given \(subject CN=.*, valid until 20\d\d-", warning)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"extensions": usage(ExtendedKeyUsageOID.CLIENT_AUTH)}, "does not allow servers"),
        ({"ca": True}, "certificate of an authority"),
        ({"begins": -80 * DAY, "ends": 10 * DAY}, "expires at 20.*, in (9|10) days: renew it"),
        ({"begins": -1 * DAY, "ends": 400 * DAY}, "valid for 401 days"),
    ],
    ids=["no server", "authority", "ends soon", "long"],
)
def test_each_warning_alone(make_server, more, said):
    chain = Chain(**more)
    (warning,) = serve(make_server, chain.pem("leaf", "intermediate"), chain.pem("key"))
    assert_matches(said, warning)


def test_signature_with_sha1(make_server, tmp_path):
    (tmp_path / "key").write_bytes(key_bytes(make_key("rsa")))
    command = "openssl req -x509 -sha1 -key key -subj /CN=localhost -addext subjectAltName=DNS:localhost"
    cert = run(*command.split(), cwd=tmp_path).stdout.encode()
    _, warning = serve(make_server, cert, tmp_path / "key")
    assert_matches("signed with SHA-1 or MD5: .*ERR_CERT_WEAK_SIGNATURE_ALGORITHM", warning)


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"extensions": usage(ExtendedKeyUsageOID.SERVER_AUTH)},
        {"extensions": usage(ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE)},
        {"ends": 89 * DAY},
        {"ends": 397 * DAY},
        {"names": ["other.test", "LocalHost"]},
    ],
)
def test_no_warning_without_reason(make_server, more):
    chain = Chain(**more)
    assert serve(make_server, chain.pem("leaf", "intermediate"), chain.pem("key")) == []
    assert serve(make_server, chain.pem("leaf", "intermediate", "root"), chain.pem("key")) == []


ISSUER = x509.AuthorityInformationAccess(
    [x509.AccessDescription(AuthorityInformationAccessOID.CA_ISSUERS, x509.UniformResourceIdentifier("http://x.test/"))]
)


def test_chain_without_its_intermediate(make_server):
    """Told only of authorities that say where their certificate is, as public ones do."""
    chain = Chain(extensions=[ISSUER])
    (warning,) = serve(make_server, chain.pem("leaf"), chain.pem("key"))
    assert_matches(r"issuer \(CN=intermediate\) is not with it.*full chain", warning)
    assert serve(make_server, chain.pem("leaf", "intermediate"), chain.pem("key")) == []
    private = Chain()
    assert serve(make_server, private.pem("leaf"), private.pem("key")) == []


def test_expired_intermediate(make_server):
    chain = Chain()
    old = build(
        chain.intermediate_key,
        common=["intermediate"],
        names=[],
        issuer=(chain.root, chain.root_key),
        ca=True,
        begins=-9 * DAY,
        ends=-DAY,
    )
    (warning,) = serve(make_server, chain.pem("leaf") + old.public_bytes(PEM), chain.pem("key"))
    assert_matches("chain for CN=intermediate expired at 20", warning)


@pytest.mark.parametrize(
    ("host", "covered"),
    [
        ("*.shop.test", True),
        ("a.shop.test", True),
        ("shop.test", False),
        ("*.a.shop.test", False),
        ("other.test", True),
        (None, True),
    ],
)
def test_names_and_wildcards(make_server, host, covered):
    chain = Chain(names=["*.Shop.test", "other.test"])
    context = make_server().add_context(host, cert=chain.pem("leaf", "intermediate", "key"))
    assert [f"does not cover {host}" in warning for warning in context.warnings] == ([] if covered else [True])
    assert context.names == ["*.shop.test", "other.test"]


def test_addresses_are_among_the_names(make_server):
    addresses = [x509.IPAddress(ipaddress.ip_address(address)) for address in ("127.0.0.1", "::1")]
    chain = Chain(names=[], extensions=[x509.SubjectAlternativeName([*addresses, x509.DNSName("localhost")])])
    context = make_server().add_context("localhost", cert=chain.pem("leaf", "intermediate", "key"))
    assert (context.names, context.warnings) == (["127.0.0.1", "::1", "localhost"], [])


def test_logged_at_every_load_and_not_in_between(make_server, tmp_path, caplog):
    cert, key = self_signed()
    (tmp_path / "both.pem").write_bytes(cert + key)
    server = make_server()
    context = server.add_context("localhost", cert=tmp_path / "both.pem")
    assert len(caplog.records) == 1
    request(server.listen(0).port, context=trusting(cert))
    assert len(context.warnings) == len(server.contexts[0].warnings) == 1
    assert len(caplog.records) == 1
    context.reload()
    assert len(caplog.records) == 2
    chain = Chain()
    context.replace(cert=chain.pem("leaf", "intermediate", "key"))
    assert len(caplog.records) == 2
    assert context.warnings == []


def test_subject_cannot_forge_a_line_of_a_log(make_server):
    key = make_key()
    name = x509.Name([x509.NameAttribute(x509.oid.NameOID.COMMON_NAME, "x\nERROR forged\x1b[31m")])
    now = datetime.datetime.now(datetime.timezone.utc)
    builder = x509.CertificateBuilder(name, name, key.public_key(), 1, now - DAY, now + DAY)
    context = make_server().add_context(
        "localhost", cert=builder.sign(key, hashes.SHA256()).public_bytes(PEM), key=key_bytes(key)
    )
    assert context.warnings
    assert all("\n" not in text and "\x1b" not in text for text in (context.subject, *context.warnings))


def test_development_certificates_make_no_noise(tmp_path, caplog):
    with portico.testing.server(None, hosts=("localhost", "*.shop.test")) as testing:
        made = keep(tmp_path, {"localhost": ["localhost", "127.0.0.1"], "shop.localhost": ["shop.localhost"]})
        for host, path in made.pairs.items():
            testing.server.add_context(host, cert=path)
        assert [context.warnings for context in testing.server.contexts] == [[]] * 4
    assert [record for record in caplog.records if record.name == LOGGER] == []
