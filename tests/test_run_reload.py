"""New code, settings and certificates for `portico run`: by SIGHUP, by `portico reload`, and by files that change."""

from __future__ import annotations

import os
import re
import signal
import socket
import stat
import threading

import psutil
import pytest

from clients import Wire, ports_in_a_row, refuses, request, trusting, wait_until
from portico.cli import _control
from programs import Program, has_open
from running import APP, write

CLEAR = ("--listen", "http://127.0.0.1:0")


def runtime(folder):
    (folder / "run").mkdir(exist_ok=True, mode=0o700)
    return folder / "run"


@pytest.fixture
def reload(tmp_path):
    """Runs `portico reload`; its exit code and what it says."""

    def reload(*arguments, **environment):
        environment.setdefault("RUNTIME_DIRECTORY", str(runtime(tmp_path)))
        program = Program("-m", "portico", "reload", *arguments, HOME=str(tmp_path), **environment)
        try:
            return program.finish(), program.output
        finally:
            program.close()

    return reload


def version(folder, number):
    write(folder / "web.py", f"def app(request):\n    return {{'statusCode': 200, 'body': '{number}'}}\n")


def ask(port):
    return request(port, "GET", "/").text


def test_new_code_is_taken(run, reload, tmp_path):
    version(tmp_path, 1)
    running = run("web:app", "--workers", "2", *CLEAR)
    (port,) = running.ready()
    assert ask(port) == "1"
    version(tmp_path, 22)
    code, told = reload()
    assert code == 0, told
    assert re.fullmatch(rf"reloaded in [\d.]+ s: web:app at http://127\.0\.0\.1:{port} by 2 workers\n", told)
    assert {ask(port) for _ in range(8)} == {"22"}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("def app(request)\n", ["handler 'web:app': importing web failed", 'web.py", line 1', "SyntaxError"]),
        ("app = 3\n", ["'web:app' is a int, which can answer nothing"]),
        ("import os\nos._exit(7)\n", ["(pid", "ended with exit code 7"]),
    ],
)
def test_code_that_is_broken_is_refused_and_the_old_serves_on(run, reload, tmp_path, text, words):
    version(tmp_path, 1)
    running = run("web:app", "--workers", "2", *CLEAR)
    (port,) = running.ready()
    write(tmp_path / "web.py", text)
    code, told = reload()
    assert code == 1
    assert told.startswith("portico reload: not reloaded, what ran goes on:\n")
    for word in words:
        assert word in told
    assert {ask(port) for _ in range(8)} == {"1"}
    version(tmp_path, 333)
    assert reload()[0] == 0
    assert {ask(port) for _ in range(8)} == {"333"}


def test_a_portico_toml_that_is_broken_is_refused(run, reload, tmp_path):
    version(tmp_path, 1)
    good = 'handler = "web:app"\nlisten = "http://127.0.0.1:0"\n'
    write(tmp_path / "portico.toml", good)
    running = run()
    (port,) = running.ready()
    write(tmp_path / "portico.toml", good + "[settings]\nmax_header = 3\n")
    code, told = reload()
    assert code == 1
    assert "portico.toml:4: [settings] unknown key `max_header`: did you mean `max_headers`?" in told
    assert ask(port) == "1"


def test_new_settings_and_certificates_are_taken(run, reload, tmp_path, issue, ca_pem):
    def certificate():
        cert, key = issue("a.test").values()
        (tmp_path / "a.pem").write_bytes(cert + key)

    version(tmp_path, 1)
    certificate()
    good = 'handler = "web:app"\nlisten = 0\n[hosts."a.test"]\ncert = "a.pem"\nwatch = false\n'
    write(tmp_path / "portico.toml", good)
    (port,) = run().ready()
    context = trusting(ca_pem)

    def serial():
        with (
            socket.create_connection(("127.0.0.1", port)) as plain,
            context.wrap_socket(plain, server_hostname="a.test") as secure,
        ):
            return secure.getpeercert()["serialNumber"]

    before = serial()
    assert request(port, "GET", "/", host="a.test", context=context, headers={"x": "y" * 5000}).status == 200
    certificate()
    assert serial() == before
    write(tmp_path / "portico.toml", good + "[settings]\nmax_header_bytes = 1024\n")
    code, told = reload()
    assert code == 0, told
    assert serial() != before
    assert request(port, "GET", "/", host="a.test", context=context, headers={"x": "y" * 5000}).status == 431


