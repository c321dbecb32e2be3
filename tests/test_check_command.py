"""`portico check`: everything that is wrong at once, and what holds."""

from __future__ import annotations

import re

import pytest

from programs import Program
from running import APP, write


@pytest.fixture
def check(tmp_path):
    """Runs the command in a folder with `app.py`; its exit code and what it says."""
    (tmp_path / "app.py").write_text(APP)

    def check(text, *arguments, **environment):
        if text is not None:
            write(tmp_path / "portico.toml", text)
        start = f"import os, sys; os.chdir({str(tmp_path)!r}); from portico.cli import main; sys.exit(main())"
        program = Program("-c", start, "check", *arguments, HOME=str(tmp_path / "home"), **environment)
        try:
            return program.finish(), program.output
        finally:
            program.close()

    return check


@pytest.fixture
def certificate(tmp_path, issue):
    cert, key = issue("a.test").values()
    (tmp_path / "a.crt").write_bytes(cert)
    (tmp_path / "a.key").write_bytes(key)
    other = issue("b.test")
    (tmp_path / "b.key").write_bytes(other["key"])


GOOD = """
handler = "app:hello"
workers = 3
[hosts."a.test"]
cert = "a.crt"
key = "a.key"
handler = "app:wsgi_app"
[settings]
max_headers = 50
"""


def test_what_is_good_is_said_with_its_certificates(check, certificate):
    code, told = check(GOOD)
    assert code == 0
    assert told.startswith("portico.toml is good, with 1 warning: app:hello\n")
    assert re.search(r"a\.test: .*, \d+ days left", told)


def test_nothing_is_listened_to(check, certificate):
    """Not even where that would fail: 192.0.2.1 is nobody's."""
    code, told = check(GOOD, "--listen", "192.0.2.1:443")
    assert code == 0, told


def test_everything_that_is_wrong_is_said(check, certificate):
    code, told = check(
        """
        handler = "app:nothing"
        workers = -1
        [hosts."a.test"]
        cert = "a.crt"
        key = "b.key"
        [hosts."b.test"]
        cert = "missing.crt"
        [hosts."c.test"]
        cert = "a.crt"
        key = "a.key"
        handler = "missing:app"
        [handlers.files]
        files = "nowhere"
        [handlers.loop.mounts]
        "/" = "loop"
        [settings]
        max_headers = 0
        """
    )
    assert code == 1
    lines = told.splitlines()
    found = {int(match[1]) for line in lines if (match := re.match(r"portico\.toml:(\d+): ", line))}
    assert found == {2, 3, 4, 7, 12, 14, 16, 18}
    for words in [
        "app has no nothing",
        "a.key" if "a.key" in told else "b.key",
        "missing.crt: cannot read it",
        "there is no module missing",
        "nowhere",
        "a handler is mounted in itself",
        "max_headers: expected a whole number",
    ]:
        assert words in told
    assert lines[-1] == "portico check: 8 things to mend"


def test_a_program_that_fails_is_told_by_its_own_lines(check, tmp_path):
    (tmp_path / "broken.py").write_text("def app(request):\n    pass\n\n1 / 0\n")
    code, told = check('handler = "broken:app"')
    assert code == 1
    assert "portico.toml:1: handler 'broken:app': importing broken failed" in told
    assert 'broken.py", line 4' in told
    assert "ZeroDivisionError" in told
    assert told.splitlines()[-1] == "portico check: 1 thing to mend"


def test_flags_and_the_environment_count(check, certificate):
    assert check(GOOD, "--workers", "x")[0] == 1
    code, told = check(GOOD, PORTICO_MAX_HEADERS="0")
    assert code == 1
    assert told.startswith("PORTICO_MAX_HEADERS: expected")


def test_a_file_that_is_not_there(check):
    code, told = check(None, "none.toml")
    assert (code, told) == (1, "portico check: cannot read none.toml: No such file or directory\n")


def test_what_holds_and_where_it_was_said(check, certificate, tmp_path):
    code, told = check(GOOD, "--print", "--set", "threads=[1, 2]", PORTICO_GRACE="5")
    assert code == 0, told
    rows = dict(re.findall(r"^(\w+) = .*?  +# (.*)$", told, re.MULTILINE))
    assert rows["workers"] == "portico.toml:3"
    assert rows["grace"] == "PORTICO_GRACE"
    assert rows["threads"] == "--set"
    assert rows["max_headers"] == "portico.toml:9"
    assert rows["header_timeout"] == "default"
    assert '[hosts."a.test"]' in told


def test_what_is_printed_can_be_run_again(check, certificate):
    code, told = check(GOOD, "--print")
    assert code == 0
    code, again = check(told, "--print")
    assert code == 0, again
    strip = lambda text: [line.split("  #")[0].rstrip() for line in text.splitlines() if line[:1] != "#"]  # noqa: E731
    assert strip(again) == strip(told)


