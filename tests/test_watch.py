"""Certificates that are renewed while the server runs, and those that are not."""

from __future__ import annotations

import datetime
import os
import ssl

import pytest

import portico
from certificates import DAY, key_bytes, make_certificate, make_key
from clients import Errors, Wire, request, trusting, wait_until


def presented(port, host="localhost"):
    """The certificate that the server shows, DER."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with Wire(port, context=context, sni=host) as wire:
        return wire.sock.getpeercert(binary_form=True)


def renew(folder, issue, name="localhost"):
    """Puts a new pair into a folder, each file at once, and returns what it presents."""
    pair = issue(name)
    for file, pem in (("tls.crt", pair["cert"]), ("tls.key", pair["key"])):
        made = folder / f".{file}.new"
        made.write_bytes(pem)
        made.replace(folder / file)
    return ssl.PEM_cert_to_DER_cert(
        pair["cert"].decode().split("-----END CERTIFICATE-----")[0] + "-----END CERTIFICATE-----"
    )


@pytest.fixture
def watching(make_server):
    """Serves the pair of a folder, watched; its port and its errors."""

    def watching(folder, **more):
        errors = Errors()
        server = make_server(on_error=errors)
        server.add_context("localhost", cert=folder / "tls.crt", key=folder / "tls.key", watch=True, **more)
        return server.listen(0).port, errors

    return watching


def test_files_that_change_are_read_again(watching, issue, tmp_path):
    first = renew(tmp_path, issue)
    port, _ = watching(tmp_path)
    assert presented(port) == first
    for _ in range(2):
        new = renew(tmp_path, issue)
        wait_until(lambda new=new: presented(port) == new, "the new certificate")


def test_a_change_before_the_first_look_is_seen(make_server, issue, tmp_path):
    renew(tmp_path, issue)
    server = make_server()
    server.add_context("localhost", cert=tmp_path / "tls.crt", key=tmp_path / "tls.key", watch=True)
    second = renew(tmp_path, issue)
    port = server.listen(0).port
    wait_until(lambda: presented(port) == second, "the new certificate")


def test_links_as_certbot_has_them(watching, issue, tmp_path):
    """live/tls.crt leads to archive/tls1.crt, and after a renewal to archive/tls2.crt."""
    live, archive = tmp_path / "live", tmp_path / "archive"
    live.mkdir()

    def turn(number):
        folder = archive / str(number)
        folder.mkdir(parents=True)
        shown = renew(folder, issue)
        for file in ("tls.crt", "tls.key"):
            made = live / f"{file}.new"
            made.symlink_to(os.path.relpath(folder / file, live))
            made.replace(live / file)
        return shown

    first = turn(1)
    port, _ = watching(live)
    assert presented(port) == first
    second = turn(2)
    wait_until(lambda: presented(port) == second, "the new certificate")


def test_links_as_kubernetes_has_them(watching, issue, tmp_path):
    """tls.crt leads to ..data/tls.crt, and ..data to a folder of a time; a renewal turns ..data alone."""

    def turn(number):
        folder = tmp_path / f"..{number}"
        folder.mkdir()
        shown = renew(folder, issue)
        made = tmp_path / "..data_tmp"
        made.symlink_to(folder.name)
        made.replace(tmp_path / "..data")
        return shown

    first = turn(1)
    for file in ("tls.crt", "tls.key"):
        (tmp_path / file).symlink_to(f"..data/{file}")
    port, _ = watching(tmp_path)
    assert presented(port) == first
    second = turn(2)
    wait_until(lambda: presented(port) == second, "the new certificate")


def test_a_bad_file_leaves_the_old_one_and_is_told_once(watching, issue, tmp_path, caplog):
    first = renew(tmp_path, issue)
    port, errors = watching(tmp_path)
    with caplog.at_level("WARNING", "portico.error"):
        (tmp_path / "tls.crt").write_bytes(b"-----BEGIN CERTIFICATE-----\njunk")
        error, request = errors.next(portico.CertificateError)
    assert request is None
    assert error.reason == "reload"
    assert "localhost" in str(error)
    assert str(tmp_path / "tls.crt") in str(error)
    assert str(error) in caplog.text
    assert presented(port) == first
    second = renew(tmp_path, issue)
    wait_until(lambda: presented(port) == second, "the good certificate")
    assert errors.given.empty(), "what stays bad is told once"


def test_files_that_vanish_leave_the_old_one(watching, issue, tmp_path):
    first = renew(tmp_path, issue)
    port, errors = watching(tmp_path)
    (tmp_path / "tls.key").unlink()
    assert "tls.key" in str(errors.next(portico.CertificateError)[0])
    assert presented(port) == first


def test_an_expired_one_leaves_the_old_one(watching, issue, tmp_path):
    first = renew(tmp_path, issue)
    port, errors = watching(tmp_path)
    key = make_key()
    (tmp_path / "tls.crt").write_bytes(make_certificate(key, begins=-2 * DAY, ends=-DAY))
    (tmp_path / "tls.key").write_bytes(key_bytes(key))
    assert "expired at" in str(errors.next(portico.CertificateError)[0])
    assert presented(port) == first


def test_what_is_not_watched_stays(make_server, issue, tmp_path):
    first = renew(tmp_path / ".", issue)
    server = make_server()
    plain = server.add_context("localhost", cert=tmp_path / "tls.crt", key=tmp_path / "tls.key")
    watched = tmp_path / "watched"
    watched.mkdir()
    renew(watched, issue, "watched.test")
    server.add_context("watched.test", cert=watched / "tls.crt", key=watched / "tls.key", watch=True)
    port = server.listen(0).port
    second = renew(tmp_path, issue)
    other = renew(watched, issue, "watched.test")
    wait_until(lambda: presented(port, "watched.test") == other, "the watched one")
    assert presented(port) == first
    plain.reload()
    assert presented(port) == second


def test_nothing_to_watch(make_server, issue):
    with pytest.raises(portico.ConfigError, match="watch"):
        make_server().add_context("localhost", **issue("localhost"), watch=True)


def test_never_a_moment_without_a_certificate(watching, issue, tmp_path, ca_pem):
    renew(tmp_path, issue)
    port, errors = watching(tmp_path)
    last = presented(port)
    context = trusting(ca_pem)
    for _ in range(3):
        new = renew(tmp_path, issue)
        while last != new:
            assert request(port, context=context).status == 200
            last = presented(port)
    assert errors.given.empty()


def test_the_end_of_each_certificate_is_in_the_statistics(make_server, issue):
    server = make_server()
    ends = datetime.datetime.now(datetime.timezone.utc) + 5 * DAY
    server.add_context("a.test", **issue("a.test", not_after=ends))
    server.add_context(None, **issue("b.test"))
    told = server.stats()["certificates"]
    assert [entry["host"] for entry in told] == ["a.test", None]
    assert told[0]["not_after"] == int(ends.timestamp())
    assert all("trustme" in entry["subject"] for entry in told)


def test_a_server_that_never_listens_ends_its_watching(issue, tmp_path):
    import threading

    renew(tmp_path, issue)
    before = set(threading.enumerate())
    with portico.Server() as server:
        server.add_context("localhost", cert=tmp_path / "tls.crt", key=tmp_path / "tls.key", watch=True)
        assert len(set(threading.enumerate()) - before) == 1
    wait_until(lambda: set(threading.enumerate()) <= before, "the end of the thread")
