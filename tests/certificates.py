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

from clients import request, trusting

DAY = datetime.timedelta(days=1)
PEM, DER = Encoding.PEM, Encoding.DER
PKCS8, TRADITIONAL = PrivateFormat.PKCS8, PrivateFormat.TraditionalOpenSSL


def make_key(kind="p256"):
    if kind == "rsa":
        return rsa.generate_private_key(public_exponent=65537, key_size=2048)
    if kind == "ed25519":
        return ed25519.Ed25519PrivateKey.generate()
    return ec.generate_private_key({"p256": ec.SECP256R1(), "p384": ec.SECP384R1(), "p521": ec.SECP521R1()}[kind])


def build(
    key,
    *,
    common=("localhost",),
    names=("localhost",),
    issuer=None,
    begins=-DAY,
    ends=DAY,
    ca=False,
    extensions=(),
    algorithm=None,
):
    """A certificate with those common names and SANs, valid from and to so long from now. `issuer` is a certificate and
    its key; without one it is self-signed."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name) for name in common])
    signer, signing_key = issuer or (None, key)
    now = datetime.datetime.now(datetime.timezone.utc)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(signer.subject if signer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + begins)
        .not_valid_after(now + ends)
    )
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(name) for name in names]), False)
    if ca:
        builder = builder.add_extension(x509.BasicConstraints(True, None), critical=True)
    for extension in extensions:
        builder = builder.add_extension(extension, critical=False)
    if isinstance(signing_key, ed25519.Ed25519PrivateKey):
        return builder.sign(signing_key, None)
    return builder.sign(signing_key, algorithm or hashes.SHA256())


def make_certificate(key, host="localhost", *, begins=-DAY, ends=DAY, encoding=PEM):
    """A self-signed certificate, valid from and to so long from now."""
    return build(key, common=[host], names=[host], begins=begins, ends=ends).public_bytes(encoding)


class Chain:
    """A root, an intermediate and a leaf for localhost, each with its key. `more` is for the leaf."""

    def __init__(self, kind="p256", **more):
        self.root_key, self.intermediate_key, self.key = make_key(), make_key(), make_key(kind)
        self.root = build(self.root_key, common=["root"], names=[], ca=True)
        root = (self.root, self.root_key)
        self.intermediate = build(self.intermediate_key, common=["intermediate"], names=[], issuer=root, ca=True)
        self.leaf = build(self.key, issuer=(self.intermediate, self.intermediate_key), **more)

    def pem(self, *parts):
        """Some of them after one another: `chain.pem("leaf", "intermediate", "key")`."""
        return b"".join(
            key_bytes(self.key) if part == "key" else getattr(self, part).public_bytes(PEM) for part in parts
        )


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


def serves(server, chain):
    """Whether a client that knows only the root is answered."""
    return request(server.listen(0).port, context=trusting(chain.root.public_bytes(PEM))).status == 200
