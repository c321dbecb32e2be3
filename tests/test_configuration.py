"""`portico.toml`: what it may say, with which line each mistake is told, and what wins over it."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

import portico
from portico import config
from portico.config import Options, load
from portico.config._load import environment_names
from portico.config._nodes import read_file
from portico.config._schema import ROOT
from running import Running, write

jsonschema = pytest.importorskip("jsonschema")

FULL = """
handler = "site"
listen = [8443, "http://127.0.0.1:8080", { unix = "run/app.sock", tls = false, backlog = 10 }]
workers = 2
grace = 5
log_level = "debug"

[hosts."example.com"]
cert = "example.crt"
key = "example.key"
handler = { call = "app:wsgi_app", kind = "wsgi" }
client_auth = "optional"
client_ca = "ca.pem"
alpn = "http/1.1"

[[hosts."two.test"]]
cert = "ecdsa.pem"

[[hosts."two.test"]]
pfx = "rsa.pfx"
password_file = "secret"

[handlers.site.mounts]
"/static" = "files"
"/" = "app:hello"

[handlers.files]
files = "public"
listing = true

[sessions]
store = "sqlite:sessions.db"
timeout = 60

[settings]
max_headers = 50
threads = [1, 2]
compression = ["br"]
handler_timeout = "none"
"""


@pytest.fixture
def given(tmp_path):
    """What is made of a file, and what is said against it, without the folder."""

    def given(text, environment=None, *flags):
        file = write(tmp_path / "portico.toml", text)
        found, problems = load(Options(file, flags), environment or {})
        return found, str(problems).replace(f"{tmp_path}/", "")

    return given


@pytest.fixture
def wrong(given):
    return lambda text: given(text)[1].splitlines()


# ---- what it may say


def test_a_file_that_says_much(given, tmp_path):
    found, problems = given(FULL)
    assert problems == ""
    assert (found.handler, found.workers, found.grace, found.log_level) == ("site", 2, 5.0, "debug")
    assert [place.keywords() for place in found.listen] == [
        {"port": 8443},
        {"port": 8080, "tls": False},
        {"unix": str(tmp_path / "run/app.sock"), "tls": False, "backlog": 10},
    ]
    hosts = dict(found.hosts[:1])
    assert hosts["example.com"]["cert"] == tmp_path / "example.crt", "relative to the file"
    assert [name for name, _ in found.hosts] == ["example.com", "two.test", "two.test"]
    assert found.settings == {
        "max_headers": 50,
        "threads": [1, 2],
        "compression": ["br"],
        "handler_timeout": None,
    }
    assert found.app_dir == tmp_path


def test_the_path_of_a_socket_is_relative_to_the_file_however_it_is_written(given, tmp_path):
    text = "listen = ['unix:run/a.sock', { unix = 'run/b.sock' }, 'unix:/c.sock']\nadmin = 'unix:d.sock'"
    found, problems = given(text, {"PORTICO_ADMIN": ""})
    assert problems == ""
    assert [place.unix for place in found.listen] == [f"{tmp_path}/run/a.sock", f"{tmp_path}/run/b.sock", "/c.sock"]
    assert found.admin.unix == f"{tmp_path}/d.sock"
    found, _ = given(text, {"PORTICO_LISTEN": "unix:a.sock"})
    assert [place.unix for place in found.listen] == ["a.sock"], "relative to the current folder"


def test_what_is_not_given_is_the_default(given):
    found, problems = given("")
    assert problems == ""
    assert (found.workers, found.grace, found.log_level, found.listen, found.hosts) == (1, 30.0, "info", [], [])
    assert found.settings == {}


def test_every_setting_can_stand_there(given):
    """Also those that come after this test was written."""
    toml = {True: "true", False: "false", None: '"none"'}
    lines = ["[settings]"]
    for setting in portico.settings():
        value = setting["default"]
        text = toml[value] if isinstance(value, bool) or value is None else json.dumps(value)
        if setting["name"] == "io_threads":
            text = "1"
        lines.append(f"{setting['name']} = {text}")
    found, problems = given("\n".join(lines))
    assert problems == ""
    with portico.Server(config=found.settings):
        pass


def test_settings_that_belong_together(given, wrong):
    found, problems = given('[settings]\ntrusted_proxies = ["127.0.0.1"]\nforwarded = "x-forwarded"')
    assert problems == ""
    assert found.settings == {"trusted_proxies": ["127.0.0.1"], "forwarded": "x-forwarded"}
    (line,) = wrong('[settings]\nforwarded = "x-forwarded"')
    assert line.startswith("portico.toml:1: [settings]")
    assert "trusted_proxies" in line
    (line,) = wrong('[settings]\ntrusted_proxies = ["127.0.0.1"]\nforwarded = "x"')
    assert line.startswith("portico.toml:3: [settings] forwarded")


def test_addresses_in_a_line():
    parse = config.Place.parse
    assert parse("8443").keywords() == {"port": 8443}
    assert parse("0.0.0.0:443").keywords() == {"port": 443, "host": "0.0.0.0"}
    assert parse("https://[::1]:443/").keywords() == {"port": 443, "host": "::1"}
    assert parse("http://localhost:80").keywords() == {"port": 80, "host": "localhost", "tls": False}
    assert parse("unix:/run/a:b.sock").keywords() == {"unix": "/run/a:b.sock"}
    assert parse("http://unix:/run/a.sock").keywords() == {"unix": "/run/a.sock", "tls": False}
    assert parse("systemd:web").keywords() == {"systemd": "web"}
    assert parse("fd:3").keywords() == {"fd": 3}
    for text in ("", ":", "x", "1:2:3", "[::1]", "80x", "٣", "http://a/80", "fd:", "fd:x", "unix:", "-1", "1e3"):
        with pytest.raises(portico.ConfigError):
            parse(text)
    for text in ("127.0.0.1:8443", "[::1]:443", "unix:/run/a.sock", "systemd:web", "fd:3", "fd:0"):
        assert str(parse(text)) == text


# ---- what is wrong


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("\nworker = 1", "portico.toml:2: unknown key `worker`: did you mean `workers`?"),
        ("zebra = 1", "portico.toml:1: unknown key `zebra`; there is handler, app_dir, listen"),
        ("workers = '1'", 'portico.toml:1: workers: expected a whole number from 0 to 1000, not "1"'),
        ("workers = true", "portico.toml:1: workers: expected a whole number from 0 to 1000, not true"),
        ("grace = nan", "portico.toml:1: grace: expected a number of seconds from 0 to 86400, not nan"),
        ("log_level = 'loud'", 'expected one of debug, info, warning, error, critical, not "loud"'),
        ("listen = [\n  8443,\n  99999,\n]", "portico.toml:3: listen: '99999': '99999' is not a port from 0 to 65535"),
        ("[[listen]]\nport = 1\nunix = 'x'", "portico.toml:1: [listen] listen: one of port, unix, fd and systemd says where; here is both port and unix"),
        ("listen = {}", "here is none of these"),
        ("listen = { fd = 3, host = 'x' }", "host goes with port"),
        ("[[listen]]\nport = 1\nproxy_protocol = true", "portico.toml:1: proxy_protocol: [settings] trusted_proxies says whose it is taken from"),
        ("listen = 'unix:~nobody-of-here/a'", "portico.toml:1: listen: '~nobody-of-here/a': there is no home for ~nobody-of-here"),
        ("listen = { unix = '~nobody-of-here/a' }", "portico.toml:1: [listen] unix: '~nobody-of-here/a': there is no home for ~nobody-of-here"),
        ("admin = 'unix:~nobody-of-here/a'", "portico.toml:1: admin: '~nobody-of-here/a': there is no home"),
        ("pid_file = '~nobody-of-here/a'", "portico.toml:1: pid_file: '~nobody-of-here/a': there is no home"),
        ("[handlers.a]\nfiles = '~nobody-of-here'", "portico.toml:2: [handlers.a] files: '~nobody-of-here': there is no home"),
        ("admin = {}", "portico.toml:1: [admin] listen is missing"),
        ("admin = 'fd:3'", "portico.toml:1: admin: expected an address: PORT, ADDRESS:PORT or unix:PATH"),
        ("hosts = 3", "portico.toml:1: hosts: expected a table, not 3"),
        ("[hosts.'a.test']\ncert = 'a'\n\ncertt = 'b'", 'portico.toml:4: [hosts."a.test"] unknown key `certt`: did you mean `cert`?'),
        ("[hosts.a]\nkey = 'a'", "portico.toml:1: [hosts.a] cert or pfx is missing: give the file of the certificate as one of them"),
        ("[hosts.a]\ncert = 'a'\npfx = 'b'", "portico.toml:1: [hosts.a] cert and pfx are two ways to say the same"),
        ("[hosts.a]\ncert = 'a'\nclient_auth = 'maybe'", "portico.toml:3: [hosts.a] client_auth: expected one of none, optional, required"),
        ("[hosts.a]\ncert = 'a'\nhandler = 'site'", "portico.toml:3: [hosts.a] handler: 'site' is not module:name, nor one of [handlers]; there are none"),
        ("[handlers.site]\nfiles = 'x'\n[hosts.a]\ncert = 'a'\nhandler = 'sites'", "portico.toml:5: [hosts.a] handler: 'sites' is not module:name, nor one of [handlers]: did you mean `site`?"),
        ("[handlers.a]\nkind = 'asgi'", "portico.toml:1: [handlers.a] one of call, files, pages, site and mounts says what it is; here is none of these"),
        ("[handlers.a]\nfiles = 'x'\ncall = 'a:b'", "here is both call and files"),
        ("[handlers.a]\nfiles = 'x'\nkind = 'asgi'", "portico.toml:3: [handlers.a] kind goes with call"),
        ("[handlers.a]\ncall = 'a:b'\nlisting = true", "portico.toml:3: [handlers.a] listing goes with files"),
        ("[handlers.a.mounts]\n'/' = 'b'", "portico.toml:2: [handlers.a.mounts] /: 'b' is not module:name"),
        ("[settings]\n\nmax_header = 1", "portico.toml:3: [settings] unknown key `max_header`: did you mean `max_headers`?"),
        ("[settings]\nmax_headers = 0", "portico.toml:2: [settings] max_headers: expected a whole number of headers from 1 to 10000, not 0"),
        ("[settings]\nhandler_timeout = 0", 'expected a number of seconds from 0.01 to 86400, or "none", not 0'),
        ("[settings]\nhttp1 = false\nhttp2 = false", "portico.toml:1: settings http1 and http2: at least one must be on"),
        ("[sessions]\nsame_site = 'Loose'", "portico.toml:2: [sessions] same_site: expected one of Lax, Strict, None"),
    ],
)  # fmt: skip
def test_a_mistake_is_told_with_its_line(wrong, text, told):
    (line,) = wrong(text)
    assert told in line


def test_all_mistakes_are_told_in_their_order(wrong):
    lines = wrong("[settings]\nmax_headers = 0\nno = 1\n\n[hosts.a]\nx = 1\n\n[nothing]\n")
    assert [line.split(": ")[0] for line in lines] == [f"portico.toml:{number}" for number in (2, 3, 5, 6, 8)]


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("a = 1\na = 2\n\nb = \n", ["portico.toml:2: duplicate key", "portico.toml:4: "]),
        ("handler = hello", ["portico.toml:1: "]),
        (
            "workers = 99999999999999999999",
            ["portico.toml:1: the number 99999999999999999999 does not fit into 64 bits"],
        ),
        ("workers = 2026-11-28", ["portico.toml:1: 2026-11-28 is a date or a time, and nothing here is"]),
        ("x = " + "[" * 100_000, ["portico.toml:1: "]),
    ],
)
def test_what_is_no_toml_is_told_with_every_line(tmp_path, text, lines):
    file = tmp_path / "portico.toml"
    file.write_text(text)
    with pytest.raises(portico.ConfigError) as told:
        load(Options(file))
    found = str(told.value).replace(f"{tmp_path}/", "").splitlines()
    assert len(found) >= len(lines)
    for line, begin in zip(found, lines, strict=False):
        assert line.startswith(begin)


def test_a_file_that_cannot_be_read(tmp_path):
    file = tmp_path / "portico.toml"
    with pytest.raises(portico.ConfigError, match="No such file"):
        load(Options(file))
    file.write_bytes(b"a = 1\nb = '\xff'\n")
    with pytest.raises(portico.ConfigError, match=r"portico.toml:2: not UTF-8"):
        load(Options(file))
    file.write_bytes(b"#" * (2**20 + 1))
    with pytest.raises(portico.ConfigError, match="larger than 1 MiB"):
        load(Options(file))


# ---- what wins


def test_flags_win_over_the_environment_and_that_over_the_file(given):
    text = "workers = 1\ngrace = 1\nlog_level = 'debug'\n[settings]\nmax_headers = 1\nthreads = [1, 1]"
    environment = {
        "PORTICO_WORKERS": "2",
        "PORTICO_GRACE": "2",
        "PORTICO_MAX_HEADERS": "2",
        "PORTICO_THREADS": "[2, 2]",
    }
    flags = [(("workers",), "3", "--workers"), (("settings", "max_headers"), "3", "--set")]
    found, problems = given(text, environment, *flags)
    assert problems == ""
    assert (found.workers, found.grace, found.log_level) == (3, 2.0, "debug")
    assert found.settings == {"max_headers": 3, "threads": [2, 2]}
    wheres = [
        found.node(*path).where
        for path in [("workers",), ("grace",), ("settings", "max_headers"), ("settings", "threads")]
    ]
    assert wheres == ["--workers", "PORTICO_GRACE", "--set", "PORTICO_THREADS"]


def test_addresses_and_hosts_of_flags(given, tmp_path):
    text = "listen = 1\n[hosts.a]\ncert = 'x'\n[hosts.b]\ncert = 'x'"
    flags = [(("listen",), "2", "--listen"), (("listen",), "3", "--listen")]
    flags += [(("hosts", "b"), {"cert": "y", "key": "z"}, "--host")]
    found, problems = given(text, {}, *flags)
    assert problems == ""
    assert [place.port for place in found.listen] == [2, 3], "addresses are taken whole"
    assert dict(found.hosts)["a"]["cert"] == tmp_path / "x"
    assert dict(found.hosts)["b"]["cert"] == Path("y"), "relative to where it was typed"


def test_a_mistake_in_the_environment_is_told_by_its_name(given):
    _, problems = given("", {"PORTICO_WORKERS": "many", "PORTICO_LISTEN": "8443, x"})
    assert problems.splitlines()[0].startswith("PORTICO_LISTEN: 'x' is not PORT")
    assert problems.splitlines()[1].startswith("PORTICO_WORKERS: expected a whole number")


def test_what_others_put_into_the_environment_is_nothing_to_us(given):
    """Kubernetes sets such variables for a service with the name `portico`."""
    environment = {
        "PORTICO_PORT": "tcp://10.0.0.1:443",
        "PORTICO_SERVICE_HOST": "10.0.0.1",
        "PORTICO_SERVICE_PORT": "443",
    }
    environment |= {"PORTICO_PORT_443_TCP_ADDR": "10.0.0.1", "PORTICO_PORT_443_TCP": "tcp://10.0.0.1:443"}
    assert not environment.keys() & environment_names().keys()
    assert given("", environment)[1] == ""


def test_no_setting_has_the_name_of_a_key():
    names = {key.name for key in ROOT.keys}
    assert not names & {setting["name"] for setting in portico.settings()}
    assert {path[-1] for path in environment_names().values()} >= {setting["name"] for setting in portico.settings()}


def test_text_on_the_command_line_needs_no_quotes(given):
    flags = [(("settings", "dispatch"), "threads", "--set"), (("settings", "compression"), "br", "--set")]
    found, problems = given("", {}, *flags)
    assert problems == ""
    assert found.settings == {"dispatch": "threads", "compression": ["br"]}


# ---- its schema


@pytest.fixture
def fits(tmp_path):
    validator = jsonschema.Draft202012Validator(config.json_schema())
    validator.check_schema(config.json_schema())
    return lambda text: not list(validator.iter_errors(read_file(write(tmp_path / "fits.toml", text)).plain()))


def test_the_schema_takes_what_is_right(fits):
    assert fits(FULL)
    assert fits("")


@pytest.mark.parametrize(
    "text",
    [
        "worker = 1",
        "workers = '1'",
        "listen = 99999",
        "[hosts.a]\ncertt = 'a'",
        "[settings]\nmax_headers = 0",
        "[settings]\nthreads = [1]",
        "[settings]\ncompression = ['lzw']",
        "[handlers.a]\nkind = 'what'",
    ],
)
def test_the_schema_refuses_what_the_program_refuses(fits, wrong, text):
    assert not fits(text)
    assert wrong(text)


def test_the_schema_says_everything_in_words():
    schema = config.json_schema()

    def walk(part, path):
        for name, one in part.get("properties", {}).items():
            assert one.get("description"), (*path, name)
            walk(one, (*path, name))

    walk(schema, ())
    assert set(schema["properties"]["settings"]["properties"]) == {one["name"] for one in portico.settings()}


# ---- served


def test_handlers_under_prefixes_are_served(tmp_path):
    from clients import request

    (tmp_path / "public").mkdir()
    (tmp_path / "public" / "a.txt").write_text("a file")
    write(
        tmp_path / "portico.toml",
        """
        handler = "site"
        listen = "http://127.0.0.1:0"
        [handlers.site.mounts]
        "/static" = "files"
        "/api" = "app:asgi_app"
        "/" = "app:hello"
        [handlers.files]
        files = "public"
        """,
    )
    running = Running(tmp_path)
    try:
        (port,) = running.ready()
        ask = lambda path: request(port, "GET", path).text  # noqa: E731
        assert [ask("/static/a.txt"), ask("/api/x"), ask("/x")] == ["a file", "asgi /api/x", "hello /x"]
    finally:
        running.close()


def test_hosts_with_handlers_of_their_own_and_sessions(tmp_path, issue, ca_pem):
    from clients import request, trusting

    for name in ("a.test", "b.test"):
        cert, key = issue(name).values()
        (tmp_path / f"{name}.pem").write_bytes(cert + key)
    (tmp_path / "shop.py").write_text(
        "def count(request):\n"
        "    request.session['n'] = request.session.get('n', 0) + 1\n"
        "    return {'statusCode': 200, 'body': str(request.session['n'])}\n"
    )
    (tmp_path / "secret").write_text("x" * 40 + "\n")
    write(
        tmp_path / "portico.toml",
        """
        handler = "app:hello"
        listen = 0
        workers = 2
        [hosts."a.test"]
        cert = "a.test.pem"
        [hosts."b.test"]
        cert = "b.test.pem"
        handler = "shop:count"
        [sessions]
        secret_file = "secret"
        store = "sqlite:sessions.db"
        """,
    )
    running = Running(tmp_path)
    try:
        port = running.ready()[0]
        context = trusting(ca_pem)
        assert request(port, "GET", "/x", host="a.test", context=context).text == "hello /x"
        answer = request(port, "GET", "/", host="b.test", context=context)
        cookie = answer.header("set-cookie").split(";")[0]
        counts = [
            request(port, "GET", "/", host="b.test", context=context, headers={"cookie": cookie}).text for _ in range(4)
        ]
        assert counts == ["2", "3", "4", "5"], "both processes know the session"
    finally:
        running.close()


def test_the_file_of_this_folder_is_taken_where_nothing_else_is_said(tmp_path):
    from clients import request

    write(tmp_path / "portico.toml", 'handler = "app:hello"\nlisten = "http://127.0.0.1:0"\n')
    write(tmp_path / "other.toml", 'handler = "app:pid"\nlisten = "http://127.0.0.1:0"\n')
    for arguments, environment, body in [((), {}, "hello"), ((), {"PORTICO_CONFIG": "other.toml"}, "pid")]:
        running = Running(tmp_path, *arguments, **environment)
        try:
            (port,) = running.ready()
            text = request(port, "GET", "/x").text
            assert text.startswith("hello") == (body == "hello")
        finally:
            running.close()


def test_a_test_of_this_file_leaves_the_environment_alone():
    assert not [name for name in environment_names() if name in os.environ]
