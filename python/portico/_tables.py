"""The routes of a router as one server's core has them: each has threads, an event loop and lifespans of its own."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from . import _core
from ._asgi import Application
from ._errors import ConfigError
from ._files import StaticFiles
from ._handlers import check_handler, is_async
from ._middleware import Candidate, Middleware, compose, not_found

if TYPE_CHECKING:
    from ._handlers import Function
    from ._router import Mount, Route, Router
    from ._server import Handler, Server

# Held while routes are added or given to a server: a router may be in several, and several in one.
changing = threading.RLock()

# As many as a request is passed on by (`dispatch/mod.rs`).
_MOST_NESTED = 32


class Giving:
    """Handlers on their way to the core of a server. At the end of the `with` it has them, or nobody: the lifespans of
    apps among them are the server's from then on."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self._apps: dict[Application, Application] = {}
        self._tables: list[Table] = []
        self._nested = 0

    def take(self, handler: Handler, middleware: tuple[Middleware, ...] = ()) -> tuple[Any, _core.Bridge | None]:
        """The handler as the core takes it, and how it comes to the event loop, where it is to be called there."""
        from ._router import Router

        if isinstance(handler, Router):
            return self._table(handler, middleware).core, None
        if isinstance(handler, StaticFiles) and not middleware:
            return handler._core, None
        # Those of a router were checked when it got them.
        check_handler(handler)
        return self.call([Candidate((), handler)], middleware)

    def call(
        self, candidates: list[Candidate], middleware: tuple[Middleware, ...]
    ) -> tuple[Function, _core.Bridge | None]:
        """The same for what answers by guards, with middleware around it."""
        on_loop = self.server._core.dispatch == "asyncio"
        own = [Candidate(one.guards, self._own(one.handler)) for one in candidates]
        handler = compose(own, middleware, not on_loop)
        bridge = self.server._loop.bridge() if on_loop or is_async(handler) else None
        if bridge is not None:
            self.server._needs_loop = True
            if self.server._listens:
                self.server._loop.start(self.server._core)
        return handler, bridge

    def _own(self, handler: Function) -> Function:
        if not isinstance(handler, Application):
            return handler
        own = self._apps.get(handler) or self.server._loop.lifespans.own(handler)
        assert isinstance(own, Application)
        self._apps[handler] = own
        return own

    def _table(self, router: Router, middleware: tuple[Middleware, ...]) -> Table:
        """That of a router in this server, below that middleware."""
        with changing:
            for known in router._live_tables():
                if known.server() is self.server and known.middleware == middleware:
                    return known
            if self._nested == _MOST_NESTED:
                raise ConfigError(f"more than {_MOST_NESTED} routers are mounted one in another")
            self._nested += 1
            table = Table(self.server, middleware)
            self._tables.append(table)
            table.fill(self, router)
            router._tables.append(table)
            self._nested -= 1
            return table

    def __enter__(self) -> Giving:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        for table in self._tables:
            table.core.let_go()
        if kind is not None:
            return
        lifespans = self.server._loop.lifespans
        for app in self._apps.values():
            lifespans.add(app)
        if self._apps and self.server._listens:
            lifespans.start_soon(self.server._loop.loop)


class Table:
    """The routes of one router in one server, with the middleware of the routers in which it is mounted there."""

    def __init__(self, server: Server, middleware: tuple[Middleware, ...]) -> None:
        self.core = _core.Router()
        self.server = weakref.ref(server)
        self.middleware = middleware

    def fill(self, giving: Giving, router: Router) -> None:
        """Adds everything that the router has."""
        for routes in router._routes_by_place():
            self._put_route(giving, router, routes)
        for mount in router._mounts.values():
            self._put_mount(giving, router, mount)
        around = self._around(router)
        if around:
            giving.server._core.set_missing(self.core, *giving.call([Candidate((), not_found)], around))

    def refill(self, giving: Giving, router: Router) -> None:
        """Everything anew and at once, as other middleware is around it."""
        other = Table(giving.server, self.middleware)
        other.fill(giving, router)
        self.core.replace(other.core)

    def put_route(self, router: Router, routes: list[Route]) -> None:
        """Adds what answers one method at one path, in place of what did."""
        if (server := self._server()) is not None:
            with Giving(server) as giving:
                self._put_route(giving, router, routes)

    def put_mount(self, router: Router, mount: Mount) -> None:
        """Adds a mount."""
        if (server := self._server()) is not None:
            with Giving(server) as giving:
                self._put_mount(giving, router, mount)

    def put_middleware(self, router: Router) -> None:
        """The router has more middleware."""
        if (server := self._server()) is not None:
            with Giving(server) as giving:
                self.refill(giving, router)

    def _put_route(self, giving: Giving, router: Router, routes: Iterable[Route]) -> None:
        first, *_ = routes = list(routes)
        candidates = [Candidate(route.guards, route.handler) for route in routes]
        handler, bridge = giving.call(candidates, self._around(router))
        giving.server._core.add_route(self.core, first.method, first._pattern, handler, bridge)

    def _put_mount(self, giving: Giving, router: Router, mount: Mount) -> None:
        handler, bridge = giving.take(mount.handler, self._around(router))
        giving.server._core.add_route(self.core, None, mount._pattern, handler, bridge)

    def _around(self, router: Router) -> tuple[Middleware, ...]:
        return (*self.middleware, *router._middleware)

    def _server(self) -> Server | None:
        """None where that is gone, or closed, or a forked copy: nothing is to be told to it."""
        server = self.server()
        return server if server is not None and server._is_ours() and self.core.is_alive() else None
