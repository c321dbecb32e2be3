"""Programs, environments and arguments that are odd: `portico run` says what is wrong with them, and that it is they."""

from __future__ import annotations

import os
import signal
import socket

import pytest

import portico
from clients import request
from portico import _systemd, cli
from programs import Program
from running import APP, write

CLEAR = ("--listen", "http://127.0.0.1:0")

ODD = """
import sys, werkzeug.local
from flask import Flask, current_app, g, request, session, url_for

def __getattr__(name):
    if name == "lazy":
        return 1 / 0
    if name == "leaves":
        sys.exit(3)
    raise AttributeError(name)

class Shy:
    def __call__(self, request): ...

    @property
    def __signature__(self):
        raise LookupError("it does not say")

shy = Shy()

def make():
    sys.exit(4)

def shop(request): ...

app = Flask("odd")
"""


@pytest.fixture
def told(run, tmp_path):
    """What the command says that ends because something has to be mended."""
    write(tmp_path / "odd.py", ODD)

    def told(*arguments, **environment):
        running = run(*arguments, **environment)
        assert running.end() == 1, running.output
        return running.output

    return told


# ---- exceptions of the program


@pytest.mark.parametrize("workers", ["0", "1"])
@pytest.mark.parametrize(
    ("handler", "words"),
    [
        ("odd:lazy", ["handler 'odd:lazy': looking at lazy failed", "odd.py", "line 7", "ZeroDivisionError"]),
        ("odd:leaves", ["handler 'odd:leaves': looking at leaves called sys.exit(3)"]),
        ("odd:shy", ["handler 'odd:shy': looking at shy failed", "odd.py", "LookupError: it does not say"]),
        ("odd:request", ["handler 'odd:request': looking at request failed", "Working outside of request context"]),
        ("odd:make()", ["handler 'odd:make()': making it called sys.exit(4)"]),
    ],
)
def test_what_the_program_raises_is_no_fault_of_portico(told, handler, words, workers):
    output = told(handler, "--workers", workers, *CLEAR)
    for word in words:
        assert word in output
    assert "inspect.py" not in output


def test_a_handler_that_is_called_one_and_does_not_say_what_it_takes(told, tmp_path):
    write(tmp_path / "portico.toml", 'handler = { call = "odd:shy", kind = "request" }\n')
    assert "what arguments it takes cannot be found out (LookupError: it does not say)" in told()


def test_handlers_are_suggested_and_not_what_a_framework_brings(told):
    output = told("odd:nothing", *CLEAR)
    assert "odd has no nothing; it has app, shy, make, shop: type odd:app, say" in output


def test_without_a_handler_the_message_begins_with_it(told):
    assert told() == ("portico run: there is no handler: type module:name, or write `handler` into portico.toml\n")


# ---- programs that start a server when they are imported


@pytest.mark.parametrize(
    ("lines", "doing"),
    [
        ("portico.Server(hello).serve_forever()", "serve_forever() would wait"),
        ("with portico.Server(hello) as server:\n    server.listen(0, tls=False)\n    server.serve_forever()", "serve_forever() would wait"),
        ("import asyncio\nasyncio.run(portico.Server(hello).wait_closed())", "wait_closed() would wait"),
        ("portico.run_workers(hello, listen={'port': 0, 'tls': False})", "starting workers would wait"),
    ],
)  # fmt: skip
def test_a_program_that_serves_when_it_is_imported_is_told_so(told, tmp_path, lines, doing):
    write(tmp_path / "own.py", APP + lines + "\n")
    output = told("own:hello", *CLEAR)
    assert "handler 'own:hello': importing own failed" in output
    assert 'own.py", line' in output
    assert f"{doing}, and portico loads own:hello to serve it by itself: what starts a server" in output
    assert output.rstrip().endswith('goes under `if __name__ == "__main__":`')


