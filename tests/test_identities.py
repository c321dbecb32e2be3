"""Certificates and keys in PEM and DER, in every form that people have them; what is given by mistake is told apart."""

import os
import pathlib
import re
import socket
import subprocess

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import pkcs7

import portico
from certificates import DAY, DER, PEM, TRADITIONAL, Chain, build, key_bytes, make_certificate, make_key, pair, serves
from clients import request, trusting


@pytest.fixture(scope="module")
def chain():
    return Chain()


def openssl(folder, *command, **files):
    """Runs openssl in a folder with those files, and reads what it wrote to `out`."""
    for name, content in files.items():
        (folder / name).write_bytes(content)
    done = subprocess.run(["openssl", *command], cwd=folder, capture_output=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return (folder / "out").read_bytes()


# ---- bundles and chains


@pytest.mark.parametrize(
    "parts",
    [
        ("key", "leaf", "intermediate"),
        ("leaf", "intermediate", "key"),
        ("leaf", "key", "intermediate"),
        ("intermediate", "leaf", "key"),
        ("root", "key", "intermediate", "leaf"),
        ("leaf", "leaf", "intermediate", "leaf", "intermediate", "key"),
    ],
    ids="-".join,
)
def test_one_file_in_any_order(make_server, tmp_path, chain, parts):
    bundle = tmp_path / "bundle.pem"
    bundle.write_bytes(chain.pem(*parts))
    server = make_server()
    context = server.add_context("localhost", cert=bundle)
    assert context.warnings == []
    context.replace(cert=bundle.read_bytes())
    context.replace(cert=bundle, key=bundle)
    assert (context.subject, context.names) == ("CN=localhost", ["localhost"])
    assert serves(server, chain)


def test_unrelated_certificates_are_left_out_and_named(make_server, chain):
    other = make_certificate(make_key(), "elsewhere.test")
    server = make_server()
    context = server.add_context("localhost", cert=other + chain.pem("intermediate", "leaf"), key=chain.pem("key"))
    assert re.search("1 other certificate.* not sent: CN=elsewhere.test", context.warnings[0])
    assert serves(server, chain)


def test_issuers_of_the_same_name(make_server, chain):
    """Of an authority that changed its key, the certificate that signed is sent, wherever it stands."""
    old = Chain()
    for parts in ((old, chain), (chain, old)):
        issuers = b"".join(part.pem("intermediate") for part in parts)
        server = make_server()
        server.add_context("localhost", cert=chain.pem("leaf") + issuers, key=chain.pem("key"))
        assert serves(server, chain)


def test_authority_and_server_of_the_same_name(make_server):
    authority_key, key = make_key(), make_key()
    identifier = x509.SubjectKeyIdentifier.from_public_key(authority_key.public_key())
    issuer = x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier)
    own = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    authority = build(authority_key, ca=True, extensions=[identifier])
    # OpenSSL takes it for self-signed unless it tells its issuer's key.
    leaf = build(key, issuer=(authority, authority_key), extensions=[own, issuer])
    server = make_server()
    pem = authority.public_bytes(PEM)
    context = server.add_context("localhost", cert=pem + leaf.public_bytes(PEM), key=key_bytes(key))
    assert context.warnings == []
    assert request(server.listen(0).port, context=trusting(pem)).status == 200


def test_renewed_with_the_same_key(make_server, chain):
    """Old and new in one file: the one that is valid longest."""
    expired = build(chain.key, issuer=(chain.intermediate, chain.intermediate_key), begins=-9 * DAY, ends=-DAY)
    server = make_server()
    cert = expired.public_bytes(PEM) + chain.pem("leaf", "intermediate")
    context = server.add_context("localhost", cert=cert, key=chain.pem("key"))
    assert "2 certificates in its source have their key" in context.warnings[0]
    assert serves(server, chain)


