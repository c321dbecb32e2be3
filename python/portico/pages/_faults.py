"""From an error of the interpreter to `PageError`: which page, which line of it, and why."""

from __future__ import annotations

import re
from collections.abc import Callable

import pydantic_monty as monty

from .._errors import PageError
from ._errors import Place, page_error
from ._language import RESERVED, Program
from ._limits import PageLimits

DEFINITION_LINES = 2
"""How many lines of a page's function come before those of its program."""

_FEED = re.compile(r"<python-input-(\d+)>")
_FRAMES_TOLD = 10
_LONGEST = 1000


def explain(
    error: monty.MontyError,
    program: Program,
    number: int,
    known: Callable[[int], Program | None],
    limits: PageLimits,
) -> PageError:
    """What to tell of an error while a page ran. `known` gives the program of a number."""
    if isinstance(error, monty.MontyCrashedError):
        why = "it did not come back in time" if error.timed_out else f"it ended, {error}"
        return page_error((program.page, 0), f"the worker process was lost: {why}", "worker")
    if isinstance(error, monty.MontyConversionError):
        return page_error((program.page, 0), f"a value cannot cross into the page: {_one_line(str(error))}", "error")
    places = _places(error, program, number, known)
    place = places[-1] if places else (program.page, 0)
    reason, message = _reason(error, limits)
    told = page_error(place, message, reason)
    for caller in reversed(places[-_FRAMES_TOLD:-1]):
        if caller != place:
            told.args = (f"{told.args[0]}\n  called from {caller[0]}, line {caller[1]}",)
    return told


def _reason(error: monty.MontyError, limits: PageLimits) -> tuple[str, str]:
    said = _one_line(str(error))
    inner = error.exception()
    if isinstance(error, monty.MontySyntaxError):
        return "syntax", said
    if isinstance(inner, TimeoutError) and "time limit exceeded" in said:
        return "time", f"it ran for more than {limits.seconds:g} seconds"
    if isinstance(inner, TimeoutError) and "sleep limit exceeded" in said:
        return "time", "pages cannot sleep"
    if isinstance(inner, MemoryError) and f"> {limits.output_bytes} bytes" in said:
        return "output", f"it printed more than {limits.output_bytes:,} bytes"
    if isinstance(inner, MemoryError):
        return "memory", f"it used more than {limits.memory_bytes:,} bytes of memory"
    if isinstance(inner, RecursionError):
        return "recursion", f"functions called each other more than {limits.recursion} deep"
    if isinstance(inner, RuntimeError) and said.startswith("RuntimeError: suspension limit"):
        return "calls", f"it called functions of the host more than {limits.calls} times"
    return "error", said


def _one_line(text: str) -> str:
    """What was said by an exception of the page: its visitor may have had a part in it, and it goes into a log."""
    shown = "".join(one if one.isprintable() else repr(one)[1:-1] for one in text[:_LONGEST])
    return shown + "..." if len(text) > _LONGEST else shown


def _places(
    error: monty.MontyError, program: Program, number: int, known: Callable[[int], Program | None]
) -> list[Place]:
    """The lines of pages that led to it, the innermost last."""
    places: list[Place] = []
    if not isinstance(error, (monty.MontyRuntimeError, monty.MontySyntaxError)):
        return places
    for frame in error.traceback():
        feed = _FEED.fullmatch(frame.filename)
        if not feed or (frame.function_name or "").startswith(RESERVED + "x"):
            continue
        outermost = frame.function_name in (None, "<module>")
        of = program if outermost or int(feed[1]) == number else known(int(feed[1]))
        # What is outermost in a page that is a function only calls it; but a syntax error is in that function.
        if of is None or (of.makes_functions and frame.function_name == "<module>"):
            continue
        line = frame.line - (DEFINITION_LINES if of.makes_functions else 0)
        if 0 < line <= len(of.places):
            places.append(of.places[line - 1])
    return places
