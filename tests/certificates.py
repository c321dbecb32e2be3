"""Certificates and keys of every kind, also broken ones."""

from __future__ import annotations

import datetime

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from cryptography.x509.oid import NameOID

DAY = datetime.timedelta(days=1)
PEM, DER = Encoding.PEM, Encoding.DER
PKCS8, TRADITIONAL = PrivateFormat.PKCS8, PrivateFormat.TraditionalOpenSSL


def make_key(kind="p256"):
    if kind == "rsa":
        return rsa.generate_private_key(public_exponent=65537, key_size=2048)
    if kind == "ed25519":
        return ed25519.Ed25519PrivateKey.generate()
    return ec.generate_private_key({"p256": ec.SECP256R1(), "p384": ec.SECP384R1()}[kind])


def make_certificate(key, host="localhost", *, begins=-DAY, ends=DAY, encoding=PEM):
    """A self-signed certificate, valid from and to so long from now."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host)])
    now = datetime.datetime.now(datetime.timezone.utc)
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + begins)
        .not_valid_after(now + ends)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=False)
    )
    algorithm = None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    return builder.sign(key, algorithm).public_bytes(encoding)


def key_bytes(key, *, encoding=PEM, form=PKCS8, password=None):
    encryption = BestAvailableEncryption(password.encode()) if password else NoEncryption()
    return key.private_bytes(encoding, form, encryption)


def pair(host="localhost", kind="p256", **more):
    """A self-signed certificate and its key, both PEM."""
    key = make_key(kind)
    return make_certificate(key, host, **more), key_bytes(key)


def write_pair(folder, host="localhost", kind="p256"):
    """The same in files."""
    cert, key = pair(host, kind)
    cert_file, key_file = folder / f"{host}.crt", folder / f"{host}.key"
    cert_file.write_bytes(cert)
    key_file.write_bytes(key)
    return cert_file, key_file