def test_text_around_crlf_and_byte_order_mark(make_server, chain):
    bundle = b"\xef\xbb\xbfBag Attributes\n    friendlyName: \xc3\xbc\nsubject=/CN=x\n\n" + chain.pem(
        "leaf", "intermediate"
    )
    bundle = (bundle + b"# the key: mind it\n" + chain.pem("key") + b"\n\n").replace(b"\n", b"\r\n")
    server = make_server()
    server.add_context("localhost", cert=bundle)
    assert serves(server, chain)


def test_str_that_is_pem(make_server, chain):
    server = make_server()
    server.add_context("localhost", cert=chain.pem("leaf", "intermediate").decode(), key=chain.pem("key").decode())
    assert serves(server, chain)


@pytest.mark.parametrize("label", ["X509 CERTIFICATE", "TRUSTED CERTIFICATE"])
def test_other_labels(make_server, tmp_path, chain, label):
    if label == "TRUSTED CERTIFICATE":
        leaf = openssl(
            tmp_path,
            "x509",
            "-in",
            "leaf",
            "-trustout",
            "-addtrust",
            "serverAuth",
            "-out",
            "out",
            leaf=chain.pem("leaf"),
        )
        assert b"BEGIN TRUSTED" in leaf
    else:
        leaf = chain.pem("leaf").replace(b" CERTIFICATE", b" X509 CERTIFICATE")
    server = make_server()
    server.add_context("localhost", cert=leaf + chain.pem("intermediate"), key=chain.pem("key"))
    assert serves(server, chain)


@pytest.mark.parametrize("encoding", [PEM, DER], ids=["PEM", "DER"])
def test_pkcs7(make_server, chain, encoding):
    bundle = pkcs7.serialize_certificates([chain.root, chain.intermediate, chain.leaf], encoding)
    server = make_server()
    server.add_context("localhost", cert=bundle, key=chain.pem("key"))
    assert serves(server, chain)


def test_version_1_certificate_without_extensions(make_server, tmp_path):
    """As `openssl x509 -req` makes them when nobody asks for more."""
    key = key_bytes(make_key())
    openssl(tmp_path, "req", "-new", "-key", "key", "-subj", "/CN=localhost", "-out", "out", key=key)
    cert = openssl(
        tmp_path, "x509", "-req", "-in", "csr", "-signkey", "key", "-out", "out", csr=(tmp_path / "out").read_bytes()
    )
    server = make_server()
    context = server.add_context("localhost", cert=cert, key=key)
    assert "ERR_CERT_COMMON_NAME_INVALID" in context.warnings[0]
    client = trusting(cert)
    client.check_hostname = False
    assert request(server.listen(0).port, context=client).status == 200


# ---- keys

ENCRYPTED = {
    "AES-256": ["-v2", "aes-256-cbc"],
    "AES-192": ["-v2", "aes-192-cbc"],
    "AES-128, SHA-1": ["-v2", "aes-128-cbc", "-v2prf", "hmacWithSHA1"],
    "SHA-512": ["-v2", "aes-256-cbc", "-v2prf", "hmacWithSHA512"],
    "3DES": ["-v2", "des3"],
    "scrypt": ["-scrypt"],
    "PKCS12 3DES": ["-v1", "PBE-SHA1-3DES"],
    "PKCS12 2DES": ["-v1", "PBE-SHA1-2DES"],
    "PKCS12 RC2-40": ["-v1", "PBE-SHA1-RC2-40", "-provider", "legacy", "-provider", "default"],
    "PKCS12 RC2-128": ["-v1", "PBE-SHA1-RC2-128", "-provider", "legacy", "-provider", "default"],
    "MD5 and DES": ["-v1", "PBE-MD5-DES", "-provider", "legacy", "-provider", "default"],
    "SHA-1 and DES": ["-v1", "PBE-SHA1-DES", "-provider", "legacy", "-provider", "default"],
}


