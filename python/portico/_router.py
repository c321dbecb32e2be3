"""`portico.Router`: many handlers behind one, by path and method. Requests are matched in `rust/core/src/routing/`."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from . import _core
from ._errors import ConfigError
from ._handlers import Function, check_handler
from ._middleware import Enter, Guard, Leave, Middleware
from ._reports import name_of
from ._tables import Table, changing

if TYPE_CHECKING:
    from ._server import Handler

H = TypeVar("H", bound=Callable[..., Any])

_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")


@dataclass(frozen=True)
class Route:
    """One route of a router, as `Router.routes` tells them."""

    method: str
    """`GET` and so on, in upper case."""
    path: str
    """Its pattern, as it was given."""
    handler: Function
    """Who answers."""
    name: str | None = None
    """What `Router.url_for` calls it."""
    guards: tuple[Guard, ...] = ()
    """What has to let a request in."""
    _pattern: _core.Pattern = field(repr=False, compare=False, kw_only=True)

    def __str__(self) -> str:
        return f"{self.method} {self.path} ({name_of(self.handler)})"


@dataclass(frozen=True)
class Mount:
    """A handler for all paths below a prefix, as `Router.routes` tells them."""

    path: str
    """The prefix."""
    handler: Handler
    """Who answers."""
    _pattern: _core.Pattern = field(repr=False, compare=False, kw_only=True)

    def __str__(self) -> str:
        what = repr(self.handler) if isinstance(self.handler, Router) else name_of(self.handler)
        return f"mount {self.path} ({what})"


class Router:
    """Many handlers behind one, by path and method. It goes wherever a handler goes: `Server(router)`,
    `add_context(handler=router)`, `mount`; into any number of servers. Routes that are added while one serves take
    effect at once.

    A path is written decoded. `{name}` in it stands for one whole segment that is not empty, `{*name}` as the last one
    for all that is left; handlers find them in `request.pathParameters`, decoded. `{{` and `}}` are braces. The closest
    pattern answers: segment by segment, a literal before `{name}` before `{*name}`, in whatever order they were added.
    Then the methods at that pattern count, and no others. A slash at the end counts: `/a` and `/a/` are two paths.

    What has no route gets 404; a method that its path does not have 405 with `Allow`; `HEAD` is answered from `GET`,
    and `OPTIONS` with what there is, unless they have routes (RFC 9110 sections 9.3.2, 9.3.7, 15.5.6). All that is done
    without Python, as is the matching (by matchit), at a cost that hardly grows with the number of routes.

    >>> import urllib.request
    >>> from portico import testing
    >>> router = Router()
    >>> @router.get("/users/{id}", name="user")
    ... def user(request):
    ...     return {"statusCode": 200, "body": f"user {request.pathParameters['id']}"}
    >>> testing.call_on_server(router, lambda url: urllib.request.urlopen(url + router.url_for("user", id=7)).read())
    b'user 7'
    """

    def __init__(self) -> None:
        # By the shape of their pattern, then by method: those without guards last.
        self._routes: dict[tuple[str, str], list[Route]] = {}
        self._mounts: dict[str, Mount] = {}
        self._middleware: tuple[Middleware, ...] = ()
        self._names: dict[str, Route] = {}
        self._in_order: list[Route | Mount] = []
        self._tables: list[Table] = []

    # ---- routes

    def add_route(
        self,
        method: str,
        path: str,
        handler: Function,
        *,
        name: str | None = None,
        guards: Iterable[Guard] = (),
    ) -> None:
        """Has a handler answer one method at a path.

        `name` is for `url_for`. Each of `guards` is a function of the request, `def` or `async def`, that says whether
        the route applies; where it returns a response (a dict), that is the answer. Of several routes with the same
        method and path those with guards are asked in the order in which they were added, then the one without; where
        none applies, the answer is 404.

        Raises `ConfigError` for a path that is no pattern, for what is no handler (a router is mounted), and where
        there is a route for the same already, naming both.
        """
        check_handler(handler)
        if not isinstance(method, str) or not _TOKEN.fullmatch(method) or method.upper() == "CONNECT":
            raise ConfigError(f"method: GET, POST and the like, not {method!r}")
        if not isinstance(path, str):
            raise ConfigError(f"path: a str as /users/{{id}}, not {type(path).__name__}")
        pattern = _core.Pattern(path)
        route = Route(method.upper(), path, handler, name, _functions("guards", guards), _pattern=pattern)
        with changing:
            here = self._routes.get((pattern.shape, route.method), [])
            if here and not here[-1].guards and not route.guards:
                raise ConfigError(f"{route} is the same route as {here[-1]}, which is there already")
            named = self._names.get(name) if name is not None else None
            if named is not None and named.path != path:
                raise ConfigError(f"name {name!r} of {route} is the name of {named} already")
            # Those with guards before the one without.
            here = sorted([*here, route], key=lambda one: not one.guards)
            self._routes[pattern.shape, route.method] = here
            self._in_order.append(route)
            if name is not None:
                self._names[name] = route
            for table in self._live_tables():
                table.put_route(self, here)

    def route(
        self, path: str, methods: Iterable[str] = ("GET",), *, name: str | None = None, guards: Iterable[Guard] = ()
    ) -> Callable[[H], H]:
        """A decorator that adds a handler for several methods. See `add_route`."""
        if isinstance(methods, str):
            raise ConfigError(f"methods: a list of methods, not the str {methods!r}")
        several, conditions = tuple(methods), tuple(guards)
        if not several:
            raise ConfigError("methods: at least one method")

        def decorate(handler: H) -> H:
            for method in several:
                self.add_route(method, path, handler, name=name, guards=conditions)
            return handler

        return decorate

    def get(self, path: str, *, name: str | None = None, guards: Iterable[Guard] = ()) -> Callable[[H], H]:
        """A decorator that adds a handler for `GET`, and so for `HEAD`. See `add_route`."""
        return self.route(path, ("GET",), name=name, guards=guards)

    def post(self, path: str, *, name: str | None = None, guards: Iterable[Guard] = ()) -> Callable[[H], H]:
        """A decorator that adds a handler for `POST`. See `add_route`."""
        return self.route(path, ("POST",), name=name, guards=guards)

    def put(self, path: str, *, name: str | None = None, guards: Iterable[Guard] = ()) -> Callable[[H], H]:
        """A decorator that adds a handler for `PUT`. See `add_route`."""
        return self.route(path, ("PUT",), name=name, guards=guards)

    def patch(self, path: str, *, name: str | None = None, guards: Iterable[Guard] = ()) -> Callable[[H], H]:
        """A decorator that adds a handler for `PATCH` (RFC 5789). See `add_route`."""
        return self.route(path, ("PATCH",), name=name, guards=guards)

    def delete(self, path: str, *, name: str | None = None, guards: Iterable[Guard] = ()) -> Callable[[H], H]:
        """A decorator that adds a handler for `DELETE`. See `add_route`."""
        return self.route(path, ("DELETE",), name=name, guards=guards)

    def head(self, path: str, *, name: str | None = None, guards: Iterable[Guard] = ()) -> Callable[[H], H]:
        """A decorator that adds a handler for `HEAD`, in place of that for `GET`. See `add_route`."""
        return self.route(path, ("HEAD",), name=name, guards=guards)

    def options(self, path: str, *, name: str | None = None, guards: Iterable[Guard] = ()) -> Callable[[H], H]:
        """A decorator that adds a handler for `OPTIONS`, in place of the server's answer. See `add_route`."""
        return self.route(path, ("OPTIONS",), name=name, guards=guards)

    def mount(self, prefix: str, handler: Handler) -> None:
        """Has a handler answer every path at and below a prefix, by whatever method no route at that path has: a
        function, another router, `portico.wsgi(app)`, `portico.asgi(app)`.

        It sees the rest of the path: `request.path` begins behind the prefix, and `request.root_path` is that;
        `rawPath` and `url` stay whole. To WSGI they are `PATH_INFO` and `SCRIPT_NAME`, to ASGI `root_path`. The prefix
        may have parameters; a slash at its end is left out. For a router `/prefix` is the path `/`, as `/prefix/` is.

        Raises `ConfigError` for a prefix that is no pattern or ends in `{*name}`, for what is no handler, for a router
        that would be mounted in itself, and where something is mounted there already, naming both.
        """
        if not isinstance(prefix, str):
            raise ConfigError(f"prefix: a str as /api, not {type(prefix).__name__}")
        if not isinstance(handler, Router):
            check_handler(handler)
        pattern = _core.Pattern(prefix if prefix == "/" else prefix.removesuffix("/"))
        if pattern.shape.endswith("/{*p}"):
            raise ConfigError(f"path {prefix!r}: a prefix, below which all is mounted, has no {{*name}}")
        mount = Mount(prefix, handler, _pattern=pattern)
        with changing:
            known = self._mounts.get(pattern.shape)
            if known is not None:
                raise ConfigError(f"{mount} is at the same prefix as {known}, which is there already")
            if isinstance(handler, Router) and any(router is self for router in handler._routers()):
                raise ConfigError(f"{mount}: a router cannot be mounted in itself")
            self._mounts[pattern.shape] = mount
            self._in_order.append(mount)
            for table in self._live_tables():
                table.put_mount(self, mount)

    def add_middleware(self, enter: Enter | None = None, leave: Leave | None = None) -> None:
        """Has functions called around every handler of this router and of those that are mounted in it, and around its
        404 and 405 too.

        `enter(request)` is called before the handler, those that were added first first. It returns None; or a
        response, which is the answer: what would come after it is not called. `leave(request, response)` is called with
        the response, a dict that it may change, in the reverse order; what it returns, unless None, takes the place of
        the response. Every `leave` is called whose `enter` returned, that of an early answer too. Where something
        raises, it is reported as ever, and `leave` gets the response that the client is to have: a 500, or what a
        `RequestError` says. Each may be `def` or `async def`; with one that is `async`, `def` handlers run on a thread
        of the event loop's. Without middleware routes cost nothing more.

        Raises `ConfigError` for what is no function, and where both are None.
        """
        if enter is None and leave is None:
            raise ConfigError("add_middleware: enter, leave or both")
        _functions("add_middleware", [one for one in (enter, leave) if one is not None])
        with changing:
            self._middleware = (*self._middleware, Middleware(enter, leave))
            for table in self._live_tables():
                table.put_middleware(self)

    # ---- looking at it

    @property
    def routes(self) -> tuple[Route | Mount, ...]:
        """What was added, in that order."""
        return tuple(self._in_order)

    def url_for(self, name: str, /, **params: object) -> str:
        """The path of a route by its name, with those parameters, percent-encoded. Routes of routers that are mounted
        in this one are found too, with their prefix; where several have the name, the first.

        Raises `ConfigError` where no route has that name, naming the nearest; for parameters that are missing or that
        the route does not have; and for a value that no path can have there: an empty one, or one with a segment `.`
        or `..`.

        >>> router = Router()
        >>> router.add_route("GET", "/users/{id}/files/{*path}", print, name="file")
        >>> router.url_for("file", id="a/b", path="x/y z")
        '/users/a%2Fb/files/x/y%20z'
        """
        with changing:
            found = self._find(name)
            if found is None:
                near = difflib.get_close_matches(name, self._all_names(), 1)
                hint = f"; did you mean {near[0]!r}?" if near else ""
                raise ConfigError(f"url_for: no route has the name {name!r}{hint}")
        known = {parameter for pattern in found for parameter in pattern.parameters}
        if unknown := params.keys() - known:
            takes = ", ".join(sorted(known)) or "none"
            raise ConfigError(f"url_for: route {name!r} has no parameter {min(unknown)!r}; it has {takes}")
        if missing := known - {key for key, value in params.items() if value is not None}:
            raise ConfigError(f"url_for: route {name!r} needs {', '.join(sorted(missing))}")
        values = {key: str(value) for key, value in params.items()}
        *prefixes, path = (pattern.fill(values) for pattern in found)
        return "".join(prefix for prefix in prefixes if prefix != "/") + path

    def __repr__(self) -> str:
        return f"<portico router of {len(self._in_order)} routes>"

    # ---- inside

    def _find(self, name: str) -> list[_core.Pattern] | None:
        """The pattern of the route of that name, behind those of the prefixes that lead to it."""
        if name in self._names:
            return [self._names[name]._pattern]
        for mount in self._mounts.values():
            if isinstance(mount.handler, Router) and (found := mount.handler._find(name)) is not None:
                return [mount._pattern, *found]
        return None

    def _all_names(self) -> list[str]:
        return [name for router in self._routers() for name in router._names]

    def _routers(self) -> Iterator[Router]:
        """This one, and those that are mounted in it."""
        yield self
        for mount in self._mounts.values():
            if isinstance(mount.handler, Router):
                yield from mount.handler._routers()

    def _routes_by_place(self) -> Iterable[list[Route]]:
        return self._routes.values()

    def _live_tables(self) -> list[Table]:
        """What servers have of it. Forgets those that are closed."""
        self._tables = [table for table in self._tables if table.core.is_alive()]
        return list(self._tables)


def _functions(what: str, given: Iterable[Any]) -> tuple[Any, ...]:
    if callable(given):
        raise ConfigError(f"{what}: a list of functions, not a single one")
    functions = tuple(given)
    for function in functions:
        if not callable(function):
            raise ConfigError(f"{what}: a function, not {type(function).__name__}")
    return functions
