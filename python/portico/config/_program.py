"""From `module:name` to a handler: importing what is served, and finding out what it is."""

from __future__ import annotations

import importlib
import inspect
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from .._asgi import asgi
from .._errors import ConfigError, Error, ListenError
from .._files import StaticFiles
from .._handlers import is_async
from .._importing import ADVICE, is_of_a_program, loading
from .._lambda import aws_lambda
from .._router import Router
from .._wsgi import wsgi

# The most lines of a traceback that are told.
_LINES = 40
# What is served is often called so.
_USUAL = ("app", "application", "handler")
# How many names are told where one is not there.
_TOLD = 8


def load(call: str, kind: str, factory: bool, tell: Callable[[str], object]) -> Any:
    """The handler that `module:name` means; `module:make()`, or `factory`, calls what makes it. `kind` is one of
    `KINDS`. Where that takes long `tell` is called with a line about it.

    Raises `ConfigError` for what cannot be imported, with the lines of the program that are to blame, and for what is
    no handler, saying what to write."""
    where, _, name = call.partition(":")
    makes = factory or name.endswith("()")
    with loading(call, tell):
        module = _import(where, call)
        with _blamed(call, f"looking at {name}"):
            found = _attribute(module, name.removesuffix("()"), call)
            if makes:
                found = _make(found, call)
            return _wrap(found, kind, call, makes)


@contextmanager
def _blamed(call: str, doing: str) -> Iterator[None]:
    """What lines of the program raise meanwhile is told as a mistake of theirs."""
    try:
        yield
    except SystemExit as error:
        raise ConfigError(f"handler {call!r}: {doing} called sys.exit({error.code!r})") from error
    except Exception as error:
        lines = traceback.extract_tb(error.__traceback__)
        if isinstance(error, ConfigError) and not any(is_of_a_program(line.filename) for line in lines):
            raise  # said here, of the program
        advice = f"\n    {ADVICE}" if isinstance(error, ListenError) else ""
        raise ConfigError(f"handler {call!r}: {doing} failed\n{told(error)}{advice}") from error


def add_to_path(folder: Path) -> None:
    """Modules of this folder come first, as with `python folder/program.py`."""
    text = str(folder.resolve())
    if sys.path[:1] != [text]:
        sys.path.insert(0, text)


def _import(where: str, call: str) -> ModuleType:
    if where.endswith(".py") or "/" in where:
        advice = where.removesuffix(".py").strip("./").replace("/", ".")
        raise ConfigError(f"handler {call!r}: a module is written as it is imported: {advice}:NAME")
    if not where or not all(part.isidentifier() for part in where.split(".")):
        raise ConfigError(f"handler {call!r} is not module:name")
    with _blamed(call, f"importing {where}"):
        try:
            return importlib.import_module(where)
        except ModuleNotFoundError as error:
            if not error.name or (where != error.name and not where.startswith(f"{error.name}.")):
                raise
            folder = sys.path[0] or "the current folder"
            raise ConfigError(
                f"handler {call!r}: there is no module {error.name} in {folder} or where Python looks else; "
                "app_dir, --app-dir on the command line, says where yours are"
            ) from None


def _attribute(module: ModuleType, name: str, call: str) -> Any:
    if not name:
        raise ConfigError(f"handler {call!r}: which one of {module.__name__}?{_candidates(module)}")
    found: Any = module
    for part in name.split("."):
        try:
            found = getattr(found, part)
        except AttributeError:
            raise ConfigError(f"handler {call!r}: {module.__name__} has no {name};{_candidates(module)}") from None
    return found


def _candidates(module: ModuleType) -> str:
    """What of a module somebody may have meant, the likeliest first."""
    there = vars(module)
    usual = [name for name in _USUAL if name in there and _may_answer(there[name])]
    own = [
        name
        for name, thing in there.items()
        if not name.startswith("_") and name not in usual and _may_answer(thing) and not _is_imported(module, name)
    ]
    names = [*usual, *own][:_TOLD]
    return f" it has {', '.join(names)}: type {module.__name__}:{names[0]}, say" if names else ""


