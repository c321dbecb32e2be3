"""From the text of a page to a program: `<% code %>`, `<%= escaped %>`, `<%- raw %>`, `<%# comment %>`, `<% end %>`.

Nothing here reads files or runs anything. What a page includes is asked of the caller, and every line of the program
knows the line of the page that it is from.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass, field

from . import _indent
from ._errors import Place, page_error
from ._facts import Facts
from ._tags import Piece, split

RESERVED = "_psp_"
"""How names begin that the program needs for itself."""
MOST_PRINTED = 32
"""How many values one call prints."""
MOST_INCLUDES = 16
"""How deep includes may stand within each other."""

_DIRECTIVE = re.compile(r"(include|layout)\s*\((.*)\)\s*", re.DOTALL)
_GOES_ON = re.compile(r"(else|elif|except|finally|case)\b")
_END = re.compile(r"end\s*(?:[;#]|$)")
_NAME = re.compile(r"[^\W\d]\w*")

Include = Callable[[str, str], tuple[str, str]]
"""From the page that includes and the name that it gives to the name of the page meant and its text. Raises
`FileNotFoundError`."""


@dataclass(frozen=True)
class Program:
    """What a page has become."""

    page: str
    """Its name, as `/folder/page.psp`."""
    source: str
    """Python."""
    places: tuple[Place, ...]
    """Where each line of the source is from."""
    fixed: frozenset[int]
    """Lines of the source, from 0 on, that begin within a string: they cannot be indented."""
    texts: tuple[str, ...]
    """The text between the tags, in order; the program prints them by number."""
    names: frozenset[str]
    """Every name that stands in its code."""
    layers: int
    """How many layouts are around it. What it printed, and what each layout around it did, ends with a mark."""
    awaits: bool
    """Whether it awaits outside of any function of its own."""
    binds: tuple[str, ...]
    """What it gives values to outside of any function of its own."""
    makes_functions: bool
    """Whether it has functions, classes or lambdas in it, which outlive it."""

    @functools.cached_property
    def number(self) -> int:
        """The same in every process: sessions keep it of the programs that they know."""
        digest = hashlib.sha256(f"{self.page}\0{self.source}\0{self.places}".encode()).digest()
        return int.from_bytes(digest[:4], "big") >> 1 | 2


@dataclass
class _Block:
    """A block that is open: `for x in y:` and the like."""

    opener: str
    place: Place
    depth: int
    """How deep its first line stands."""
    filled: int
    """How many lines the program had when it was opened."""


@dataclass
class _Compiler:
    page: str
    include: Include
    lines: list[str] = field(default_factory=list)
    places: list[Place] = field(default_factory=list)
    fixed: set[int] = field(default_factory=set)
    texts: list[str] = field(default_factory=list)
    printing: list[tuple[list[str], Place, frozenset[int]]] = field(default_factory=list)
    blocks: list[_Block] = field(default_factory=list)
    layout: tuple[str, str] | None = None

    def add_page(self, page: str, text: str, within: tuple[str, ...]) -> None:
        """Adds a page, or one that it includes, at the depth where we are."""
        open_before = len(self.blocks)
        for piece in split(page, text):
            place = (page, piece.line)
            if piece.kind == "text":
                self.add_text(piece.text, place)
            elif piece.kind in ("=", "-"):
                self.add_expression(piece, place)
            elif directive := _DIRECTIVE.fullmatch(piece.text.strip()):
                self.add_directive(directive[1], directive[2], page, place, within)
            else:
                self.add_code(piece, place, open_before)
        self.flush()
        if len(self.blocks) > open_before:
            block = self.blocks[-1]
            raise page_error(block.place, f"{block.opener} is not closed: a <% end %> is missing")

    @property
    def depth(self) -> int:
        return self.blocks[-1].depth + 1 if self.blocks else 0

    def emit(self, lines: list[str], place: Place, fixed: frozenset[int] = frozenset()) -> None:
        """Adds lines of code, which are the page's from `place` on. Those in `fixed` are within a string that spans
        lines, and stay as they are."""
        self.flush()
        indent = "    " * self.depth
        self.fixed.update(len(self.lines) + number for number in fixed)
        for number, line in enumerate(lines):
            self.lines.append(line if number in fixed or not line else indent + line)
            self.places.append((place[0], place[1] + number))

    def add_text(self, text: str, place: Place) -> None:
        if self.blocks and self.blocks[-1].opener == "match":
            if text.strip():
                raise page_error(place, "text between match and its first case belongs to no case")
            return
        if text:
            self.print([f"{RESERVED}t[{len(self.texts)}]"], place, frozenset())
            self.texts.append(text)

    def print(self, lines: list[str], place: Place, fixed: frozenset[int]) -> None:
        """Adds a value to what is printed next: one call for several values."""
        if len(self.printing) >= MOST_PRINTED:
            self.flush()
        self.printing.append((lines, place, fixed))

    def flush(self) -> None:
        """Prints what is to be printed, before anything else happens."""
        values, self.printing = self.printing, []
        for number, (lines, place, fixed) in enumerate(values):
            lines = [f"{RESERVED}p({lines[0]}" if number == 0 else lines[0], *lines[1:]]
            last = number == len(values) - 1
            closing = "," if not last else ', end="")' if len(values) == 1 else ', sep="", end="")'
            # On a line of its own, because a comment would take it along.
            self.emit([*lines, closing] if "#" in lines[-1] else [*lines[:-1], lines[-1] + closing], place, fixed)

    def add_expression(self, piece: Piece, place: Place) -> None:
        code = piece.text.strip()
        place = (place[0], place[1] + piece.text[: len(piece.text) - len(piece.text.lstrip())].count("\n"))
        if not code:
            raise page_error(place, f"<%{piece.kind} %> without an expression")
        _check_names(code, place)
        try:
            # As the one element of a list: nothing in it can close the brackets that it will stand in.
            tree = compile(f"[\n{code}\n]", place[0], "eval", ast.PyCF_ONLY_AST | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
            assert isinstance(tree, ast.Expression)
            found = tree.body.elts if isinstance(tree.body, ast.List) else []
            if len(found) != 1 or isinstance(found[0], ast.Starred):
                raise ValueError("more than one value, or none")
        except (SyntaxError, ValueError) as error:
            line = place[1] + min(max((getattr(error, "lineno", None) or 2) - 2, 0), code.count("\n"))
            raise page_error((place[0], line), f"no expression: {_said(error)}") from None
        if any(isinstance(node, (ast.Call, ast.Await)) for node in ast.walk(tree)):
            self.flush()  # What is called may print, and comes after what stands before it.
        lines, fixed = _indent.split(code)
        if piece.kind == "=":
            lines[0] = f"{RESERVED}e({lines[0]}"
            lines = [*lines, ")"] if "#" in lines[-1] else [*lines[:-1], lines[-1] + ")"]
        self.print(lines, place, fixed)

    def add_directive(self, name: str, argument: str, page: str, place: Place, within: tuple[str, ...]) -> None:
        try:
            target = ast.literal_eval(argument.strip())
        except (SyntaxError, ValueError):
            target = None
        if not isinstance(target, str) or not target:
            raise page_error(place, f'{name}(...) takes the name of a page in quotes, as {name}("head.psp")')
        if name == "layout":
            if self.layout is not None:
                raise page_error(place, "a page has one layout")
            self.layout = self.fetch(page, target, place)
            return
        if len(within) >= MOST_INCLUDES:
            raise page_error(place, f"pages include each other more than {MOST_INCLUDES} deep")
        included, text = self.fetch(page, target, place)
        if included in within:
            raise page_error(place, f"{included} includes itself")
        self.add_page(included, text, (*within, included))

    def fetch(self, page: str, target: str, place: Place) -> tuple[str, str]:
        try:
            return self.include(page, target)
        except FileNotFoundError as error:
            raise page_error(place, str(error)) from None

    def add_code(self, piece: Piece, place: Place, open_before: int) -> None:
        try:
            code = _indent.normalise(piece.text, piece.column)
        except _indent.BadIndentation as error:
            raise page_error((place[0], place[1] + error.line), str(error)) from None
        if not code.lines:
            return
        self.flush()
        place = (place[0], place[1] + code.skipped)
        _check_names("\n".join(code.lines), place)
        if _END.match(code.lines[0]):
            self.close_block(place, open_before, alone=len(code.lines) == 1 and ";" not in code.lines[0])
            return
        if goes_on := _GOES_ON.match(code.lines[0]):
            self.go_on(goes_on[1], code, place, open_before)
        filled = len(self.lines)
        self.emit(list(code.lines), place, code.fixed)
        if code.opens:
            opener = _NAME.match(code.last)
            self.blocks.append(_Block(opener[0] if opener else code.last, place, self.depth, filled + len(code.lines)))

    def go_on(self, word: str, code: _indent.Code, place: Place, open_before: int) -> None:
        """Ends the block before an `else:` and the like, which stand as deep as what they belong to."""
        if word == "case" and not (code.opens and self.blocks and self.blocks[-1].opener in ("match", "case")):
            return  # A name like any other; what else it may be is found where the whole is parsed.
        if len(self.blocks) <= open_before:
            raise page_error(place, f"{word} without a block that it goes on with")
        if self.blocks[-1].opener == "match":
            return
        self.fill()
        self.blocks.pop()

    def close_block(self, place: Place, open_before: int, *, alone: bool) -> None:
        if not alone:
            raise page_error(place, "end stands alone in its tag")
        if len(self.blocks) <= open_before:
            raise page_error(place, "end without a block that is open")
        self.fill()
        block = self.blocks.pop()
        if block.opener == "case":
            self.blocks.pop()

    def fill(self) -> None:
        """A block with nothing in it is none to Python."""
        block = self.blocks[-1]
        if len(self.lines) == block.filled:
            self.emit(["pass"], block.place)


def compile_page(page: str, text: str, include: Include) -> Program:
    """Compiles a page. Raises `PageError` that names the page and its line."""
    compiler = _Compiler(page, include)
    compiler.add_page(page, text, (page,))
    layers: list[str] = [page]
    while compiler.layout is not None:
        around, text = compiler.layout
        if around in layers or len(layers) > MOST_INCLUDES:
            raise page_error((around, 1), "layouts stand around each other in a circle, or too deep")
        compiler.layout = None
        compiler.emit(compile_layer(len(layers) - 1), (around, 1))
        layers.append(around)
        compiler.add_page(around, text, (around,))
    source = "\n".join(compiler.lines)
    places = tuple(compiler.places)
    try:
        flags = ast.PyCF_ONLY_AST | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
        tree = compile(source, page, "exec", flags)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        line = getattr(error, "lineno", None) or 1
        place = places[min(line, len(places)) - 1] if places else (page, 1)
        raise page_error(place, _said(error)) from None
    assert isinstance(tree, ast.Module)
    facts = Facts()
    facts.visit(tree)
    return Program(
        page=page,
        source=source,
        places=places,
        fixed=frozenset(compiler.fixed),
        texts=tuple(compiler.texts),
        names=frozenset(facts.names),
        layers=len(layers) - 1,
        awaits=facts.awaits,
        binds=tuple(sorted(facts.binds)),
        makes_functions=facts.makes_functions,
    )


def compile_layer(number: int) -> list[str]:
    """What stands between a page and the layout around it: a mark where its output ends, and one as `content`, which
    is exchanged for that output when all has run."""
    return [f'{RESERVED}p({RESERVED}n + "e{number}", end="")', f'content = {RESERVED}n + "c{number}"']


def _check_names(code: str, place: Place) -> None:
    if RESERVED in code:
        raise page_error(place, f"names with {RESERVED} in them are portico's own")


def _said(error: Exception) -> str:
    return error.msg if isinstance(error, SyntaxError) else str(error)
