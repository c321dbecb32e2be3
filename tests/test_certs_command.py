"""`portico certs`: what it makes is good for every client, what it prints works, and nothing is overwritten."""

from __future__ import annotations

import itertools
import os
import re
import shlex
import ssl
import subprocess
import sys
import time
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID as Purpose

import portico
from certificates import pair
from clients import request, run, trusting
from portico import _certs, cli
from programs import Program, shell

NAMES = ("localhost", "127.0.0.1", "::1", "*.shop.test")


class Command:
    """The command in a home and a folder of its own."""

    def __init__(self, folder, capsys):
        self.capsys, self.out = capsys, folder / "out"
        self.home = folder / "data" / "portico"

    def __call__(self, *arguments):
        """Runs it; what it printed."""
        code = cli.main(["certs", "--out", str(self.out), *map(str, arguments)])
        printed = self.capsys.readouterr()
        assert code == 0, printed.err
        assert printed.err == ""
        return printed.out

    def fails(self, *arguments):
        """Runs it; what it said that is wrong."""
        assert cli.main(["certs", "--out", str(self.out), *map(str, arguments)]) == 1
        printed = self.capsys.readouterr()
        assert printed.out == ""
        assert "Traceback" not in printed.err
        return printed.err

    @property
    def ca(self):
        return self.home / "authority" / "ca.crt"

    def files(self):
        return {path.name: path.read_bytes() for path in self.out.iterdir()}


