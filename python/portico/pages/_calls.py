"""Calls from pages to functions of the host, `def` and `async def`."""

from __future__ import annotations

import asyncio
import concurrent.futures
import functools
import inspect
import threading
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

import pydantic_monty as monty


class Loop:
    """An event loop for `async def` functions, on a thread that starts with the first call. The server's own will not
    do: a page may run on its thread, and waits."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None

    def start(self, coroutine: Coroutine[Any, Any, Any]) -> concurrent.futures.Future[Any]:
        """Starts a coroutine."""
        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                threading.Thread(target=_run, args=(self._loop,), name="portico-pages", daemon=True).start()
            return asyncio.run_coroutine_threadsafe(coroutine, self._loop)

    def close(self) -> None:
        """Ends it. The next call starts another."""
        with self._lock:
            if self._loop is not None:
                self._loop.call_soon_threadsafe(self._loop.stop)
                self._loop = None


def _run(loop: asyncio.AbstractEventLoop) -> None:
    try:
        loop.run_forever()
    finally:
        loop.close()


class HostObject(monty.ClassInstance):
    """An object of the host of which a page may call the methods that are named, and see nothing else."""

    def awaits(self, name: str) -> bool:
        """Whether a method is `async def`."""
        return self.method_named(name) and inspect.iscoroutinefunction(getattr(self.value, name, None))

    def method_named(self, name: str) -> bool:
        """Whether a page may call it."""
        return self.allowed_methods is not None and name in self.allowed_methods


def watched(function: Callable[..., Any], failed: Callable[[BaseException], None]) -> Callable[..., Any]:
    """The function, of whose exceptions `failed` hears: the page gets only their class and message."""
    if inspect.iscoroutinefunction(function):

        @functools.wraps(function)
        async def waited(*args: Any, **options: Any) -> Any:
            try:
                return await function(*args, **options)
            except Exception as error:
                failed(error)
                raise

        return waited

    @functools.wraps(function)
    def called(*args: Any, **options: Any) -> Any:
        try:
            return function(*args, **options)
        except Exception as error:
            failed(error)
            raise

    return called


def feed(
    worker: monty.MontySession,
    code: str,
    inputs: Mapping[str, Any],
    functions: Mapping[str, Any],
    printed: monty.CollectStreams,
    loop: Loop,
) -> Any:
    """Runs code to its end, and answers its calls. Calls of `async def` functions that the page starts together run
    together."""
    objects = [value for value in inputs.values() if isinstance(value, HostObject)]
    if not any(inspect.iscoroutinefunction(one) for one in functions.values()) and not any(
        one.awaits(name) for one in objects for name in one.allowed_methods or ()
    ):
        return worker.feed_run(code, inputs=dict(inputs), external_lookup=dict(functions), print_callback=printed)
    waiting: dict[int, concurrent.futures.Future[Any]] = {}
    try:
        step = worker.feed_start(code, inputs=dict(inputs), external_lookup=dict(functions), print_callback=printed)
        while not isinstance(step, monty.MontyComplete):
            if isinstance(step, monty.FutureSnapshot):
                step = step.resume(_settled(step.pending_call_ids, waiting))
            elif isinstance(step, monty.FunctionSnapshot) and (coroutine := _coroutine(step, objects, functions)):
                waiting[step.call_id] = loop.start(coroutine)
                step = step.resume({"future": ...})
            else:
                step = step.resume_auto()
        return step.output
    finally:
        for future in waiting.values():
            future.cancel()


def _coroutine(
    step: monty.FunctionSnapshot, objects: list[HostObject], functions: Mapping[str, Any]
) -> Coroutine[Any, Any, Any] | None:
    if step.is_os_function:
        return None
    name = str(step.function_name)
    if step.object_id is None:
        function = functions.get(name)
        return function(*step.args, **step.kwargs) if inspect.iscoroutinefunction(function) else None
    for one in objects:
        if one.id == step.object_id and one.awaits(name):
            coroutine: Coroutine[Any, Any, Any] = one.call_method(name, step.args, step.kwargs)
            return coroutine
    return None


def _settled(pending: list[int], waiting: dict[int, concurrent.futures.Future[Any]]) -> dict[int, Any]:
    """Waits for one of them at least."""
    futures = [waiting[number] for number in pending if number in waiting]
    done, _ = concurrent.futures.wait(futures, return_when=concurrent.futures.FIRST_COMPLETED)
    settled: dict[int, Any] = {}
    for number in pending:
        future = waiting.get(number)
        if future in done and future is not None:
            error = future.exception()
            settled[number] = {"exception": error} if error is not None else {"return_value": future.result()}
            del waiting[number]
    return settled
