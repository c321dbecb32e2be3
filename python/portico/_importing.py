"""A program that portico loads to serve what is in it. It has to come to its end, so it is told where it would wait for
a server of its own, and people are told where it takes long."""

from __future__ import annotations

import contextlib
import importlib
import inspect
import os
import sys
import sysconfig
import threading
import traceback
from collections.abc import Callable, Iterator
from types import FrameType

from ._errors import ConfigError

ADVICE = 'what starts a server, or works for long, goes under `if __name__ == "__main__":`'

# Large frameworks are imported in less, on machines that are not busy.
_LONG = 5.0
_PORTICO = os.path.join(os.path.dirname(__file__), "")
_IMPORTLIB = os.path.join(os.path.dirname(importlib.__file__), "")
_WAYS = (contextlib.__file__, inspect.__file__)
# Folders of Python's own modules, and those of packages, which may be below them.
_PYTHON = tuple(os.path.join(sysconfig.get_path(name), "") for name in ("stdlib", "platstdlib"))
_PACKAGES = tuple(os.path.join(sysconfig.get_path(name), "") for name in ("purelib", "platlib"))

# What is loaded, by the thread that does it.
_loaded: dict[int, str] = {}


@contextlib.contextmanager
def loading(what: str, tell: Callable[[str], object]) -> Iterator[None]:
    """Meanwhile this thread loads what is to be served. Where that takes long `tell` is called once, on another thread,
    with the line that it is at."""
    thread = threading.get_ident()

    def look() -> None:
        tell(f"loading {what} still goes on after {_LONG:g} s{_place(sys._current_frames().get(thread))}; {ADVICE}")

    timer = threading.Timer(_LONG, look)
    timer.daemon = True
    timer.start()
    # What is loaded may load something itself, as a program that has its configuration checked.
    outer = _loaded.get(thread)
    _loaded[thread] = what
    try:
        yield
    finally:
        timer.cancel()
        if outer is None:
            del _loaded[thread]
        else:
            _loaded[thread] = outer


def refuse_to_wait(doing: str) -> None:
    """Raises `ConfigError` where this thread loads what is to be served, which would never end."""
    if what := _loaded.get(threading.get_ident()):
        raise ConfigError(f"{doing} would wait, and portico loads {what} to serve it by itself: {ADVICE}")


def is_of_a_program(file: str) -> bool:
    """Whether a line of a traceback is none of portico, and none of Python by which portico gets at the program."""
    return not file.startswith((_PORTICO, _IMPORTLIB, "<frozen ")) and file not in _WAYS


def is_to_blame(error: BaseException) -> bool:
    """Whether an exception came by the program, or by a package that it uses, and not by portico and Python alone."""
    files = [line.filename for line in traceback.extract_tb(error.__traceback__)]
    return any(is_of_a_program(file) and (file.startswith(_PACKAGES) or not file.startswith(_PYTHON)) for file in files)


def _place(frame: FrameType | None) -> str:
    """The innermost line of the program. Where none is its author's, as with one that is installed, of what it uses."""
    lines = [one for one in traceback.extract_stack(frame) if is_of_a_program(one.filename)] if frame else []
    own = [one for one in lines if not one.filename.startswith((*_PYTHON, *_PACKAGES))] or lines
    return f", at line {own[-1].lineno} of {own[-1].filename}" if own else ""
