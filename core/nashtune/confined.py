"""Names and links in files that others may have written do not lead out of the folder that they belong to."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from nashtune.errors import InputError

FILES = {".csv", ".json", ".parquet", ".safetensors", ".yaml"}
"""Ends of names that a run gives to files alone; a checkpoint may be a folder."""


def is_plain(name: object) -> bool:
    """Whether a text is the name of a file and no path: no separator, no `..`, not empty."""
    return isinstance(name, str) and name not in ("", ".", "..") and not set(name) & {"/", "\\", "\0"}


def inside(folder: Path, path: object, where: object) -> Path:
    """A file that another file names by its path below a folder.

    Args:
        folder: Which it may not leave, by `..`, by an absolute path or by a link.
        path: As it stands in the file.
        where: The file that names it, for the message.

    Raises:
        InputError: it leads out of the folder.
    """
    if isinstance(path, str) and path and "\0" not in path:
        found = folder / path
        # a link to itself (RuntimeError before Python 3.13), or text that is no name of a file
        with suppress(RuntimeError, UnicodeEncodeError):
            if found.resolve().is_relative_to(folder.resolve()):
                return found
    raise InputError(f"{where} names {path!r}, which is no file in {folder}; it was altered: restore it from a copy")


def refuse_strange(folder: Path) -> None:
    """Refuse a folder that holds what would be read or written as one of its files, and is none or lies elsewhere.

    Args:
        folder: Of a run or a pipeline; may be a link itself.

    Raises:
        InputError: there is a pipe or a device, which would keep the run waiting; a folder where a file belongs; a link
            to itself, or out of the folder.
    """
    home = folder.resolve()
    for place, folders, files in os.walk(home):
        for path in (Path(place, name) for name in (*folders, *files)):
            shown = folder / path.relative_to(home)
            if odd := _odd(path):
                raise InputError(f"{shown} is {odd}, which no run has written there; remove it")
            if path.is_symlink() and not path.resolve().is_relative_to(home):
                raise InputError(
                    f"{shown}: is a link to {os.readlink(path)}, out of the run folder, and the run would be written "
                    "there; put the files themselves into the folder, or make the whole folder a link"
                )


def _odd(path: Path) -> str:
    """What a path is that is neither a file nor a folder in its place; ""."""
    if path.is_symlink():
        return "a link to itself" if os.path.islink(os.path.realpath(path)) else ""
    if path.is_dir():
        return "a folder" if path.suffix in FILES else ""
    # in this order: a file that another process is about to rename may be gone
    return "neither a file nor a folder" if not path.is_file() and path.exists() else ""