@pytest.mark.parametrize("encoding", ["PEM", "DER"])
@pytest.mark.parametrize("form", ENCRYPTED)
def test_every_encryption_of_pkcs8_that_openssl_writes(make_server, tmp_path, chain, form, encoding):
    command = [
        "pkcs8",
        "-topk8",
        *ENCRYPTED[form],
        "-in",
        "key",
        "-passout",
        "pass:secret",
        "-outform",
        encoding,
        "-out",
        "out",
    ]
    encrypted = openssl(tmp_path, *command, key=chain.pem("key"))
    cert = chain.pem("leaf", "intermediate")
    server = make_server()
    server.add_context("localhost", cert=cert, key=encrypted, password="secret")
    assert serves(server, chain)
    for password, why in ((None, "give its password="), ("Secret", "wrong password"), (b"\xff", "wrong password")):
        with pytest.raises(portico.CertificateError, match=why):
            server.add_context("localhost", cert=cert, key=encrypted, password=password)


def test_encryption_that_is_not_supported_tells_what_to_run(make_server, tmp_path, chain):
    command = ["pkcs8", "-topk8", "-v2", "camellia-256-cbc", "-in", "key", "-passout", "pass:secret", "-out", "out"]
    encrypted = openssl(tmp_path, *command, key=chain.pem("key"))
    with pytest.raises(portico.CertificateError, match="openssl pkcs8 -topk8 -v2 aes-256-cbc -in OLD -out NEW"):
        make_server().add_context("localhost", cert=chain.pem("leaf"), key=encrypted, password="secret")


@pytest.mark.parametrize(
    "cipher", ["aes-256-cbc", "aes-192-cbc", "aes-128-cbc", "des-ede3-cbc", "des-cbc", "camellia-128-cbc"]
)
@pytest.mark.parametrize("kind", ["rsa", "p256"])
def test_old_encrypted_pem(make_server, tmp_path, kind, cipher):
    chain = Chain(kind)
    program = "rsa" if kind == "rsa" else "ec"
    more = ["-provider", "legacy", "-provider", "default"] if cipher == "des-cbc" else []
    traditional = ["-traditional"] if kind == "rsa" else []
    plain = key_bytes(chain.key, form=TRADITIONAL)
    old = openssl(
        tmp_path,
        program,
        "-in",
        "key",
        f"-{cipher}",
        *traditional,
        "-passout",
        "pass:secret",
        "-out",
        "out",
        *more,
        key=plain,
    )
    assert b"Proc-Type: 4,ENCRYPTED" in old
    cert = chain.pem("leaf", "intermediate")
    server = make_server()
    if "camellia" in cipher:
        with pytest.raises(portico.CertificateError, match=r"CAMELLIA-128-CBC.*openssl pkcs8 -topk8"):
            server.add_context("localhost", cert=cert, key=old, password="secret")
        return
    server.add_context("localhost", cert=cert, key=old, password="secret")
    server.add_context("localhost", cert=cert + old.replace(b"\n", b"\r\n"), password=b"secret")
    assert serves(server, chain)
    for password, why in ((None, "give its password="), ("Secret", "wrong password")):
        with pytest.raises(portico.CertificateError, match=why):
            server.add_context("localhost", cert=cert, key=old, password=password)


@pytest.mark.parametrize("password", ["not needed", b"not needed", ""])
def test_password_for_what_is_not_encrypted(make_server, chain, password):
    server = make_server()
    server.add_context("localhost", cert=chain.pem("leaf", "intermediate"), key=chain.pem("key"), password=password)
    assert serves(server, chain)


def test_key_with_its_parameters_before_it(make_server, tmp_path):
    """As `openssl ecparam -genkey` writes it."""
    key = openssl(tmp_path, "ecparam", "-name", "prime256v1", "-genkey", "-out", "out")
    assert key.startswith(b"-----BEGIN EC PARAMETERS-----")
    cert = openssl(
        tmp_path,
        "req",
        "-x509",
        "-key",
        "key",
        "-subj",
        "/CN=localhost",
        "-addext",
        "subjectAltName=DNS:localhost",
        "-out",
        "out",
        key=key,
    )
    for given in ({"cert": cert, "key": key}, {"cert": key + cert}):
        server = make_server()
        server.add_context("localhost", **given)
        assert request(server.listen(0).port, context=trusting(cert)).status == 200


