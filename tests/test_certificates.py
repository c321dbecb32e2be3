"""Certificates and keys: every kind that works, and what is said about those that do not."""

import pathlib

import pytest

import portico
from certificates import DAY, DER, PEM, PKCS8, TRADITIONAL, key_bytes, make_certificate, make_key, pair, write_pair
from clients import request, trusting


def serves(server, cert_pem):
    """Whether a client that trusts that certificate alone is answered."""
    return request(server.listen(0).port, context=trusting(cert_pem)).status == 200


@pytest.mark.parametrize("encoding", [PEM, DER], ids=["PEM", "DER"])
@pytest.mark.parametrize(
    ("kind", "form"),
    [
        ("rsa", PKCS8),
        ("rsa", TRADITIONAL),
        ("p256", PKCS8),
        ("p256", TRADITIONAL),
        ("p384", PKCS8),
        ("p384", TRADITIONAL),
        ("ed25519", PKCS8),
    ],
    ids=["RSA PKCS8", "RSA PKCS1", "P-256 PKCS8", "P-256 SEC1", "P-384 PKCS8", "P-384 SEC1", "Ed25519 PKCS8"],
)
def test_every_kind_of_key(make_server, tmp_path, kind, form, encoding):
    key = make_key(kind)
    cert = make_certificate(key)
    # The file's name says nothing about what is in it.
    cert_file, key_file = tmp_path / "cert", tmp_path / "key"
    cert_file.write_bytes(make_certificate(key, encoding=encoding))
    key_file.write_bytes(key_bytes(key, encoding=encoding, form=form))
    server = make_server()
    server.add_context("localhost", cert=cert, key=key_file.read_bytes())
    assert serves(server, cert)
    server = make_server()
    server.add_context("localhost", cert=cert_file, key=key_file)
    assert serves(server, cert_file.read_bytes()) if encoding is PEM else server.listen(0)


@pytest.mark.parametrize("as_type", [str, pathlib.Path])
def test_paths_are_str_or_pathlike(make_server, tmp_path, as_type):
    cert, key = write_pair(tmp_path)
    server = make_server()
    server.add_context("localhost", cert=as_type(cert), key=as_type(key))
    assert serves(server, cert.read_bytes())


def test_certificate_and_key_in_one_file(make_server, tmp_path):
    cert, key = pair()
    both = tmp_path / "both.pem"
    both.write_bytes(key + b"\n# a comment\n" + cert)
    server = make_server()
    server.add_context("localhost", cert=both, key=both)
    assert serves(server, cert)


@pytest.mark.parametrize("kind", ["rsa", "p256", "ed25519"])
@pytest.mark.parametrize("encoding", [PEM, DER], ids=["PEM", "DER"])
def test_encrypted_key_with_its_password(make_server, kind, encoding):
    key = make_key(kind)
    cert = make_certificate(key)
    encrypted = key_bytes(key, encoding=encoding, password="s\u00e9same")
    server = make_server()
    server.add_context("localhost", cert=cert, key=encrypted, password="s\u00e9same")
    assert serves(server, cert)
    for password, why in ((None, "encrypted.*password"), ("wrong", "wrong password"), ("", "wrong password")):
        with pytest.raises(portico.CertificateError, match=why):
            server.add_context("localhost", cert=cert, key=encrypted, password=password)


def expired(folder):
    key = make_key()
    return {"bad.crt": make_certificate(key, begins=-2 * DAY, ends=-DAY), "bad.key": key_bytes(key)}


def not_yet_valid(folder):
    key = make_key()
    return {"bad.crt": make_certificate(key, begins=DAY, ends=2 * DAY), "bad.key": key_bytes(key)}


def mismatched(folder):
    return {"bad.crt": pair()[0], "bad.key": pair()[1]}


def mismatched_kinds(folder):
    return {"bad.crt": pair()[0], "bad.key": pair(kind="rsa")[1]}


def swapped(folder):
    cert, key = pair()
    return {"bad.crt": key, "bad.key": cert}