def test_sighup_does_the_same(run, tmp_path):
    version(tmp_path, 1)
    running = run("web:app", *CLEAR)
    (port,) = running.ready()
    version(tmp_path, 22)
    running.signal(signal.SIGHUP)
    running.wait_for("portico.run: reloaded in")
    assert ask(port) == "22"
    write(tmp_path / "web.py", "1 / 0")
    running.signal(signal.SIGHUP)
    running.wait_for("portico.run: not reloaded, what ran goes on: MODULE:NAME: handler 'web:app'")
    assert ask(port) == "22"
    # Many at once are one or two.
    version(tmp_path, 333)
    for _ in range(20):
        running.signal(signal.SIGHUP)
    running.wait_for("portico.run: reloaded in")
    wait_until(lambda: ask(port) == "333")
    running.signal(signal.SIGTERM)
    assert running.process.wait(60) == 0


def test_requests_in_flight_are_finished(run, reload, tmp_path):
    running = run("app:slow", *CLEAR)
    (port,) = running.ready()
    with Wire(port).send("GET /?2 HTTP/1.1\r\nHost: h\r\n\r\n") as wire:
        done = threading.Thread(target=reload)
        done.start()
        assert wire.read().text == "slow"
        done.join()


# ---- who is found, and who may


def test_without_a_server_there_is_nobody(reload, tmp_path):
    code, told = reload()
    assert code == 4
    assert "no server of this user was found in" in told
    code, told = reload("--control", str(tmp_path / "none.sock"))
    assert code == 4
    assert "nobody answers at" in told


def test_a_new_server_removes_the_sockets_of_those_that_were_killed(run, tmp_path):
    first = run("app:hello", *CLEAR)
    first.ready()
    first.process.kill()
    first.process.wait()
    second = run("app:hello", *CLEAR)
    second.ready()
    assert [path.name for path in runtime(tmp_path).iterdir()] == [f"{second.process.pid}.sock"]


def test_of_several_servers_one_is_chosen(run, reload, tmp_path):
    version(tmp_path, 1)
    one, two = run("web:app", *CLEAR), run("app:hello", *CLEAR)
    ports = one.ready() + two.ready()
    code, told = reload()
    assert code == 4
    assert f"--pid {one.process.pid}  web:app at http://127.0.0.1:{ports[0]} by 1 worker\n" in told
    assert f"--pid {two.process.pid}  app:hello at" in told
    code, told = reload("--pid", str(two.process.pid))
    assert code == 0
    assert "app:hello" in told
    one.process.kill()
    one.process.wait()
    code, told = reload()
    assert code == 0, "the socket of a dead one is not in the way"
    assert "app:hello" in told
    assert len(list(runtime(tmp_path).iterdir())) == 1


def test_a_socket_of_ones_own_by_flag_and_by_file(run, reload, tmp_path):
    write(tmp_path / "portico.toml", 'handler = "app:hello"\nlisten = "http://127.0.0.1:0"\ncontrol = "mine.sock"\n')
    running = run("--pid-file", "pid")
    running.ready()
    found = os.stat(tmp_path / "mine.sock")
    assert stat.S_IMODE(found.st_mode) == 0o600
    assert (tmp_path / "pid").read_text() == f"{running.process.pid}\n"
    assert reload("--config", str(tmp_path / "portico.toml"))[0] == 0
    assert reload("--control", str(tmp_path / "mine.sock"))[0] == 0
    assert running.signal(signal.SIGTERM).end() == 0
    assert not (tmp_path / "mine.sock").exists()
    assert not (tmp_path / "pid").exists()


def test_a_socket_that_another_server_has_is_not_taken(run, tmp_path):
    run("app:hello", "--control", "mine.sock", *CLEAR).ready()
    second = run("app:hello", "--control", "mine.sock", *CLEAR)
    assert second.end() == 1
    assert "another server listens there" in second.output
    assert _control.ask(tmp_path / "mine.sock", "status", 10)["ok"]


