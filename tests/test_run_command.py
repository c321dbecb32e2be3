"""`portico run`: what it takes, what it says, how many processes it makes, and how it ends."""

from __future__ import annotations

import contextlib
import http.client
import os
import re
import signal
import socket
from pathlib import Path

import pytest

from clients import GENEROUS, Wire, ports_in_a_row, refuses, request, trusting, wait_until
from portico import cli
from programs import Program, lives
from running import APP, Running, write

CLEAR = ("--listen", "http://127.0.0.1:0")


@pytest.fixture
def refused(tmp_path):
    """What the command says where it does not come to serve, and how it ends."""

    def refused(*arguments, code=1):
        running = Running(tmp_path, *arguments)
        try:
            assert running.end() == code, running.output
            return running.output
        finally:
            running.close()

    return refused


def ask(port, path="/x", **more):
    return request(port, "GET", path, **more).text


@pytest.mark.parametrize(
    ("arguments", "answer"),
    [
        (["app:hello"], "hello /x"),
        (["app:make()"], "hello /x"),
        (["app:make", "--factory"], "hello /x"),
        (["app:Nested.inner"], "hello /x"),
        (["app:asgi_app"], "asgi /x"),
        (["app:asgi_app", "--asgi"], "asgi /x"),
        (["app:wsgi_app"], "wsgi /x"),
        (["app:wsgi_app", "--wsgi"], "wsgi /x"),
        (["app:lambda_app"], "lambda /x"),
    ],
)
def test_what_it_serves(run, arguments, answer):
    (port,) = run(*arguments, *CLEAR).ready()
    assert ask(port) == answer


def test_a_router_is_served(run):
    (port,) = run("app:router", *CLEAR).ready()
    assert ask(port, "/routed") == "hello /routed"
    assert request(port, "GET", "/x").status == 404


@pytest.mark.parametrize("framework", ["flask", "starlette", "fastapi"])
def test_applications_of_frameworks_are_known_by_themselves(run, tmp_path, framework):
    pytest.importorskip(framework)
    text = {
        "flask": "from flask import Flask\napp = Flask('app')\n@app.get('/x')\ndef x():\n    return 'flask'\n",
        "starlette": "from starlette.applications import Starlette\nfrom starlette.responses import PlainTextResponse\n"
        "from starlette.routing import Route\napp = Starlette(routes=[Route('/x', lambda request: PlainTextResponse('starlette'))])\n",
        "fastapi": "from fastapi import FastAPI\nfrom fastapi.responses import PlainTextResponse\napp = FastAPI()\n"
        "@app.get('/x', response_class=PlainTextResponse)\ndef x():\n    return 'fastapi'\n",
    }
    (tmp_path / "web.py").write_text(text[framework])
    (port,) = run("web:app", *CLEAR).ready()
    assert ask(port) == framework


def test_modules_are_found_in_app_dir(run, tmp_path):
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "there.py").write_text(APP)
    (port,) = run("there:hello", "--app-dir", "deep", *CLEAR).ready()
    assert ask(port) == "hello /x"


def test_a_certificate_for_this_machine_is_made(run, tmp_path):
    running = run("app:hello", "--listen", "0")
    (port,) = running.ready()
    found = re.search(r"--cacert (\S+)", running.curls()[0])
    assert ask(port, host="localhost", context=trusting(Path(found[1]).read_bytes())) == "hello /x"


def test_hosts_of_ones_own_with_pem_and_pfx(run, tmp_path, issue, ca_pem):
    import subprocess

    for name in ("a.test", "b.test"):
        cert, key = issue(name).values()
        (tmp_path / f"{name}.crt").write_bytes(cert)
        (tmp_path / f"{name}.key").write_bytes(key)
    (tmp_path / "password").write_text("secret\n")
    options = "-in b.test.crt -inkey b.test.key -out b.pfx -passout pass:secret"
    subprocess.run(["openssl", "pkcs12", "-export", *options.split()], cwd=tmp_path, check=True, timeout=60)
    hosts = ("--host", "a.test=a.test.crt,a.test.key", "--host", "b.test=b.pfx,password")
    running = run("app:hello", *hosts, "--listen", "0", "--listen", "http://localhost:0")
    ports = running.ready()
    assert re.findall(r"https://(.*):", running.output) == ["a.test", "b.test"]
    context = trusting(ca_pem)
    for name in ("a.test", "b.test"):
        assert ask(ports[0], host=name, context=context) == "hello /x"
    assert ask(ports[-1]) == "hello /x"


