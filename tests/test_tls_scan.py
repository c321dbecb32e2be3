"""sslyze finds nothing: Mozilla's intermediate profile, which it carries, and the known attacks.

It wants an older `cryptography` than the other tests, so `make` gives it an environment of its own, .venv-scan. Nothing
of it needs the network: the address is given with the name, and the authority is a test's. Left out is HTTP (HSTS is for
handlers to send), and with it what sslyze's own check of the profile leaves out.
"""

from __future__ import annotations

import datetime
import json
import os
import subprocess
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

import portico
from certificates import DAY, PEM, key_bytes, make_key
from portico import _core

HOST = "scan.test"
PLACES = [str(Path(__file__).parents[1] / ".venv-scan" / "bin"), *os.get_exec_path()]
SCANS = ("certinfo", "compression", "early_data", "elliptic_curves", "ems", "fallback", "heartbleed", "openssl_ccs",
         "reneg", "resum", "robot", "sslv2", "sslv3", "tlsv1", "tlsv1_1", "tlsv1_2", "tlsv1_3")  # fmt: skip


def find(program):
    for place in PLACES:
        if os.access(Path(place) / program, os.X_OK):
            return str(Path(place) / program)
    pytest.skip(f"{program} is not installed")


def issue_rsa(authority, authority_key):
    """A certificate with an RSA key, which portico's own authority does not make."""
    ca = x509.load_pem_x509_certificate(authority.encode())
    signer, key = load_pem_private_key(authority_key.encode(), None), make_key("rsa")
    its_key = ca.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    now = datetime.datetime.now(datetime.timezone.utc)
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, HOST)]))
        .issuer_name(ca.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - DAY)
        .not_valid_after(now + 89 * DAY)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(HOST)]), critical=False)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(its_key), critical=False)
    )
    cert = builder.sign(signer, hashes.SHA256()).public_bytes(PEM)
    return {"cert": cert + authority.encode(), "key": key_bytes(key)}


@pytest.fixture(scope="module")
def pairs():
    """An authority, and an ECDSA and an RSA certificate by it for as long as Mozilla recommends."""
    authority, authority_key = _core.make_authority("portico scan")
    cert, key = _core.issue_certificate(authority, authority_key, [HOST], 89)
    ecdsa = {"cert": cert.encode(), "key": key.encode()}
    return authority, ecdsa, issue_rsa(authority, authority_key)


@pytest.fixture(scope="module")
def scan(pairs, tmp_path_factory):
    """What sslyze says of a server: its exit code and output, and the results as JSON."""
    sslyze, folder = find("sslyze"), tmp_path_factory.mktemp("scan")
    ca, ecdsa, rsa = pairs
    (folder / "ca.pem").write_text(ca)
    with portico.Server(lambda request: {"statusCode": 200}, keepalive_timeout=5, header_timeout=5) as server:
        server.add_context(HOST, **ecdsa)
        server.add_context(HOST, **rsa)
        target = f"{HOST}:{server.listen(0).port}{{127.0.0.1}}"
        options = [f"--{name}" for name in SCANS]
        done = subprocess.run(
            [sslyze, "--mozilla_config=intermediate", "--certinfo_ca_file", folder / "ca.pem", *options,
             "--json_out", folder / "out.json", "--slow_connection", target],
            capture_output=True, text=True, timeout=100, check=False,
        )  # fmt: skip
    (result,) = json.loads((folder / "out.json").read_text())["server_scan_results"]
    return done, result


@pytest.fixture(scope="module")
def results(scan):
    _, result = scan
    assert result["scan_status"] == "COMPLETED", result
    failed = {name: scan["error_trace"] for name, scan in result["scan_result"].items() if scan["status"] == "ERROR"}
    assert not failed
    return {name: scan["result"] for name, scan in result["scan_result"].items()}


@pytest.mark.timeout(200)
def test_mozilla_intermediate_finds_nothing(scan):
    done, _ = scan
    assert 'Mozilla\'s "intermediate" configuration' in done.stdout
    assert "OK - Compliant." in done.stdout, done.stdout
    assert done.returncode == 0, done.stdout + done.stderr


def test_both_certificates_were_looked_at_and_trusted(results):
    deployments = results["certificate_info"]["certificate_deployments"]
    kinds = {one["received_certificate_chain"][0]["public_key"]["algorithm"] for one in deployments}
    assert kinds == {"ECPublicKey", "RSAPublicKey"}
    assert all(one["verified_certificate_chain"] for one in deployments)


@pytest.mark.parametrize("version", ["ssl_2_0", "ssl_3_0", "tls_1_0", "tls_1_1"])
def test_old_versions_are_not_spoken(results, version):
    assert results[f"{version}_cipher_suites"]["accepted_cipher_suites"] == []


def accepted(results, version):
    return {one["cipher_suite"]["name"] for one in results[f"{version}_cipher_suites"]["accepted_cipher_suites"]}


def test_cipher_suites_are_those_of_rustls(results):
    assert accepted(results, "tls_1_3") == {
        "TLS_AES_128_GCM_SHA256",
        "TLS_AES_256_GCM_SHA384",
        "TLS_CHACHA20_POLY1305_SHA256",
    }
    assert accepted(results, "tls_1_2") == {
        f"TLS_ECDHE_{key}_WITH_{cipher}"
        for key in ("ECDSA", "RSA")
        for cipher in ("AES_128_GCM_SHA256", "AES_256_GCM_SHA384", "CHACHA20_POLY1305_SHA256")
    }


def test_curves(results):
    curves = results["elliptic_curves"]["supported_curves"]
    assert {one["name"] for one in curves} == {"X25519", "secp256r1", "secp384r1"}


def test_renegotiation_is_refused(results):
    told = results["session_renegotiation"]
    assert told["supports_secure_renegotiation"] is True
    assert told["is_vulnerable_to_client_renegotiation_dos"] is False


def test_no_compression_no_early_data(results):
    assert results["tls_compression"]["supports_compression"] is False
    assert results["tls_1_3_early_data"]["supports_early_data"] is False


def test_no_session_is_kept_by_its_id(results):
    """That would need memory for every client. Of tickets sslyze says nothing true: it takes only the same ticket twice
    for resumption, and this server gives a new one each time (RFC 5077 section 3.3). They are in test_tls_clients.py."""
    assert results["session_resumption"]["session_id_resumption_result"] == "NOT_SUPPORTED"


def test_known_attacks(results):
    assert results["heartbleed"]["is_vulnerable_to_heartbleed"] is False
    assert results["openssl_ccs_injection"]["is_vulnerable_to_ccs_injection"] is False
    assert results["robot"]["robot_result"].startswith("NOT_VULNERABLE")
    assert results["tls_fallback_scsv"]["supports_fallback_scsv"] is True
    assert results["tls_extended_master_secret"]["supports_ems_extension"] is True
