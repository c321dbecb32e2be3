"""What server pages cost: `.venv/bin/python loadtest/pages.py` (needs wrk, portico[pages], and two cores).

A page with two calls of functions and a table of 20 rows, 64 visitors, each with a session. The server and its worker
share one core, wrk has another. Prints requests a second, the CPU that each took, the time of the first page, and what
10,000 sessions take of memory.
"""

from __future__ import annotations

import argparse
import http.client
import multiprocessing
import os
import re
import subprocess
import tempfile
import time
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


def serve(folder: str, ours: Connection) -> None:
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    pages = portico.Pages(folder, functions={"rows": rows, "title": title}, workers=1)
    with portico.Server(pages, io_threads=1) as server:
        ours.send(server.listen(0, tls=False).port)
        ours.recv()
    pages.close()


def visit(port: int) -> str:
    """A new visitor's cookie."""
    connection = http.client.HTTPConnection("127.0.0.1", port)
    connection.request("GET", "/page.psp")
    response = connection.getresponse()
    response.read()
    connection.close()
    assert response.status == 200, response.status
    return (response.getheader("set-cookie") or "").split(";")[0]


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
        cookies = [visit(port) for _ in range(64)]
        script = Path(folder, "visitors.lua")
        script.write_text(SCRIPT % ", ".join(f'"{cookie}"' for cookie in cookies))
        process = psutil.Process(server.pid)
        processes = [process, *process.children(recursive=True)]
        other = max(os.sched_getaffinity(0))
        for _ in range(3):
            before = sum(sum(one.cpu_times()[:2]) for one in processes)
            command = f"taskset -c {other} wrk -t1 -c16 -d{options.seconds} -s {script} http://127.0.0.1:{port}/"
            said = subprocess.run(command.split(), capture_output=True, text=True, check=True).stdout
            done = int(re.findall(r"(\d+) requests in", said)[0])
            assert "Non-2xx" not in said, said
            cpu = (sum(sum(one.cpu_times()[:2]) for one in processes) - before) / done
            print(f"{done / options.seconds:.0f} pages a second, {cpu * 1e6:.0f} µs of CPU each")
        resident = process.memory_info().rss
        for _ in range(options.sessions - 65):
            visit(port)
        print(f"{options.sessions} sessions: {(process.memory_info().rss - resident) / 2**20:.1f} MB more than 65")
        theirs.send(None)
        server.join()


if __name__ == "__main__":
    main()
