"""Writes the tables of these pages that say what the code says, from the code.

    python docs/generate.py           writes them anew
    python docs/generate.py --check   only says which pages are out of date, and exits with 1 if any is

A table stands between `<!-- begin NAME -->` and `<!-- end NAME -->`; everything around it is written by hand.
"""

from __future__ import annotations

import argparse
import ast
import functools
import inspect
import json
import re
import sys
import urllib.request
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import shtab

import portico
from portico import _core, _errors, _responses, cli, config
from portico.cli._completion import SHELLS
from portico.cli._exits import Exit
from portico.config import _schema

DOCS = Path(__file__).parent
MARKED = re.compile(r"(<!-- begin (?P<name>[a-z]+) -->\n).*?(<!-- end (?P=name) -->)", re.DOTALL)


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    lines = [list(head), ["---"] * len(list(head)), *(list(row) for row in rows)]
    return "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n" for line in lines)


def doc(thing: Any) -> str:
    """A docstring on one line."""
    return " ".join(inspect.cleandoc(thing.__doc__ or "").split())


# ---- settings


def bytes_in_words(number: int) -> str:
    """A number of bytes as people say it, where that is exact."""
    for unit, size in (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if number and number % size == 0:
            return f"{number // size} {unit}"
    return str(number)


def settings() -> str:
    """Every setting with its default and range."""
    rows = []
    for setting in portico.settings():
        expected, default = setting["expected"], repr(setting["default"])
        if " bytes " in expected:
            expected = re.sub(r"\d+", lambda found: bytes_in_words(int(found[0])), expected)
            default = f"{default} ({bytes_in_words(setting['default'])})" if setting["default"] is not None else default
        if setting["name"] == "io_threads":
            default = "cores, 4 at most"
        rows.append((f"`{setting['name']}`", default, expected, setting["doc"]))
    return table(("Setting", "Default", "Accepts", "What it does"), rows)


# ---- request


def types(name: str) -> dict[str, str]:
    """The types of a class's members, as the stub has them."""
    stub = Path(_core.__file__).with_name("_core.pyi")
    (body,) = [node.body for node in ast.parse(stub.read_text()).body if getattr(node, "name", None) == name]
    functions = [node for node in body if isinstance(node, ast.FunctionDef) and not node.name.startswith("_")]
    return {
        node.name: ast.unparse(node.returns or ast.Constant(None)).replace("_Server", "Server") for node in functions
    }


def describe(thing: type, names: Iterable[str] | None = None) -> Iterable[tuple[str, str, str]]:
    """Name, type and meaning of some members of a class, or of all public ones."""
    known = types(thing.__name__)
    for name in names or known:
        call = "()" if callable(getattr(thing, name)) else ""
        yield f"`{name}{call}`", f"`{known[name]}`", doc(getattr(thing, name))


def keys() -> str:
    """The keys of a request."""
    return table(("Key, and attribute", "Type", "Value"), describe(portico.Request, _core.REQUEST_KEYS))


def attributes() -> str:
    """What a request has besides its keys."""
    names = [name for name in types("Request") if name not in _core.REQUEST_KEYS]
    return table(("Attribute", "Type", "Value"), describe(portico.Request, names))


def connection() -> str:
    """The attributes of `request.connection`."""
    return table(("Attribute", "Type", "Value"), describe(portico.ConnectionInfo))


# ---- response


def helpers() -> str:
    """The functions that build responses."""
    functions = [thing for thing in vars(_responses).values() if inspect.isfunction(thing)]
    functions = [function for function in functions if function.__name__ in portico.__all__]
    functions.sort(key=lambda function: function.__code__.co_firstlineno)
    rows = []
    for function in functions:
        first = inspect.cleandoc(function.__doc__ or "").split("\n\n")[0].partition(">>>")[0]
        arguments = ", ".join(
            f"{name}=" if parameter.default is not parameter.empty else name
            for name, parameter in inspect.signature(function).parameters.items()
        )
        rows.append((f"`portico.{function.__name__}({arguments})`", " ".join(first.split())))
    return table(("Function", "What it does"), rows)


# ---- errors


def errors() -> str:
    """The tree of exceptions."""
    rows = []
    for name, thing in vars(_errors).items():
        if not name.startswith("_") and isinstance(thing, type) and issubclass(thing, _errors.Error):
            bases = ", ".join(f"`{base.__name__}`" for base in thing.__bases__)
            rows.append((f"`{thing.__name__}`", bases, doc(thing)))
    return table(("Exception", "Is a", "When"), rows)


# ---- statistics


def statistics() -> str:
    """What `Server.stats()` counts."""
    with portico.Server() as server:
        stats = server.stats()
    rows = []
    for name, what in _core.statistics():
        labels = ", ".join(f"`{label}`" for label in stats[name]) if isinstance(stats[name], dict) else ""
        rows.append((f"`{name}`", what, labels))
    return table(("Key", "What it counts", "By"), rows)


# ---- metrics


def metrics() -> str:
    """What `/metrics` shows of a server that has answered one request."""
    import portico.testing

    with portico.testing.server(lambda request: {"statusCode": 200}) as served:
        urllib.request.urlopen(served.url, context=served.ssl_context).read()
        with urllib.request.urlopen(f"{served.server.listen_admin(0).url}/metrics") as response:
            page = response.read().decode()
    rows = []
    for family in re.split(r"^# HELP ", page, flags=re.MULTILINE)[1:]:
        head, kind, *samples = family.splitlines()
        name, _, what = head.partition(" ")
        first = next((labels for sample in samples for labels in re.findall(r"\{(.*)\}", sample)), "")
        labels = ", ".join(f"`{label}`" for label in re.findall(r'(\w+)="', first) if label != "le")
        rows.append((f"`{name}`", kind.split()[-1], labels, what))
    return table(("Name", "Type", "Labels", "What it says"), rows)


# ---- tracing


def record() -> str:
    """The attributes of a trace's record."""
    return table(("Attribute", "Type", "Value"), describe(portico.TraceRecord))


def events() -> str:
    """What a trace tells, with the details of each."""
    rows = []
    for name, what, details in _core.trace_events():
        rows.append((f"`{name}`", what, "; ".join(f"`{detail}`: {meaning}" for detail, meaning in details)))
    return table(("Event", "When", "Details"), rows)


# ---- command line and portico.toml


def commands() -> str:
    """Each command, with the help that it prints."""
    parts = []
    for name, parser in cli_parsers().items():
        parser.formatter_class = functools.partial(parser.formatter_class, width=100)  # type: ignore[assignment]
        parts.append(f"## portico {name}\n\n```text\n{parser.format_help().rstrip()}\n```\n")
    return "\n".join(parts)


def exits() -> str:
    """How commands end."""
    return table(("Code", "When"), ((f"`{code.value}`", code.meaning) for code in Exit))


def configuration() -> str:
    """Everything that portico.toml may say, but for the settings."""
    parts = []
    for head, words, part in (
        ("Outside of tables", "", _schema.ROOT),
        ("`[[listen]]`", "", _schema.LISTEN),
        ('`[hosts."NAME"]`', "", _schema.HOST),
        ("`[handlers.NAME]`", "", _schema.HANDLER),
        ("`[admin]`", "", _schema.ADMIN),
        ("`[sessions]`", "", _schema.SESSIONS),
    ):
        rows = [(f"`{key.name}`", default_of(key.default), key.kind.expected, key.doc) for key in part.keys]
        parts.append(f"### {head}\n\n{words}{table(('Key', 'Default', 'Accepts', 'What it does'), rows)}")
    return "\n".join(parts)


def default_of(default: Any) -> str:
    """A default as TOML has it; in words where it is none that can be written."""
    if default is None:
        return ""
    return default if isinstance(default, str) and " " in default else f"`{json.dumps(default)}`"


def cli_parsers() -> dict[str, argparse.ArgumentParser]:
    """Each command's parser."""
    (action,) = [one for one in cli.parser_of_all()._actions if isinstance(one, argparse._SubParsersAction)]
    return dict(action.choices)


def completion(shell: str) -> str:
    """The script that completes the command line in a shell."""
    parser = cli.parser_of_all()
    (action,) = [one for one in parser._actions if isinstance(one, argparse._SubParsersAction)]
    for command in action.choices.values():
        for one in command._actions:
            if one.metavar in ("FILE", "PATH"):
                one.complete = shtab.FILE  # type: ignore[attr-defined]
            elif one.metavar == "DIR":
                one.complete = shtab.DIRECTORY  # type: ignore[attr-defined]
    return f"# {parser.prog}: written by docs/generate.py\n" * (shell == "bash") + shtab.complete(parser, shell)


def files() -> Iterable[tuple[Path, str]]:
    """What is written whole: the schema of portico.toml, and the scripts of shells."""
    yield DOCS / "portico.schema.json", json.dumps(config.json_schema(), indent=2, ensure_ascii=False) + "\n"
    scripts = Path(cli.__file__).parent / "completions"
    for shell in SHELLS:
        yield scripts / shell, completion(shell)


MAKERS: dict[str, Callable[[], str]] = {
    maker.__name__: maker
    for maker in (
        settings,
        keys,
        attributes,
        connection,
        helpers,
        errors,
        statistics,
        metrics,
        commands,
        exits,
        configuration,
        record,
        events,
    )
}


def generate(page: str) -> str:
    """A page with its tables made anew."""
    return MARKED.sub(lambda found: f"{found[1]}{MAKERS[found['name']]()}{found[3]}", page)


def main(arguments: list[str]) -> int:
    stale, seen = [], []
    for path in sorted(DOCS.glob("*.md")):
        before = path.read_text()
        after = generate(before)
        seen += [found["name"] for found in MARKED.finditer(after)]
        if after != before:
            stale.append(path)
            if "--check" not in arguments:
                path.write_text(after)
    for path, after in files():
        if not path.exists() or path.read_text() != after:
            stale.append(path)
            if "--check" not in arguments:
                path.write_text(after)
    if missing := set(MAKERS) - set(seen):
        sys.exit(f"no page has the tables {', '.join(sorted(missing))}")
    for path in stale:
        print(f"{path.name}: {'out of date, run `make docs`' if '--check' in arguments else 'written'}")
    return 1 if stale and "--check" in arguments else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