def test_settings_are_those_of_the_server(run):
    (port,) = run("app:hello", "--set", "max_header_bytes=1024", "--set", "compression=none", *CLEAR).ready()
    assert request(port, "GET", "/x", headers={"long": "x" * 2000}).status == 431


# ---- processes


def test_one_worker_by_default_and_several_when_asked_for(run):
    (port,) = run("app:pid", *CLEAR).ready()
    assert len({ask(port) for _ in range(10)}) == 1
    running = run("app:pid", "--workers", "3", *CLEAR)
    (port,) = running.ready()
    pids = set()
    wait_until(lambda: len(pids.add(ask(port)) or pids) == 3, "three processes to have answered")
    assert str(running.process.pid) not in pids
    assert running.signal(signal.SIGTERM).end() == 0
    assert not any(lives(int(pid)) for pid in pids)


def test_a_worker_that_dies_is_replaced(run):
    running = run("app:pid", *CLEAR)
    (port,) = running.ready()
    first = ask(port)
    os.kill(int(first), signal.SIGKILL)
    running.wait_for(r"was killed by SIGKILL; it is replaced")
    running.wait_for(r"worker 0 .* listens")
    assert ask(port) != first


def test_no_worker_serves_in_this_process(run):
    running = run("app:pid", "--workers", "0", *CLEAR)
    (port,) = running.ready()
    assert ask(port) == str(running.process.pid)
    assert running.signal().end() == 0
    assert running.printed[-1] == "Stopped. Answered 1 request.\n"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_what_is_in_flight_is_finished_at_the_end(run, number):
    running = run("app:slow", *CLEAR)
    (port,) = running.ready()
    with Wire(port).send("GET /?1 HTTP/1.1\r\nHost: h\r\n\r\n") as wire:
        wire.send("")
        wait_until(lambda: _in_flight(port), "the request to be there")
        running.signal(number)
        assert wire.read().text == "slow"
    assert running.end() == 0


def _in_flight(port):
    # Whether the server has taken the connection's bytes: the kernel has none left for it.
    from pathlib import Path

    lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
    mine = [line.split() for line in lines if line.split()[1].endswith(f":{port:04X}") and line.split()[3] == "01"]
    return bool(mine) and all(line[4].endswith(":00000000") for line in mine)


def test_a_second_signal_drops_it(run):
    running = run("app:slow", *CLEAR)
    (port,) = running.ready()
    with Wire(port).send("GET /?60 HTTP/1.1\r\nHost: h\r\n\r\n") as wire:
        wait_until(lambda: _in_flight(port), "the request to be there")
        running.signal()
        wait_until(lambda: refuses(port), "the port to be free")
        running.signal()
        wire.cut()
    assert running.process.wait(30) == 0