def test_a_program_that_takes_a_port_is_told_so(told, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        write(tmp_path / "own.py", f"{APP}portico.Server(hello).listen({port}, tls=False)\n")
        output = told("own:hello", *CLEAR)
    assert "Address already in use" in output
    assert output.rstrip().endswith('goes under `if __name__ == "__main__":`')


@pytest.mark.parametrize(
    "waits", ["import time\n\ntime.sleep(600)\n", "import threading\n\nthreading.Event().wait()\n"]
)
def test_a_program_that_does_not_come_to_its_end_is_told_of_before_it_is_too_late(run, tmp_path, waits):
    write(tmp_path / "late.py", waits)
    running = run("late:app", *CLEAR, PORTICO_READY_TIMEOUT="8")
    said = rf"loading late:app still goes on after 5 s, at line 3 of {tmp_path}/late.py; what starts a server, or works"
    running.wait_for(f"portico.run: {said}")
    running.wait_for(rf"^portico run: .* within 8 s and was killed: {said}")
    assert running.process.wait(60) == 1


def test_a_program_that_takes_long_is_served_and_dies_of_what_it_dies_of(run, tmp_path):
    write(tmp_path / "late.py", f"import time\ntime.sleep(5.5)\n{APP}")
    running = run("late:pid", *CLEAR)
    running.wait_for("still goes on after 5 s")
    (port,) = running.ready()
    os.kill(int(request(port, "GET", "/").text), signal.SIGKILL)
    running.wait_for("was killed by SIGKILL; it is replaced")


def test_a_program_that_has_another_one_checked_is_served(run, tmp_path):
    write(tmp_path / "other.toml", 'handler = "app:hello"\nlisten = "http://127.0.0.1:0"\n')
    write(tmp_path / "own.py", f"{APP}from portico import cli\nassert cli.main(['check', 'other.toml']) == 0\n")
    running = run("own:hello", *CLEAR)
    (port,) = running.ready()
    assert request(port, "GET", "/x").text == "hello /x"


def test_a_program_in_a_folder_named_like_one_of_python_is_told_by_its_lines(told, tmp_path):
    (tmp_path / "my_importlib").mkdir()
    write(tmp_path / "my_importlib" / "broken.py", "def inner():\n    return 1 / 0\n\ninner()\n")
    output = told("broken:app", "--app-dir", "my_importlib", *CLEAR)
    assert "my_importlib/broken.py" in output
    assert "line 2, in inner" in output


# ---- arguments and environment


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({"PORTICO_MAX_HEADERS": b"\xff"}, r"PORTICO_MAX_HEADERS: b'\xff' is not UTF-8"),
        ({"PORTICO_PID_FILE": b"\xff"}, r"PORTICO_PID_FILE: b'\xff' is not UTF-8"),
        ({"WATCHDOG_USEC": "9" * 400}, "WATCHDOG_USEC: a number of microseconds up to 18446744073709551615, not '999"),
        ({"WATCHDOG_USEC": "9" * 5000}, "WATCHDOG_USEC: a number of microseconds"),
        ({"PORTICO_SYSTEMD_SOCKETS": "{"}, "PORTICO_SYSTEMD_SOCKETS: it is for portico's own use, and says '{'"),
        ({"PORTICO_SYSTEMD_SOCKETS": '{"a": 3}'}, "PORTICO_SYSTEMD_SOCKETS: it is for portico's own use"),
        ({"PORTICO_SYSTEMD_SOCKETS": "[" * 50_000}, "PORTICO_SYSTEMD_SOCKETS: it is for portico's own use"),
        ({"PORTICO_PORT_BY_ITSELF": "many"}, "PORTICO_PORT_BY_ITSELF: it is for portico's own use, and says 'many'"),
    ],
)  # fmt: skip
def test_a_variable_that_says_nonsense_is_named(told, environment, words):
    assert told("app:hello", **environment).startswith(f"portico run: {words}")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--set", b"max_headers=\xff"), r"--set: b'\xff' is not UTF-8"),
        (("--host", b"\xff=a,b"), r"--host '\udcff=a,b' is not NAME=CERT,KEY"),
        (("--admin", b"unix:\xff"), r"--admin: b'unix:\xff' is not UTF-8"),
    ],
)
def test_an_argument_that_is_not_utf8_is_named(tmp_path, arguments, words):
    start = "import os, sys; from portico.cli import main; sys.exit(main([*sys.argv[1:3], os.fsdecode(bytes.fromhex(sys.argv[3]))]))"
    (tmp_path / "app.py").write_text(APP)
    flag, value = arguments
    program = Program("-c", start, "run", flag, value.hex(), HOME=str(tmp_path))
    try:
        assert program.end() == 1
        assert program.output.startswith(f"portico run: {words}")
    finally:
        program.close()


