"""PFX (PKCS#12) as other programs write it: opened with its password, and nothing worse than an error otherwise."""

import hashlib
import hmac
import pathlib
import re

import pytest

import portico
from certificates import Chain, serves
from clients import run

PFX = pathlib.Path(__file__).parent / "pfx"
# Pairs of options for `openssl pkcs12 -export`.
FORMS = {
    "modern": [],
    "legacy": ["-legacy"],
    "3DES for both": ["-legacy", "-descert"],
    "RC2 of 128 bits": ["-legacy", "-certpbe", "PBE-SHA1-RC2-128", "-keypbe", "PBE-SHA1-2DES"],
    "no MAC": ["-nomac"],
    "legacy, no MAC": ["-legacy", "-nomac"],
    "certificates in the clear": ["-certpbe", "NONE"],
    "MAC by SHA-512": ["-macalg", "sha512"],
    "MAC by SHA-384, other ciphers": ["-macalg", "sha384", "-keypbe", "aes-128-cbc", "-certpbe", "aes-192-cbc"],
    "AES key, 3DES by PBES2": ["-certpbe", "des-ede3-cbc"],
}


@pytest.fixture(scope="module")
def chain():
    return Chain()


@pytest.fixture
def export(tmp_path, chain):
    """Writes a PFX with the program openssl."""

    def export(*options, password="secret", parts=("leaf", "intermediate"), key=True):
        (tmp_path / "in.pem").write_bytes(chain.pem(*parts, *(["key"] if key else [])))
        command = ["openssl", "pkcs12", "-export", "-in", "in.pem", "-out", "out.pfx", "-passout", f"pass:{password}"]
        done = run(*command, *options, *([] if key else ["-nokeys"]), cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        return tmp_path / "out.pfx"

    return export


@pytest.mark.parametrize("form", FORMS)
def test_every_form_that_openssl_writes(make_server, chain, export, form):
    pfx = export(*FORMS[form])
    server = make_server()
    context = server.add_context("localhost", pfx=pfx, password="secret")
    assert context.warnings == []
    assert serves(server, chain)
    with pytest.raises(portico.CertificateError, match=re.escape(str(pfx)) + ".*wrong password"):
        server.add_context("localhost", pfx=pfx, password="Secret")
    with pytest.raises(portico.CertificateError, match="encrypted: give its password="):
        server.add_context("localhost", pfx=pfx)
    assert len(server.contexts) == 1


def test_bytes_and_replace(make_server, chain, export):
    server = make_server()
    context = server.add_context("localhost", pfx=export("-legacy").read_bytes(), password=b"secret")
    context.replace(cert=chain.pem("leaf", "intermediate"), key=chain.pem("key"))
    context.replace(pfx=export(password="other"), password="other")
    context.reload()
    with pytest.raises(portico.CertificateError, match="wrong password"):
        context.replace(pfx=export(), password="other")
    assert serves(server, chain)


@pytest.mark.parametrize("password", ["", None])
@pytest.mark.parametrize("form", ["modern", "legacy", "no MAC"])
def test_empty_password(make_server, chain, export, form, password):
    server = make_server()
    server.add_context("localhost", pfx=export(*FORMS[form], password=""), password=password)
    assert serves(server, chain)


def test_nothing_encrypted(make_server, chain, export):
    pfx = export("-keypbe", "NONE", "-certpbe", "NONE", "-nomac")
    for password in (None, "not needed"):
        server = make_server()
        server.add_context("localhost", pfx=pfx, password=password)
        assert serves(server, chain)


@pytest.mark.parametrize("form", ["modern", "legacy"])
@pytest.mark.parametrize("password", ["s\u00e9same", "\u043f\u0430\u0440\u043e\u043b\u044c", "key \U0001f511"])
def test_password_that_is_not_ascii(make_server, chain, export, form, password):
    server = make_server()
    server.add_context("localhost", pfx=export(*FORMS[form], password=password), password=password)
    server.add_context("localhost", pfx=export(*FORMS[form], password=password), password=password.encode())
    assert serves(server, chain)


@pytest.mark.parametrize("parts", [("intermediate", "root", "leaf"), ("root", "leaf", "intermediate")])
def test_certificates_in_any_order(make_server, chain, export, parts):
    server = make_server()
    server.add_context("localhost", pfx=export(parts=parts), password="secret")
    assert serves(server, chain)


@pytest.mark.parametrize(
    ("file", "password"),
    [
        ("nss.p12", "secret"),  # pk12util of NSS 3.87: BER, with lengths that are not told before
        ("gnutls.p12", "secret"),  # certtool of GnuTLS 3.7
        ("gnutls_3des.p12", "secret"),
        ("java.p12", "secret1"),  # keytool of Java 17
        ("java_legacy.p12", "secret1"),
    ],
)
def test_files_of_other_programs(make_server, file, password):
    server = make_server()
    context = server.add_context("localhost", pfx=PFX / file, password=password)
    assert context.names in (["nss.test"], ["java.test"])
    with pytest.raises(portico.CertificateError, match="wrong password"):
        server.add_context("localhost", pfx=PFX / file, password="wrong")


def test_example_of_rfc_9579_opens(make_server):
    """Appendix A.1; its certificate has expired, which is seen only when it is open."""
    for password, why in (("1234", "subject .*CN=tt.* expired at 2023-"), ("12345", "wrong password")):
        with pytest.raises(portico.CertificateError, match=why):
            make_server().add_context("localhost", pfx=PFX / "pbmac1.p12", password=password)


# ---- what openssl does not write, put together by hand


def der(tag, *parts):
    body = b"".join(parts)
    length = len(body)
    size = (length.bit_length() + 7) // 8
    head = bytes([length]) if length < 128 else bytes([0x80 | size]) + length.to_bytes(size, "big")
    return bytes([tag]) + head + body


def sequence(*parts):
    return der(0x30, *parts)


def integer(number):
    return der(0x02, number.to_bytes(number.bit_length() // 8 + 1, "big"))


def oid(numbers):
    first, second, *rest = (int(number) for number in numbers.split("."))
    coded = bytearray([first * 40 + second])
    for number in rest:
        groups = [number >> shift & 0x7F for shift in range(28, -1, -7)]
        while len(groups) > 1 and not groups[0]:
            groups.pop(0)
        coded += bytes([*(group | 0x80 for group in groups[:-1]), groups[-1]])
    return der(0x06, bytes(coded))


def octets(data):
    return der(0x04, data)


HMAC_SHA256 = sequence(oid("1.2.840.113549.2.9"), der(0x05))
DATA = oid("1.2.840.113549.1.7.1")
SHA1 = sequence(oid("1.3.14.3.2.26"), der(0x05))


def whole(safe, mac=b""):
    return sequence(integer(3), sequence(DATA, der(0xA0, octets(safe))), mac)


def within(pfx):
    """What a MAC is made over, of a PFX between 256 bytes and 64 KiB without one."""
    return pfx[pfx.index(bytes([0x04, 0x82])) + 4 :]


def with_mac(pfx, algorithm, digest, salt, iterations):
    mac = sequence(sequence(algorithm, octets(digest)), octets(salt), integer(iterations))
    return whole(within(pfx), mac)


def pbmac1(pfx, password, *, length=32, iterations=2048):
    salt = b"saltsalt"
    parameters = sequence(octets(salt), integer(iterations), integer(length), HMAC_SHA256)
    derivation = sequence(oid("1.2.840.113549.1.5.12"), parameters)
    algorithm = sequence(oid("1.2.840.113549.1.5.14"), sequence(derivation, HMAC_SHA256))
    key = hashlib.pbkdf2_hmac("sha256", password, salt, min(iterations, 10_000), length)
    digest = hmac.digest(key, within(pfx), "sha256")
    return with_mac(pfx, algorithm, digest, b"NOT USED", 1)


def test_mac_by_pbmac1(make_server, chain, export):
    pfx = pbmac1(export("-nomac").read_bytes(), b"secret")
    server = make_server()
    server.add_context("localhost", pfx=pfx, password="secret")
    assert serves(server, chain)
    with pytest.raises(portico.CertificateError, match="wrong password"):
        server.add_context("localhost", pfx=pfx, password="other")
    with pytest.raises(portico.CertificateError, match="RFC 9579"):
        server.add_context(
            "localhost", pfx=pbmac1(export("-nomac").read_bytes(), b"secret", length=1), password="secret"
        )


def test_mac_without_any_password(make_server, chain, export):
    """Where an absent password is nothing at all, not even the zero that ends an empty one (RFC 7292 appendix B.2)."""
    pfx = export("-keypbe", "NONE", "-certpbe", "NONE", "-nomac").read_bytes()
    salt, iterations = b"saltsalt", 1000
    made = bytes([3]) * 64 + (salt * 8)
    for _ in range(iterations):
        made = hashlib.sha1(made).digest()
    digest = hmac.digest(made, within(pfx), "sha1")
    for password in (None, ""):
        server = make_server()
        server.add_context("localhost", pfx=with_mac(pfx, SHA1, digest, salt, iterations), password=password)
        assert serves(server, chain)


def shrouded(iterations, keys=1):
    """A PFX without a MAC whose keys ask for so many iterations each."""
    pbkdf2 = sequence(oid("1.2.840.113549.1.5.12"), sequence(octets(b"saltsalt"), integer(iterations), HMAC_SHA256))
    aes = sequence(oid("2.16.840.1.101.3.4.1.42"), octets(bytes(16)))
    algorithm = sequence(oid("1.2.840.113549.1.5.13"), sequence(pbkdf2, aes))
    key = der(0xA0, sequence(algorithm, octets(bytes(64))))
    bags = sequence(*[sequence(oid("1.2.840.113549.1.12.10.1.2"), key)] * keys)
    return whole(sequence(sequence(DATA, der(0xA0, octets(bags)))))


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    "make",
    [
        lambda pfx: with_mac(pfx, SHA1, bytes(20), b"saltsalt", 2**31 - 1),
        lambda pfx: with_mac(pfx, SHA1, bytes(20), b"saltsalt", 2**63),
        lambda pfx: pbmac1(pfx, b"secret", iterations=2**31 - 1),
        lambda pfx: shrouded(2**31 - 1),
        lambda pfx: shrouded(99_000_000),
    ],
    ids=["old MAC", "old MAC, 64 bits", "PBMAC1", "PBKDF2", "PBKDF2, less than what pkcs5 allows"],
)
def test_work_that_a_file_asks_for_is_bounded(make_server, export, make):
    with pytest.raises(
        portico.CertificateError, match=r"(too many iterations.*5000000|encryption .* is not supported)"
    ):
        make_server().add_context("localhost", pfx=make(export("-nomac").read_bytes()), password="secret")


@pytest.mark.timeout(60)
def test_work_is_bounded_for_all_keys_of_a_file(make_server):
    """The wrong password ends it at the first key that is not padded, so a good part of the keys is done at most."""
    with pytest.raises(portico.CertificateError, match=r"(too many iterations|wrong password)"):
        make_server().add_context("localhost", pfx=shrouded(1_000_000, keys=4000), password="secret")


def test_no_iterations(make_server, export):
    pfx = with_mac(export("-nomac").read_bytes(), SHA1, bytes(20), b"saltsalt", 0)
    with pytest.raises(portico.CertificateError, match="0 iterations"):
        make_server().add_context("localhost", pfx=pfx, password="secret")


# ---- what is no PFX, or not a whole one


def test_damaged_file_is_not_called_a_wrong_password(make_server, export):
    pfx = export().read_bytes()
    with pytest.raises(portico.CertificateError, match="damaged"):
        make_server().add_context("localhost", pfx=pfx[:-200], password="secret")


@pytest.mark.parametrize(
    ("made", "why"),
    [
        (lambda chain, export: chain.pem("leaf", "key"), "PEM and no PFX.*give it as cert="),
        (lambda chain, export: b"junk", "no PFX"),
        (lambda chain, export: b"", "empty"),
        (lambda chain, export: export(key=False).read_bytes(), "no key"),
        (lambda chain, export: export("-nocerts").read_bytes(), "no certificate"),
    ],
    ids=["PEM", "junk", "empty", "no key", "no certificate"],
)
def test_what_does_not_hold_both(make_server, chain, export, made, why):
    with pytest.raises(portico.CertificateError, match=why):
        make_server().add_context("localhost", pfx=made(chain, export), password="secret")


def test_pfx_given_as_certificate(make_server, export):
    with pytest.raises(portico.CertificateError, match=r"PFX.*give it as pfx="):
        make_server().add_context("localhost", cert=export(), key=b"x")


def test_several_keys(make_server, tmp_path, chain):
    """Bags after one another, as Windows exports several at once: the one for the host is taken, and that is said."""
    other = Chain(common=["other.test"], names=["other.test"])
    both = []
    for one in (other, chain):
        (tmp_path / "in.pem").write_bytes(one.pem("leaf", "intermediate", "key"))
        command = "openssl pkcs12 -export -in in.pem -out out.pfx -nomac -keypbe NONE -certpbe NONE -passout pass:"
        assert run(*command.split(), cwd=tmp_path).returncode == 0
        both.append(within((tmp_path / "out.pfx").read_bytes())[4:])
    pfx = whole(sequence(*both))
    server = make_server()
    context = server.add_context("localhost", pfx=pfx)
    assert context.subject == "CN=localhost"
    assert "2 certificates in its source have their key; this one was taken" in " ".join(context.warnings)
    assert server.add_context("other.test", pfx=pfx).subject == "CN=other.test"
    assert serves(server, chain)