@pytest.mark.parametrize("kind", ["p521", "ed25519"])
def test_rarer_keys(make_server, kind):
    chain = Chain(kind)
    server = make_server()
    server.add_context("localhost", cert=chain.pem("key", "leaf", "intermediate"))
    assert serves(server, chain)


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (["-newkey", "rsa:1024"], "RSA of 2048 to 8192 bits.*certificate's is RSA of 1024 bits"),
        (["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:secp256k1"], "P-256.*curve 1.3.132.0.10"),
        (["-newkey", "ed448"], "Ed25519.*1.3.101.113"),
    ],
    ids=["RSA 1024", "secp256k1", "Ed448"],
)
def test_keys_that_tls_does_not_take(make_server, tmp_path, options, why):
    cert = openssl(
        tmp_path, "req", "-x509", *options, "-nodes", "-subj", "/CN=localhost", "-keyout", "key", "-out", "out"
    )
    with pytest.raises(portico.CertificateError, match=why) as caught:
        make_server().add_context("localhost", cert=cert, key=tmp_path / "key")
    assert str(tmp_path / "key") in str(caught.value)


# ---- what is given by mistake


def test_hints(make_server, tmp_path, chain):
    cert, key = chain.pem("leaf"), chain.pem("key")
    csr = openssl(tmp_path, "req", "-new", "-key", "key", "-subj", "/CN=localhost", "-out", "out", key=key)
    csr_der = openssl(tmp_path, "req", "-in", "csr", "-outform", "DER", "-out", "out", csr=csr)
    public = openssl(tmp_path, "pkey", "-in", "key", "-pubout", "-out", "out", key=key)
    public_der = openssl(tmp_path, "pkey", "-in", "key", "-pubout", "-outform", "DER", "-out", "out", key=key)
    ssh = b"-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n-----END OPENSSH PRIVATE KEY-----\n"
    key_der, cert_der = key_bytes(chain.key, encoding=DER), chain.leaf.public_bytes(DER)
    for given, why in (
        ({"cert": csr, "key": key}, r"certificate .*without a CERTIFICATE.*certificate request \(CSR\)"),
        ({"cert": csr_der, "key": key}, r"not an X.509 certificate.*certificate request \(CSR\)"),
        ({"cert": public, "key": key}, "a public key"),
        ({"cert": cert, "key": public}, "key .*without a PRIVATE KEY.*a public key"),
        ({"cert": cert, "key": public_der}, "a public key"),
        ({"cert": cert, "key": ssh}, "key for SSH"),
        ({"cert": key, "key": cert}, "are the two swapped?"),
        ({"cert": key_der, "key": cert_der}, "are the two swapped?"),
        ({"cert": cert, "key": cert}, "are the two swapped?"),
        ({"cert": cert}, "no key.*key="),
        ({"cert": cert.decode().encode("utf-16"), "key": key}, "UTF-16"),
        ({"cert": cert.replace(b"MII", b"M??"), "key": key}, "malformed PEM in section 1: .*base64"),
        ({"cert": cert, "key": key[:-20]}, "malformed PEM in section 1: it has no -----END PRIVATE KEY-----"),
        ({"cert": cert, "key": b"x" * (2**20 + 1)}, "more than 1048576 bytes"),
    ):
        with pytest.raises(portico.CertificateError, match=why):
            make_server().add_context("localhost", **given)


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({}, "give cert= and key=.*pfx="),
        ({"key": b"x"}, "key: it needs its certificate, as cert="),
        ({"pfx": b"x", "cert": b"x"}, "pfx: it holds certificate and key"),
        ({"pfx": b"x", "key": b"x"}, "pfx: it holds certificate and key"),
        ({"cert": b"x", "key": b"x", "pfx": b"x"}, "pfx: it holds certificate and key"),
        ({"pfx": 1}, "pfx: a path .* not int"),
        ({"cert": b"x", "password": 1}, "password: str or bytes, not int"),
    ],
)
def test_combinations_that_make_no_sense(make_server, given, why):
    server = make_server()
    with pytest.raises(portico.ConfigError, match=why) as caught:
        server.add_context("localhost", **given)
    assert not isinstance(caught.value, portico.CertificateError)
    context = server.add_context("localhost", cert=b"".join(pair()))
    with pytest.raises(portico.ConfigError, match=why):
        context.replace(**given)