@pytest.mark.parametrize("workers", ["0", "1"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_while_it_starts_ends_it(run, tmp_path, number, workers):
    (tmp_path / "late.py").write_text("import pathlib, time\npathlib.Path('begun').touch()\ntime.sleep(60)\n")
    running = run("late:app", "--workers", workers, *CLEAR)
    wait_until(lambda: (tmp_path / "begun").exists(), "the program to be imported")
    assert running.signal(number).end() == 0


def test_a_program_does_not_swallow_the_signal_to_end(run, tmp_path):
    waits = "import pathlib, time\ntry:\n    pathlib.Path('begun').touch()\n    time.sleep(60)\nexcept:\n    pass\n"
    write(tmp_path / "late.py", waits + APP)
    running = run("late:hello", "--workers", "0", *CLEAR)
    wait_until(lambda: (tmp_path / "begun").exists(), "the program to be imported")
    assert running.signal(signal.SIGTERM).end() == 0
    assert "Ctrl-C stops the server" not in running.output


def test_a_second_signal_does_not_break_off_the_end(run, tmp_path):
    # The app says at its shutdown that it has begun with it, and is done when it is told so.
    write(
        tmp_path / "web.py",
        """
        import asyncio, pathlib

        async def app(scope, receive, send):
            await receive()
            await send({"type": "lifespan.startup.complete"})
            await receive()
            pathlib.Path("ending").touch()
            while not pathlib.Path("go_on").exists():
                await asyncio.sleep(0.01)
            pathlib.Path("ended").touch()
            await send({"type": "lifespan.shutdown.complete"})
        """,
    )
    running = run("web:app", "--asgi", "--workers", "0", *CLEAR)
    running.ready()
    running.signal(signal.SIGTERM)
    wait_until(lambda: (tmp_path / "ending").exists(), "the end to begin")
    running.signal(signal.SIGTERM).signal(signal.SIGINT)
    (tmp_path / "go_on").touch()
    assert running.end() == 0
    assert (tmp_path / "ended").exists()


# ---- what is wrong is said


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["app:make"], "takes no arguments: if it makes the handler, type app:make()"),
        (["app:Nested"], "is a class, not a handler"),
        (["app:ambiguous"], "takes any number of arguments: say which it is by --asgi, --wsgi or --lambda"),
        (["app:nothing"], "app has no nothing; it has hello, pid"),
        (["app"], "which one of app? it has hello, pid"),
        (["app.py:hello"], "a module is written as it is imported: app:"),
        (["missing:hello"], "there is no module missing in"),
        (["app:hello", "--listen", "99999"], "--listen '99999': '99999' is not a port from 0 to 65535"),
        (["app:hello", "--listen", "::1:80"], "an IPv6 address stands in brackets"),
        (["app:hello", "--set", "max_header=3"], "unknown key `max_header`: did you mean `max_headers`?"),
        (["app:hello", "--set", "max_headers=0"], "expected a whole number of headers from 1 to 10000, not 0"),
        (["app:hello", "--set", "max_headers"], "--set 'max_headers' is not NAME=VALUE"),
        (["app:hello", "--workers", "many"], '--workers: expected a whole number from 0 to 1000, not "many"'),
        (["app:hello", "--host", "a.test=none.crt"], '--host: [hosts."a.test"] certificate file none.crt: cannot read'),
        (["app:hello", "--config", "none.toml"], "cannot read none.toml: No such file"),
        (["--asgi"], "--asgi says what MODULE:NAME is, which is missing"),
        ([], "there is no handler: type module:name"),
    ],
)  # fmt: skip
def test_what_can_be_mended_is_said_in_a_line(refused, arguments, words):
    output = refused(*arguments)
    assert output.startswith("portico run: ")
    assert words in output
    assert output.count("\n") == 1


def test_all_that_is_wrong_is_said(refused):
    output = refused("app:hello", "--workers", "many", "--set", "max_headers=0", "--grace", "-1")
    assert output.count("\n") == 3


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("def app(request)\n    pass\n", ["broken.py", "line 1", "SyntaxError: expected ':'"]),
        (
            "def inner():\n    return 1 / 0\n\ninner()\n",
            ["line 4, in <module>", "line 2, in inner", "ZeroDivisionError"],
        ),
        ("import nothing_of_this_name\n", ["line 1, in <module>", "No module named 'nothing_of_this_name'"]),
    ],
)
def test_a_program_that_fails_is_told_by_its_own_lines(tmp_path, text, words):
    write(tmp_path / "broken.py", text)
    running = Running(tmp_path, "broken:app")
    try:
        assert running.process.wait(60) == 1
        with pytest.raises(AssertionError, match="never printed"):
            running.wait_for("no such line")
        for word in ["handler 'broken:app': importing broken failed", *words]:
            assert word in running.output
        assert "/portico/" not in running.output, "nothing of portico's own"
    finally:
        running.close()


def test_a_port_that_is_taken_is_told_with_advice(refused):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        output = refused("app:hello", "--listen", f"127.0.0.1:{taken.getsockname()[1]}", code=3)
    assert "Address already in use; another program has it" in output


def test_a_port_that_this_very_command_has_is_told_so(run, refused):
    first = run("app:hello", *CLEAR)
    (port,) = first.ready()
    output = refused("app:hello", "--listen", f"http://127.0.0.1:{port}", code=3)
    pid = first.process.pid
    assert f"portico has it already, with the pid {pid} (app:hello at http://127.0.0.1:{port} by 1 worker)" in output
    assert f"`portico reload --pid {pid}` has it take new code, `kill {pid}` ends it" in output


@pytest.mark.parametrize(
    ("theirs", "wanted", "in_the_way"),
    [
        ("127.0.0.2", "127.0.0.1", False),
        ("0.0.0.0", "127.0.0.1", True),
        ("127.0.0.1", "0.0.0.0", True),
        ("127.0.0.1", "localhost", True),
    ],
)
def test_a_server_of_another_address_is_not_told_to_have_the_port(run, refused, theirs, wanted, in_the_way):
    (port,) = run("app:hello", "--listen", f"http://{theirs}:0").ready()
    with contextlib.ExitStack() as closing:
        if not in_the_way:
            closing.enter_context(socket.create_server((wanted, port)))
        output = refused("app:hello", "--listen", f"http://{wanted}:{port}", code=3)
    assert ("portico has it already" in output) == in_the_way
    assert ("another program has it" in output) != in_the_way


