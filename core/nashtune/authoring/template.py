"""The template of a plugin: where it is, and how it is written under another name."""

from __future__ import annotations

import os
import re
import secrets
import shutil
from collections.abc import Mapping
from pathlib import Path

from nashtune.authoring.names import TEMPLATE, Names
from nashtune.errors import InputError
from nashtune.files import cannot_write, write_bytes_atomically

CORE = Path(__file__).parents[1]
PLACES = (CORE / "plugin_template", CORE.parents[1] / "docs" / "plugin-template")
"""In an installed nashtune, and in a checkout that is installed editable."""
LEFT_BEHIND = ("__pycache__", ".pytest_cache", ".ruff_cache", ".mypy_cache", ".venv", "dist", "runs")
"""What pip and tools put into folders that they work in; no part of the template."""


def find_template() -> Path:
    """The template's folder: a whole distribution called my-method.

    Raises:
        InputError: this installation lacks it.
    """
    for place in PLACES:
        if place.is_dir():
            return place
    raise InputError(f"new: the template is missing from this nashtune ({PLACES[0]}); install nashtune again")


def render(folder: Path, names: Names) -> dict[str, str]:
    """The template under another name: path below the new folder -> text, sorted by path.

    Args:
        folder: Of the template.
        names: What its three spellings become, in paths and in texts.
    """
    spelled = {vars(TEMPLATE)[field]: spelling for field, spelling in vars(names).items()}
    old = re.compile("|".join(map(re.escape, spelled)))

    def renamed(text: str) -> str:
        return old.sub(lambda found: spelled[found[0]], text)

    rendered = {}
    for path in sorted(folder.rglob("*")):
        place = path.relative_to(folder)
        if path.is_file() and not set(place.parts) & set(LEFT_BEHIND):
            rendered[renamed(place.as_posix())] = renamed(path.read_text(encoding="utf-8"))
    return rendered


def write_folder(target: Path, files: Mapping[str, str]) -> None:
    """Write a folder that is there whole or not at all: beside its place first, then under its name.

    Args:
        target: The new folder; missing parents are made.
        files: Path below it -> text.

    Raises:
        InputError: something is there already, or it cannot be written.
    """
    if os.path.lexists(target):
        what = "folder" if target.is_dir() else "file"
        raise InputError(f"{target}: there is such a {what} already; it stays as it is. Say another with --out")
    partial = target.with_name(f".{target.name}.partial-{secrets.token_hex(4)}")
    try:
        for name, text in files.items():
            write_bytes_atomically(partial / name, text.encode())
        partial.rename(target)
    except OSError as error:
        raise InputError(f"{target}: cannot be written: {cannot_write(error) or error}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
