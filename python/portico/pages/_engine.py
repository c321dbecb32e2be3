"""Runs pages in worker processes of pydantic-monty: an interpreter for each visitor, which between requests is bytes.

    result = engine.run(program, state, given, functions)

Nothing here knows HTTP. What a page may call and see is what it is given; when anything fails, `PageError` is raised
and the state that was given is still good.
"""

from __future__ import annotations

import collections
import contextlib
import secrets
import threading
import weakref
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pydantic_monty as monty

from .._errors import PageError
from . import _calls, _prelude
from ._errors import page_error
from ._faults import DEFINITION_LINES, explain
from ._language import RESERVED, Program
from ._limits import PageLimits
from ._state import State
from ._workers import Starter

GIVEN = frozenset({"request", "query", "headers", "session"})
"""What each request gives anew."""
_KEPT_PROGRAMS = 4096
_RECYCLED_AFTER = 20_000
# What has to be the same in an interpreter that was kept: who has dumped it, and what every one begins with.
_VERSION = f"{monty.__version__}/{zlib.crc32((_prelude.SOURCE + _prelude.ENDING_SOURCE).encode()):08x}"
# How long a page waits for a worker, and how much longer than its time the worker may take, in seconds.
_FREE_WITHIN = 30.0
_GRACE = 5.0


@dataclass(frozen=True)
class Ending:
    """How a page ended itself: `exit(...)`, `reply_file(...)` and the like."""

    kind: str
    args: tuple[Any, ...]
    options: Mapping[str, Any]


@dataclass(frozen=True)
class Result:
    """What a page did."""

    output: str
    ending: Ending | None
    session: Any
    """What `session` is now, where the page may have changed it; None else."""
    log: str
    """What it printed to `sys.stderr`."""
    state: bytes


class Engine:
    """Worker processes, and the programs that run in them."""

    def __init__(self, limits: PageLimits, workers: int, *, confine: bool = True) -> None:
        self.limits = limits
        self.loop = _calls.Loop()
        self.lasts = _FREE_WITHIN + limits.seconds + 3 * _GRACE
        """How long a page may take, in seconds, but for what it waits for functions."""
        self._key = f"{_VERSION}/{limits.key()}"
        self._limits: monty.ResourceLimits = {
            "max_feed_duration_secs": limits.seconds,
            "max_memory": limits.memory_bytes,
            "max_recursion_depth": limits.recursion,
            "max_suspensions": limits.calls,
            "max_total_sleep_secs": 0.0,
        }
        self._workers = workers
        self._confine = confine
        self._lock = threading.Lock()
        self._pool: monty.Monty | None = None
        self._fresh: State | None = None
        self._programs: collections.OrderedDict[int, Program] = collections.OrderedDict()
        self._close: weakref.finalize[..., Engine] | None = None

    def close(self) -> None:
        """Ends the workers. The next page starts them again."""
        with self._lock:
            self._pool = self._fresh = None
            if self._close is not None:
                self._close()
        self.loop.close()

    def run(
        self,
        program: Program,
        state: bytes | None,
        given: Mapping[str, Callable[[], Any]],
        functions: Mapping[str, Callable[..., Any]],
        *,
        waits: bool = True,
    ) -> Result:
        """Runs a page on from a state, or from the beginning where that is None. `given` has what the names in `GIVEN`
        stand for, made only where they are used. `waits` says whether any function may be `async def`. Raises
        `PageError`."""
        number = program.number
        self._remember(number, program)
        run = _Run(self, program, functions, waits)
        _calls.failures.last = None
        try:
            before = self._state(state, program.page)
        except monty.MontyError as error:
            raise self._fault(error, run) from error
        bound = before.bound | (program.names & GIVEN)
        inputs = {name: given[name]() for name in bound}
        # An object of the host stays there; what pages change of a plain one comes back.
        session = isinstance(inputs.get("session"), dict)
        inputs[RESERVED + "t"] = list(program.texts)
        if program.layers:
            inputs[RESERVED + "n"] = run.mark
        try:
            with contextlib.ExitStack() as stack:
                worker = self._worker(stack, program.page)
                worker.load_session(before.numbered(number))
                run.run(worker, inputs, before.defined, returned="session" if session else None)
                dump = worker.dump()
        except monty.MontyError as error:
            raise self._fault(error, run) from _calls.failures.last
        if len(dump) > self.limits.state_bytes:
            message = f"the session would keep {len(dump):,} bytes, and may {self.limits.state_bytes:,}"
            raise page_error((program.page, 0), message, "state")
        after = State(dump, before.limits, before.defined | run.defines, bound)
        return Result(run.output(), run.ending, run.session, run.log(), after.to_bytes())

    def program(self, number: int) -> Program | None:
        """The program with a number, if it is still known."""
        return self._programs.get(number)

    def _state(self, data: bytes | None, page: str) -> State:
        state = State.from_bytes(data) if data is not None else None
        if state is not None and state.limits == self._key:
            return state
        if self._fresh is None:
            with contextlib.ExitStack() as stack:
                worker = self._worker(stack, page)
                worker.feed_run(_prelude.SOURCE)
                self._fresh = State(worker.dump(), self._key)
        return self._fresh

    def _worker(self, stack: contextlib.ExitStack, page: str) -> monty.MontySession:
        """A worker, until the stack ends."""
        checkout = self._started().checkout(limits=self._limits)
        try:
            return stack.enter_context(checkout)
        except TimeoutError:
            message = f"no worker was free for {_FREE_WITHIN:g} s: give `Pages` more `workers`"
            raise page_error((page, 0), message, "busy") from None

    def _started(self) -> monty.Monty:
        pool = self._pool
        if pool is None:
            with self._lock:
                if self._pool is None:
                    starter = Starter(self.limits.memory_bytes, self._confine)
                    pool = monty.Monty(
                        binary_path=starter.path,
                        max_processes=self._workers,
                        checkout_timeout=_FREE_WITHIN,
                        request_timeout=self.limits.seconds + _GRACE,
                        # So that the worker says itself that the time is over, also where it is held up.
                        feed_duration_limit_grace=_GRACE,
                        max_checkouts_per_worker=_RECYCLED_AFTER,
                    )
                    try:
                        pool.__enter__()
                    except BaseException as error:
                        starter.close()
                        if isinstance(error, monty.MontyError) or not isinstance(error, Exception):
                            raise
                        raise page_error(("pages", 0), f"workers cannot be started: {error}", "worker") from error
                    self._close = weakref.finalize(self, _end, pool, starter)
                    self._pool = pool
                pool = self._pool
        assert pool is not None
        return pool

    def _remember(self, number: int, program: Program) -> None:
        if self._programs.get(number) is not program:
            with self._lock:
                self._programs[number] = program
                while len(self._programs) > _KEPT_PROGRAMS:
                    self._programs.popitem(last=False)

    def _fault(self, error: monty.MontyError, run: _Run) -> PageError:
        return explain(error, run.program, run.number, self.program, self.limits)