def test_a_unix_socket_that_this_very_command_has_is_told_so(run, refused, tmp_path):
    first = run("app:hello", "--listen", f"http://unix:{tmp_path}/app.sock")
    first.ready()
    output = refused("app:hello", "--listen", f"http://unix:{tmp_path}/app.sock", code=3)
    assert f"portico has it already, with the pid {first.process.pid}" in output


def test_without_an_address_any_port_will_do(run):
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            taken.bind(("127.0.0.1", 8443))
            taken.listen()
        except OSError:
            pass  # Another program of this machine has it, which is as good.
        running = run("app:hello")
        (port,) = running.ready()
        assert port != 8443
        assert f"Port 8443 is taken, so this is port {port}." in running.output


def test_help_is_worth_reading(capsys):
    with pytest.raises(SystemExit, match="0"):
        cli.main(["run", "--help"])
    told = capsys.readouterr().out
    for part in ("examples:\n  portico run app:hello\n", "--workers N", "--set NAME=VALUE", "SIGHUP", "portico.toml"):
        assert part in told


# ---- seen from outside


def test_one_admin_listener_speaks_for_all_workers(run):
    admin = ports_in_a_row(3)
    running = run("app:pid", "--workers", "2", "--admin", str(admin), *CLEAR)
    running.ready()
    assert f"Metrics and probes of all workers: http://127.0.0.1:{admin}/metrics\n" in running.output
    assert f"The dashboard of each: http://127.0.0.1:{admin + 1}/ http://127.0.0.1:{admin + 2}/\n" in running.output
    for _ in range(2):
        # Not at once: on a busy machine a worker may not answer in time.
        said = [f'portico_up{{worker="{n}"}} 1' for n in (0, 1)]
        wait_until(
            lambda said=said: re.findall("^portico_up.*", request(admin, path="/metrics").text, re.MULTILINE) == said
        )
        ready = "worker 0: ready\nworker 1: ready\n"
        wait_until(lambda ready=ready: request(admin, path="/probe/readiness").text == ready)
        for dashboard in (admin + 1, admin + 2):
            assert "<title>portico dashboard" in request(dashboard, "GET", "/").text
        running.signal(signal.SIGHUP)
        running.wait_for("portico.run: reloaded in")


def test_a_reload_changes_the_admin_listener(run, tmp_path):
    def configure(lines):
        write(tmp_path / "portico.toml", f'handler = "app:pid"\nlisten = "http://127.0.0.1:0"\n{lines}\n')

    def reload():
        running.signal(signal.SIGHUP)
        running.wait_for("portico.run: reloaded in")

    (tmp_path / "token").write_text("a-token-of-24-characters\n")
    admin = ports_in_a_row(3)
    configure(f"admin = {admin}")
    running = run("--config", "portico.toml")
    running.ready()
    assert "<title>portico dashboard" in request(admin, "GET", "/").text, "one worker alone has it there"
    configure(f'workers = 2\n[admin]\nlisten = {admin}\ntoken_file = "token"')
    reload()
    shown = {"authorization": "Bearer a-token-of-24-characters"}
    for port in (admin, admin + 1, admin + 2):
        assert request(port, "GET", "/metrics").status == 401
        assert request(port, "GET", "/metrics", headers=shown).status == 200
    configure("")
    reload()
    assert all(refuses(port) for port in (admin, admin + 1, admin + 2))


@pytest.mark.parametrize("workers", ["0", "1", "2"])
def test_an_admin_listener_over_tls_has_the_certificates_of_the_hosts(run, tmp_path, issue, ca_pem, workers):
    cert, key = issue("a.test").values()
    (tmp_path / "a.crt").write_bytes(cert)
    (tmp_path / "a.key").write_bytes(key)
    admin = ports_in_a_row(3)
    host = ("--host", "a.test=a.crt,a.key")
    running = run("app:pid", *host, "--workers", workers, "--admin", f"https://127.0.0.1:{admin}", "--listen", "0")
    running.ready()
    # By its address, or a name of this machine: others are for nobody without a token.
    reply = request(admin, "GET", "/metrics", host="localhost", sni="a.test", context=trusting(ca_pem))
    assert "portico_up" in reply.text


