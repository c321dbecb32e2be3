"""A program that works off a queue, and carries a hidden status page over itself.

Until somebody looks, the page costs a socket and a few threads that sleep: the process that runs it starts with the
first look. Who does not know its path gets a 404 from the core. Needs pydantic-monty: pip install 'portico[pages]'.

python examples/status_page.py
"""

import contextlib
import hashlib
import itertools
import os
import queue
import secrets
import tempfile
import threading
import time
from pathlib import Path

import portico

PAGE = """\
<!doctype html>
<meta http-equiv="refresh" content="2">
<title>Worker <%= status()["process"] %></title>
<% now = status() %>
<h1><%= "Paused" if now["paused"] else "At work" %> for <%= now["seconds"] %> s</h1>
<p><%= now["done"] %> done, <%= now["failed"] %> failed, <%= now["waiting"] %> waiting
<ol>
<% for name, digest in now["newest"]: %>
  <li><%= name %>: <code><%= digest %></code>
<% end %>
</ol>
<form method="post" action="pause.psp"><button><%= "Go on" if now["paused"] else "Pause" %></button></form>
"""
PAUSE = """\
<% if request.method != "POST": %>
<% exit(405, "by POST\\n") %>
<% end %>
<% pause(not status()["paused"]) %>
<% exit(303, "./") %>
"""


class Worker:
    """What this program is for: it takes jobs from a queue, one after the other."""

    def __init__(self):
        self.jobs = queue.Queue(100)
        self.started = time.monotonic()
        self.done = self.failed = 0
        self.newest = []
        self.going = threading.Event()
        self.going.set()

    def run(self):
        while True:
            self.going.wait()
            name, text = self.jobs.get()
            try:
                digest = hashlib.sha256(text.encode()).hexdigest()
            except UnicodeEncodeError:
                self.failed += 1
            else:
                self.newest = [(name, digest[:12]), *self.newest[:4]]
                self.done += 1

    # What the page may call. It gets plain data, and nothing else of the worker.

    def status(self):
        return {
            "process": os.getpid(),
            "seconds": round(time.monotonic() - self.started),
            "paused": not self.going.is_set(),
            "done": self.done,
            "failed": self.failed,
            "waiting": self.jobs.qsize(),
            "newest": self.newest,
        }

    def pause(self, yes):
        self.going.clear() if yes else self.going.set()


def bring_jobs(worker):
    for number in itertools.count(1):
        worker.jobs.put((f"job {number}", f"text {number}" if number % 10 else "\ud800"))
        time.sleep(0.05)


if __name__ == "__main__":
    worker, path = Worker(), f"/{secrets.token_urlsafe(16)}"
    threading.Thread(target=bring_jobs, args=(worker,), daemon=True).start()
    with tempfile.TemporaryDirectory(prefix="portico-status-") as folder:
        Path(folder, "index.psp").write_text(PAGE)
        Path(folder, "pause.psp").write_text(PAUSE)
        pages = portico.Pages(folder, functions={"status": worker.status, "pause": worker.pause}, workers=1)
        router = portico.Router()
        router.mount(path, pages)
        with portico.Server(router, threads=(1, 4)) as server:
            url = server.listen(0, tls=False).url
            print("At work. To see how it goes:")
            print(f"curl {url}{path}/")
            print(f"curl {url}{path}/pause.psp")
            print(f"curl -s -L -d pause= {url}{path}/pause.psp")
            print(f"curl -s -w '\\n' {url}/status")
            print("Ctrl-C ends it.", flush=True)
            with contextlib.suppress(KeyboardInterrupt):
                worker.run()
        pages.close()
