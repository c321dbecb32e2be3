"""What a page may use: each limit is a 500 for that request alone, and the session is what it was before. And what its
worker process may do: next to nothing."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import textwrap
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

import portico
from clients import wait_until
from page_sites import Site, Visitor
from portico.pages import _confine, _workers
from portico.pages._engine import Engine
from portico.pages._language import compile_page

LIMITS = portico.PageLimits(
    seconds=0.5, memory_bytes=8 * 2**20, output_bytes=100_000, recursion=100, calls=50, state_bytes=200_000
)
linux = pytest.mark.skipif(sys.platform != "linux", reason="the kernel of Linux confines workers")


@pytest.fixture
def site(tmp_path, serve):
    site = Site(tmp_path, serve, limits=LIMITS, workers=2, functions={"host": lambda: 1, "big": lambda: "x" * 10**8})
    yield site
    site.close()


def workers_of(engine):
    """The processes that run pages for an engine."""
    # One page first: a worker is not yet what it will be while it is being confined.
    engine.run(compile_page("/start.psp", "x", None), None, {}, {})
    children = psutil.Process().children(recursive=True)
    return [child for child in children if child.name() == "monty"]


PASSED = {
    "time": ("while True: pass", "time"),
    "time in one operation": ("x = max(range(10**10))", "time"),
    "memory by little and little": ("x = []\nwhile True: x.append('a' * 10000)", "memory"),
    "memory at once": ("x = 'a' * 10**9", "memory"),
    "memory by a power": ("x = 9 ** 9 ** 9", "memory"),
    "memory from the host": ("x = big()", "memory"),
    "output by little and little": ("while True: print('a' * 1000)", "output"),
    "output to the log": ("import sys\nwhile True: print('a' * 1000, file=sys.stderr)", "output"),
    "recursion": ("def f(): return f()\nf()", "recursion"),
    "recursion of two": ("def f(): return g()\ndef g(): return f()\nf()", "recursion"),
    "calls of the host": ("while True: host()", "calls"),
    "what the session keeps": ("x = 'a' * 300000", "state"),
    "sleep": ("import time\ntime.sleep(0.001)", "time"),
    "sleep of asyncio": ("import asyncio\nawait asyncio.sleep(5)", "time"),
}


@pytest.mark.parametrize(("code", "reason"), PASSED.values(), ids=PASSED)
def test_a_limit_fails_its_request_and_takes_the_session_back(site, code, reason):
    client = site.write("set.psp", "<% n = 1\nitems = []\nsession['s'] = 1 %>").client()
    client.get("/set.psp")
    site.write("page.psp", f"<%\nn = 2\nitems.append(2)\nsession['s'] = 2\n{code}\n%>")
    began = time.monotonic()
    reply = client.get("/page.psp")
    assert (reply.status_code, reply.text) == (500, "500 Internal Server Error\n")
    assert time.monotonic() - began < 20
    error = site.failure()
    assert (error.reason, error.page) == (reason, "/page.psp")
    site.write("show.psp", "<%= n %> <%= items %> <%= session['s'] %>")
    assert client.get("/show.psp").text == "1 [] 1"


@pytest.mark.parametrize("name", ["time", "calls of the host", "sleep", "output by little and little"])
def test_a_page_cannot_hold_a_limit_up(site, name):
    code, reason = PASSED[name]
    body = textwrap.indent(code, "    ")
    page = f"<%\nwhile True:\n  try:\n{body}\n  except BaseException:\n    n = 0\n  finally:\n    m = 0\n%>"
    assert site.get(page).status_code == 500
    assert site.failure().reason == reason


def test_others_are_served_while_a_page_runs_into_its_limit(site):
    site.write("slow.psp", "<% while True: pass %>").write("quick.psp", "quick")
    with ThreadPoolExecutor(1) as pool:
        slow = pool.submit(site.client().get, "/slow.psp")
        client = site.client()
        meanwhile = 0
        while not slow.done():
            assert client.get("/quick.psp").text == "quick"
            meanwhile += not slow.done()
        assert slow.result().status_code == 500
        assert meanwhile > 0


def test_waiting_for_the_host_is_not_time_of_the_page(tmp_path):
    engine = Engine(portico.PageLimits(seconds=0.2), 1)
    visitor = Visitor(tmp_path, engine=engine, functions={"wait": lambda: threading.Event().wait(0.5)})
    assert visitor.show("<% wait() %>done") == "done"
    engine.close()


def test_a_worker_that_is_held_up_still_says_that_the_time_is_over(tmp_path):
    engine = Engine(portico.PageLimits(seconds=0.5), 1)
    visitor = Visitor(tmp_path, engine=engine)
    visitor.run("one")
    (worker,) = workers_of(engine)

    def hold_up():
        worker.suspend()
        threading.Timer(2, worker.resume).start()

    visitor.functions = {"hold_up": hold_up}
    assert visitor.fail("<% hold_up()\nwhile True: pass %>").reason == "time"
    assert workers_of(engine) == [worker]
    engine.close()


def test_a_worker_that_dies_costs_one_request(tmp_path):
    engine = Engine(portico.PageLimits(), 1)
    visitor = Visitor(tmp_path, engine=engine)
    visitor.run("<% n = 1 %>")
    victims = workers_of(engine)
    assert len(victims) == 1
    visitor.functions = {"kill": victims[0].kill}
    error = visitor.fail("<% n = 2\nkill()\nwhile True: pass %>")
    assert error.reason == "worker"
    assert visitor.show("<%= n %>") == "1"
    assert workers_of(engine)[0].pid != victims[0].pid
    engine.close()


def test_closing_ends_the_workers_and_the_next_page_starts_them(tmp_path):
    engine = Engine(portico.PageLimits(), 1)
    visitor = Visitor(tmp_path, engine=engine)
    assert visitor.show("one") == "one"
    (worker,) = workers_of(engine)
    engine.close()
    wait_until(lambda: not worker.is_running(), "the end of the worker")
    assert visitor.show("two") == "two"
    engine.close()


def test_ten_thousand_sessions_take_less_than_100_megabytes(tmp_path):
    engine = Engine(portico.PageLimits(), 1)
    page = "<h1><%= title() %></h1><% for r in rows(20): %>\n<li><%= r %></li>\n<% end %><% n = 1 %>" + "text\n" * 400
    functions = {"title": lambda: "T", "rows": lambda count: [f"row {number}" for number in range(count)]}
    visitor = Visitor(tmp_path, engine=engine, functions=functions)
    for _ in range(3):
        visitor.run(page)
    assert len(visitor.state) < 10_000
    engine.close()


# ---- the process


@linux
def test_workers_have_no_privileges_no_descriptors_and_no_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("PORTICO_TEST_SECRET", "SECRET")
    read, write = os.pipe()
    os.set_inheritable(read, True)
    engine = Engine(portico.PageLimits(), 1)
    try:
        (worker,) = workers_of(engine)
        folder = Path(f"/proc/{worker.pid}")
        status = dict(line.split(":\t", 1) for line in (folder / "status").read_text().splitlines() if ":\t" in line)
        assert status["NoNewPrivs"] == "1"
        for kind in ("CapInh", "CapPrm", "CapEff", "CapAmb", "CapBnd"):
            assert kind == "CapBnd" or int(status[kind], 16) == 0
        assert int(status["CapEff"], 16) == 0
        if "seccomp" not in _confine.missing():
            assert status["Seccomp"] == "2"
        assert {int(name) for name in os.listdir(folder / "fd")} <= {0, 1, 2}
        assert b"SECRET" not in (folder / "environ").read_bytes()
        assert os.readlink(folder / "cwd") == "/"
        limits = (folder / "limits").read_text()
        for name in ("Max core file size", "Max file size"):
            assert [line.split()[-3:-1] for line in limits.splitlines() if line.startswith(name)] == [["0", "0"]]
    finally:
        engine.close()
        os.close(read)
        os.close(write)


ATTEMPTS = {
    "read a file": "open('/etc/passwd')",
    "list a folder": "os.listdir('/')",
    "write a file": "open('/tmp/portico-escaped', 'w')",
    "look at a process": "open('/proc/1/status')",
    "remove a file": "os.remove(scratch)",
    "rename a file": "os.rename(scratch, scratch + '.new')",
    "make a folder": "os.mkdir(scratch + '.d')",
    "make a link": "os.symlink('/etc/passwd', scratch + '.l')",
    "change rights": "os.chmod(scratch, 0o777)",
    "open a socket": "socket.socket()",
    "open a Unix socket": "socket.socket(socket.AF_UNIX)",
    "make a socket pair": "socket.socketpair()",
    "make a process": "os.fork()",
    "run a program": "os.execve('/bin/sh', ['sh', '-c', 'true'], {})",
    "send a signal": "os.kill(os.getppid(), 0)",
    "send a signal by tgkill": "call(234, os.getppid(), os.getppid(), 0)",
    "trace a process": "call(101, 16, os.getppid(), 0, 0)",
    "read memory of a process": "call(310, os.getppid(), 0, 0, 0, 0, 0)",
    "become another user": "os.setuid(65534)",
    "make a namespace": "call(272, 0x10000000)",
    "mount": "call(165, 0, 0, 0, 0, 0)",
    "make memory that is a file": "os.memfd_create('x')",
    "set up io_uring": "call(425, 1, 0)",
    "load a program into the kernel": "call(321, 0, 0, 0)",
    "raise a limit": "resource.setrlimit(resource.RLIMIT_FSIZE, (1, 1))",
    "make a userfaultfd": "call(323, 0)",
    "watch events of the machine": "call(298, 0, 0, 0, 0, 0)",
    "look at keys": "call(250, 0, 0, 0, 0, 0)",
    "set a hidden name": "call(157, 4, 1, 0, 0, 0)",
}


@linux
@pytest.mark.skipif(os.uname().machine != "x86_64", reason="numbers of system calls are those of x86-64")
@pytest.mark.skipif(bool(_confine.missing()), reason=f"this kernel does not offer {_confine.missing()}")
@pytest.mark.parametrize("attempt", ATTEMPTS.values(), ids=ATTEMPTS)
def test_a_process_that_is_confined_cannot(tmp_path, attempt):
    scratch = tmp_path / "scratch"
    scratch.write_text("here")
    # The same steps that a worker goes through, and then this attempt instead of the worker's program.
    program = f"""