def test_a_socket_that_a_dead_server_left_is_taken(run, tmp_path):
    first = run("app:hello", "--control", "mine.sock", *CLEAR)
    first.ready()
    first.process.kill()
    first.process.wait()
    assert (tmp_path / "mine.sock").exists()
    run("app:hello", "--control", "mine.sock", *CLEAR).ready()


def test_what_is_no_socket_is_left_alone(run, tmp_path):
    (tmp_path / "notes.txt").write_text("dear diary")
    running = run("app:hello", "--control", "notes.txt", *CLEAR)
    assert running.end() == 1
    assert "cannot make the socket for `portico reload` at notes.txt" in running.output
    assert (tmp_path / "notes.txt").read_text() == "dear diary"


def test_what_a_stranger_says_to_the_socket_is_bounded(run, reload, tmp_path):
    run("app:hello", "--control", "mine.sock", *CLEAR).ready()
    path = str(tmp_path / "mine.sock")
    idle = socket.socket(socket.AF_UNIX)
    idle.connect(path)
    for said in (b"x" * 100_000, b"\xff\xfe\n", b"\n", b""):
        with socket.socket(socket.AF_UNIX) as stranger:
            stranger.connect(path)
            try:
                stranger.sendall(said)
                stranger.shutdown(socket.SHUT_WR)
                answer = stranger.recv(1000)
            except (BrokenPipeError, ConnectionResetError):
                continue
            assert b'"ok": false' in answer
    assert reload("--control", path)[0] == 0, "one that says nothing keeps nobody waiting"
    idle.close()


# ---- development


def test_changed_files_are_taken_at_once(run, tmp_path):
    version(tmp_path, 1)
    running = run("web:app", "--reload", *CLEAR)
    (port,) = running.ready()
    version(tmp_path, 22)
    running.wait_for(r"portico.run: reloading \(changed: web.py\)")
    running.wait_for("portico.run: reloaded in")
    assert ask(port) == "22"
    # A mistake is told, and waits for the next change.
    write(tmp_path / "web.py", "def app(request)\n")
    running.wait_for("not reloaded, what ran goes on")
    running.wait_for("SyntaxError")
    assert ask(port) == "22"
    version(tmp_path, 333)
    running.wait_for("portico.run: reloaded in")
    assert ask(port) == "333"
    # A module beside it counts too; what is no Python does not.
    (tmp_path / "notes.txt").write_text("x")
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "part.py").write_text("x = 1\n")
    running.wait_for(r"portico.run: reloading \(changed: more/part.py\)")


def test_a_mistake_before_anything_ran_waits_for_a_change(run, tmp_path):
    write(tmp_path / "web.py", "def app(request)\n")
    running = run("web:app", "--reload", *CLEAR)
    running.wait_for("SyntaxError")
    running.wait_for("^Waiting for a change")
    version(tmp_path, 1)
    (port,) = running.ready()
    assert ask(port) == "1"
    running.signal()
    assert running.process.wait(60) == 0


def test_a_change_of_portico_toml_is_taken(run, tmp_path):
    good = 'handler = "app:hello"\nlisten = "http://127.0.0.1:0"\n'
    write(tmp_path / "portico.toml", good)
    running = run("--reload")
    (port,) = running.ready()
    write(tmp_path / "portico.toml", good + "[settings]\nmax_header_bytes = 1024\n")
    running.wait_for("portico.run: reloaded in")
    assert request(port, "GET", "/", headers={"x": "y" * 5000}).status == 431


def test_an_open_response_does_not_hold_up_development(run, tmp_path):
    running = run("app:slow", "--reload", *CLEAR)
    (port,) = running.ready()
    with Wire(port).send("GET /?60 HTTP/1.1\r\nHost: h\r\n\r\n"):
        (tmp_path / "app.py").write_text(APP.replace('"slow"', '"new"'))
        running.wait_for("portico.run: reloaded in")
        assert request(port, "GET", "/?0").text == "new"


# ---- what may change