@pytest.mark.timeout(60)
def test_only_regular_files_are_read(make_server, tmp_path, chain):
    pipe, door = tmp_path / "pipe", tmp_path / "door"
    os.mkfifo(pipe)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(door))
        for path, why in (
            (pipe, "a pipe, a socket or a device"),
            (door, "a pipe, a socket or a device"),
            ("/dev/zero", "a pipe, a socket or a device"),
            (tmp_path, "directory; portico.find_certificate"),
        ):
            for given in ({"cert": path}, {"cert": chain.pem("leaf"), "key": path}, {"pfx": path}):
                with pytest.raises(portico.CertificateError, match=why) as caught:
                    make_server().add_context("localhost", **given)
                assert str(path) in str(caught.value)


def test_links_are_followed(make_server, tmp_path, chain):
    (tmp_path / "real.pem").write_bytes(chain.pem("leaf", "intermediate", "key"))
    (tmp_path / "link.pem").symlink_to("real.pem")
    server = make_server()
    server.add_context("localhost", cert=tmp_path / "link.pem")
    assert serves(server, chain)


def test_large_file_is_not_read_to_its_end(make_server, tmp_path):
    with pathlib.Path(tmp_path / "large").open("wb") as file:
        file.truncate(2**40)  # a hole: it takes no room
    with pytest.raises(portico.CertificateError, match="more than 1048576 bytes"):
        make_server().add_context("localhost", cert=tmp_path / "large")


def test_secrets_are_never_shown(make_server, tmp_path, chain, caplog):
    """Neither the key nor the password, in errors, reprs and logs."""
    caplog.set_level(0)
    password = "correct horse battery staple"
    key = chain.pem("key")
    encrypted = openssl(
        tmp_path, "pkcs8", "-topk8", "-in", "key", "-passout", f"pass:{password}", "-out", "out", key=key
    )
    bundle = tmp_path / "store" / "bundle.pem"
    bundle.parent.mkdir()
    bundle.write_bytes(chain.pem("leaf", "intermediate") + encrypted)
    shown = []
    server = make_server()
    wrong = password + "!"
    for call in (
        lambda: server.add_context("localhost", cert=bundle, password=wrong),
        lambda: server.add_context("localhost", cert=pair()[0], key=key, password=password),
        lambda: server.add_context("localhost", cert=key, key=key, password=password),
        lambda: server.add_context("localhost", pfx=key, password=password),
        lambda: server.add_context("localhost", cert=chain.pem("leaf"), key=key[:-40], password=[password]),
        lambda: server.add_context("other.test", cert=bundle, password=password),
        lambda: portico.find_certificate(bundle.parent, password=wrong),
        lambda: portico.find_certificate(bundle.parent, "nobody", password=password),
        lambda: portico.find_certificate(bundle.parent, password=password),
    ):
        try:
            shown.append(repr(call()))
        except portico.ConfigError as error:
            shown.append(repr(error) + str(error))
    shown = "\n".join([*shown, repr(server.contexts), caplog.text])
    assert "localhost" in shown
    for secret in (password, *key.decode().splitlines()[1:-1], *encrypted.decode().splitlines()[1:-1]):
        assert secret not in shown
