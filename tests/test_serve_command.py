"""`portico serve DIR`: a folder over HTTPS in one command."""

from __future__ import annotations

import re
import shlex
import shutil
import signal
import socket
from pathlib import Path

import pytest

from clients import request, trusting
from portico import cli
from programs import Program, shell


class Serving(Program):
    """A folder that is served."""

    def __init__(self, home, *arguments):
        super().__init__("-m", "portico", "serve", *arguments, HOME=str(home))
        try:
            self.wait_for("^Ctrl-C stops the server")
            self.ports = [int(port) for port in re.findall(r"^  https?://[^ ]+:(\d+)/$", self.output, re.MULTILINE)]
        except BaseException:
            self.close()
            raise


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "public"
    (root / "sub").mkdir(parents=True)
    (root / "index.html").write_text("<h1>home</h1>")
    (root / "home.html").write_text("another")
    (root / "sub" / "a.txt").write_text("a" * 100)
    (root / ".secret").write_text("hidden")
    return root


@pytest.fixture
def serve(tmp_path, folder):
    started = []

    def serve(*arguments):
        started.append(Serving(tmp_path / "home", folder, *arguments))
        return started[-1]

    yield serve
    for serving in started:
        serving.close()


def authority(serving):
    return Path(shlex.split(serving.curls()[0])[4]).read_bytes()


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_the_command_that_it_prints_works(serve, tmp_path):
    serving = serve("--listen", "0")
    assert shell(serving.curls()[0], tmp_path) == "<h1>home</h1>"


def test_files_and_a_good_end(serve):
    serving = serve("--listen", "0")
    context = trusting(authority(serving))
    ask = lambda path, **headers: request(serving.ports[0], "GET", path, context=context, headers=headers)  # noqa: E731
    assert ask("/sub/a.txt", range="bytes=1-2").text == "aa"
    assert ask("/sub/").status == 404
    assert ask("/.secret").status == 404
    assert serving.signal(signal.SIGTERM).end() == 0
    assert serving.printed[-1] == "Stopped. Answered 3 requests.\n"


def test_its_certificate_is_kept(serve):
    first = serve("--listen", "0")
    second = serve("--listen", "0")
    assert "just now" in first.output
    assert "just now" not in second.output
    assert authority(first) == authority(second)


def test_listing_index_and_dotfiles(serve):
    serving = serve("--listen", "http://127.0.0.1:0", "--listing", "--index", "home.html", "--dotfiles")
    assert not serving.curls(), "no certificate is made where none is needed"
    ask = lambda path: request(serving.ports[0], "GET", path).text  # noqa: E731
    assert ask("/") == "another"
    assert "a.txt" in ask("/sub/")
    assert ask("/.secret") == "hidden"


