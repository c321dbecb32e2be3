"""How the site is made of these pages: `make docs` writes it into `site/`.

Sphinx reads the Markdown as it stands here (MyST), furo is its look. Nothing is fetched, neither while it is built nor
while it is read. Every warning is an error: a link to nowhere, a page that is in no table of contents.
"""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.util.docutils import SphinxDirective

import portico
from portico import _core

ROOT = Path(__file__).parents[1]
STUB = ast.parse(Path(_core.__file__).with_name("_core.pyi").read_text())

project = "portico"
author = "the authors of portico"
release = version = portico.__version__
language = "en"

extensions = ["myst_parser", "sphinx.ext.autodoc"]
source_suffix = {".md": "markdown"}
exclude_patterns = ["images", "_static"]

# ---- Markdown

myst_enable_extensions = ["colon_fence"]
# Headings are linked to as GitHub names them: `tls.md#client-certificates`.
myst_heading_anchors = 4
# A fence's words behind the language are for tests/test_docs.py: `python fragment`, `python file=app.py`.

# ---- the reference, from docstrings

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_class_signature = "mixed"
autodoc_preserve_defaults = True
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 88
add_module_names = False
toc_object_entries_show_parents = "hide"


class Core(SphinxDirective):
    """A class of the core: what it says of itself, with the types that only the stub knows."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        name = self.arguments[0]
        (body,) = (node.body for node in STUB.body if isinstance(node, ast.ClassDef) and node.name == name)
        lines = [f".. py:class:: {name}", "", indented(getattr(portico, name)), ""]
        for node in body:
            if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
                lines += [textwrap.indent(member(getattr(portico, name), node), "   "), ""]
        return self.parse_text_to_nodes("\n".join(lines))


class Others(SphinxDirective):
    """The public names that no page of the reference has, so that a new one is in it from the start."""

    def run(self) -> list[nodes.Node]:
        written = "\n".join(path.read_text() for path in (ROOT / "docs/reference").glob("*.md"))
        lines = []
        for name in portico.__all__:
            thing = getattr(portico, name)
            if inspect.ismodule(thing) or re.search(rf":: (portico\.)?{name}$", written, re.M):
                continue
            if getattr(_core, name, None) is thing and inspect.isclass(thing):
                lines += [".. currentmodule:: portico", f".. core:: {name}", ""]
            else:
                kind = "class" if inspect.isclass(thing) else "function" if callable(thing) else "data"
                lines += [f".. auto{kind}:: portico.{name}", "   :members:" if kind == "class" else "", ""]
        return self.parse_text_to_nodes("\n".join(lines)) if lines else []


def member(owner: type, node: ast.FunctionDef) -> str:
    """A property or a method as the domain of Python has it."""
    returns = ast.unparse(node.returns) if node.returns else "None"
    returns = returns.replace("_Server", "Server")
    if node.decorator_list:
        head = f".. py:attribute:: {node.name}\n   :type: {returns}"
    else:
        del node.args.args[:1]
        head = f".. py:method:: {node.name}({ast.unparse(node.args)}) -> {returns}"
    return f"{head}\n\n{indented(getattr(owner, node.name))}"


def indented(thing: Any) -> str:
    return textwrap.indent(code(inspect.getdoc(thing) or ""), "   ")


def code(text: str) -> str:
    """What stands in single backticks is code, as in Markdown; docutils minds spaces at its ends."""
    return re.sub(r"(?<!`)`([^`]+)`(?!`)", lambda found: f"``{found[1].strip()}``", text)


def mended(app: Any, what: str, name: str, thing: Any, options: Any, lines: list[str]) -> None:
    lines[:] = code("\n".join(lines)).split("\n")


def public(app: Any, env: Any, node: Any, content: nodes.Node) -> nodes.Node | None:
    """The types in signatures carry the names of the modules that they are kept in: `portico._contexts.Context`."""
    name = node.get("reftarget", "").rpartition(".")[2]
    if node.get("refdomain") != "py" or not re.match(r"portico\._|_core\.|[A-Z]", node["reftarget"]):
        return None
    domain = env.get_domain("py")
    for full in (f"portico.{name}", f"portico.sessions.{name}", f"portico.testing.{name}"):
        if full in domain.objects:
            found = domain.objects[full]
            builder = app.builder
            target = builder.get_relative_uri(node["refdoc"], found.docname) + "#" + found.node_id
            return nodes.reference("", "", content, internal=True, refuri=target, reftitle=full)
    return None


# ---- the look

html_theme = "furo"
html_title = f"portico {release}"
html_static_path = ["_static"]
html_favicon = "_static/favicon.svg"
html_css_files = ["site.css"]
html_copy_source = False
html_show_sourcelink = False
html_show_sphinx = False
html_show_copyright = False
html_theme_options = {"top_of_page_buttons": [], "navigation_with_keys": False}
pygments_style = "friendly"
pygments_dark_style = "github-dark"

# ---- links that leave this folder

EXAMPLE = re.compile(r"\]\((?:\.\./)+examples/(?:(\w+)\.py)?\)")
# Files of the project that are pages of the site under another name.
PAGES = {"SECURITY.md": "security.md", "CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}
NAMES = "|".join(map(re.escape, PAGES))
OUTSIDE = re.compile(rf"\]\((?:\.\./)+({NAMES})(#[\w-]+)?\)")
INCLUDE = re.compile(rf"^```{{include}} \.\./({NAMES})\n```$", re.M)


def adapt(app: Any, docname: str, source: list[str]) -> None:
    """Links to programs and to files beside `docs/` go to their pages of the site."""
    up = "../" * docname.count("/")

    def example(found: re.Match[str]) -> str:
        return f"]({up}examples.md{f'#{found[1]}-py' if found[1] else ''})"

    text = INCLUDE.sub(lambda found: included(ROOT / found[1]), source[0])
    text = EXAMPLE.sub(example, text)
    text = OUTSIDE.sub(lambda found: f"]({up}{PAGES[found[1]]}{found[2] or ''})", text)
    if docname == "examples":
        text += "".join(map(shown, sorted((ROOT / "examples").glob("*.py"))))
    source[0] = text


def included(path: Path) -> str:
    """A page from beside `docs/`, with its links as they are seen from here."""
    text = re.sub(r"\]\(docs/", "](", path.read_text())
    return re.sub(rf"\]\(({NAMES})\)", lambda found: f"]({PAGES[found[1]]})", text)


def shown(path: Path) -> str:
    """A program, under a heading that links can lead to."""
    return f"\n({path.stem}-py)=\n\n## {path.name}\n\n```{{literalinclude}} ../examples/{path.name}\n```\n"


def setup(app: Any) -> dict[str, Any]:
    app.add_directive("core", Core)
    app.add_directive("others", Others)
    app.connect("autodoc-process-docstring", mended)
    app.connect("missing-reference", public)
    app.connect("source-read", adapt)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
