"""`portico.Pages`: a folder of server pages as a handler."""

from __future__ import annotations

import copy
import inspect
import logging
import os
from collections.abc import Callable, Mapping
from typing import Any, cast

from .. import _responses
from .._core import Failed, Request
from .._errors import ConfigError, PageError
from .._files import StaticFiles
from .._responses import Response
from ..sessions._session import Session
from . import _debug, _given
from ._calls import HostObject, watched
from ._engine import GIVEN, Engine, Result
from ._errors import page_error
from ._folder import SUFFIX, Folder
from ._limits import PageLimits
from ._prelude import ENDINGS
from ._replies import Reply

_log = logging.getLogger("portico.pages")
_MOST_LOGGED = 4096


class Pages:
    """The server pages below a folder, as a handler. Files that end in `.psp` are pages; all others are sent as they
    are, by `StaticFiles`. It goes wherever a handler goes.

    What a visitor's pages leave in variables and in `session` is kept in `request.session`: where, and for how long, is
    what the server's `sessions` say.

    `functions` are what pages may call, by name, `def` or `async def`; `session` a class of which each request gets an
    object, made with the visitor's own values (what `request.session` holds, as a dict that is kept), and whose public
    methods pages may call. `limits` bound what one request may use. `workers` is how many processes run pages, as many
    as there are cores, but four at the most. They are confined by landlock, seccomp and resource limits, unless
    `confine` is False; what the kernel does not offer is a warning in the `portico.pages` log. With `debug` a failed
    page tells its visitor why. `timeout` is for how many seconds a session may be idle before its next page, by default
    as long as the server's `sessions` say. `cache_control` is for the files that are no pages.

    Raises `ConfigError` where `root` is no folder, a function cannot be called so, or pydantic-monty is not there
    (`pip install 'portico[pages]'`).

    A page that fails is a 500 for that request and `PageError` in the `portico.error` log; its session is what it was
    before. Where no worker is free, or the session cannot be had, it is a 503.

    >>> import tempfile, urllib.request
    >>> from pathlib import Path
    >>> from portico import testing
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = Path(folder, "index.psp").write_text("<p><%= greet(query['name']) %></p>")
    ...     pages = Pages(folder, functions={"greet": lambda name: f"Hello, {name}!"})
    ...     testing.call_on_server(pages, lambda url: urllib.request.urlopen(url + "/?name=<Ada>").read())
    b'<p>Hello, &lt;Ada&gt;!</p>'
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        *,
        functions: Mapping[str, Callable[..., Any]] | None = None,
        session: type | None = None,
        limits: PageLimits | None = None,
        workers: int | None = None,
        confine: bool = True,
        debug: bool = False,
        timeout: float | None = None,
        cache_control: str | Mapping[str, str] | None = None,
    ) -> None:
        self._files = StaticFiles(root, cache_control=cache_control)
        self._folder = Folder(os.fspath(root))
        self._functions = _checked(functions or {})
        if session is not None and not inspect.isclass(session):
            raise ConfigError(f"session: a class, not {session!r}")
        self._session: Callable[[dict[str, Any]], Any] | None = session
        self._methods = _given.public_methods(session) if session is not None else ()
        called = [*self._functions.values(), *(getattr(session, name) for name in self._methods)]
        self._waits = any(inspect.iscoroutinefunction(function) for function in called)
        if workers is None:
            workers = min(4, os.cpu_count() or 1)
        if isinstance(workers, bool) or not isinstance(workers, int) or not 1 <= workers <= 256:
            raise ConfigError(f"workers: a number from 1 to 256, not {workers!r}")
        if limits is not None and not isinstance(limits, PageLimits):
            raise ConfigError(f"limits: portico.PageLimits, not {type(limits).__name__}")
        self._engine = Engine(limits or PageLimits(), workers, confine=confine)
        if timeout is not None and (
            isinstance(timeout, bool) or not isinstance(timeout, (int, float)) or not timeout > 0
        ):
            raise ConfigError(f"timeout: a positive number of seconds, not {timeout!r}")
        self._timeout = timeout
        self._debug = debug

    def __call__(self, request: Request) -> Response:
        """The response to a request, by the path below where this is mounted."""
        path = request.path
        name = self._folder.page(path)
        if name is None:
            if self._folder.page(path + "/") is not None:
                query = f"?{request.queryString}" if request.queryString else ""
                return _responses.redirect(f"{request.root_path}{path}/{query}", 308)
            # Neither pages nor what an editor may have left beside them are files for the world.
            if SUFFIX in path.lower() or any(part.startswith("_") for part in path.split("/")):
                return _responses.error(404)
            return self._files(request)
        try:
            return self._run(name, request)
        except PageError as error:
            if not self._debug or error.status != 500:
                raise
            failed: Any = Failed(error, _debug.page(error, self._folder))
            return cast(Response, failed)

    def close(self) -> None:
        """Ends the processes that run pages. They start again with the next page."""
        self._engine.close()

    def __repr__(self) -> str:
        return f"portico.Pages({self._folder.root!r})"

    def _run(self, name: str, request: Request) -> Response:
        program = self._folder.program(name)
        session = request.session
        if self._timeout is not None:
            session._timeout = self._timeout
        # Any page may write. The server keeps what it has written together with its response.
        session.lock(lease=self._engine.lasts)
        values: dict[str, Any] | None = None

        def own() -> Any:
            nonlocal values
            # A copy: what a page has done before it fails is done to that.
            values = copy.deepcopy(dict(session))
            return self._session_object(values)

        cookies = session._cookie_names
        reply = Reply(self._folder, self._functions, cookies)
        given = {
            "request": lambda: _given.facts(request, cookies),
            # A form that is none is a RequestError, which the server answers for.
            "query": lambda: _given.query(request),
            "headers": lambda: _given.headers(request, cookies),
            "session": own,
        }
        functions = {**self._functions, **reply.functions()}
        result = self._engine.run(program, session.state, given, functions, waits=self._waits)
        response = self._finish(reply, result, name)
        if result.session is not None:
            values = result.session
        if reply.ends:
            session.end()
        else:
            _keep(session, values, result.state, name)
            if reply.renews:
                session.renew()
        if result.log:
            # As a literal: what a page prints may have been made by its visitor to look like lines of this log.
            _log.info("%s: %r", name, result.log[:_MOST_LOGGED])
        return response

    def _session_object(self, values: dict[str, Any]) -> Any:
        if self._session is None:
            return values
        return HostObject(self._session(values), allowed_methods=self._methods)

    def _finish(self, reply: Reply, result: Result, name: str) -> Response:
        try:
            finished = reply.finish(result.output, result.ending)
        except ValueError as error:
            raise page_error((name, 0), str(error), "error") from None
        if isinstance(finished, dict):
            finished["headers"].setdefault("cache-control", "private, no-cache")
            finished["headers"].setdefault("x-content-type-options", "nosniff")
            return finished
        function, args = finished
        response = function(*args)
        if inspect.iscoroutine(response):
            response = self._engine.loop.start(response).result()
        if not isinstance(response, dict):
            message = f"a function that answers returns a response, not {type(response).__name__}"
            raise page_error((name, 0), message, "error")
        return dict(response)


def _checked(functions: Mapping[str, Callable[..., Any]]) -> dict[str, Callable[..., Any]]:
    taken = {*GIVEN, *ENDINGS, "escape", "content", "print", *Reply.NAMES}
    for name, function in functions.items():
        if not isinstance(name, str) or not name.isidentifier() or name.startswith("_"):
            raise ConfigError(f"functions: {name!r} is no name that pages can call, or begins with an underscore")
        if name in taken:
            raise ConfigError(f"functions: pages know {name} already")
        if not callable(function):
            raise ConfigError(f"functions: {name} is a {type(function).__name__}, which cannot be called")
    return {name: watched(function) for name, function in functions.items()}


def _keep(session: Session, values: Any, state: bytes, page: str) -> None:
    """Writes what a page leaves to its session; `values` is None where it has not looked at them."""
    if values is None:
        session.state = state
        return
    try:
        session._replace(values, state)
    except (TypeError, ValueError) as error:
        raise page_error((page, 0), str(error), "error") from None