def test_addresses_that_change_are_opened_and_closed(run, reload, tmp_path):
    text = 'handler = "app:hello"\nworkers = {}\nlisten = [{}]\n'
    first, second = '"http://127.0.0.1:0"', '{ unix = "a.sock", tls = false }'
    write(tmp_path / "portico.toml", text.format(1, first))
    running = run()
    (port,) = running.ready()
    write(tmp_path / "portico.toml", text.format(2, f"{first}, {second}"))
    code, told = reload()
    assert code == 0, told
    assert f"at http://127.0.0.1:{port}, http+unix://" in told, "the port that the machine chose stays"
    assert told.endswith("by 2 workers\n")
    assert (tmp_path / "a.sock").is_socket()
    assert request(port, "GET", "/x").text == "hello /x"
    write(tmp_path / "portico.toml", text.format(1, second))
    assert reload()[0] == 0
    assert refuses(port)
    assert (tmp_path / "a.sock").is_socket()
    assert running.signal(signal.SIGTERM).end() == 0
    assert not (tmp_path / "a.sock").exists()


def test_an_address_that_cannot_be_had_is_refused(run, reload, tmp_path):
    text = 'handler = "app:hello"\nlisten = [{}]\n'
    write(tmp_path / "portico.toml", text.format('"http://127.0.0.1:0"'))
    (port,) = run().ready()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        other = taken.getsockname()[1]
        write(tmp_path / "portico.toml", text.format(f'"http://127.0.0.1:0", "http://127.0.0.1:{other}"'))
        code, told = reload()
    assert code == 1
    assert f"cannot listen on 127.0.0.1:{other}: Address already in use" in told
    assert request(port, "GET", "/x").text == "hello /x"


def test_another_handler_is_taken(run, reload, tmp_path):
    text = 'handler = "app:{}"\nlisten = "http://127.0.0.1:0"\n'
    write(tmp_path / "portico.toml", text.format("hello"))
    (port,) = run().ready()
    write(tmp_path / "portico.toml", text.format("wsgi_app"))
    assert reload()[0] == 0
    assert request(port, "GET", "/x").text == "wsgi /x"


def test_what_only_a_start_takes_is_said(run, reload, tmp_path):
    text = 'handler = "app:hello"\nlisten = "http://127.0.0.1:0"\n'
    write(tmp_path / "portico.toml", text)
    running = run()
    running.ready()
    write(tmp_path / "portico.toml", text + 'control = "mine.sock"\npid_file = "pid"\n')
    for _ in range(2):
        code, told = reload()
        assert code == 0
        assert told.splitlines()[1:] == ["taken at the next start only: control and pid_file"]
        running.wait_for("WARNING portico.run: taken at the next start only: control and pid_file")
    write(tmp_path / "portico.toml", text)
    assert len(reload()[1].splitlines()) == 1
    assert not (tmp_path / "pid").exists()


def test_a_server_is_named_by_a_host_that_has_a_certificate(run, reload, tmp_path, issue):
    cert, key = issue("a.test").values()
    (tmp_path / "a.pem").write_bytes(cert + key)
    hosts = [f"--host={name}=a.pem" for name in ("default", "*.a.test", "a.test")]
    (port, *_) = run("app:hello", "--listen", "0", *hosts).ready()
    code, told = reload()
    assert code == 0
    assert told.endswith(f": app:hello at https://a.test:{port} by 1 worker\n")


def test_a_server_is_named_by_the_certificate_that_is_made_once_its_last_host_is_gone(run, reload, tmp_path, issue):
    cert, key = issue("a.test").values()
    (tmp_path / "a.pem").write_bytes(cert + key)
    text = 'handler = "app:hello"\nlisten = "0"\n'
    write(tmp_path / "portico.toml", f'{text}[hosts."a.test"]\ncert = "a.pem"\n')
    (port,) = run().ready()
    write(tmp_path / "portico.toml", text)
    code, told = reload()
    assert code == 0
    assert told.endswith(f": app:hello at https://localhost:{port} by 1 worker\n")


# ---- another process takes over


def test_sigusr2_has_a_successor_take_over(run, reload, tmp_path):
    version(tmp_path, 1)
    running = run("web:app", "--control", "mine.sock", "--pid-file", "pid", *CLEAR)
    (port,) = running.ready()
    assert ask(port) == "1"
    version(tmp_path, 22)
    running.signal(signal.SIGUSR2)
    running.wait_for("^Ctrl-C stops the server")
    assert running.process.wait(60) == 0, "the old one has ended as it was asked to"
    successor = int((tmp_path / "pid").read_text())
    try:
        assert successor != running.process.pid
        assert ask(port) == "22"
        code, told = reload("--control", str(tmp_path / "mine.sock"))
        assert code == 0, told
    finally:
        os.kill(successor, signal.SIGTERM)
    wait_until(lambda: refuses(port), "the successor to end")
    wait_until(lambda: not (tmp_path / "pid").exists() and not (tmp_path / "mine.sock").exists(), "its files to go")


