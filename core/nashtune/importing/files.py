"""The two files of an import as YAML text: every value with where it comes from, and what was not taken over."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nashtune.errors import InputError
from nashtune.files import write_bytes_atomically
from nashtune.importing.translate import Translation
from nashtune.spec.findings import Findings
from nashtune.spec.loader import display
from nashtune.spec.model import SECTIONS
from nashtune.spec.run import RUN_SECTIONS

SPEC = "spec"
CHANGED = (
    "is there already with another text, and is not overwritten; move it away, or write elsewhere with --out FOLDER "
    "and compare the two"
)
_PLAIN = re.compile(r"[A-Za-z_.~/][\w./~+-]*(?::[\w./~+-]+)*")
_RESERVED = ("null", "true", "false", "none", "yes", "no", "on", "off", ".inf", ".nan", "~")


def names(file: Path, folder: Path) -> tuple[Path, Path]:
    """Where the spec and the run file of a config are written.

    Raises:
        InputError: the folder, or one above it, is no folder.
    """
    there = next(one for one in (folder, *folder.parents) if one.exists())
    if not there.is_dir():
        raise InputError(f"--out: {display(there)} is a file, and no folder; name a folder, which is made if need be")
    return folder / f"{file.stem}.spec.yaml", folder / f"{file.stem}.run.yaml"


def render(translation: Translation, config: str, spec: str, run: str) -> tuple[str, str]:
    """The text of the spec and of the run file.

    Args:
        translation: What to write.
        config: The config, for the heads.
        spec: Name of the spec's file.
        run: Name of the run file.
    """
    head = _head(translation, config, f"nashtune fit {fit_options(spec, run)}")
    settings = dict(sorted(translation.settings.items(), key=lambda one: _place(one[0])))
    own = {path: value for path, value in settings.items() if path.startswith(f"{SPEC}.")}
    rest = {path: value for path, value in settings.items() if path not in own}
    origins = translation.origins
    below = {path.removeprefix(f"{SPEC}."): value for path, value in own.items() if path != f"{SPEC}.base"}
    chosen = origins.get(f"{SPEC}.base", f"{translation.method.name} of {translation.table.tool}")
    text = f"base: {scalar(translation.method.base)}{_comment(chosen)}\n" + _body(below, f"{SPEC}.", origins)
    return "".join([*head, *_remarks(translation), text]), "".join([*head, _body(rest, "", origins)])


def fit_options(spec: str, run: str) -> str:
    """The options that train what was written, as a shell takes them."""
    return f"--spec {shlex.quote(spec)} --config {shlex.quote(run)}"


def _place(path: str) -> tuple[int, bool]:
    """Sections in the order of the documentation, a component's name before its options."""
    parts = path.split(".")
    order = list(SECTIONS) if parts[0] == SPEC else list(RUN_SECTIONS)
    section = parts[1] if parts[0] == SPEC else parts[0]
    return (order.index(section) if section in order else -1, parts[-1] != "name")


def missing(paths: tuple[Path, Path], texts: tuple[str, str]) -> dict[Path, bytes]:
    """What is to be written: the files that are not there yet; one that is there with the same bytes is left alone.

    Raises:
        InputError: one of them is there and says something else; every such file has its line.
    """
    wanted = {path: text.encode() for path, text in zip(paths, texts, strict=True)}
    there = [path for path in wanted if path.exists() or path.is_symlink()]
    changed = [path for path in there if not path.is_file() or path.read_bytes() != wanted[path]]
    if changed:
        raise Findings([f"{display(path)}: {CHANGED}" for path in changed])
    return {path: data for path, data in wanted.items() if path not in there}


def write(files: Mapping[Path, bytes]) -> None:
    """Write files, each whole or not at all.

    Raises:
        OSError: it cannot be written.
    """
    for path, data in files.items():
        write_bytes_atomically(path, data)


def _head(translation: Translation, config: str, command: str) -> list[str]:
    table = translation.table
    return [f"# From {_line(config)}, by the table of {table.tool} {table.version}\n", f"# run:  {_line(command)}\n"]


def _remarks(translation: Translation) -> list[str]:
    lines = [f"# note: {_line(note)}\n" for note in translation.notes]
    return lines + [f"# LOST: {_line(loss)}\n" for loss in translation.losses()]


def _body(settings: Mapping[str, Any], prefix: str, origins: Mapping[str, str]) -> str:
    lines: list[str] = []
    _lines(tree(settings), prefix, 0, origins, lines)
    return "".join(lines)


def _lines(part: Mapping[str, Any], prefix: str, depth: int, origins: Mapping[str, str], lines: list[str]) -> None:
    for key, value in part.items():
        path = f"{prefix}{key}"
        indent = "  " * depth
        if isinstance(value, Mapping) and path not in origins:
            lines.append(f"{indent}{key}:\n")
            _lines(value, f"{path}.", depth + 1, origins, lines)
        else:
            where = origins.get(path) or next((origins[one] for one in origins if one.startswith(f"{path}.")), "")
            lines.append(f"{indent}{key}: {scalar(value)}{_comment(where)}\n")


def tree(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Key paths as nested mappings; `betas.0` and `betas.1` are a list."""
    found: dict[str, Any] = {}
    for path, value in settings.items():
        *above, last = path.split(".")
        below = found
        for key in above:
            below = below.setdefault(key, {})
        below[last] = value
    lists: dict[str, Any] = _lists(found)
    return lists


def _lists(value: Any) -> Any:
    if not isinstance(value, Mapping):
        return value
    if value and all(key.isdecimal() for key in value):
        return [value[key] for key in sorted(value, key=int)]
    return {key: _lists(part) for key, part in value.items()}


def scalar(value: Any) -> str:
    """A value in one line of YAML, so that it is read as it is."""
    if isinstance(value, str) and _PLAIN.fullmatch(value) and value.lower() not in _RESERVED:
        return value
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{scalar(key)}: {scalar(part)}" for key, part in value.items()) + "}"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return "[" + ", ".join(scalar(part) for part in value) + "]"
    return json.dumps(value, ensure_ascii=False)


def _comment(text: str) -> str:
    return f"  # {_line(text)}" if text else ""


def _line(text: str) -> str:
    """One line without control characters: a value of the config must not end a comment."""
    return "".join(" " if not character.isprintable() else character for character in text)
