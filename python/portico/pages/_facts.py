"""What a program names, binds and makes."""

from __future__ import annotations

import ast


class Facts(ast.NodeVisitor):
    """Visits a module. Names of functions, classes and comprehensions within it are their own."""

    def __init__(self) -> None:
        self.names: set[str] = set()
        self.binds: set[str] = set()
        self.awaits = False
        self.makes_functions = False
        self._inside = 0  # functions and classes, whose names are their own
        self._targets: list[set[str]] = []  # of comprehensions, whose names are their own too

    def bind(self, name: str) -> None:
        if not self._inside and not any(name in targets for targets in self._targets):
            self.binds.add(name)

    def visit_Name(self, node: ast.Name) -> None:
        self.names.add(node.id)
        if isinstance(node.ctx, ast.Store):
            self.bind(node.id)

    def visit_NamedExpr(self, node: ast.NamedExpr) -> None:
        self.names.add(node.target.id)
        if not self._inside:
            self.binds.add(node.target.id)
        self.visit(node.value)

    def _comprehension(self, node: ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp) -> None:
        targets = {name.id for one in node.generators for name in ast.walk(one.target) if isinstance(name, ast.Name)}
        self._targets.append(targets)
        self.generic_visit(node)
        self._targets.pop()

    visit_ListComp = visit_SetComp = visit_DictComp = visit_GeneratorExp = _comprehension

    def _alias(self, node: ast.Import | ast.ImportFrom) -> None:
        for alias in node.names:
            name = alias.asname or alias.name.split(".")[0]
            self.names.add(name)
            self.bind(name)

    visit_Import = visit_ImportFrom = _alias

    def _definition(self, node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) -> None:
        self.names.add(node.name)
        self.bind(node.name)
        self._scope(node)

    visit_FunctionDef = visit_AsyncFunctionDef = visit_ClassDef = _definition

    def _scope(self, node: ast.AST) -> None:
        self.makes_functions = True
        self._inside += 1
        self.generic_visit(node)
        self._inside -= 1

    visit_Lambda = _scope

    def visit_ExceptHandler(self, node: ast.ExceptHandler) -> None:
        if node.name:
            self.names.add(node.name)
            self.bind(node.name)
        self.generic_visit(node)

    def _captures(self, node: ast.MatchAs | ast.MatchStar) -> None:
        if node.name:
            self.names.add(node.name)
            self.bind(node.name)
        self.generic_visit(node)

    visit_MatchAs = visit_MatchStar = _captures

    def visit_MatchMapping(self, node: ast.MatchMapping) -> None:
        if node.rest:
            self.names.add(node.rest)
            self.bind(node.rest)
        self.generic_visit(node)

    def visit_Global(self, node: ast.Global) -> None:
        self.names.update(node.names)

    def visit_Await(self, node: ast.Await) -> None:
        self._wait(node)

    def visit_AsyncFor(self, node: ast.AsyncFor) -> None:
        self._wait(node)

    def visit_AsyncWith(self, node: ast.AsyncWith) -> None:
        self._wait(node)

    def _wait(self, node: ast.AST) -> None:
        self.awaits = self.awaits or not self._inside
        self.generic_visit(node)