def test_a_predecessor_that_ends_is_not_asked(run, reload, tmp_path):
    running = run("app:slow", "--pid-file", "pid", *CLEAR)
    (port,) = running.ready()
    with Wire(port).send("GET /?60 HTTP/1.1\r\nHost: h\r\n\r\n"):
        running.signal(signal.SIGUSR2)
        running.wait_for("^Ctrl-C stops the server")
        successor = int((tmp_path / "pid").read_text())
        try:
            wait_until(
                lambda: told_by(tmp_path, running.process.pid)["state"] == "closing", "the old one to be told to end"
            )
            code, told = reload()
            assert code == 0, told
            assert running.process.poll() is None, "what is in flight there has its grace"
            code, told = reload("--pid", str(running.process.pid))
            assert (code, told.splitlines()[-1]) == (1, "it is closing")
        finally:
            os.kill(successor, signal.SIGTERM)
            running.process.kill()


def told_by(folder, pid):
    return _control.ask(runtime(folder) / f"{pid}.sock", "status", 10)


def test_a_successor_has_the_admin_listener_and_the_dashboards(run, tmp_path):
    admin = ports_in_a_row(3)
    running = run("app:pid", "--workers", "2", "--admin", str(admin), "--pid-file", "pid", *CLEAR)
    running.ready()
    old = shown_by(admin)
    running.signal(signal.SIGUSR2)
    assert running.process.wait(60) == 0
    successor = int((tmp_path / "pid").read_text())
    try:
        assert len(old) == 2
        assert len(shown_by(admin)) == 2
        assert not old & shown_by(admin), "nobody of before answers"
        up = [f'portico_up{{worker="{number}"}} 1' for number in (0, 1)]
        wait_until(lambda: [line for line in request(admin, path="/metrics").text.split("\n") if line in up] == up)
    finally:
        os.kill(successor, signal.SIGTERM)
    wait_until(lambda: all(refuses(port) for port in range(admin, admin + 3)), "the successor to end")


def shown_by(admin):
    """The processes whose dashboards stand behind that port."""
    return {request(port, path="/snapshot.json").json()["process"]["id"] for port in (admin + 1, admin + 2)}


def test_a_successor_that_fails_leaves_the_old_serving(run, reload, tmp_path):
    version(tmp_path, 1)
    running = run("web:app", "--control", "mine.sock", "--pid-file", "pid", *CLEAR)
    (port,) = running.ready()
    write(tmp_path / "web.py", "1 / 0")
    running.signal(signal.SIGUSR2)
    running.wait_for("portico.run: not upgraded, what ran goes on: the successor")
    assert ask(port) == "1"
    assert (tmp_path / "pid").read_text() == f"{running.process.pid}\n"
    version(tmp_path, 22)
    assert reload("--control", str(tmp_path / "mine.sock"))[0] == 0
    assert ask(port) == "22"


# ---- logs


def test_sigusr1_opens_log_files_anew(run, tmp_path):
    running = run("app:hello", "--workers", "2", "--access-log", "access.log", *CLEAR)
    (port,) = running.ready()
    log = tmp_path / "access.log"
    request(port, "GET", "/one")
    wait_until(lambda: "/one" in log.read_text(), "a line")
    old = log.rename(tmp_path / "access.log.1")
    workers = [child.pid for child in psutil.Process(running.process.pid).children() if has_open(child.pid, old)]
    assert len(workers) == 2
    running.signal(signal.SIGUSR1)
    wait_until(lambda: not any(has_open(pid, old) for pid in workers), "both workers to let go of it")
    for _ in range(10):
        request(port, "GET", "/two")
    wait_until(lambda: log.read_text().count("/two") == 10, "both workers to write there")
    assert running.signal(signal.SIGTERM).end() == 0