@pytest.fixture
def certs(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    return Command(tmp_path, capsys)


def load(path):
    """The first certificate of a file."""
    return x509.load_pem_x509_certificates(path.read_bytes())[0]


def extension(certificate, kind):
    return certificate.extensions.get_extension_for_class(kind)


def test_says_where_the_files_are_and_who_may_read_them(certs):
    printed = certs(*NAMES)
    modes = {path.name: path.stat().st_mode & 0o777 for path in certs.out.iterdir()}
    assert modes == {"localhost.crt": 0o644, "localhost.key": 0o600}
    assert certs.ca.stat().st_mode & 0o777 == 0o644
    assert certs.ca.parent.stat().st_mode & 0o777 == 0o700
    assert certs.ca.with_name("authority.pem").stat().st_mode & 0o777 == 0o600
    for path in (certs.out / "localhost.crt", certs.out / "localhost.key", certs.ca, certs.ca.parent / "authority.pem"):
        assert str(path) in printed
    assert "made just now" in printed
    assert "made just now" not in certs(*NAMES)


def test_files_are_in_the_current_folder_by_default(certs, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["certs", "*.shop.test", "--ca", "my authority"]) == 0
    assert {path.name for path in tmp_path.iterdir()} == {
        "_wildcard.shop.test.crt",
        "_wildcard.shop.test.key",
        "my authority",
    }
    assert str(tmp_path / "my authority" / "ca.crt") in certs.capsys.readouterr().out


@pytest.mark.parametrize("names", [["::1"], ["fe80::1", "10.0.0.1"], ["*.a.test"], ["[::1]"]])
def test_every_name_makes_a_file_that_needs_no_quotes(certs, names):
    certs(*names)
    for name in certs.files():
        assert shlex.quote(name) == name
        assert name[0].isalnum() or name[0] == "_"


def test_files_are_called_as_one_likes(certs):
    certs("*.shop.test", "--name", "shop")
    assert set(certs.files()) == {"shop.crt", "shop.key"}
    for wrong in ("", ".", "..", "a/b", "../a"):
        assert "not the name of a file" in certs.fails("a.test", "--name", wrong)


# ---- what it makes


def test_the_certificate_is_for_these_names_and_for_servers_only(certs):
    certs(*NAMES)
    leaf = load(certs.out / "localhost.crt")
    names = extension(leaf, x509.SubjectAlternativeName).value
    assert [str(name.value) for name in names] == list(NAMES)
    assert set(extension(leaf, x509.ExtendedKeyUsage).value) == {Purpose.SERVER_AUTH}
    usage = extension(leaf, x509.KeyUsage)
    assert usage.critical
    assert usage.value.digital_signature
    others = (usage.value.key_cert_sign, usage.value.key_encipherment, usage.value.content_commitment)
    assert not any(others)
    assert extension(leaf, x509.AuthorityKeyIdentifier)


def test_the_authority_signs_servers_certificates_and_nothing_else(certs):
    certs(*NAMES)
    authority = load(certs.ca)
    basic, usage = extension(authority, x509.BasicConstraints), extension(authority, x509.KeyUsage)
    assert (basic.critical, basic.value.ca, basic.value.path_length) == (True, True, 0)
    assert (usage.critical, usage.value.key_cert_sign, usage.value.digital_signature) == (True, True, False)
    assert set(extension(authority, x509.ExtendedKeyUsage).value) == {Purpose.SERVER_AUTH}
    limits = extension(authority, x509.NameConstraints)
    assert limits.critical
    permitted = {str(name.value) for name in limits.value.permitted_subtrees}
    assert {"localhost", "test", "127.0.0.0/8", "::1/128"} <= permitted
    assert not any(name in permitted for name in ("com", "org", "net", "0.0.0.0/0", "::/0"))


def test_openssl_takes_it_strictly(certs):
    certs(*NAMES)
    strict = ["-x509_strict", "-purpose", "sslserver", "-CAfile", certs.ca]
    for name in (["-verify_hostname", "www.shop.test"], ["-verify_ip", "127.0.0.1"], ["-verify_ip", "::1"]):
        done = run("openssl", "verify", *map(str, strict), *name, str(certs.out / "localhost.crt"))
        assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(("given", "days"), [([], 365), (["--days", 1], 1), (["--days", 824], 824)])
def test_days(certs, given, days):
    certs("localhost", *given)
    leaf = load(certs.out / "localhost.crt")
    left = leaf.not_valid_after_utc.timestamp() - time.time()
    assert days - 0.1 < left / 86400 < days + 0.1
    # Apple's limit for all certificates.
    assert (leaf.not_valid_after_utc - leaf.not_valid_before_utc).days <= 825


# ---- what it prints


def serve_printed(printed, make_server):
    """Runs the two lines that it prints, but for the port."""
    lines = printed.split("Serve with it:\n")[1].split("\n\n")[0].splitlines()
    assert len(lines) == 2
    server = make_server()
    known = {"server": server}
    exec("\n".join(line.strip() for line in lines).replace("8443", "0"), known)
    return known["listener"].port


def test_the_printed_lines_of_python_serve_every_name(certs, make_server):
    port = serve_printed(certs(*NAMES), make_server)
    context = trusting(certs.ca.read_bytes())
    for name in ("localhost", "127.0.0.1", "::1", "any.shop.test"):
        assert request(port, host=name, context=context).status == 200


def test_the_printed_lines_of_python_serve_one_name(certs, make_server):
    printed = certs("a.test")
    assert "for name in" not in printed
    port = serve_printed(printed, make_server)
    assert request(port, host="a.test", context=trusting(certs.ca.read_bytes())).status == 200


@pytest.mark.parametrize("names", [NAMES, ["127.0.0.1"], ["*.shop.test"]])
def test_the_printed_curl_line_works(certs, make_server, names, tmp_path):
    printed = certs(*names)
    port = serve_printed(printed, make_server)
    (line,) = re.findall(r"^ +curl +(curl .*)$", printed, re.MULTILINE)
    assert "hello /" in shell(line.replace("8443", str(port)) + " --silent --show-error --noproxy '*'", tmp_path)


def test_the_printed_ssl_line_works(certs, make_server):
    printed = certs(*NAMES)
    port = serve_printed(printed, make_server)
    (line,) = re.findall(r"(ssl\.create_default_context\(.*\))$", printed.split("httpx")[0], re.MULTILINE)
    assert request(port, context=eval(line, {"ssl": ssl})).status == 200


def test_how_to_trust_is_told_for_every_system(certs):
    printed = certs(*NAMES)
    told = (
        "Debian",
        "Fedora",
        "macOS",
        "Windows",
        "Firefox",
        "Chromium",
        "curl",
        "ssl",
        "requests",
        "httpx",
        "Node.js",
    )
    for who in told:
        assert re.search(rf"^ .*\b{who}\b", printed, re.MULTILINE), who


# ---- what it keeps


def test_what_is_good_is_kept(certs):
    assert certs(*NAMES).startswith("Made ")
    before = certs.files()
    assert certs(*NAMES).startswith("Kept ")
    assert certs.files() == before


def test_force_makes_it_anew_by_the_same_authority(certs):
    certs(*NAMES)
    files, ca = certs.files(), certs.ca.read_bytes()
    assert certs(*NAMES, "--force").startswith("Made ")
    assert certs.ca.read_bytes() == ca
    after = certs.files()
    assert all(after[name] != files[name] for name in files)


def test_what_nears_its_end_is_made_anew(certs):
    certs("localhost", "--days", 6)
    before = certs.files()
    assert certs("localhost").startswith("Made ")
    assert certs.files() != before


@pytest.mark.parametrize("there", [["localhost.crt"], ["localhost.key"], ["localhost.crt", "localhost.key"]])
def test_files_of_others_are_not_overwritten(certs, there):
    certs.out.mkdir()
    for name, content in zip(("localhost.crt", "localhost.key"), pair("localhost"), strict=True):
        if name in there:
            (certs.out / name).write_bytes(content)
    before = certs.files()
    told = certs.fails("localhost")
    assert all(str(certs.out / name) in told for name in there)
    assert "--force" in told
    assert certs.files() == before
    certs("localhost", "--force")
    assert certs.files() != before


def test_files_for_other_names_are_not_overwritten(certs):
    certs("localhost")
    before = certs.files()
    assert "--force" in certs.fails("localhost", "a.test")
    assert certs.files() == before


def widen(path):
    """Lets everybody read something; its mode, as `unchanged` wants it."""
    path.chmod(0o755)
    return path.lstat().st_mode


def foreign_link(path, folder):
    victim = folder / "victim"
    victim.write_text("secret")
    path.symlink_to(victim)
    return victim


def foreign_hard_link(path, folder):
    victim = folder / "victim"
    victim.write_text("secret")
    path.hardlink_to(victim)
    return victim


def foreign_folder(path, folder):
    path.mkdir()
    return path


def foreign_file(path, folder):
    path.write_text("secret")
    return path


def foreign_pipe(path, folder):
    os.mkfifo(path)
    return path


FOREIGN = (foreign_link, foreign_hard_link, foreign_folder, foreign_file, foreign_pipe)


@pytest.mark.parametrize("foreign", FOREIGN)
@pytest.mark.parametrize("name", ["localhost.key", "localhost.crt"])
@pytest.mark.parametrize("other", [False, True])
def test_nothing_of_others_is_changed(certs, tmp_path, foreign, name, other):
    """Nor waited for, which a FIFO would make us do; also where the other file is of our making."""
    certs.out.mkdir()
    if other:
        certs("localhost")
        (certs.out / name).unlink()
    victim = foreign(certs.out / name, tmp_path)
    mode = widen(victim)
    told = certs.fails("localhost")
    assert str(certs.out / name) in told
    assert "--force" in told
    assert victim.lstat().st_mode == mode
    assert not victim.is_file() or victim.read_text() == "secret"


@pytest.mark.parametrize("foreign", [foreign_folder, foreign_pipe])
@pytest.mark.parametrize("name", ["localhost.key", "localhost.crt"])
def test_force_overwrites_files_only_and_both_or_none(certs, tmp_path, foreign, name):
    certs.out.mkdir()
    foreign(certs.out / name, tmp_path)
    assert "is no file" in certs.fails("localhost", "--force")
    assert [path.name for path in certs.out.iterdir()] == [name]


def test_force_replaces_a_link_and_not_what_it_leads_to(certs, tmp_path):
    certs.out.mkdir()
    victim = foreign_link(certs.out / "localhost.key", tmp_path)
    mode = widen(victim)
    certs("localhost", "--force")
    assert (victim.read_text(), victim.stat().st_mode) == ("secret", mode)
    assert not (certs.out / "localhost.key").is_symlink()


@pytest.mark.parametrize("name", ["ca.crt", "authority.pem"])
@pytest.mark.parametrize("foreign", FOREIGN)
def test_authorities_of_others_are_not_touched(certs, tmp_path, foreign, name):
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    victim = foreign(theirs / name, tmp_path)
    mode = widen(victim)
    told = certs.fails("localhost", "--ca", theirs)
    assert name in told
    assert "--ca" in told
    assert [path.name for path in theirs.iterdir()] == [name]
    assert victim.lstat().st_mode == mode


def test_keys_of_ours_that_were_widened_are_put_right(certs):
    certs("localhost")
    keys = [certs.out / "localhost.key", certs.ca.with_name("authority.pem")]
    for key in keys:
        key.chmod(0o644)
    assert certs("localhost").startswith("Kept ")
    assert [key.stat().st_mode & 0o777 for key in keys] == [0o600, 0o600]


def test_two_at_once_agree(certs):
    command = [sys.executable, "-m", "portico", "certs", "localhost", "--out", str(certs.out)]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    told = [process.communicate(timeout=120) for process in both]
    assert [process.returncode for process in both] == [0, 0], told
    assert sorted(out.split()[0] for out, _ in told) == ["Kept", "Made"]
    # Logging without a handler prints warnings there, such as those about an authority as a server's certificate.
    assert [error for _, error in told] == ["", ""]
    ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certs.out / "localhost.crt", certs.out / "localhost.key")