def _end(pool: monty.Monty, starter: Starter) -> None:
    pool.__exit__(None, None, None)
    starter.close()


class _Run:
    """One run of a page."""

    def __init__(
        self, engine: Engine, program: Program, functions: Mapping[str, Callable[..., Any]], waits: bool
    ) -> None:
        self.program = program
        number = self.number = program.number
        self.mark = secrets.token_hex(16) if program.layers else ""
        self.defines = frozenset({number} if program.makes_functions else ()) | (
            {_prelude.ENDING_NUMBER} if program.names & _prelude.ENDINGS else frozenset()
        )
        self.ending: Ending | None = None
        self.session: Any = None
        self._printed = monty.CollectStreams(engine.limits.output_bytes)
        self._most_returned = engine.limits.state_bytes
        self._loop = engine.loop if waits else None
        self._lookup: dict[str, Any] = {**functions, RESERVED + "end": self._end}

    def run(
        self, worker: monty.MontySession, inputs: dict[str, Any], defined: frozenset[int], *, returned: str | None
    ) -> None:
        """Runs it; `returned` is the input of which the last value is wanted. Raises what pydantic-monty raises."""
        if self.number in self.defines - defined:
            worker.feed_run(definition(self.program, self.number))
        if _prelude.ENDING_NUMBER in self.defines - defined:
            worker.feed_run(_prelude.ENDING_SOURCE)
        code = call(self.program, self.number) if self.program.makes_functions else self.program.source
        # What each request gives anew is not kept from one to the next: forms may be large, and secret.
        let_go = " = ".join([*(name for name in inputs if name != returned), "None"])
        if returned:
            # By a few names for one list a small value can be of any size outside of the interpreter.
            size = f"{RESERVED}l({RESERVED}r({returned}))"
            let_go += f"\n[{returned} if {size} <= {self._most_returned} else ..., {returned} := None][0]"
        else:
            let_go += "\nNone"
        try:
            self.session = _calls.feed(worker, f"{code}\n{let_go}", inputs, self._lookup, self._printed, self._loop)
        except monty.MontyRuntimeError as error:
            if self.ending is None or not isinstance(error.exception(), TimeoutError):
                raise
            if _prelude.STOPPED not in str(error):
                raise
            self.session = worker.feed_run(let_go)
        if self.session is ...:
            message = f"session: it would take more than {self._most_returned:,} characters when it is written out"
            raise page_error((self.program.page, 0), message, "state")

    def output(self) -> str:
        """What it printed, with the layouts around it."""
        text = "".join(text for stream, text in self._printed.output if stream == "stdout")
        body = ""
        for layer in range(self.program.layers):
            inner, _, text = text.partition(f"{self.mark}e{layer}")
            body = inner.replace(f"{self.mark}c{layer - 1}", body) if layer else inner
        return text.replace(f"{self.mark}c{self.program.layers - 1}", body) if self.program.layers else text

    def log(self) -> str:
        return "".join(text for stream, text in self._printed.output if stream == "stderr")

    def _end(self, kind: str, args: tuple[Any, ...], options: dict[str, Any]) -> None:
        if self.ending is None:
            self.ending = Ending(str(kind), tuple(args), dict(options))


def definition(program: Program, number: int) -> str:
    """The program as a function. A page that makes functions is defined once in an interpreter, which else would keep
    each of them for each time that it runs."""
    names = f"global {', '.join(program.binds)}" if program.binds else "pass"
    head = [f"{'async ' if program.awaits else ''}def {RESERVED}f{number:x}({RESERVED}t):", f"    {names}"]
    assert len(head) == DEFINITION_LINES
    lines = enumerate(program.source.split("\n"))
    return "\n".join([*head, *(line if at in program.fixed else "    " + line for at, line in lines), ""])


def call(program: Program, number: int) -> str:
    """Runs what `definition` defined."""
    return f"{'await ' if program.awaits else ''}{RESERVED}f{number:x}({RESERVED}t)"
