"""Sites of server pages, for their tests."""

from __future__ import annotations

import contextlib

import portico
from portico.pages._engine import Engine
from portico.pages._folder import Folder


class Visitor:
    """Runs pages of a folder one after another in one interpreter, without a server."""

    def __init__(self, folder, limits=None, functions=None, given=None, engine=None):
        self.path = folder
        folder.mkdir(exist_ok=True)
        self.folder = Folder(str(folder))
        self.engine = engine or Engine(limits or portico.PageLimits(), 1)
        self.functions = functions or {}
        self.values = {}
        self.given = {"request": dict, "query": dict, "headers": dict, "session": lambda: self.values, **(given or {})}
        self.state = None

    def run(self, text, name="/page.psp"):
        """Writes a page and runs it; returns what it did."""
        self.write(text, name)
        result = self.engine.run(self.folder.program(name), self.state, self.given, self.functions)
        self.state = result.state
        return result

    def show(self, text, name="/page.psp"):
        """Writes a page and runs it; returns what it printed."""
        return self.run(text, name).output

    def fail(self, text, name="/page.psp"):
        """Writes a page and runs it; returns how it failed."""
        try:
            result = self.run(text, name)
        except portico.PageError as error:
            return error
        raise AssertionError(f"it did not fail, but printed {result.output!r}")

    def write(self, text, name="/page.psp"):
        file = self.path / name.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        # By renaming, as editors do, so that each version is another file to the cache.
        new = file.with_name(file.name + ".new")
        new.write_text(text)
        new.replace(file)


class Site:
    """A folder of pages that a server serves."""

    def __init__(self, folder, serve, *, sessions=None, **options):
        self.path = folder
        folder.mkdir(exist_ok=True)
        self.pages = portico.Pages(folder, **options)
        self.served = serve(self.pages, sessions=sessions)
        self._clients = contextlib.ExitStack()

    def write(self, name, text):
        file = self.path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        new = file.with_name(file.name + ".new")
        new.write_text(text)
        new.replace(file)
        return self

    def client(self, **more):
        """A visitor: keeps cookies."""
        return self._clients.enter_context(self.served.httpx(http2=False, **more))

    def get(self, text, path="/page.psp", **more):
        """Writes a page and asks for it, as a new visitor."""
        self.write(path.split("?")[0].lstrip("/"), text)
        return self.client().get(path, **more)

    def failure(self):
        """How the last page failed."""
        return self.served.errors.next(portico.PageError)[0]

    def close(self):
        self._clients.close()
        self.pages.close()