@pytest.mark.parametrize(
    ("made", "names", "why"),
    [
        (expired, "bad.crt", "expired at 20"),
        (not_yet_valid, "bad.crt", "not valid before 20"),
        (mismatched, "bad.key", "does not match certificate"),
        (mismatched_kinds, "bad.key", "(match|cannot be used)"),
        (swapped, "bad.crt", "without a CERTIFICATE"),
        (lambda folder: {"bad.crt": pair()[0]}, "bad.key", "No such file"),
        (lambda folder: {"bad.key": pair()[1]}, "bad.crt", "No such file"),
        (lambda folder: {"bad.crt": b"", "bad.key": pair()[1]}, "bad.crt", "(empty|not an X.509|no certificate)"),
        (lambda folder: {"bad.crt": pair()[0], "bad.key": b""}, "bad.key", "(empty|neither PEM nor)"),
        (lambda folder: {"bad.crt": b"junk", "bad.key": pair()[1]}, "bad.crt", "not an X.509"),
        (
            lambda folder: {"bad.crt": pair()[0], "bad.key": b"\x30\x03\x02\x01\x00"},
            "bad.key",
            "(neither PEM nor|cannot be used)",
        ),
        (lambda folder: {"bad.crt": pair()[0][:200], "bad.key": pair()[1]}, "bad.crt", "malformed PEM"),
        (lambda folder: {"bad.crt": pair()[0], "bad.key": pair()[1][:100]}, "bad.key", "malformed PEM"),
        (lambda folder: {"bad.crt": pair()[0], "bad.key": pair()[0]}, "bad.key", "without a PRIVATE KEY"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_error_names_the_file_and_says_why(make_server, tmp_path, made, names, why):
    for name, content in made(tmp_path).items():
        (tmp_path / name).write_bytes(content)
    server = make_server()
    with pytest.raises(portico.CertificateError, match=why) as caught:
        server.add_context("localhost", cert=tmp_path / "bad.crt", key=tmp_path / "bad.key")
    assert str(tmp_path / names) in str(caught.value)
    assert list(server.contexts) == []


def test_folder_instead_of_a_file(make_server, tmp_path):
    with pytest.raises(portico.CertificateError, match="directory"):
        make_server().add_context("localhost", cert=tmp_path, key=pair()[1])


def test_key_never_shows_in_an_error(make_server):
    cert, _ = pair()
    _, key = pair()
    with pytest.raises(portico.CertificateError) as caught:
        make_server().add_context("localhost", cert=cert, key=key)
    body = key.decode().splitlines()[1]
    assert body not in str(caught.value)
    assert "key" in str(caught.value)


@pytest.mark.parametrize(
    "given", [{"cert": b"x"}, {"key": b"x"}, {}, {"cert": 1, "key": b"x"}, {"cert": b"x", "key": None}]
)
def test_missing_or_mistyped_arguments(make_server, given):
    with pytest.raises((portico.ConfigError, TypeError)) as caught:
        make_server().add_context("localhost", **given)
    assert "cert" in str(caught.value) or "key" in str(caught.value)


def test_failed_replace_keeps_what_was_there(make_server, tmp_path):
    cert, key = pair()
    server = make_server()
    context = server.add_context("localhost", cert=cert, key=key)
    before = (context.subject, context.not_after)
    with pytest.raises(portico.CertificateError):
        context.replace(cert=pair()[0], key=pair()[1])
    with pytest.raises(portico.CertificateError):
        context.replace(cert=tmp_path / "none", key=key)
    assert (context.subject, context.not_after) == before
    assert serves(server, cert)


def test_failed_reload_keeps_what_was_there_and_can_be_repeated(make_server, tmp_path):
    cert, key = write_pair(tmp_path)
    server = make_server()
    context = server.add_context("localhost", cert=cert, key=key)
    old, good_key = cert.read_bytes(), key.read_bytes()
    for broken in (b"", b"junk", pair()[1]):
        key.write_bytes(broken)
        with pytest.raises(portico.CertificateError, match=r"localhost\.key"):
            context.reload()
    assert serves(server, old)
    key.write_bytes(good_key)
    context.reload()
    assert serves(server, old)


def test_replace_after_reload_takes_new_sources(make_server, tmp_path):
    cert, key = write_pair(tmp_path)
    server = make_server()
    context = server.add_context("localhost", cert=cert, key=key)
    new = pair()
    context.replace(cert=new[0], key=new[1])
    context.reload()
    assert serves(server, new[0]), "reload reads what replace gave, not the old files"
