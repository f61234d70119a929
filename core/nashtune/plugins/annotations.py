"""Annotations as text in one vocabulary, whatever names and aliases a module writes them with."""

from __future__ import annotations

import ast
import builtins

from nashtune.plugins.lookup import look_up
from nashtune.plugins.source import Source, Unreadable

NEUTRAL = ("builtins:", "typing:", "typing_extensions:", "jsonargparse.typing:", "collections.abc:")


def annotation_text(source: Source, node: ast.expr | None) -> str:
    """An annotation with aliases written out: builtin types, `X | None`, `Literal[...]`, number types of jsonargparse.

    Module prefixes go (`typing.Literal` is `Literal`), `Optional` and `Union` become `|`, quotes are taken off, and a
    name bound to a type expression is replaced by it. Names of classes stay. "" when there is no annotation.
    """
    return "" if node is None else ast.unparse(_Plain(source).visit(node))


class _Plain(ast.NodeTransformer):
    def __init__(self, source: Source, depth: int = 0) -> None:
        self.source = source
        self.depth = depth

    def visit_Constant(self, node: ast.Constant) -> ast.expr:
        if isinstance(node.value, str):  # a quoted annotation
            return self._visit(ast.parse(node.value, mode="eval").body)
        return node

    def visit_Name(self, node: ast.Name) -> ast.expr:
        return self._name(node)

    def visit_Attribute(self, node: ast.Attribute) -> ast.expr:
        return self._name(node)

    def visit_Subscript(self, node: ast.Subscript) -> ast.expr:
        head = self._visit(node.value)
        name = head.id if isinstance(head, ast.Name) else ""
        if name == "Literal":
            return ast.Subscript(head, node.slice)
        inner = self._visit(node.slice)
        members = inner.elts if isinstance(inner, ast.Tuple) else [inner]
        if name == "Annotated":
            return members[0]
        if name == "Optional":
            members = [*members, ast.Constant(None)]
        elif name != "Union":
            return ast.Subscript(head, inner)
        union = members[0]
        for member in members[1:]:
            union = ast.BinOp(union, ast.BitOr(), member)
        return union

    def _visit(self, node: ast.expr) -> ast.expr:
        visited = self.visit(node)
        assert isinstance(visited, ast.expr)
        return visited

    def _name(self, node: ast.Name | ast.Attribute) -> ast.expr:
        dotted = ast.unparse(node)
        if dotted in vars(builtins) and dotted not in self.source.names:
            return node
        try:
            found = look_up(self.source, dotted)
        except Unreadable:
            return node
        if isinstance(found, str):
            plain = found.startswith(NEUTRAL)
            return ast.Name(found.rpartition(":")[2]) if plain else node
        if isinstance(found.node, ast.expr) and not isinstance(found.node, ast.Call) and self.depth < 10:
            return _Plain(found.source, self.depth + 1)._visit(found.node)
        return node