import ctypes, os, resource, socket, sys
sys.path.insert(0, {str(Path(_confine.__file__).parent)!r})
import _confine
scratch = {str(scratch)!r}
libc = ctypes.CDLL(None, use_errno=True)
def call(number, *arguments):
    if libc.syscall(number, *[ctypes.c_long(one) for one in arguments]) < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
os.chdir("/")
_confine._limit(2**31)
_confine._drop_capabilities()
_confine._must(libc.prctl(38, 1, 0, 0, 0), "no_new_privs")
_confine._restrict_files("/bin/true")
_confine._filter_calls()
try:
    {attempt}
except (OSError, ValueError) as error:
    sys.stdout.write(f"refused: {{error}}")
else:
    sys.stdout.write("ESCAPED")
sys.stdout.flush()
os._exit(0)
"""
    done = subprocess.run(
        [sys.executable, "-I", "-c", program], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout.startswith("refused: "), done.stdout + done.stderr
    assert any(word in done.stdout for word in ("not permitted", "Permission denied", "not implemented", "not allowed"))
    assert os.listdir(tmp_path) == ["scratch"]


def test_what_the_kernel_does_not_offer_is_said_at_start(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(_confine, "missing", lambda: ["landlock", "seccomp"])
    engine = Engine(portico.PageLimits(), 1)
    with caplog.at_level(logging.WARNING, "portico.pages"):
        assert Visitor(tmp_path, engine=engine).show("it runs") == "it runs"
    engine.close()
    assert "run without landlock and seccomp" in caplog.text


def test_a_frozen_program_says_that_its_workers_are_unconfined(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(sys, "frozen", True, raising=False)
    engine = Engine(portico.PageLimits(), 1)
    with caplog.at_level(logging.WARNING, "portico.pages"):
        assert Visitor(tmp_path, engine=engine).show("it runs") == "it runs"
    engine.close()
    assert "run unconfined" in caplog.text


def test_unconfined_workers_run_where_they_are_asked_for(tmp_path):
    engine = Engine(portico.PageLimits(), 1, confine=False)
    assert Visitor(tmp_path, engine=engine).show("it runs") == "it runs"
    engine.close()


def test_a_program_that_ends_leaves_no_worker_and_no_file(tmp_path):
    (tmp_path / "page.psp").write_text("<%= 1 + 1 %>")
    (tmp_path / "temporary").mkdir()
    program = f"""
