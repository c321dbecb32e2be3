"""`portico demo` as a newcomer meets it: what it prints works, each host is its own, Ctrl-C ends it well."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

import portico
from clients import Wire, wait_until
from demos import BROWSER, FORM, HOSTS, Demo
from portico import cli
from portico.demo.board import MAX_NOTES, MAX_TEXT
from programs import Program, clean_environment, shell


@pytest.fixture
def start(tmp_path):
    """Starts demos that live as long as the test."""
    started = []

    def start(*arguments, home=tmp_path / "home", **environment):
        started.append(Demo(home, *(arguments or ("--port", "0")), **environment))
        return started[-1]

    yield start
    for demo in started:
        demo.close()


# ---- what it prints


def test_printed_curl_lines_work_as_they_are(demo, tmp_path):
    assert len(demo.curls()) == len(HOSTS)
    answers = [shell(line, tmp_path) for line in demo.curls()]
    for host, answer in zip(HOSTS, answers, strict=True):
        assert answer.startswith(f"{host}: ")
        assert f"CN={host}\n" in answer
        assert "TLSv1.3" in answer
        assert len(answer.splitlines()) < 16
        assert "<" not in answer


def test_printed_curl_lines_work_from_a_folder_with_an_odd_name(start, tmp_path):
    demo = start("--port", "0", "--folder", tmp_path / "it's a $HOME; really")
    for line in demo.curls():
        assert shell(line, tmp_path)


def test_every_url_is_printed_and_nothing_that_a_dumb_terminal_cannot_show(demo):
    for host in HOSTS:
        assert f"https://{host}:{demo.port}/" in demo.output
    assert demo.output.replace("\n", "").isascii()
    assert demo.output.replace("\n", "").isprintable()
    assert str(demo.ca) in demo.output


# ---- each host


def test_each_host_has_its_own_certificate_and_content(demo):
    names, bodies = {}, set()
    for host in HOSTS:
        with Wire(demo.port, context=demo.context, sni=host) as wire:
            names[host] = {value for kind, value in wire.sock.getpeercert()["subjectAltName"] if kind == "DNS"}
            bodies.add(wire.get(host=host, headers="Accept: text/html\r\n").body)
    assert names == {host: {host} for host in HOSTS}
    assert len(bodies) == len(HOSTS)


def test_bare_address_is_the_first_host(demo):
    reply = demo.ask("127.0.0.1")
    assert reply.text.startswith("localhost: ")


class Links(HTMLParser):
    """What a page refers to: what it loads by itself, and where its links lead."""

    def __init__(self, page):
        super().__init__()
        self.loads, self.leads, self.inline = [], [], []
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        for name, value in attributes:
            if name in ("src", "href", "action"):
                (self.leads if tag in ("a", "form") else self.loads).append(value)
            if name == "style" or name.startswith("on"):
                self.inline.append((tag, name))


@pytest.mark.parametrize("host", HOSTS)
def test_pages_stand_alone_and_lead_to_the_other_hosts(demo, host):
    reply = demo.browse(host)
    assert reply.status == 200
    assert reply.header("content-type") == "text/html; charset=utf-8"
    assert "default-src 'none'" in reply.header("content-security-policy")
    links = Links(reply.text)
    assert not links.inline, "the content security policy would keep these from working"
    assert "{{" not in reply.text
    for path in links.loads:
        assert path.startswith("/")
        assert demo.ask(host, path).status == 200
    urls = {url for url in links.leads if not url.startswith(("/", "#"))}
    assert urls == {f"https://{other}:{demo.port}/" for other in HOSTS}
    for path in (path for path in links.leads if path.startswith("/")):
        assert demo.browse(host, path).status == 200


@pytest.mark.parametrize("host", HOSTS)
def test_head_is_get_without_the_body(demo, host):
    head, get = demo.ask(host, "/style.css", method="HEAD"), demo.ask(host, "/style.css")
    assert (head.status, head.body) == (200, b"")
    assert head.header("content-length") == get.header("content-length") == str(len(get.body))
    assert demo.ask(host, method="HEAD", headers=BROWSER).status == 200


@pytest.mark.parametrize("host", HOSTS)
def test_unknown_pages_are_refused_in_the_style_of_the_host(demo, host):
    page = demo.browse(host, "/no/<b>such</b>?page")
    assert page.status == 404
    assert "style.css" in page.text
    assert "<b>such" not in page.text
    assert "&lt;b&gt;such" in page.text
    plain = demo.ask(host, "/nope")
    assert plain.status == 404
    assert plain.header("content-type") == "text/plain; charset=utf-8"


@pytest.mark.parametrize("host", HOSTS)
def test_other_methods_are_refused_with_those_that_are_allowed(demo, host):
    reply = demo.ask(host, method="DELETE")
    assert reply.status == 405
    assert reply.header("allow").startswith("GET, HEAD")


def test_connection_page_tells_of_this_connection(demo):
    with Wire(demo.port, context=demo.context) as wire:
        page = wire.get(headers="Accept: text/html\r\n").text
        host, port = wire.sock.getsockname()
    assert f"{host}:{port}" in page
    assert "TLSv1.3" in page


def test_counters_count(demo):
    before = demo.answered()
    for host in HOSTS:
        demo.ask(host)
    assert demo.answered() == before + len(HOSTS) + 1, "and the first question itself"


def test_shop_sorts_and_shows_its_items(demo):
    def items(query):
        return re.findall(r'href="/items/(\w+)"', demo.browse("a.localhost", f"/?{query}").text)

    assert items("sort=price") == ["key", "mat", "knocker", "lantern", "column", "pediment"]
    assert items("sort=name") == ["knocker", "column", "pediment", "lantern", "key", "mat"]
    assert items("") == items("sort=nonsense") != items("sort=price")
    for slug in items(""):
        assert demo.browse("a.localhost", f"/items/{slug}").status == 200
    assert demo.browse("a.localhost", "/items/").status == 404
    assert demo.browse("a.localhost", "/items/elephant").status == 404


# ---- the board


def test_notes_are_shown_as_they_were_written_and_never_as_html(start):
    demo = start()
    reply = demo.post(name="Eve <i>", text="<script>alert('Grüße')</script>\nsecond line")
    assert (reply.status, reply.header("location")) == (303, "/")
    page = demo.browse("b.localhost").text
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert(&#x27;Grüße&#x27;)&lt;/script&gt;\nsecond line" in page
    assert "Eve &lt;i&gt;" in page
    assert "Eve <i>: <script>alert('Grüße')</script> second line" in demo.ask("b.localhost").text


def test_notes_come_from_multipart_forms_too(start):
    demo = start()
    body = '--x\r\ncontent-disposition: form-data; name="text"\r\n\r\nby parts\r\n--x--\r\n'
    headers = {"content-type": "multipart/form-data; boundary=x"}
    assert demo.ask("b.localhost", method="POST", body=body, headers=headers).status == 303
    assert "by parts" in demo.browse("b.localhost").text


def test_board_is_bounded(start):
    demo = start()
    with Wire(demo.port, context=demo.context, sni="b.localhost") as wire:
        for number in range(MAX_NOTES + 5):
            body = f"text=note+{number}+{'x' * MAX_TEXT}"
            wire.send(
                f"POST / HTTP/1.1\r\nHost: b.localhost\r\nContent-Type: {FORM['content-type']}\r\n"
                f"Content-Length: {len(body)}\r\n\r\n{body}"
            )
            assert wire.read().status == 303
    page = demo.browse("b.localhost").text
    shown = [int(number) for number in re.findall(r"note (\d+) ", page)]
    assert shown == list(range(MAX_NOTES + 4, 4, -1))
    assert "x" * (MAX_TEXT - 7) in page
    assert "x" * MAX_TEXT not in page
    assert demo.post(text="x" * 70_000).status == 413


@pytest.mark.parametrize(
    ("headers", "fields", "status"),
    [
        ({}, {}, 422),
        ({}, {"text": " \n "}, 422),
        ({"content-type": "application/json"}, {"text": "not a form"}, 422),
        ({"content-type": "multipart/form-data"}, {"text": "no boundary"}, 400),
        ({"sec-fetch-site": "cross-site"}, {"text": "from another site"}, 403),
        ({"sec-fetch-site": "same-site"}, {"text": "from the shop"}, 403),
        ({"sec-fetch-site": "same-origin"}, {"text": "from the board"}, 303),
    ],
)
def test_forms_that_are_taken_and_not(demo, headers, fields, status):
    assert demo.post(headers, **fields).status == status
    assert (fields.get("text", "nothing") in demo.browse("b.localhost").text) == (status == 303)


def test_file_is_not_a_note(demo):
    body = '--x\r\ncontent-disposition: form-data; name="text"; filename="f"\r\n\r\ndata\r\n--x--\r\n'
    headers = {"content-type": "multipart/form-data; boundary=x"}
    assert demo.ask("b.localhost", method="POST", body=body, headers=headers).status == 422


# ---- where it listens


def test_taken_port_is_told_and_another_one_used(start):
    with socket.socket() as holder:
        # As the demo does it: old connections in TIME_WAIT take no port.
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            holder.bind(("127.0.0.1", 8443))
            holder.listen()
        except OSError:
            pass  # Somebody else has taken it, which will do.
        demo = start("--host", "127.0.0.1")
        assert demo.port != 8443
        assert f"Port 8443 is taken, so this is port {demo.port}." in demo.output
        assert demo.ask("a.localhost").status == 200


def test_given_port_that_is_taken_is_an_error(tmp_path):
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = holder.getsockname()[1]
        done = run("demo", "--port", str(port), home=tmp_path)
    assert done.returncode == 3
    assert done.stdout == ""
    assert done.stderr.startswith("portico demo: ")
    assert f"127.0.0.1:{port}" in done.stderr
    assert "in use" in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(("host", "target"), [("0.0.0.0", "127.0.0.1"), ("::1", "[::1]"), ("::", "[::1]")])
def test_curl_lines_fit_the_address(start, tmp_path, host, target):
    if ":" in host and not ipv6():
        pytest.skip("no IPv6 here")
    demo = start("--host", host, "--port", "0")
    for line in demo.curls():
        assert f":{target} https://" in line
        assert shell(line, tmp_path)


def ipv6():
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            return True
    except OSError:
        return False


def test_address_that_is_not_here_is_an_error(tmp_path):
    done = run("demo", "--host", "192.0.2.1", "--port", "0", home=tmp_path)
    assert (done.returncode, done.stdout) == (3, "")
    assert "192.0.2.1" in done.stderr


# ---- where it keeps things


def test_home_may_be_empty_and_the_second_start_uses_what_is_there(start, tmp_path):
    first = start()
    kept = first.ca.parent
    assert kept == tmp_path / "home/.local/share/portico/demo"
    before = {path.name: path.read_bytes() for path in kept.iterdir()}
    assert "just now" in first.output
    second = start()
    assert {path.name: path.read_bytes() for path in kept.iterdir()} == before
    assert "just now" not in second.output
    assert second.ask("a.localhost").status == 200


def test_xdg_data_home_is_used(start, tmp_path):
    assert start(XDG_DATA_HOME=str(tmp_path / "data")).ca == tmp_path / "data/portico/demo/ca.crt"
    assert start(XDG_DATA_HOME="data").ca == tmp_path / "home/.local/share/portico/demo/ca.crt", "relative"


def test_unusable_home_is_told_and_a_passing_folder_used(start, tmp_path):
    home = tmp_path / "home"
    home.write_text("a file")
    demo = start()
    assert "cannot be used (Not a directory)" in demo.output
    assert shell(demo.curls()[0], tmp_path)
    assert demo.signal().end() == 0
    assert not demo.ca.parent.exists()


def test_given_folder_that_cannot_be_used_is_an_error(tmp_path):
    (tmp_path / "file").write_text("")
    done = run("demo", "--port", "0", "--folder", str(tmp_path / "file" / "sub"), home=tmp_path)
    assert done.returncode == 1
    assert done.stderr == f"portico demo: cannot keep certificates in {tmp_path}/file/sub: Not a directory\n"


# ---- its end


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_ends_it_with_a_line_that_tells_what_was_answered(start, number):
    demo = start()
    for _ in range(3):
        demo.ask("a.localhost")
    count = demo.answered() + 1
    assert demo.signal(number).end() == 0
    assert demo.printed[-1] == f"Stopped. Answered {count} requests.\n"


def test_ctrl_c_right_at_the_start_is_no_traceback(tmp_path):
    demo = Program("-m", "portico", "demo", "--port", "0", HOME=str(tmp_path))
    try:
        demo.wait_for("^Four HTTPS hosts")
        assert demo.signal().end() == 0
    finally:
        demo.close()


def test_request_in_flight_at_ctrl_c_is_answered(start):
    demo = start()
    body = b"text=the+last+note"
    with Wire(demo.port, context=demo.context, sni="b.localhost") as wire:
        wire.send(
            f"POST / HTTP/1.1\r\nHost: b.localhost\r\nContent-Type: {FORM['content-type']}\r\n"
            f"Content-Length: {len(body)}\r\nExpect: 100-continue\r\n\r\n"
        )
        assert wire.read().status == 100, "it waits for the body"
        wire.send(body[:8])
        demo.signal()
        wait_until(lambda: refuses(demo.port), "the port to be closed")
        wire.send(body[8:])
        assert wire.read().status == 303
        assert wire.rest() == b""
    assert demo.end() == 0
    assert demo.printed[-1] == "Stopped. Answered 1 request.\n"


def refuses(port):
    try:
        socket.create_connection(("127.0.0.1", port)).close()
    except ConnectionError:
        return True  # Reset, where it came in the very moment of closing.
    return False


def test_idle_clients_do_not_hold_up_the_end(start):
    demo = start()
    with Wire(demo.port, context=demo.context) as wire:
        assert wire.get().status == 200
        assert demo.signal().end() == 0
        assert wire.rest() == b""


# ---- the command line


def run(*arguments, home, **more):
    """`python -m portico`, to its end."""
    return subprocess.run(
        [sys.executable, "-m", "portico", *arguments],
        env=clean_environment(HOME=str(home)),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=30,
    )


def test_version_and_help(capsys):
    for arguments, shown in ((["--version"], f"portico {portico.__version__}\n"), (["--help"], "demo")):
        with pytest.raises(SystemExit) as ended:
            cli.main(arguments)
        assert ended.value.code == 0
        assert shown in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [[], ["nothing"], ["demo", "--port", "x"], ["demo", "--port", "65536"]])
def test_wrong_arguments_are_refused(arguments, capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main(arguments)
    assert ended.value.code == 2
    assert "usage: portico" in capsys.readouterr().err


def test_reader_that_leaves_is_no_traceback(tmp_path):
    with subprocess.Popen(
        [sys.executable, "-m", "portico", "demo", "--port", "0"],
        env=clean_environment(HOME=str(tmp_path)),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        process.stdout.close()
        try:
            assert process.wait(30) == 1
        finally:
            process.kill()
        assert process.stderr.read() == ""


def test_module_and_script_are_the_same(tmp_path):
    script = Path(sys.executable).with_name("portico")
    shown = [
        subprocess.run([*command, "--version"], capture_output=True, text=True, timeout=30, check=True).stdout
        for command in ([sys.executable, "-m", "portico"], [sys.executable, "-m", "portico.cli"], [script])
    ]
    assert len(set(shown)) == 1, shown
