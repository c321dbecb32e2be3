"""The certificates of the demo are kept from start to start, and only as long as they are good."""

from __future__ import annotations

import os
import re
import ssl
import threading

import pytest

from certificates import key_bytes, make_key
from portico import _authority, _core
from portico.demo import certificates
from portico.demo.certificates import keep

HOSTS = {"localhost": ["localhost", "127.0.0.1"], "a.localhost": ["a.localhost"]}


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def check(kept):
    """Every pair is one, signed by the authority."""
    for host, path in kept.pairs.items():
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(path)
        assert kept.subjects[host] == f"CN={host}"
        assert kept.ca.read_text() in path.read_text()


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "kept"


@pytest.fixture
def kept(folder):
    return keep(folder, HOSTS)


def test_only_the_owner_can_read_the_keys(kept, folder):
    assert folder.stat().st_mode & 0o777 == 0o700
    modes = {path.name: path.stat().st_mode & 0o777 for path in folder.iterdir()}
    assert modes.pop("ca.crt") == 0o644
    assert set(modes.values()) == {0o600}
    assert "PRIVATE" not in kept.ca.read_text()


def test_modes_do_not_depend_on_the_umask(folder):
    before = os.umask(0)
    try:
        test_only_the_owner_can_read_the_keys(keep(folder, HOSTS), folder)
    finally:
        os.umask(before)


def test_modes_that_were_widened_are_put_right(kept, folder):
    for path in folder.iterdir():
        path.chmod(0o666)
    (folder / ".lock").chmod(0o600)
    test_only_the_owner_can_read_the_keys(keep(folder, HOSTS), folder)


def test_what_is_good_is_kept(kept, folder):
    check(kept)
    assert kept.new_authority
    before = contents(folder)
    again = keep(folder, HOSTS)
    assert contents(folder) == before
    assert not again.new_authority


def spoil_with_junk(path):
    path.write_bytes(b"\xff junk")


def spoil_by_cutting(path):
    path.write_bytes(path.read_bytes()[:-200])


def spoil_by_removing(path):
    path.unlink()


def spoil_with_another_key(path):
    text = path.read_text()
    path.write_text(text[: text.index("-----BEGIN PRIVATE KEY")] + key_bytes(make_key()).decode())


def spoil_with_a_bad_key(path):
    path.write_text(re.sub("(?<=BEGIN PRIVATE KEY-----\n)....", "AAAA", path.read_text()))


def near_the_end(path):
    """What is left of the old certificate when it should be issued anew: a bit less than `RENEW_DAYS`."""
    authority = _authority.read_pair(path.with_name("authority.pem"), 0)
    issued = _core.issue_certificate(authority.cert, authority.key, ["a.localhost"], _authority.RENEW_DAYS)
    path.write_text("For a.localhost\n" + "".join(issued))


def for_other_names(path):
    path.write_text(path.read_text().replace("For a.localhost", "For b.localhost"))


@pytest.mark.parametrize(
    "spoil",
    [
        spoil_with_junk,
        spoil_by_cutting,
        spoil_by_removing,
        spoil_with_another_key,
        spoil_with_a_bad_key,
        near_the_end,
        for_other_names,
    ],
)
def test_what_is_not_good_is_issued_anew_by_the_same_authority(kept, folder, spoil):
    before = contents(folder)
    spoil(folder / "a.localhost.pem")
    spoilt = contents(folder)
    again = keep(folder, HOSTS)
    check(again)
    after = contents(folder)
    assert after.pop("a.localhost.pem") not in (before.pop("a.localhost.pem"), spoilt.get("a.localhost.pem"))
    assert after == before
    assert not again.new_authority


@pytest.mark.parametrize(
    "spoil",
    [spoil_with_junk, spoil_by_cutting, spoil_by_removing, spoil_with_another_key, spoil_with_a_bad_key],
)
def test_authority_that_cannot_sign_is_made_anew_with_all_it_signs(kept, folder, spoil):
    before = contents(folder)
    spoil(folder / "authority.pem")
    again = keep(folder, HOSTS)
    check(again)
    assert again.new_authority
    assert all(after != before[name] for name, after in contents(folder).items() if name != ".lock")


def test_authority_that_ends_before_what_it_signs_is_made_anew(kept, folder, monkeypatch):
    monkeypatch.setattr(certificates, "VALID_DAYS", 10 * 365)
    assert keep(folder, HOSTS).new_authority


@pytest.mark.parametrize("name", ["ca.crt", "authority.pem", "a.localhost.pem"])
def test_files_of_others_are_not_touched(folder, name):
    folder.mkdir()
    theirs = folder / name
    theirs.write_text("secret")
    theirs.chmod(0o644)
    with pytest.raises(OSError, match=name):
        keep(folder, HOSTS)
    assert [path.name for path in folder.iterdir()] == [name]
    assert (theirs.read_text(), theirs.stat().st_mode & 0o777) == ("secret", 0o644)


def test_links_of_others_are_replaced_and_not_followed(kept, folder, tmp_path):
    victim = tmp_path / "victim"
    victim.write_text("secret")
    victim.chmod(0o644)
    (folder / "a.localhost.pem").unlink()
    (folder / "a.localhost.pem").symlink_to(victim)
    check(keep(folder, HOSTS))
    assert (victim.read_text(), victim.stat().st_mode & 0o777) == ("secret", 0o644)


def test_public_certificate_is_put_back(kept, folder):
    before = contents(folder)
    spoil_with_junk(kept.ca)
    keep(folder, HOSTS)
    assert contents(folder) == before


def test_first_starts_at_once_agree(folder):
    made = []
    threads = [threading.Thread(target=lambda: made.append(keep(folder, HOSTS))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 8
    assert sum(each.new_authority for each in made) == 1
    check(made[0])


def test_write_that_fails_leaves_what_was_there(kept, folder, monkeypatch):
    before = contents(folder)
    spoil_by_removing(folder / "a.localhost.pem")
    monkeypatch.setattr(_authority.os, "fsync", lambda descriptor: (_ for _ in ()).throw(OSError(28, "full")))
    with pytest.raises(OSError, match="full"):
        keep(folder, HOSTS)
    del before["a.localhost.pem"]
    assert contents(folder) == before


@pytest.mark.parametrize("home", ["", "relative", None])
def test_without_a_home_that_of_the_user_counts(home, monkeypatch):
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    if home is None:
        monkeypatch.delenv("HOME")
    else:
        monkeypatch.setenv("HOME", home)
    assert _authority.user_folder("demo").is_absolute()