import psutil, urllib.request, portico
from portico import testing
pages = portico.Pages({str(tmp_path)!r})
assert testing.call_on_server(pages, lambda url: urllib.request.urlopen(url + "/page.psp").read()) == b"2"
print(*[child.pid for child in psutil.Process().children(recursive=True)])
"""
    command = [sys.executable, "-W", "error", "-c", program]
    variables = {**os.environ, "TMPDIR": str(tmp_path / "temporary")}
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True, env=variables)
    assert done.stderr == ""
    workers = [int(pid) for pid in done.stdout.split()]
    assert workers
    wait_until(lambda: not any(psutil.pid_exists(pid) for pid in workers), "the end of the workers")
    assert os.listdir(tmp_path / "temporary") == []


def test_workers_start_where_no_file_in_memory_can_be_run(tmp_path, monkeypatch):
    monkeypatch.setattr(_workers, "_in_memory", lambda script: None)
    monkeypatch.setattr(_workers.tempfile, "tempdir", str(tmp_path))
    engine = Engine(portico.PageLimits(), 1)
    assert Visitor(tmp_path / "site", engine=engine).show("it runs") == "it runs"
    assert [name for name in os.listdir(tmp_path) if name.startswith("portico-pages-")]
    engine.close()
    assert os.listdir(tmp_path) == ["site"]


def test_pages_do_not_search_the_path_for_modules(site, monkeypatch):
    # For one that is missing it is searched anew each time: five times a page, longer than the page itself.
    names = []

    class Searches:
        @staticmethod
        def find_spec(name, path=None, target=None):
            names.append(name)

    site.get("<%= host() %>")
    monkeypatch.setattr(sys, "meta_path", [Searches, *sys.meta_path])
    assert site.get("<%= host() %>").text == "1"
    assert not names


def test_without_pydantic_monty_only_pages_are_missing():
    program = """
import sys
sys.modules["pydantic_monty"] = None
import portico
try:
    portico.Pages(".")
except portico.ConfigError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert "pip install 'portico[pages]'" in done.stdout


def test_those_who_have_no_pages_do_not_load_the_sandbox():
    program = "import sys, portico; print('pydantic_monty' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "False\n"