def test_another_authority_makes_another_certificate(certs, tmp_path):
    certs("localhost")
    certs("localhost", "--ca", tmp_path / "other")
    trusted = (tmp_path / "other" / "ca.crt").read_text()
    assert trusted in (certs.out / "localhost.crt").read_text()


# ---- what it refuses


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("", "an empty name"),
        ("a b", "not a host name"),
        ("https://a.test", "no scheme"),
        ("a.test:443", "no port"),
        ("bücher.test", "xn--"),
        ("a.*.test", "wildcard"),
        ("*.localhost", "two labels"),
        ("../../etc/passwd", "not a host name"),
        ("x" * 64 + ".test", "not a host name"),
    ],
)
def test_what_is_no_name_is_refused(certs, name, why):
    assert why in certs.fails("localhost", name)
    assert not certs.out.exists() or not certs.files()


@pytest.mark.parametrize("option", [None, "--name", "--out", "--ca"])
def test_what_is_not_utf8_is_refused(certs, option, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    given = os.fsdecode(b"a\xff.test")
    told = certs.fails(*([given] if option is None else ["localhost", option, given]))
    assert "is not UTF-8" in told
    assert "xff" in told
    assert not certs.out.exists()


def test_name_that_is_too_long_for_a_file(certs):
    long = ".".join(["a" * 60] * 4)
    assert "--name gives a shorter one" in certs.fails(f"{long}.test")
    assert "--name gives a shorter one" in certs.fails("localhost", "--name", "a" * 201)
    certs(f"{long}.test", "--name", "a" * 200)


def test_names_of_others_need_an_authority_for_any_name(certs):
    told = certs.fails("localhost", "bank.com")
    assert "--any-name" in told
    assert "bank.com" in told
    printed = certs("localhost", "bank.com", "--any-name")
    assert "authority-for-any-name" in printed
    authority = load(certs.home / "authority-for-any-name" / "ca.crt")
    with pytest.raises(x509.ExtensionNotFound):
        extension(authority, x509.NameConstraints)


def test_name_constraints_hold_with_openssl_too(certs, tmp_path):
    """Somebody who has the authority's key signs with a tool that asks nobody."""
    certs("localhost")
    key, csr, leaf = tmp_path / "k", tmp_path / "r", tmp_path / "c"
    extensions = tmp_path / "e"
    extensions.write_text("subjectAltName=DNS:bank.com")
    signer = str(certs.ca.with_name("authority.pem"))
    new = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", str(key), "-out", str(csr)]
    assert run("openssl", "req", *new, "-subj", "/CN=x").returncode == 0
    sign = ["-req", "-in", str(csr), "-CA", signer, "-CAkey", signer, "-extfile", str(extensions), "-out", str(leaf)]
    assert run("openssl", "x509", *sign, "-CAcreateserial", "-CAserial", str(tmp_path / "s")).returncode == 0
    done = run("openssl", "verify", "-CAfile", str(certs.ca), str(leaf))
    assert done.returncode != 0
    assert "permitted subtree violation" in done.stdout + done.stderr


def test_the_command_that_serves_with_it_is_printed_and_works(certs, tmp_path):
    (line,) = [one for one in certs(*NAMES).splitlines() if one.startswith("  portico run ")]
    (tmp_path / "shop.py").write_text("def app(request):\n    return {'statusCode': 200, 'body': 'sold'}\n")
    command = shlex.split(line.replace("MODULE:NAME", "shop:app"))
    hosts = [one.partition("=")[0] for flag, one in itertools.pairwise(command) if flag == "--host"]
    assert hosts == ["localhost", "default", "*.shop.test"]
    program = Program("-m", *command, "--app-dir", tmp_path, "--listen", "0", HOME=str(tmp_path))
    try:
        port = int(program.wait_for(r"https://localhost:(\d+)/")[1])
        context = trusting(certs.ca.read_bytes())
        for host in ("localhost", "a.shop.test"):
            assert request(port, "GET", "/", host=host, context=context).text == "sold"
    finally:
        program.close()


@pytest.mark.parametrize("days", ["0", "825", "-1", "x", "1.5"])
def test_days_that_make_no_sense(certs, days):
    with pytest.raises(SystemExit, match="2"):
        cli.main(["certs", "localhost", f"--days={days}"])
    assert "from 1 to 824" in certs.capsys.readouterr().err


@pytest.mark.parametrize("option", ["--out", "--ca"])
def test_folder_that_cannot_be_made_is_named(certs, option, tmp_path):
    (tmp_path / "file").write_text("")
    told = certs.fails("localhost", option, tmp_path / "file" / "folder")
    assert str(tmp_path / "file" / "folder") in told
    assert option in told


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
@pytest.mark.parametrize("option", ["--out", "--ca"])
def test_folder_that_cannot_be_written_is_named(certs, option, tmp_path):
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o500)
    told = certs.fails("localhost", option, closed)
    assert str(closed) in told


