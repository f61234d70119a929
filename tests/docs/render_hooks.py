"""Writes what the code says of hooks and interfaces into the pages of docs/extend, between markers.

Run it after changing a hook, an interface or its documentation: `python tests/docs/render_hooks.py`.

A marker names what stands between it and its end: `<!-- generated: attributes Loss -->`.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from docstring_parser import DocstringStyle, parse

from nashtune import interfaces
from nashtune.interfaces import schedule
from nashtune.plugins import API, KINDS, component, hookspecs

PAGES = Path(__file__).parents[2] / "docs" / "extend"
BLOCK = re.compile(r"<!-- generated: ([\w ]+) -->\n.*?<!-- /generated -->", re.DOTALL)
SECTION = re.compile(r"^(Returns|Raises|Since):\s*", re.MULTILINE)
TAIL = re.compile(r"(.*?)\.? \[([^];]+); ([^];]+); ([^]]+)\]\.")
"""Meaning, shape, unit, and when a field is there."""
PHASES = (schedule.Collect, schedule.Judge, schedule.Pair, schedule.Anchor, schedule.Update, schedule.Snapshot)


def version() -> str:
    """The number of the plugin interface."""
    return f"**This is plugin API {API}**, the version of nashtune's hooks and interfaces.\n"


def hooks() -> str:
    """Every hook: heading with its arguments, signature, and what its docstring says."""
    parts = []
    for name in hookspecs.HOOKS:
        hook = getattr(hookspecs, name)
        signature = inspect.signature(hook)
        shown = ", ".join(signature.parameters)
        prose, *sections = SECTION.split(inspect.cleandoc(hook.__doc__))
        parts.append(f"### `{name}({shown})`\n")
        parts.append(f"```python\n@hookimpl\ndef {name}{signature}: ...\n```\n".replace("'", ""))
        parts.append(flowing(prose))
        given = zip(sections[::2], sections[1::2], strict=True)
        parts.append("\n".join(f"- {title}: {one_line(text)}" for title, text in given) + "\n")
    return "\n".join(parts)


def fields(*names: str) -> str:
    """What the dataclasses of plugins hold."""
    parts = []
    for name in names:
        cls = getattr(component, name)
        parts.append(f"### `{name}`\n\n{summary(cls)}\n")
        defaults = {one.name: one.default for one in dataclasses.fields(cls)}
        rows = [
            (f"`{field}`", "required" if defaults[field] is dataclasses.MISSING else f"`{defaults[field]!r}`", text)
            for field, text in told(cls, "param")
        ]
        parts.append(table(("argument", "default", "meaning"), rows))
    return "\n".join(parts)


def kinds() -> str:
    """Kinds of component, with their interfaces and pages."""
    rows = []
    for kind, targets in KINDS.items():
        names = [target.partition(":")[2] for target in targets]
        shown = " or ".join(f"`nashtune.interfaces.{name}`" for name in names)
        rows.append((f"`{kind}`", shown, f"[{kind}]({kind}.md)"))
    return table(("kind", "the class implements", "page"), rows)


def attributes(name: str) -> str:
    """Class attributes of an interface, with their defaults."""
    cls = getattr(interfaces, name)
    rows = []
    for attribute, text in told(cls, "attribute"):
        has = hasattr(cls, attribute)
        rows.append((f"`{attribute}`", f"`{literal(getattr(cls, attribute))}`" if has else "set by the object", text))
    return table(("attribute", "default", "meaning"), rows)


def methods(*names: str) -> str:
    """Functions of interfaces: those that a class must have, then those that it may."""
    rows: dict[str, tuple[str, ...]] = {}
    for name in names:
        cls = getattr(interfaces, name)
        for method, function in functions(cls):
            arguments = [one for one in inspect.signature(function).parameters if one != "self"]
            must = ("yes" if len(names) == 1 else f"of a `{name}`") if method in cls.__abstractmethods__ else ""
            rows.setdefault(method, (f"`{method}({', '.join(arguments)})`", must, summary(function)))
    return table(("function", "required", "what it does"), sorted(rows.values(), key=lambda row: not row[1]))


def batches(*names: str) -> str:
    """Fields of what a loss or a controller is given and gives: name, shape, unit, when it is there, meaning."""
    head, parts = ("field", "shape", "unit", "when it is there", "meaning"), []
    for name in names:
        cls, rows = getattr(interfaces, name), []
        for field, text in told(cls, "param"):
            found = TAIL.fullmatch(text)
            if found is None:
                raise SystemExit(f"{name}.{field}: its line does not end with [shape; unit; when it is there]: {text}")
            meaning, shape, unit, when = found.groups()
            rows.append((f"`{field}`", shape, unit, when, f"{meaning}."))
        parts.append(f"### `{name}`\n\n{summary(cls)}\n\n{table(head, rows)}")
    return "\n".join(parts)


def phases() -> str:
    """Phases of a round, with their arguments."""
    rows = []
    for cls in PHASES:
        arguments = "<br>".join(f"`{name}`: {text}" for name, text in told(cls, "param"))
        rows.append((f"`{cls.__name__}`", summary(cls), arguments))
    return table(("phase", "what happens", "arguments"), rows)


def functions(cls: type) -> Iterator[tuple[str, Any]]:
    """Public functions of an interface and of its ancestors, in the order of the source, nearest class first."""
    seen = set()
    for base in cls.__mro__:
        for name, value in vars(base).items():
            public = name == "__call__" or not name.startswith("_")
            if base is not object and public and inspect.isfunction(value) and name not in seen:
                seen.add(name)
                yield name, value


def told(cls: type, what: str) -> list[tuple[str, str]]:
    """(name, text) of what a class's docstring lists under `Args:` (param) or `Attributes:` (attribute)."""
    listed = parse(inspect.cleandoc(cls.__doc__ or ""), style=DocstringStyle.GOOGLE).params
    return [(one.arg_name, one_line(one.description or "")) for one in listed if one.args[0] == what]


def summary(thing: Any) -> str:
    """First paragraph of a docstring."""
    return one_line(inspect.cleandoc(thing.__doc__ or "").partition("\n\n")[0])


def flowing(text: str) -> str:
    """Paragraphs without the line breaks of the source."""
    return "\n\n".join(one_line(part) for part in text.strip().split("\n\n")) + "\n"


def one_line(text: str) -> str:
    """A paragraph on one line."""
    return " ".join(text.split())


def literal(value: Any) -> str:
    """A default as YAML's and Python's readers know it."""
    return f'"{value}"' if isinstance(value, str) else repr(value)


def table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    """A Markdown table."""
    lines = [head, ("---",) * len(head), *rows]
    return "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n" for line in lines)


KNOWN: dict[str, Callable[..., str]] = {
    "version": version,
    "hooks": hooks,
    "fields": fields,
    "kinds": kinds,
    "attributes": attributes,
    "methods": methods,
    "batches": batches,
    "phases": phases,
}


def render(page: str) -> str:
    """The page with every block between markers written anew."""

    def block(found: re.Match[str]) -> str:
        what, *names = found[1].split()
        return f"<!-- generated: {found[1]} -->\n\n{KNOWN[what](*names)}\n<!-- /generated -->"

    return BLOCK.sub(block, page)


if __name__ == "__main__":
    for path in sorted(PAGES.glob("*.md")):
        text = path.read_text(encoding="utf-8")
        path.write_text(render(text), encoding="utf-8")
        sys.stdout.write(f"{path}: {len(BLOCK.findall(text))} blocks\n")
