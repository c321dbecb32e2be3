"""What server pages cost: `.venv-bench/bin/python loadtest/pages.py` (needs wrk, two cores, and what `make bench` has
installed).

A page with two calls of functions and a table of 20 rows, 64 visitors, each with a session. The server and its worker
share one core, wrk has another. Beside it, in turns, the same page by Jinja2 in Flask on gunicorn, in no sandbox, its
session in the cookie. Prints requests a second, the CPU that each took, the time of the first page, and what 10,000
sessions take of memory.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import multiprocessing
import os
import re
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path

import psutil

import portico

PAGE = """\
<html><h1><%= title() %></h1><table>
<% for row in rows(20): %>
<tr><td><%= row %></td></tr>
<% end %>
</table><% visits = session["visits"] = session["visits"] + 1 if "visits" in session else 1 %><%= visits %></html>
"""
# Each request is of the next visitor.
SCRIPT = """\
cookies = {%s}
turn = 0
request = function()
  turn = turn + 1
  return wrk.format("GET", "/page.psp", {cookie = cookies[turn %% #cookies + 1]})
end
"""


def rows(count: int) -> list[str]:
    return [f"row {number}" for number in range(count)]


def title() -> str:
    return "A table"


# The same for Flask.
APPLICATION = """\
import flask

app = flask.Flask(__name__)
app.secret_key = "0" * 32
page = app.jinja_env.from_string(
    "<html><h1>{{ title() }}</h1><table>{% for row in rows(20) %}<tr><td>{{ row }}</td></tr>{% endfor %}"
    "</table>{{ visits }}</html>"
)


@app.get("/page.psp")
def show():
    visits = flask.session["visits"] = flask.session.get("visits", 0) + 1
    return page.render(title=lambda: "A table", rows=lambda count: [f"row {n}" for n in range(count)], visits=visits)
"""


def serve(folder: str, ours: Connection) -> None:
    on_one_core()
    pages = portico.Pages(folder, functions={"rows": rows, "title": title}, workers=1)
    with portico.Server(pages, io_threads=1) as server:
        ours.send(server.listen(0, tls=False).port)
        ours.recv()
    pages.close()


def on_one_core() -> None:
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})


def visit(port: int) -> str:
    """A new visitor's cookie."""
    connection = http.client.HTTPConnection("127.0.0.1", port)
    connection.request("GET", "/page.psp")
    response = connection.getresponse()
    response.read()
    connection.close()
    assert response.status == 200, response.status
    return (response.getheader("set-cookie") or "").split(";")[0]


@contextlib.contextmanager
def flask_on_gunicorn(folder: str) -> Iterator[tuple[int, psutil.Process]]:
    """Its port and process: one worker with four threads, as it keeps connections alive then."""
    Path(folder, "application.py").write_text(APPLICATION)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    command = f"{sys.executable} -m gunicorn --bind 127.0.0.1:{port} --worker-class gthread --threads 4 application:app"
    with subprocess.Popen(command.split(), cwd=folder, preexec_fn=on_one_core, stderr=subprocess.DEVNULL) as process:
        try:
            end = time.monotonic() + 20
            while True:
                try:
                    visit(port)
                    break
                except OSError:
                    if time.monotonic() > end:
                        raise
                    time.sleep(0.1)
            yield port, psutil.Process(process.pid)
        finally:
            process.terminate()


class Load:
    """64 visitors of one server."""

    def __init__(self, name: str, port: int, process: psutil.Process, folder: str) -> None:
        self.name, self.port = name, port
        self.processes = [process, *process.children(recursive=True)]
        self.script = Path(folder, f"{port}.lua")
        self.script.write_text(SCRIPT % ", ".join(f'"{visit(port)}"' for _ in range(64)))

    def run(self, seconds: int) -> None:
        before = self.cpu()
        other = max(os.sched_getaffinity(0))
        command = f"taskset -c {other} wrk -t1 -c16 -d{seconds} -s {self.script} http://127.0.0.1:{self.port}/"
        said = subprocess.run(command.split(), capture_output=True, text=True, check=True).stdout
        done = int(re.findall(r"(\d+) requests in", said)[0])
        assert "Non-2xx" not in said, said
        cpu = (self.cpu() - before) / done
        print(f"{self.name}: {done / seconds:.0f} pages a second, {cpu * 1e6:.0f} µs of CPU each", flush=True)

    def cpu(self) -> float:
        return sum(sum(one.cpu_times()[:2]) for one in self.processes)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=5, help="how long each of three rounds takes (5)")
    parser.add_argument("--sessions", type=int, default=10_000, help="how many sessions are made (10000)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "page.psp").write_text(PAGE)
        theirs, ours = multiprocessing.Pipe()
        server = multiprocessing.get_context("spawn").Process(target=serve, args=(folder, ours))
        server.start()
        port = theirs.recv()
        began = time.perf_counter()
        visit(port)
        print(f"first page: {(time.perf_counter() - began) * 1e3:.0f} ms")
        process = psutil.Process(server.pid)
        with flask_on_gunicorn(folder) as (its_port, its_process):
            loads = [Load("portico", port, process, folder), Load("Flask", its_port, its_process, folder)]
            for _ in range(3):
                for load in loads:
                    load.run(options.seconds)
        resident = process.memory_info().rss
        for _ in range(options.sessions - 65):
            visit(port)
        print(f"{options.sessions} sessions: {(process.memory_info().rss - resident) / 2**20:.1f} MB more than 65")
        theirs.send(None)
        server.join()


if __name__ == "__main__":
    main()
