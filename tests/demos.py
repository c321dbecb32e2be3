"""The demo, as its tests start and ask it."""

from __future__ import annotations

import re
import shlex
from functools import cached_property
from pathlib import Path
from urllib.parse import urlencode

from clients import request, trusting
from programs import Program

HOSTS = ("localhost", "a.localhost", "b.localhost", "pages.localhost")
BROWSER = {"accept": "text/html,application/xhtml+xml;q=0.9,*/*;q=0.8"}
FORM = {"content-type": "application/x-www-form-urlencoded"}


class Demo(Program):
    """A demo that has started."""

    command = ("-m", "portico", "demo")

    def __init__(self, home, *arguments, **environment):
        super().__init__(*self.command, *arguments, **{"HOME": str(home), **environment})
        try:
            self.wait_for("^Ctrl-C stops the server")
            self.port = int(re.search(r"https://localhost:(\d+)/", self.output)[1])
            self.ca = Path(shlex.split(self.curls()[0])[4])
        except BaseException:
            self.close()
            raise

    @cached_property
    def context(self):
        return trusting(self.ca.read_bytes())

    def ask(self, host, path="/", method="GET", **more):
        return request(self.port, method, path, host=host, context=self.context, **more)

    def browse(self, host, path="/"):
        return self.ask(host, path, headers=BROWSER)

    def visitor(self):
        return Visitor(self)

    def post(self, headers=(), **fields):
        return self.ask("b.localhost", method="POST", body=urlencode(fields), headers={**FORM, **dict(headers)})

    def answered(self):
        stats = self.ask("localhost", "/stats.json").json()
        return sum(stats["responses"].values())


class DemoWithoutPages(Demo):
    """One for which pydantic-monty is not installed."""

    command = ("-c", "import sys; sys.modules['pydantic_monty'] = None; from portico import cli; cli.main()", "demo")


class Visitor:
    """Somebody who looks at the server pages and keeps their cookie."""

    def __init__(self, demo):
        self.demo = demo
        self.cookies = {}

    def get(self, path, **headers):
        return self._ask("GET", path, headers)

    def post(self, path, fields, **headers):
        return self._ask("POST", path, {**FORM, **headers}, urlencode(fields))

    def _ask(self, method, path, headers, body=None):
        headers = {**BROWSER, **headers, "cookie": "; ".join(f"{name}={it}" for name, it in self.cookies.items())}
        reply = self.demo.ask("pages.localhost", path, method, headers=headers, body=body)
        for cookie in reply.all("set-cookie"):
            name, value = cookie.split(";")[0].split("=", 1)
            self.cookies[name] = value
        return reply
