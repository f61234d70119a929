"""What is known of a component's class without an object of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from nashtune.plugins.component import KINDS


@dataclass(frozen=True)
class Argument:
    """One keyword argument of a constructor.

    Args:
        name: Its name.
        annotation: Its type as text (see `annotation_text`); "" when it has none.
        required: Whether it has no default.
        default: Its default; None when it is required.
        doc: Its line under `Args:`.
    """

    name: str
    annotation: str
    required: bool
    default: Any
    doc: str


@dataclass(frozen=True)
class ClassInfo:
    """A component's class.

    Args:
        module: Module that defines it.
        name: Name of the class.
        summary: First line of its documentation.
        doc: All of its documentation.
        arguments: Of its constructor, in order.
        attributes: Literal class attributes, own and inherited, the interface's defaults included.
        file: Its source file.
        line: Its first line there.
        bases: Every ancestor, nearest first, as "module:Class".
    """

    module: str
    name: str
    summary: str
    doc: str
    arguments: tuple[Argument, ...]
    attributes: Mapping[str, Any] = field(hash=False)
    file: str = ""
    line: int = 0
    bases: tuple[str, ...] = ()

    @property
    def target(self) -> str:
        """`module:Class`."""
        return f"{self.module}:{self.name}"

    @property
    def where(self) -> str:
        """`file:line`."""
        return f"{self.file}:{self.line}"

    def implements(self, kind: str) -> bool:
        """Whether it is an implementation of the kind's interface."""
        return any(interface in self.bases for interface in KINDS[kind])


def argument_docs(docstrings: Iterable[str]) -> dict[str, str]:
    """What `Args:` says of each argument, on one line; a later docstring wins."""
    from docstring_parser import DocstringStyle, ParseError, parse

    docs: dict[str, str] = {}
    for text in docstrings:
        try:
            params = parse(text, style=DocstringStyle.GOOGLE).params
        except ParseError:
            continue  # documentation is for people; a section that is not Google style is not an error
        for param in params:
            if param.args[0] == "param" and param.description:
                docs[param.arg_name] = " ".join(param.description.split())
    return docs
