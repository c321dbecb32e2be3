"""Certificates out of a folder: found by what is in the files, whatever their names are."""

import logging

import pytest

import portico
from certificates import DAY, DER, PEM, Chain, build, key_bytes, make_key, pair, serves
from clients import run


@pytest.fixture
def store(tmp_path):
    """A folder with what such folders hold besides."""
    folder = tmp_path / "certs"
    folder.mkdir()
    (folder / "README").write_text("These are certificates.\n")
    (folder / "notes.pem").write_bytes(b"")
    (folder / "binary").write_bytes(bytes(range(256)))
    (folder / "loop").symlink_to("loop")
    (folder / ".old.pem").write_bytes(b"".join(pair()))
    return folder


def write_pfx(folder, name, chain, *options, password="secret"):
    (folder.parent / "in.pem").write_bytes(chain.pem("leaf", "intermediate", "key"))
    command = ["openssl", "pkcs12", "-export", "-in", folder.parent / "in.pem", "-out", folder / name]
    done = run(*command, "-passout", f"pass:{password}", *options)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("cert", "key"),
    [
        ("site.crt", "site.key"),
        ("site.pem", "site-key.pem"),
        ("fullchain.pem", "privkey.pem"),
        ("tls.crt", "tls.key"),
        ("one", "quite another"),
    ],
)
def test_pairs_are_found_by_their_keys(make_server, store, cert, key):
    chain = Chain()
    (store / cert).write_bytes(chain.pem("leaf", "intermediate"))
    (store / key).write_bytes(chain.pem("key"))
    (store / "a-stray.key").write_bytes(pair()[1])
    found = portico.find_certificate(store)
    assert dict(found) == {"cert": store / cert, "key": store / key}
    assert found.files == (store / cert, store / key)
    server = make_server()
    context = server.add_context("localhost", **found)
    assert (context.subject, context.not_after) == (found.subject, found.not_after)
    context.replace(**portico.find_certificate(store, subject="localhost"))
    context.reload()
    assert serves(server, chain)


def test_one_file_with_both(make_server, store):
    chain = Chain()
    (store / "both.pem").write_bytes(chain.pem("key", "intermediate", "leaf"))
    found = portico.find_certificate(str(store))
    assert dict(found) == {"cert": store / "both.pem"}
    server = make_server()
    server.add_context("localhost", **found)
    assert serves(server, chain)


@pytest.mark.parametrize("options", [[], ["-legacy"]], ids=["modern", "legacy"])
def test_pfx(make_server, store, options):
    chain = Chain()
    write_pfx(store, "site.pfx", chain, *options)
    found = portico.find_certificate(store, password="secret")
    assert dict(found) == {"pfx": store / "site.pfx", "password": "secret"}
    assert "secret" not in repr(found)
    server = make_server()
    server.add_context("localhost", **found)
    assert serves(server, chain)
    with pytest.raises(portico.CertificateError, match=r"site\.pfx: wrong password"):
        portico.find_certificate(store, password="other")
    with pytest.raises(portico.CertificateError, match=r"site\.pfx: it is encrypted: give its password="):
        portico.find_certificate(store)


def test_encrypted_key_and_der(make_server, store):
    chain = Chain()
    (store / "a").write_bytes(chain.leaf.public_bytes(DER))
    (store / "b").write_bytes(key_bytes(chain.key, encoding=DER, password="secret"))
    found = portico.find_certificate(store, password=b"secret")
    assert dict(found) == {"cert": store / "a", "key": store / "b", "password": b"secret"}
    make_server().add_context("localhost", **found)


def test_folders_in_it_as_certbot_has_them(store):
    """`live/NAME/fullchain.pem` is a link; of two files with the same certificate the one with the whole chain is taken."""
    chain = Chain()
    live, archive = store / "localhost", store.parent / "archive"
    live.mkdir()
    archive.mkdir()
    for name, parts in {
        "cert": ["leaf"],
        "chain": ["intermediate"],
        "fullchain": ["leaf", "intermediate"],
        "privkey": ["key"],
    }.items():
        (archive / f"{name}1.pem").write_bytes(chain.pem(*parts))
        (live / f"{name}.pem").symlink_to(archive / f"{name}1.pem")
    assert portico.find_certificate(store).files == (live / "fullchain.pem", live / "privkey.pem")


def write(store, name, **more):
    chain = Chain(**more)
    (store / f"{name}.pem").write_bytes(chain.pem("leaf", "intermediate", "key"))
    return store / f"{name}.pem"


