"""What the statements of a body bind each name to, and which names the text leaves open."""

from __future__ import annotations

import ast
from collections.abc import Iterable
from typing import NamedTuple


class Imported(NamedTuple):
    """`from module import name` (name is "" for `import module`)."""

    module: str
    name: str


NAMESPACES = ("globals", "locals", "vars")
"""Functions that, without an argument, give the names to whoever calls, to read and to bind."""


class Bindings(ast.NodeVisitor):
    """Names of a module's or of a class's body.

    A name stays unclear where it is bound to several things, in a loop, by unpacking, by `:=`, by `del`, or from within
    a function: which of them holds is for Python to say. Functions and inner classes keep their own names.

    Args:
        body: The statements.
        package: What relative imports begin at.

    Attributes:
        names: What each clear name is bound to.
        unclear: The others.
        stars: Modules of `from x import *`, in order.
        is_open: Whether a statement may bind any name at all, as `exec` does.
    """

    def __init__(self, body: Iterable[ast.stmt], package: str = "") -> None:
        self.names: dict[str, ast.stmt | ast.expr | Imported] = {}
        self.unclear: set[str] = set()
        self.stars: list[str] = []
        self.is_open = False
        self._package = package
        self._changed: set[str] = set()
        for statement in body:
            self.visit(statement)
        for name in self._changed:  # `Mine.rows = ...` below the class: its own body is not all there is
            if isinstance(self.names.get(name), ast.ClassDef):
                self._leave_open(name)

    def _bind(self, name: str, value: ast.stmt | ast.expr | Imported) -> None:
        if name in self.unclear:
            return
        if name in self.names and not _same(self.names[name], value):
            self._leave_open(name)
        else:
            self.names[name] = value

    def _leave_open(self, name: str) -> None:
        self.names.pop(name, None)
        self.unclear.add(name)

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        """Binds its name; what is inside is its own."""
        self._bind(node.name, node)

    def visit_FunctionDef(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        """Binds its name, and leaves open what it may bind with `global`."""
        self._bind(node.name, node)
        for inner in ast.walk(node):
            for name in inner.names if isinstance(inner, ast.Global) else ():
                self._leave_open(name)

    visit_AsyncFunctionDef = visit_FunctionDef

    def visit_Lambda(self, node: ast.Lambda) -> None:
        """Binds nothing."""

    def visit_comprehension(self, node: ast.comprehension) -> None:
        """Its variable is its own."""
        for part in (node.iter, *node.ifs):
            self.visit(part)

    def visit_Assign(self, node: ast.Assign) -> None:
        """Each target that is a name; others leave theirs open."""
        self.visit(node.value)
        for target in node.targets:
            self._assign(target, node.value)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        """Without a value nothing is bound."""
        if node.value is not None:
            self.visit(node.value)
            self._assign(node.target, node.value)

    def visit_TypeAlias(self, node: ast.AST) -> None:
        """`type X = ...`, Python 3.12."""
        self._assign(node.name, node.value)  # type: ignore[attr-defined]

    def _assign(self, target: ast.expr, value: ast.expr) -> None:
        match target, value:
            case ast.Name(id=name), _:
                self._bind(name, value)
            case ((ast.Tuple(elts=parts) | ast.List(elts=parts)), (ast.Tuple(elts=values) | ast.List(elts=values))) if (
                len(parts) == len(values) and not any(isinstance(one, ast.Starred) for one in (*parts, *values))
            ):
                for part, one in zip(parts, values, strict=True):
                    self._assign(part, one)
            case _:
                self.visit(target)

    def visit_Name(self, node: ast.Name) -> None:
        """A target of `for`, `with`, `del`, `+=`, `:=` or unpacking."""
        if not isinstance(node.ctx, ast.Load):
            self._leave_open(node.id)

    def visit_Attribute(self, node: ast.Attribute) -> None:
        """Whose attribute is set."""
        if not isinstance(node.ctx, ast.Load) and isinstance(node.value, ast.Name):
            self._changed.add(node.value.id)
        self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> None:
        """A call may bind names that it does not spell, or change a class."""
        called = node.func.id if isinstance(node.func, ast.Name) else ""
        self.is_open |= called == "exec" or (called in NAMESPACES and not node.args)
        if called in ("setattr", "delattr") and node.args and isinstance(node.args[0], ast.Name):
            self._changed.add(node.args[0].id)
        self.generic_visit(node)

    def visit_MatchAs(self, node: ast.MatchAs | ast.MatchStar) -> None:
        """What a pattern captures."""
        if node.name is not None:
            self._leave_open(node.name)
        self.generic_visit(node)

    visit_MatchStar = visit_MatchAs

    def visit_MatchMapping(self, node: ast.MatchMapping) -> None:
        """What `**rest` of a pattern captures."""
        if node.rest is not None:
            self._leave_open(node.rest)
        self.generic_visit(node)

    def visit_Import(self, node: ast.Import) -> None:
        """`import a.b` binds `a`."""
        for alias in node.names:
            whole = alias.name if alias.asname else alias.name.partition(".")[0]
            self._bind(alias.asname or whole, Imported(whole, ""))

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        """Relative ones begin at the package."""
        parts = self._package.split(".")
        above = parts[: len(parts) - node.level + 1] if node.level else []
        module = ".".join([*above, *([node.module] if node.module else [])])
        for alias in node.names:
            if alias.name == "*":
                self.stars.append(module)
            else:
                self._bind(alias.asname or alias.name, Imported(module, alias.name))


def _same(one: ast.stmt | ast.expr | Imported, other: ast.stmt | ast.expr | Imported) -> bool:
    if isinstance(one, ast.expr) and isinstance(other, ast.expr):
        return ast.dump(one) == ast.dump(other)
    return isinstance(one, Imported) and one == other
