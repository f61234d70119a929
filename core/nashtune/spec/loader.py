"""YAML read strictly, with the line of every key.

What is read is YAML 1.2 with three traps closed, all of which PyYAML's own loader leaves open: `1e-5` is a number
(PyYAML: text), `on`, `off`, `yes` and `no` are text (PyYAML: booleans), and a key given twice is an error (PyYAML: the
last one wins). `012` is 10 to YAML 1.1 and 12 to YAML 1.2, so here it stays text and an option for numbers refuses it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

import yaml

from nashtune.errors import InputError
from nashtune.spec.scalars import PATTERNS, SCALARS, TAG

KeyPath = tuple[str | int, ...]

MOST = 100_000
"""Values of one document, those of an alias counted wherever it stands: a few lines of aliases can mean billions."""
LARGEST = 4 * 2**20
"""Characters (bytes of a file) of one document."""
DEEPEST = 100
"""Lists and mappings inside one another: PyYAML's C code calls itself for each, and a few 10,000 end the process."""
_Base: type[Any] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the C parser is ten times faster where it was built


class _Loader(_Base):  # type: ignore[misc]  # chosen at run time
    yaml_implicit_resolvers: dict[str | None, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012 (PyYAML's own name)


for _tag, _pattern in PATTERNS.items():
    _Loader.add_implicit_resolver(_tag, _pattern, None)


@dataclass(frozen=True)
class Located:
    """Plain data and where each part of it stands.

    Args:
        data: What the YAML says, as dicts with text keys, lists and scalars.
        source: File name for messages.
        lines: Line (from 1) of every key and list item.
    """

    data: Any
    source: str
    lines: Mapping[KeyPath, int] = field(default_factory=dict)

    def line(self, path: KeyPath) -> int | None:
        """Line of a key path, or of the nearest key above it; None when nothing above it is known."""
        for end in range(len(path), -1, -1):
            if path[:end] in self.lines:
                return self.lines[path[:end]]
        return None

    def where(self, path: KeyPath = ()) -> str:
        """`file:line`, for the start of a message."""
        line = self.line(path)
        return self.source if line is None else f"{self.source}:{line}"

    def section(self, key: str) -> Located:
        """The part under one top-level key, its positions kept."""
        lines = {path[1:]: line for path, line in self.lines.items() if path[:1] == (key,)}
        return Located(self.data[key], self.source, lines)


def load_yaml(text: str, source: str) -> Located:
    """Read one YAML document.

    Args:
        text: The document.
        source: File name for messages.

    Raises:
        InputError: broken YAML, a duplicate key, a key that is not text, a tag (`!...`), more than `MOST` values, too
            deep or too large: each with file and line.
    """
    if len(text) > LARGEST:
        raise InputError(_too_large(source))
    try:
        _refuse_deep(text, source)
        loader = _Loader(text)
        try:
            node = loader.get_single_node()
        finally:
            loader.dispose()
        lines: dict[KeyPath, int] = {}
        data = None if node is None else _value(node, (), lines, source, ())
    except yaml.MarkedYAMLError as error:
        raise InputError(_broken(error, text, source)) from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise InputError(f"{source}:{line}: broken YAML: {error.reason}") from None
    except RecursionError:
        raise InputError(f"{source}: broken YAML: nested too deeply") from None
    return Located(data, source, lines)


def _too_large(source: str) -> str:
    return f"{source}: more than {LARGEST // 2**20} MiB; a file of settings has a few kilobytes"


def _refuse_deep(text: str, source: str) -> None:
    """Count brackets and indents by the parser's events, which come one by one, before a tree is built."""
    depth = 0
    for event in yaml.parse(text, Loader=_Loader):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > DEEPEST:
                line = event.start_mark.line + 1 if event.start_mark is not None else 1
                raise InputError(f"{source}:{line}: broken YAML: nested too deeply")
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1


def _broken(error: yaml.MarkedYAMLError, text: str, source: str) -> str:
    """Where and what; a bracket that is never closed is noticed at the end, so where it opened is said, too."""
    last = max(len(text.splitlines()), 1)
    lines = [min(mark.line + 1, last) for mark in (error.problem_mark, error.context_mark) if mark is not None]
    at = f"{source}:{lines[0]}" if lines else source
    problem = "; ".join(part for part in (error.context, error.problem) if part)
    return f"{at}: broken YAML: {problem}" + (
        f" (begun on line {lines[1]})" if lines[1:] and lines[1] != lines[0] else ""
    )


def read_yaml(file: Path | Traversable) -> Located:
    """Read a YAML file.

    Raises:
        InputError: the file cannot be read or is not UTF-8, or as `load_yaml`.
    """
    return load_yaml(read_text(file), display(file))


def read_text(file: Path | Traversable) -> str:
    """The text of a file of settings, of which no more is read than such a file may have.

    Raises:
        InputError: the file cannot be read, is not UTF-8, or is too large.
    """
    source = display(file)
    try:
        if isinstance(file, Path) and not file.is_relative_to("/dev") and file.exists():
            if not file.is_file() and not file.is_dir():  # opening a pipe waits for who writes into it
                raise InputError(f"{source}: is a pipe or device, not a file; put a file in its place")
        with file.open("rb") as stream:
            read = stream.read(LARGEST + 1)
        if len(read) > LARGEST:
            raise InputError(_too_large(source))
        return read.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise InputError(f"{source}:{line}: not UTF-8 text; save the file as UTF-8") from None
    except OSError as error:
        raise InputError(f"{source}: cannot be read: {error.strerror or error}") from None


def display(file: object) -> str:
    """A file's name as messages show it: relative when it lies below the working directory."""
    name = str(file)
    if os.path.isabs(name):
        relative = os.path.relpath(name)
        return name if relative.startswith(os.pardir) else relative
    return name


def _value(node: Any, path: KeyPath, lines: dict[KeyPath, int], source: str, above: tuple[int, ...]) -> Any:
    """The node's value; records the line of everything below it."""
    line = node.start_mark.line + 1
    lines.setdefault(path, line)
    if id(node) in above:
        raise InputError(f"{source}:{line}: broken YAML: an alias that contains itself")
    above = (*above, id(node))
    if len(lines) > MOST:
        raise InputError(
            f"{source}:{line}: more than {MOST} values, aliases (*name) written out; a spec or run file has a few dozen"
        )
    if isinstance(node, yaml.MappingNode) and node.tag == TAG + "map":
        return _mapping(node, path, lines, source, above)
    if isinstance(node, yaml.SequenceNode) and node.tag == TAG + "seq":
        return [_value(item, (*path, i), lines, source, above) for i, item in enumerate(node.value)]
    if isinstance(node, yaml.ScalarNode) and node.tag in SCALARS:
        try:
            return SCALARS[node.tag](node.value)
        except ValueError:
            raise InputError(f"{source}:{line}: '{node.value}' is not a {node.tag.removeprefix(TAG)}") from None
        except OverflowError as error:
            raise InputError(f"{source}:{line}: {error}") from None
    tag = node.tag.replace(TAG, "!!")
    raise InputError(f"{source}:{line}: the tag {tag} is not read: a spec holds plain data, no code")


def _mapping(
    node: Any, path: KeyPath, lines: dict[KeyPath, int], source: str, above: tuple[int, ...]
) -> dict[str, Any]:
    data: dict[str, Any] = {}
    for key_node, value_node in node.value:
        line = key_node.start_mark.line + 1
        if not isinstance(key_node, yaml.ScalarNode) or key_node.tag != TAG + "str":
            found = getattr(key_node, "value", "") if isinstance(key_node, yaml.ScalarNode) else "a list or mapping"
            raise InputError(f"{source}:{line}: a key must be a word, found {found or 'nothing'}")
        key = key_node.value
        if key in data:
            first = lines[(*path, key)]
            raise InputError(f"{source}:{line}: '{key}' is given twice (first on line {first}); keep one of them")
        lines[(*path, key)] = line
        data[key] = _value(value_node, (*path, key), lines, source, above)
    return data