@pytest.mark.parametrize(
    ("subject", "expected"),
    [("shop", "shop"), ("SHOP.t", "shop"), ("Mail", "mail"), ("cn=web", "web"), ("alias.t", "web")],
)
def test_searched_by_subject_and_names_in_any_case(store, subject, expected):
    for name, names in {"shop": ["shop.test"], "mail": ["Mail.test"], "web": ["www.test", "alias.test"]}.items():
        write(store, name, common=[name], names=names)
    found = portico.find_certificate(store, subject)
    assert found.files == (store / f"{expected}.pem",)
    assert found.names


def test_searched_by_host(store):
    write(store, "wild", common=["x"], names=["*.shop.test"])
    write(store, "long", common=["x"], names=["long.shop.test.example"], ends=9 * DAY)
    assert portico.find_certificate(store, host="a.shop.test").files == (store / "wild.pem",)
    with pytest.raises(portico.CertificateError, match=r"for the host b.a.shop.test;.*CN=x is not what was asked for"):
        portico.find_certificate(store, host="b.a.shop.test")
    with pytest.raises(portico.ConfigError, match="IP address"):
        portico.find_certificate(store, host="127.0.0.1")


def test_of_several_the_one_that_is_valid_longest_named_in_the_log(store, caplog):
    caplog.set_level(logging.INFO, "portico")
    write(store, "a", ends=30 * DAY)
    longest = write(store, "b", ends=90 * DAY)
    write(store, "c", begins=-9 * DAY, ends=-DAY)
    write(store, "d", begins=100 * DAY, ends=200 * DAY)
    found = portico.find_certificate(store)
    assert found.files == (longest,)
    (record,) = [record for record in caplog.records if record.name == "portico"]
    assert record.levelno == logging.INFO
    message = record.getMessage()
    assert "CN=localhost" in message
    assert str(longest) in message
    assert str(found.not_after) in message
    assert "others that would do: CN=localhost" in message


def test_ten_years_are_longer_than_one_whatever_browsers_say_of_them(store):
    write(store, "one", ends=365 * DAY)
    ten = write(store, "ten", ends=3650 * DAY)
    assert portico.find_certificate(store).files == (ten,)


def test_a_self_signed_one_does_not_hide_that_of_an_authority(store):
    for name, days in {"old": 365, "new": 3650}.items():
        key = make_key()
        (store / f"{name}.pem").write_bytes(build(key, ends=days * DAY).public_bytes(PEM) + key_bytes(key))
    assert portico.find_certificate(store).files == (store / "new.pem",)
    real = write(store, "real", ends=90 * DAY)
    assert portico.find_certificate(store).files == (real,)


def test_what_was_passed_over_is_named_when_nothing_is_left(store):
    expired = write(store, "old", begins=-9 * DAY, ends=-DAY)
    early = write(store, "early", begins=9 * DAY, ends=19 * DAY)
    other = Chain()
    (store / "alone.crt").write_bytes(other.pem("leaf"))
    (store / "broken.pem").write_bytes(other.pem("leaf")[:100])
    with pytest.raises(portico.CertificateError) as caught:
        portico.find_certificate(store)
    message = str(caught.value)
    assert message.startswith(f"no certificate found in {store}: looked at 7 files")
    assert f"{expired} (subject CN=localhost) expired at 20" in message
    assert f"{early} (subject CN=localhost) is not valid before 20" in message
    assert "broken.pem: malformed PEM" in message
    assert "; certificates without their key: 1 (" in message
    with pytest.raises(portico.CertificateError, match='asked for one with "nobody" in its subject or names'):
        portico.find_certificate(store, "nobody")


def test_authorities_alone_are_nothing(store):
    chain = Chain()
    (store / "ca.pem").write_bytes(chain.pem("root", "intermediate"))
    with pytest.raises(portico.CertificateError, match="looked at 4 files"):
        portico.find_certificate(store)


def test_no_folder(store):
    for path in (store / "none", store / "README"):
        with pytest.raises(portico.CertificateError, match=f"no certificate found in {path}: it cannot be read"):
            portico.find_certificate(path)


def test_number_of_files_is_bounded(store):
    for number in range(1001):
        (store / f"{number}.pem").touch()
    with pytest.raises(portico.CertificateError, match="more than 1000 files"):
        portico.find_certificate(store)


def test_same_key_in_two_files(store):
    """A renewed certificate beside the old one, and the key in a file of its own as well."""
    chain = Chain(ends=2 * DAY)
    (store / "old.crt").write_bytes(chain.pem("leaf", "intermediate"))
    (store / "the.key").write_bytes(chain.pem("key"))
    renewed = build(chain.key, issuer=(chain.intermediate, chain.intermediate_key), ends=99 * DAY)
    (store / "new.crt").write_bytes(renewed.public_bytes(PEM) + chain.pem("intermediate"))
    (store / "self.crt").write_bytes(build(make_key(), ends=999 * DAY).public_bytes(PEM))
    assert portico.find_certificate(store).files == (store / "new.crt", store / "the.key")