@pytest.mark.parametrize("workers", ["0", "1", "2"])
def test_a_certificate_is_made_for_an_admin_listener_alone(run, tmp_path, workers):
    """Where what is served is in the clear, and no host has one."""
    admin = ports_in_a_row(3)
    running = run("app:pid", "--workers", workers, "--admin", f"https://127.0.0.1:{admin}", *CLEAR)
    running.ready()
    (authority,) = (tmp_path / "home").rglob("ca.crt")
    reply = request(admin, "GET", "/metrics", context=trusting(authority.read_bytes()))
    assert "portico_up" in reply.text


def test_a_reload_keeps_connections_to_an_admin_listener_that_stays(run):
    admin = ports_in_a_row(3)
    running = run("app:pid", "--workers", "2", "--admin", str(admin), *CLEAR)
    running.ready()
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", admin, timeout=GENEROUS)) as looking:
        for _ in range(2):
            # One that it closes is not made anew.
            looking.auto_open = 0 if looking.sock else 1
            looking.request("GET", "/probe/startup")
            assert looking.getresponse().read()
            running.signal(signal.SIGHUP)
            running.wait_for("portico.run: reloaded in")


def test_an_admin_listener_for_others_wants_a_token(refused, run, tmp_path):
    output = refused("app:hello", "--admin", "0.0.0.0:0", *CLEAR)
    assert "token" in output
    (tmp_path / "token").write_text("a-token-of-24-characters\n")
    write(tmp_path / "portico.toml", '[admin]\nlisten = "0.0.0.0:0"\ntoken_file = "token"\n')
    running = run("app:hello", "--config", "portico.toml", *CLEAR)
    running.ready()
    port = int(re.search(r"dashboard: http://0\.0\.0\.0:(\d+)/", running.output)[1])
    assert request(port, "GET", "/metrics").status == 401
    shown = {"authorization": "Bearer a-token-of-24-characters"}
    assert request(port, "GET", "/metrics", headers=shown).status == 200


def test_a_trace_is_printed(run):
    running = run("app:hello", "--trace", *CLEAR)
    (port,) = running.ready()
    ask(port)
    running.wait_for("accepted")
    running.wait_for("closed")


@pytest.mark.parametrize("workers", ["0", "1"])
def test_an_access_log_is_written(run, tmp_path, workers):
    running = run("app:hello", "--workers", workers, "--access-log", "access.log", *CLEAR)
    (port,) = running.ready()
    ask(port, "/logged")
    wait_until(lambda: '"GET /logged HTTP/1.1" 200' in (tmp_path / "access.log").read_text(), "the line")


def test_a_bug_is_told_as_one(tmp_path):
    start = "import sys; sys.modules['portico.cli._supervisor'] = None; from portico.cli import main; sys.exit(main())"
    program = Program("-c", start, "run", "app:hello", HOME=str(tmp_path))
    try:
        assert program.process.wait(60) == 70
        program.wait_for("^Traceback")
        program.wait_for("^portico run: this should not happen: please report it")
    finally:
        program.close()


def test_a_bug_in_a_worker_is_told_as_one(tmp_path):
    # Workers run the lines of the program too.
    start = """
    import sys
    from portico import cli, config

    config.build = None
    if __name__ == "__main__":
        sys.exit(cli.main())
    """
    write(tmp_path / "start.py", start)
    (tmp_path / "run").mkdir(mode=0o700)
    home = {"HOME": str(tmp_path), "RUNTIME_DIRECTORY": str(tmp_path / "run")}
    program = Program(tmp_path / "start.py", "run", "app:hello", *CLEAR, **home)
    try:
        assert program.finish() == 70
        assert "_worker_main.py" in program.output
        assert "TypeError: 'NoneType' object is not callable" in program.output
        assert "portico run: this should not happen: please report it" in program.output
    finally:
        program.close()


@pytest.mark.parametrize("workers", ["0", "1"])
def test_a_lifespan_that_fails_is_told_in_its_own_words(refused, tmp_path, workers):
    (tmp_path / "web.py").write_text(
        "async def app(scope, receive, send):\n    await receive()\n"
        "    await send({'type': 'lifespan.startup.failed', 'message': 'no database'})\n"
    )
    output = refused("web:app", "--asgi", "--workers", workers, *CLEAR)
    assert output == "portico run: an ASGI app failed to start: no database\n"