def test_what_a_manager_counts_in_is_no_number():
    with pytest.raises(portico.ConfigError, match="WATCHDOG_USEC"):
        _systemd.Manager({"WATCHDOG_USEC": "soon"})
    assert _systemd.Manager({"WATCHDOG_USEC": "soon", "WATCHDOG_PID": "1"}).watchdog is None, "another one's"


def test_what_would_move_the_cursor_is_escaped(told, tmp_path):
    write(tmp_path / "portico.toml", '"a\\u001b[31m\\nb" = 1\n[hosts."x\\u009b"]\ncertt = 1\n')
    output = told()
    assert "\x1b" not in output
    assert "unknown key `a\\u001b[31m\\u000ab`; there is handler" in output
    assert '[hosts."x\\u009b"] unknown key `certt`' in output


def test_a_certificate_that_cannot_be_kept_is_told_without_flags_of_other_commands(told):
    output = told("app:hello", "--listen", "0", XDG_DATA_HOME="/dev/null/x")
    assert (
        "none can be made: cannot keep the authority in /dev/null/x/portico/serve: Not a directory. Give --host"
        in output
    )
    assert "--ca" not in output


@pytest.mark.parametrize("workers", ["0", "1"])
def test_a_pid_file_that_is_none_is_refused_and_not_waited_for(told, tmp_path, workers):
    os.mkfifo(tmp_path / "pipe")
    output = told("app:hello", "--pid-file", "pipe", "--workers", workers, *CLEAR)
    assert output == "portico run: --pid-file: pipe is there, and is no file\n"


@pytest.mark.parametrize(
    ("arguments", "usage", "words"),
    [
        (["run", "app:hello", "--port", "80"], "portico run", "unrecognized arguments: --port: did you mean --listen?"),
        (["run", "app:hello", "--bind=0.0.0.0:80"], "portico run", "unrecognized arguments: --bind: did you mean --listen?"),
        (["run", "app:hello", "-w", "4"], "portico run", "unrecognized arguments: -w: did you mean --workers?"),
        (["run", "app:hello", "--certfile", "a"], "portico run", "unrecognized arguments: --certfile: did you mean --host?"),
        (["serve", ".", "--lisning"], "portico serve", "unrecognized arguments: --lisning: did you mean --listing?"),
        (["check", "--zebra"], "portico check", "unrecognized arguments: --zebra; portico check --help shows what there is"),
        (["demo", "--listen", "80"], "portico demo", "unrecognized arguments: --listen: did you mean --port?"),
        (["run", "app:hello", "more"], "portico run", "unrecognized arguments: more; portico run --help"),
    ],
)  # fmt: skip
def test_a_flag_that_is_none_is_told_with_the_likeliest(capsys, arguments, usage, words):
    with pytest.raises(SystemExit, match="2"):
        cli.main(arguments)
    told = capsys.readouterr().err
    assert told.startswith(f"usage: {usage} [-h]")
    assert f"{usage}: error: {words}" in told


@pytest.mark.parametrize("given", ["0.0.0.0", "0.0.0.0:443", "[::]:443", "localhost:80"])
def test_an_address_for_host_is_told_where_it_belongs(told, given):
    output = told("app:hello", "--host", given)
    assert output.startswith(f"portico run: --host {given!r} is not NAME=CERT,KEY")
    assert output.endswith("; an address to listen on goes with --listen\n")