# ---- what `portico run` would only find when it listens


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("admin = '0.0.0.0:9443'", "portico.toml:2: admin: other machines can reach 0.0.0.0:9443, so it needs a token"),
        ("admin = '[::ffff:10.0.0.1]:9443'", "portico.toml:2: admin: other machines can reach"),
        ("[admin]\nlisten = 9443\ntoken_file = 'none'", "portico.toml:4: [admin] cannot read none: No such file"),
        ("[admin]\nlisten = 9443\ntoken_file = 'short'", "portico.toml:4: [admin] token: 16 characters or more"),
        ("workers = 3\nadmin = 65534", "portico.toml:3: admin: the dashboards of 3 workers take the ports that follow 65534"),
        ("workers = 3\nlisten = 9445\nadmin = 9443", "portico.toml:4: admin: 127.0.0.1:9445 is there twice"),
        ("listen = [443,\n'0.0.0.0:443']", "portico.toml:3: listen: 127.0.0.1:443 and 0.0.0.0:443 exclude each other"),
        ("listen = ['unix:a', 'http://unix:a']", "portico.toml:2: listen: unix:a is there twice"),
        ("listen = ['fd:0', 'http://fd:0']", "portico.toml:2: listen: fd:0 is there twice"),
        ("listen = ['systemd:web', 8443, 'systemd:web']", "portico.toml:2: listen: systemd:web is there twice"),
        (f"listen = ['unix:{'x' * 108}']", "portico.toml:2: listen: the path of a socket has 107 bytes at most, and this one 108"),
        (f"workers = 11\nadmin = 'unix:{'x' * 105}'", "portico.toml:3: admin: the path of a socket has 107 bytes at most, and this one 108"),
        (f"control = '{'x' * 108}'", "portico.toml:2: control: the path of a socket has 107 bytes at most"),
        ('listen = "unix:a\\u0000b"', "is not PORT, ADDRESS:PORT, unix:PATH"),
        ("pid_file = '/dev/null'", "portico.toml:2: pid_file: /dev/null is there, and is no file"),
    ],
)  # fmt: skip
def test_what_cannot_be_listened_on_is_said(check, tmp_path, text, words):
    (tmp_path / "short").write_text("a token\n")
    (tmp_path / "portico.toml").write_text(f'handler = "app:hello"\n{text}\n')
    code, told = check(None)
    assert code == 1, told
    assert words in told
    assert told.endswith("portico check: 1 thing to mend\n")


@pytest.mark.parametrize(
    "text",
    [
        "listen = [0, 0, '[::]:443', '0.0.0.0:443', 'unix:a', 'unix:b']",
        "listen = [443, '127.0.0.2:443']",
        "workers = 2\nlisten = 9446\nadmin = 9443",
        "admin = 'localhost:9443'",
        "[admin]\nlisten = '0.0.0.0:9443'\ntoken_file = 'token'",
        f"listen = ['unix:{'x' * 107}']",
        "listen = ['fd:0', 'fd:1', 'systemd:0', 'systemd:1', 'unix:0']",
    ],
)
def test_what_can_be_listened_on_is_good(check, tmp_path, text):
    (tmp_path / "token").write_text("a-token-of-24-characters\n")
    (tmp_path / "portico.toml").write_text(f'handler = "app:hello"\n{text}\n')
    code, told = check(None)
    assert code == 0, told
    assert told.startswith("portico.toml is good: app:hello\n")


def test_a_home_where_no_certificate_can_be_kept_is_said_where_one_is_made(check, certificate):
    code, told = check('handler = "app:hello"', XDG_DATA_HOME="/dev/null/x")
    assert code == 1
    assert told.startswith(
        "portico.toml:1: no host has a certificate, and none can be made: cannot keep the authority in /dev/null/x"
    )
    assert "/dev/null is no folder. Give --host NAME=CERT,KEY" in told
    clear = 'handler = "app:hello"\nlisten = "http://127.0.0.1:1"'
    assert check(clear, XDG_DATA_HOME="/dev/null/x")[0] == 0
    code, told = check(f'{clear}\nadmin = "https://127.0.0.1:2"', XDG_DATA_HOME="/dev/null/x")
    assert code == 1
    assert "no host has a certificate, and none can be made" in told
    assert check(GOOD, XDG_DATA_HOME="/dev/null/x")[0] == 0


def test_a_folder_for_the_sockets_of_workers_is_looked_for_where_one_is_wanted(check, tmp_path):
    (tmp_path / "long").mkdir()
    long = tmp_path / "long" / ("x" * 100)
    long.mkdir()
    several, one = (f'handler = "app:hello"\nworkers = {count}\nadmin = 9443' for count in (2, 1))
    code, told = check(several, TMPDIR=str(long))
    assert code == 1, told
    assert re.search(r"^portico\.toml:3: \[admin\] an admin listener of several .*is too long for the path", told), told
    assert check(one, TMPDIR=str(long))[0] == 0
    code, told = check(several, RUNTIME_DIRECTORY="/tmp", TMPDIR=str(long))
    assert (code, list(long.iterdir())) == (0, []), told


def test_warnings_are_said_beside_what_is_good(check, certificate):
    code, told = check('handler = "app:hello"\n[hosts."other.test"]\ncert = "a.crt"\nkey = "a.key"\n')
    assert code == 0
    assert told.startswith("portico.toml is good, with 2 warnings: app:hello\n")
    assert re.search(r"^  warning: .*it does not cover other\.test", told, re.MULTILINE)
