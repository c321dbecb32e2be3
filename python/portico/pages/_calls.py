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

    def call_method(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Calls a method that a page may call."""
        try:
            return super().call_method(name, args, kwargs)
        except Exception as error:
            failures.last = error
            raise

    def awaits(self, name: str) -> bool:
        """Whether a method is `async def`."""
        return self.method_named(name) and inspect.iscoroutinefunction(getattr(self.value, name, None))

    def method_named(self, name: str) -> bool:
        """Whether a page may call it."""
        return self.allowed_methods is not None and name in self.allowed_methods


class _Failures(threading.local):
    """What a function of the host raised last, while this thread ran a page: the page itself gets the class and the
    message of it."""

    last: BaseException | None = None


failures = _Failures()


def watched(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, with its exceptions noted in `failures`."""
    if inspect.iscoroutinefunction(function):
        return function  # Its exceptions come back with its future.

    @functools.wraps(function)
    def called(*args: Any, **options: Any) -> Any:
        try:
            return function(*args, **options)
        except Exception as error:
            failures.last = error
            raise

    return called


def feed(
    worker: monty.MontySession,
    code: str,
    inputs: dict[str, Any],
    functions: dict[str, Any],
    printed: monty.CollectStreams,
    loop: Loop | None,
) -> Any:
    """Runs code to its end, and answers its calls; those of `async def` functions on the loop, where there is one. What
    the page starts together runs together."""
    if loop is None:
        return worker.feed_run(code, inputs=inputs, external_lookup=functions, print_callback=printed)
    objects = [value for value in inputs.values() if isinstance(value, HostObject)]
    waiting: dict[int, concurrent.futures.Future[Any]] = {}
    try:
        step = worker.feed_start(code, inputs=inputs, external_lookup=functions, print_callback=printed)
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
            error = failures.last = future.exception()
            settled[number] = {"exception": error} if error is not None else {"return_value": future.result()}
            del waiting[number]
    return settled
