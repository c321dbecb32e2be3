"""What stands between a router and its handlers: guards, and functions that see requests come in and responses leave.

All of it is written once, as coroutines. Where nothing in a chain is `async` the coroutine never suspends, and is run
to its end by the one step that it has."""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ._asgi import Application
from ._core import Failed, missed
from ._errors import RequestError, ResponseError, SessionError
from ._handlers import Function, is_async
from ._responses import Response, error

if TYPE_CHECKING:
    from ._core import Request

Guard = Callable[["Request"], "bool | Response | Awaitable[bool | Response]"]
"""Decides whether a route applies, or answers in its place; `def` or `async def`."""
Enter = Callable[["Request"], "Response | Awaitable[Response | None] | None"]
"""Sees a request before its handler; what it returns but None is the answer. `def` or `async def`."""
Leave = Callable[["Request", Response], "Response | Awaitable[Response | None] | None"]
"""Sees a response before it is sent; what it returns but None is sent instead. `def` or `async def`."""

Call = Callable[["Request"], Coroutine[Any, Any, Any]]


@dataclass(frozen=True, eq=False)
class Middleware:
    """One pair of `Router.add_middleware`."""

    enter: Enter | None
    leave: Leave | None


@dataclass(frozen=True)
class Candidate:
    """A handler that answers if its guards let it."""

    guards: tuple[Guard, ...]
    handler: Function


def compose(candidates: Sequence[Candidate], around: Sequence[Middleware], in_threads: bool) -> Function:
    """One handler for the candidates, of which the first that its guards allow answers, with middleware around them.

    It is `async` where anything in it is. A `def` handler is then called on a thread (`in_threads`), because it may
    block; on its own it is what it was, at no cost."""
    handler = first = candidates[0].handler
    if len(candidates) > 1 or candidates[0].guards:
        parts = [part for one in candidates for part in (*one.guards, one.handler)]
        all_async = any(map(is_async, parts))
        calls = [(one.guards, _awaited(one.handler, all_async and in_threads)) for one in candidates]
        handler = _joined(first, all_async, functools.partial(_guarded, calls))
    if around:
        functions = [part for pair in around for part in (pair.enter, pair.leave)]
        all_async = any(map(is_async, [handler, *functions]))
        call = _awaited(handler, all_async and in_threads)
        handler = _joined(first, all_async, functools.partial(_surrounded, call, around))
    if handler is not first and _streams(candidates, is_async(handler)):
        handler.stream_body = True  # type: ignore[attr-defined]
    return handler


def _streams(candidates: Sequence[Candidate], on_loop: bool) -> bool:
    """Whether every handler of a chain takes bodies as they come, and is where it may wait for them: a `def` among
    coroutines is not. ASGI applications are not asked: what stands around them may look at `request.body`."""
    handlers = [one.handler for one in candidates if one.handler is not not_found]
    return all(
        getattr(handler, "stream_body", False) and not isinstance(handler, Application) and is_async(handler) is on_loop
        for handler in handlers
    ) and bool(handlers)


def not_found(request: Request) -> Response:
    """What the core answers where a router without middleware has no route (RFC 9110 sections 9.3.7, 15.5.6)."""
    allow = missed(request)
    if not allow:
        return error(404)
    answer: Response = {"statusCode": 204} if request.method == "OPTIONS" else error(405)
    return {**answer, "headers": {**answer.get("headers", {}), "allow": allow}}


def _joined(named: Function, is_async: bool, run: Call) -> Function:
    """A handler of a coroutine function. Statistics and logs call it by the name of another one."""

    async def on_loop(request: Request) -> Any:
        return await run(request)

    def at_once(request: Request) -> Any:
        return _step(run(request))

    handler: Function = on_loop if is_async else at_once
    handler.__wrapped__ = named  # type: ignore[attr-defined]
    return handler


def _awaited(handler: Function, on_thread: bool) -> Call:
    """The handler as a coroutine function; called on a thread where it is a `def`."""
    if on_thread and not is_async(handler) and handler is not not_found:

        async def call(request: Request) -> Any:
            return await asyncio.to_thread(handler, request)
    else:

        async def call(request: Request) -> Any:
            return await _settled(handler(request))

    return call


def _step(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Runs a coroutine that does not suspend."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        return end.value
    coroutine.close()
    raise ResponseError("a function of a router that is no `async def` returned something to await: declare it as one")


async def _settled(value: Any) -> Any:
    return await value if inspect.isawaitable(value) else value


async def _guarded(calls: Sequence[tuple[Sequence[Guard], Call]], request: Request) -> Any:
    for guards, call in calls:
        for guard in guards:
            allowed = await _settled(guard(request))
            if isinstance(allowed, dict):
                return allowed
            if not allowed:
                break
        else:
            return await call(request)
    return not_found(request)


async def _surrounded(call: Call, around: Sequence[Middleware], request: Request) -> Any:
    entered = 0
    failure: BaseException | None = None
    response: Any = None
    try:
        for pair in around:
            if pair.enter is not None and (response := await _settled(pair.enter(request))) is not None:
                entered += 1
                break
            entered += 1
        else:
            response = await call(request)
        _check(response)
    except BaseException as exception:
        failure, response = exception, _response_to(exception)
    for pair in reversed(around[:entered]):
        if pair.leave is None:
            continue
        try:
            left = await _settled(pair.leave(request, response))
            if left is not None:
                _check(left)
                response = left
        except BaseException as exception:
            # What failed first is what to mend; this one tells of it as its context.
            if failure is None or not isinstance(exception, Exception):
                failure = exception
            response = _response_to(exception)
    if failure is None:
        return response
    if not isinstance(failure, Exception):
        raise failure
    return Failed(failure, response)


def _check(response: object) -> None:
    """So that `leave` gets what it may take for a response."""
    if not isinstance(response, dict):
        if inspect.iscoroutine(response):
            response.close()
        raise ResponseError(f"a handler must return a dict with a statusCode, not {type(response).__name__}")


def _response_to(exception: BaseException) -> Response:
    """What the client of a handler that raised gets."""
    if isinstance(exception, asyncio.CancelledError):
        return error(503)  # Nobody waits for it, but `leave` may look.
    if isinstance(exception, SessionError):
        response = error(exception.status)
        response["headers"]["retry-after"] = "1"
        return response
    status = exception.status if isinstance(exception, RequestError) else 500
    return error(status if 400 <= status < 500 else 500)