def _may_answer(thing: Any) -> bool:
    return not isinstance(thing, (type, ModuleType)) and (callable(thing) or isinstance(thing, Router))


def _is_imported(module: ModuleType, name: str) -> bool:
    """Whether it is another module's, as Flask's `request` and whatever else `from … import` brings."""
    thing = vars(module)[name]
    if inspect.isroutine(thing):
        return getattr(thing, "__module__", None) != module.__name__
    return any(
        vars(other).get(name) is thing
        for other in list(sys.modules.values())
        if isinstance(other, ModuleType) and other is not module
    )


def _make(factory: Any, call: str) -> Any:
    if not callable(factory):
        raise ConfigError(f"handler {call!r}: a {type(factory).__name__} makes nothing; leave out the () or --factory")
    try:
        inspect.signature(factory).bind()
    except TypeError as error:
        raise ConfigError(f"handler {call!r}: it cannot be called without arguments ({error})") from None
    except ValueError:
        pass  # It does not tell, as many that are written in C.
    with _blamed(call, "making it"):
        made = factory()
    if inspect.iscoroutine(made):
        made.close()
        raise ConfigError(f"handler {call!r}: what makes a handler is no `async def`")
    return made


def _wrap(found: Any, kind: str, call: str, made: bool) -> Any:
    if kind == "auto":
        kind = _kind_of(found, call, made)
    wraps: dict[str, Callable[[Any], Any]] = {"asgi": asgi, "wsgi": wsgi, "lambda": aws_lambda}
    try:
        return wraps[kind](found) if kind in wraps else found
    except Error as error:
        raise ConfigError(f"handler {call!r}: {error}") from error


def _kind_of(found: Any, call: str, made: bool) -> str:
    """What it is, by the arguments that it takes. Raises `ConfigError` where that may be several things."""
    say = "say which it is by --asgi, --wsgi or --lambda, or by `kind` in portico.toml"
    if isinstance(found, (Router, StaticFiles)):
        return "request"
    if inspect.isclass(found):
        raise ConfigError(f"handler {call!r} is a class, not a handler: {call}() makes one of it, if it is a factory")
    if not callable(found):
        raise ConfigError(f"handler {call!r} is a {type(found).__name__}, which can answer nothing")
    try:
        parameters = list(inspect.signature(found).parameters.values())
    except ValueError:
        raise ConfigError(f"handler {call!r} does not tell what arguments it takes: {say}") from None
    wanted = [
        one.name
        for one in parameters
        if one.default is one.empty and one.kind in (one.POSITIONAL_ONLY, one.POSITIONAL_OR_KEYWORD)
    ]
    if any(one.kind is one.VAR_POSITIONAL for one in parameters) and len(wanted) != 1:
        raise ConfigError(f"handler {call!r} takes any number of arguments: {say}")
    if len(wanted) == 1:
        return "request"
    if len(wanted) == 3 and is_async(found):
        return "asgi"
    if len(wanted) == 2 and not is_async(found):
        if wanted[1] == "context":
            return "lambda"
        return "wsgi"
    if not wanted and not parameters and not made:
        raise ConfigError(f"handler {call!r} takes no arguments: if it makes the handler, type {call}()")
    raise ConfigError(f"handler {call!r} takes {', '.join(wanted) or 'no arguments'}, which is no handler: {say}")


def told(error: BaseException) -> str:
    """A traceback for who wrote the program: without the lines of portico and of Python's import."""
    own = [one for one in traceback.extract_tb(error.__traceback__) if is_of_a_program(one.filename)]
    lines = traceback.format_list(own) + traceback.format_exception_only(type(error), error)
    return "\n".join(f"    {line}" for line in "".join(lines).rstrip().splitlines()[-_LINES:])
