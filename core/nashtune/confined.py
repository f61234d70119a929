"""Names and links in files that others may have written do not lead out of the folder that they belong to."""

from __future__ import annotations

import os
import re
from contextlib import suppress
from pathlib import Path

from nashtune.errors import InputError

FILES = re.compile(
    r".*\.(?:csv|html|json|jsonl|lock|parquet|png|pt|safetensors|yaml)|\.lock"  # what a kill leaves of one, too:
    r"|\..*\.(?:csv|html|json|jsonl|parquet|png|safetensors|yaml)\.partial"
)
"""Names that runs, pipelines and comparisons give to files alone."""
FOLDERS = re.compile(
    r"answers|attempt_\d+|checkpoints|export|journal|logs|oracle|round-\d+|snapshots|tensorboard|vllm"
    r"|judgements|judges|runs|so_far"  # of a comparison
)
"""Names that they give to folders alone, however deep."""
CHECKPOINT = re.compile(r"step=\d+\.ckpt")
"""A file, or a folder of pieces."""


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
        InputError: there is a pipe or a device, which would keep the run waiting; a folder where a file belongs, or a
            file where a folder does, which may be needed only when everything is trained; a link to itself, to nothing
            in such a place, or out of the folder.
    """
    home = folder.resolve()
    for place, folders, files in os.walk(home):
        for path in (Path(place, name) for name in (*folders, *files)):
            shown = folder / path.relative_to(home)
            if odd := _odd(path):
                raise InputError(
                    f"{shown} is {odd}, which no run has written there; remove it, or put back what was there"
                )
            if path.is_symlink() and not path.resolve().is_relative_to(home):
                raise InputError(
                    f"{shown}: is a link to {os.readlink(path)}, out of the run folder, and the run would be written "
                    "there; put the files themselves into the folder, or make the whole folder a link"
                )


def _odd(path: Path) -> str:
    """What a path is that is neither a file nor a folder in its place; ""."""
    if is_loop(path):
        return "a link to itself"
    file, folder = FILES.fullmatch(path.name), FOLDERS.fullmatch(path.name)
    if path.is_dir():
        return "a folder" if file else ""
    # in this order: a file that another process is about to rename may be gone
    if path.exists():
        return "neither a file nor a folder" if not path.is_file() else "a file" if folder else ""
    # one by another name is the user's own, such as `latest`, and leads to a checkpoint that was removed
    return "a link to nothing" if path.is_symlink() and (file or folder or CHECKPOINT.fullmatch(path.name)) else ""


def is_loop(path: Path) -> bool:
    """Whether a path is a link that leads back to itself."""
    return path.is_symlink() and os.path.islink(os.path.realpath(path))
