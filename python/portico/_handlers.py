"""Functions that answer requests. What is asked of them before any comes: that they can be called with one."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Awaitable, Callable

from ._core import Request
from ._errors import ConfigError
from ._responses import Response

Function = Callable[[Request], "Response | Awaitable[Response]"]
"""A function from a request to a response dict, `def` or `async def`."""


def is_async(handler: object) -> bool:
    """Whether calling it gives a coroutine: an `async def`, a partial of one, or an object whose `__call__` is one."""
    while isinstance(handler, functools.partial):
        handler = handler.func
    return inspect.iscoroutinefunction(handler) or inspect.iscoroutinefunction(
        getattr(handler, "__call__", None)  # noqa: B004
    )


def check_handler(handler: object) -> None:
    """Says at once what would go wrong at each request. Raises `ConfigError`."""
    if not callable(handler):
        mounted = ", which is mounted" if type(handler).__name__ == "Router" else ""
        raise ConfigError(f"handler: a function of a request, not {type(handler).__name__}{mounted}")
    try:
        signature = inspect.signature(handler)
    except ValueError:
        return  # It does not tell, as many that are written in C.
    except Exception as error:
        raise ConfigError(
            f"handler: what arguments it takes cannot be found out ({type(error).__name__}: {error})"
        ) from error
    try:
        signature.bind(None)
    except TypeError as error:
        wanted = [one for one in signature.parameters.values() if one.default is one.empty]
        hint = {
            2: ": a WSGI application is given as portico.wsgi(app)",
            3: ": an ASGI application is given as portico.asgi(app)",
        }
        raise ConfigError(f"handler: it cannot be called with a request ({error}){hint.get(len(wanted), '')}") from None
