"""What was found by people who tried to break the loading of certificates."""

from __future__ import annotations

import base64
import hashlib
import logging
import os
import secrets
import threading

import pytest

import portico
from certificates import DAY, DER, PEM, Chain, build, key_bytes, make_key, pair


def write(folder, name, *parts):
    (folder / name).write_bytes(b"".join(parts))
    return folder / name


def test_a_file_that_became_a_pipe_keeps_nobody_waiting(make_server, tmp_path):
    """The name changes hands all the time: what is read is what was looked at."""
    cert, key = pair()
    write(tmp_path, "regular", cert)
    os.mkfifo(tmp_path / "pipe")
    os.link(tmp_path / "regular", tmp_path / "c.pem")
    context = make_server().add_context("localhost", cert=tmp_path / "c.pem", key=key)
    ended, errors = threading.Event(), []

    def swap():
        while not ended.is_set():
            for kind in ("pipe", "regular"):
                os.link(tmp_path / kind, tmp_path / "new")
                os.replace(tmp_path / "new", tmp_path / "c.pem")

    def reload():
        for _ in range(2000):
            try:
                context.reload()
            except portico.CertificateError as error:
                errors.append(str(error))

    swapping = threading.Thread(target=swap, daemon=True)
    reloading = threading.Thread(target=reload, daemon=True)
    swapping.start()
    reloading.start()
    reloading.join(60)
    ended.set()
    assert not reloading.is_alive()
    assert errors
    assert all("only regular files" in error for error in errors)


def test_secrets_given_for_paths_are_not_shown(make_server):
    cert, key = pair()
    server = make_server()
    body = key.decode().splitlines()[1:-1]
    for text in ("".join(body), "\n".join(body), base64.b16encode(key).decode()):
        with pytest.raises(portico.CertificateError) as caught:
            server.add_context("localhost", cert=cert, key=text)
        assert f"given as key= ({len(text)} characters) is neither PEM nor the path of a file" in str(caught.value)
        assert text[:20] not in repr(caught.value)
    for secret in (secrets.token_hex(32), "hunter2"):
        with pytest.raises(portico.CertificateError, match="given as ticket_keys=") as caught:
            server.add_context("localhost", cert=cert, key=key, ticket_keys=[secret])
        assert secret not in repr(caught.value)
    with pytest.raises(portico.CertificateError, match="/no/such/file/of/a/key/whatever/it/is/called"):
        server.add_context("localhost", cert=cert, key="/no/such/file/of/a/key/whatever/it/is/called")


def test_keywords_that_mean_nothing_are_config_errors(make_server, tmp_path):
    cert, key = pair()
    context = make_server().add_context("localhost", cert=cert, key=key)
    for keywords, why in (
        ({"ticket_keys": []}, "ticket_keys: it is empty"),
        ({"password": "x"}, "password: it goes with"),
        ({"cert": cert, "key": "\ud800"}, "key: it is text that no file"),
    ):
        with pytest.raises(portico.ConfigError, match=why):
            context.replace(**keywords)
    with pytest.raises(portico.ConfigError, match="subject: text"):
        portico.find_certificate(tmp_path, subject="\udcff")


def test_a_context_tells_which_certificate_it_is(make_server):
    chain = Chain()
    context = make_server().add_context("localhost", cert=chain.pem("leaf", "intermediate", "key"))
    assert context.serial == f"{chain.leaf.serial_number:X}"
    assert context.fingerprint == hashlib.sha256(chain.leaf.public_bytes(DER)).hexdigest()
    assert context.not_before == chain.leaf.not_valid_before_utc
    assert context.not_after == chain.leaf.not_valid_after_utc


def test_without_names_a_command_is_told(make_server):
    key = make_key()
    cert = build(key, common=["shop.test"], names=[]).public_bytes(PEM)
    warnings = "\n".join(make_server().add_context(None, cert=cert, key=key_bytes(key)).warnings)
    assert '-addext "subjectAltName=DNS:shop.test"' in warnings
    assert "portico certs shop.test" in warnings


def test_signed_for_months_before_self_signed_for_years(tmp_path, caplog):
    caplog.set_level(logging.INFO, "portico")
    chain = Chain(ends=90 * DAY)
    signed = write(tmp_path, "signed.pem", chain.pem("leaf", "intermediate", "key"))
    key = make_key()
    mine = write(tmp_path, "mine.pem", build(key, ends=3650 * DAY).public_bytes(PEM), key_bytes(key))
    write(tmp_path, "locked.key", key_bytes(make_key(), password="secret"))
    assert portico.find_certificate(tmp_path).files == (signed,)
    message = caplog.records[-1].getMessage()
    assert f"others that would do: CN=localhost ({mine})" in message
    assert f"passed over: {tmp_path / 'locked.key'}: a key in it: it is encrypted: give its password=" in message


def test_copies_cost_one_look_each(tmp_path, caplog):
    caplog.set_level(logging.INFO, "portico")
    cert, key = pair()
    for number in range(100):
        write(tmp_path, f"{number:03}.crt", cert)
        write(tmp_path, f"{number:03}.key", key)
    assert portico.find_certificate(tmp_path).files == (tmp_path / "000.crt", tmp_path / "000.key")
    assert "others that would do" not in caplog.records[-1].getMessage()