def test_help_is_worth_reading(capsys):
    with pytest.raises(SystemExit, match="0"):
        cli.main(["certs", "--help"])
    told = " ".join(capsys.readouterr().out.split())
    for part in ("--out", "--name", "--ca", "--days", "--force", "--any-name", "examples: portico certs", "824"):
        assert part in told


def test_limits_of_days_agree():
    assert _certs.DEFAULT_DAYS <= _certs.MAX_DAYS
    assert Path(portico.__file__).parent == Path(_certs.__file__).parent


def test_what_is_refused_leaves_nothing_behind(tmp_path, monkeypatch, capsys):
    """Neither an authority nor folders."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    there = tmp_path / "there"
    there.mkdir()
    (there / "a.test.crt").write_text("mine")
    for arguments in (
        ["shop.example.de"],
        ["shop.example.de", "--out", tmp_path / "new" / "folder", "--ca", tmp_path / "ca"],
        ["a b.test", "--out", tmp_path / "new"],
        ["a.test", "--out", there, "--ca", tmp_path / "ca"],
    ):
        assert cli.main(["certs", *map(str, arguments)]) == 1
        assert capsys.readouterr().err.startswith("portico certs: ")
        assert [path.name for path in tmp_path.iterdir()] == ["there"]
        assert [path.name for path in there.iterdir()] == ["a.test.crt"]