def test_hosts_of_ones_own(serve, issue, ca_pem, tmp_path):
    arguments = []
    for number, name in enumerate(["a.test", "b.test"]):
        cert, key = issue(name).values()
        together, parts = tmp_path / f"{name}.pem", [tmp_path / f"{name}.crt", tmp_path / f"{name}.key"]
        together.write_bytes(cert + key)
        parts[0].write_bytes(cert)
        parts[1].write_bytes(key)
        arguments += ["--host", f"{name}={together if number else f'{parts[0]},{parts[1]}'}"]
    serving = serve(*arguments, "--listen", "0", "--listen", "http://localhost:0")
    assert re.findall(r"https://(.*):", serving.output) == ["a.test", "b.test"]
    context = trusting(ca_pem)
    for name in ("a.test", "b.test"):
        assert request(serving.ports[0], "GET", "/", host=name, context=context).text == "<h1>home</h1>"
    assert request(serving.ports[-1], "GET", "/", host="a.test").text == "<h1>home</h1>"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nowhere"], "nowhere"),
        ([".", "--listen", "x"], "--listen 'x' is not PORT"),
        ([".", "--listen", "1:99999"], "--listen '1:99999': '99999' is not a port from 0 to 65535"),
        ([".", "--host", "a.test"], "--host 'a.test' is not NAME=CERT,KEY"),
        ([".", "--host", "a.test=missing.pem"], "missing.pem"),
    ],
)
def test_what_is_wrong_is_said(arguments, words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    assert cli.main(["serve", *arguments]) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("portico serve: ")
    assert words in said.err
    assert "Traceback" not in said.err


# ---- pages


@pytest.fixture
def pages(folder):
    (folder / "count.psp").write_text(
        "<% try: %>\n<% seen += 1 %>\n<% except NameError: %>\n<% seen = 1 %>\n<% end %>\n<%= seen %>, <%= query.get('name') %>"
    )
    (folder / "_part.psp").write_text("SOURCE")
    (folder / "LOUD.PSP").write_text("SOURCE")
    (folder / "count.psp~").write_text("SOURCE")
    (folder / "count.psp.gz").write_text("SOURCE")
    (folder / ".hidden.psp").write_text("SOURCE")
    (folder / "_file.txt").write_text("a file")
    (folder / "sub" / "index.psp").write_text("<%# SOURCE %>page <%= 1 + 1 %>")
    (folder / "sub" / "index.html").write_text("no page")
    return folder


NEVER = ["/_part.psp", "/LOUD.PSP", "/count.psp~", "/count.psp.gz", "/.hidden.psp", "/count%2epsp~", "/count.psp/", "/nothing.psp"]  # fmt: skip


def test_pages_run_and_their_source_stays(serve, pages):
    pytest.importorskip("pydantic_monty", reason="pydantic-monty is not installed")
    serving = serve("--listen", "http://127.0.0.1:0", "--listing", "--dotfiles")
    ask = lambda path, **more: request(serving.ports[0], "GET", path, **more)  # noqa: E731
    first = ask("/count.psp?name=<Ada>")
    assert (first.text, first.header("content-type")) == ("1, &lt;Ada&gt;", "text/html; charset=utf-8")
    cookie = first.header("set-cookie").split(";")[0]
    assert ask("/count%2Epsp", headers={"cookie": cookie}).text == "2, None"
    assert ask("/sub/").text == "page 2"
    assert ask("/sub").header("location") == "./sub/"
    assert ask("/").text == "<h1>home</h1>"
    assert ask("/_file.txt").text == "a file"
    for path in NEVER:
        answer = ask(path)
        assert (path, answer.status) == (path, 404)
        assert "SOURCE" not in answer.text
    assert "501" not in serving.output
    assert serving.signal().end() == 0


def test_pages_that_cannot_run_are_told_and_their_source_stays(tmp_path, pages):
    start = "import sys; sys.modules['pydantic_monty'] = None; from portico import cli; sys.exit(cli.main())"
    serving = Program("-c", start, "serve", pages, "--listen", "http://127.0.0.1:0", "--dotfiles", HOME=str(tmp_path))
    try:
        serving.wait_for("^Ctrl-C stops the server")
        remark = "they run in pydantic-monty, which is not installed: pip install 'portico[pages]'\n"
        assert f"Server pages (.psp) are answered by 501: {remark}" in serving.output
        port = int(re.search(r"http://127.0.0.1:(\d+)/", serving.output)[1])
        for path in ("/count.psp", "/sub/"):
            answer = request(port, "GET", path)
            assert (answer.status, answer.text) == (501, f"501 Not Implemented: this is a server page, but {remark}")
        for path in NEVER:
            answer = request(port, "GET", path)
            assert (path, answer.status) == (path, 404)
            assert "SOURCE" not in answer.text
        assert request(port, "GET", "/").text == "<h1>home</h1>"
        assert request(port, "GET", "/sub/a.txt").text == "a" * 100
        assert serving.signal().end() == 0
    finally:
        serving.close()


def test_a_folder_without_pages_needs_nothing_for_them(tmp_path, folder):
    start = "import sys; sys.modules['pydantic_monty'] = None; from portico import cli; sys.exit(cli.main())"
    serving = Program("-c", start, "serve", folder, "--listen", "http://127.0.0.1:0", HOME=str(tmp_path))
    try:
        serving.wait_for("^Ctrl-C stops the server")
        assert "Server pages" not in serving.output
        assert serving.signal().end() == 0
    finally:
        serving.close()


# ---- as `portico run` does it


def test_several_processes_and_settings(serve):
    serving = serve("--listen", "http://127.0.0.1:0", "--workers", "2", "--set", "max_header_bytes=1024")
    assert request(serving.ports[0], "GET", "/").text == "<h1>home</h1>"
    assert request(serving.ports[0], "GET", "/", headers={"x": "y" * 3000}).status == 431
    assert serving.signal(signal.SIGTERM).end() == 0


def test_a_portico_toml(serve, tmp_path):
    (tmp_path / "portico.toml").write_text('listen = "http://127.0.0.1:0"\n[settings]\nmax_header_bytes = 1024\n')
    serving = serve("--config", tmp_path / "portico.toml")
    assert request(serving.ports[0], "GET", "/").text == "<h1>home</h1>"
    assert request(serving.ports[0], "GET", "/", headers={"x": "y" * 3000}).status == 431


def test_a_trace_is_printed(serve):
    serving = serve("--listen", "http://127.0.0.1:0", "--trace")
    request(serving.ports[0], "GET", "/")
    serving.wait_for("closed")


def test_a_socket_for_reloads_wants_a_supervisor(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["serve", ".", "--control", "mine.sock", "--listen", "http://127.0.0.1:0"]) == 1
    said = "control: without a supervisor nobody can be told to reload; leave it out, or say `--workers 1`"
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2])
def test_a_signal_for_supervisors_does_not_end_it(serve, number):
    serving = serve("--listen", "http://127.0.0.1:0")
    serving.signal(number)
    if number == signal.SIGHUP:
        serving.wait_for("portico.run: SIGHUP: there are no certificates to read again: new code and settings want")
    assert request(serving.ports[0], "GET", "/sub/a.txt").status == 200
    assert serving.signal(signal.SIGTERM).end() == 0


def test_sighup_reads_certificates_again(serve, issue, ca_pem, tmp_path):
    def certificate():
        cert, key = issue("a.test").values()
        (tmp_path / "a.pem").write_bytes(cert + key)

    def serial():
        with (
            socket.create_connection(("127.0.0.1", serving.ports[0])) as plain,
            trusting(ca_pem).wrap_socket(plain, server_hostname="a.test") as secure,
        ):
            return secure.getpeercert()["serialNumber"]

    certificate()
    (tmp_path / "portico.toml").write_text(f'[hosts."a.test"]\ncert = "{tmp_path}/a.pem"\nwatch = false\n')
    serving = serve("--listen", "0", "--config", str(tmp_path / "portico.toml"))
    before = serial()
    certificate()
    assert serial() == before
    serving.signal(signal.SIGHUP)
    serving.wait_for("portico.run: SIGHUP: 1 of 1 certificates are read again, and nothing else is: new code")
    after = serial()
    assert after != before
    (tmp_path / "a.pem").write_text("none")
    serving.signal(signal.SIGHUP)
    serving.wait_for("portico.run: not read again, what was there stays: ")
    serving.wait_for("portico.run: SIGHUP: 0 of 1 certificates are read again")
    assert serial() == after
