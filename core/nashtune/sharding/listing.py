"""What a checkpoint in pieces consists of, in a file of its own: a folder that is not what was written is refused."""

from __future__ import annotations

import json
import math
import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader
from torch.distributed.checkpoint.metadata import TensorStorageMetadata

from nashtune import __version__
from nashtune.errors import InputError
from nashtune.files import sha256_of, write_bytes_atomically

STATE, FILES = "state.pt", "files.json"
FORM = 2
"""Of the folder; another number is another version's. The first one had sizes alone."""


def facts_of(file: Path) -> dict[str, Any]:
    """Size in bytes and sha256 of a file that was written."""
    return {"bytes": file.stat().st_size, "sha256": sha256_of(file)}


def write_listing(folder: Path, files: Mapping[str, Mapping[str, Any]], tensors: Mapping[str, Tensor]) -> None:
    """Say what a folder consists of, when all else has been written.

    Args:
        folder: The checkpoint.
        files: Name -> `facts_of` it.
        tensors: What the pieces make up, by name.
    """
    shapes = {name: [list(one.shape), str(one.dtype)] for name, one in tensors.items()}
    listed = {"form": FORM, "nashtune": __version__, "files": files, "tensors": shapes}
    write_bytes_atomically(folder / FILES, json.dumps(listed, indent=1).encode())


class Opened(NamedTuple):
    """A folder whose files have the right sizes.

    Args:
        content: The small things.
        reader: For the pieces.
        tensors: Size and dtype of each.
        files: sha256 of each file of pieces.
    """

    content: dict[str, Any]
    reader: HuggingFaceStorageReader
    tensors: dict[str, tuple[Any, torch.dtype]]
    files: dict[str, str]


def opened(folder: Path) -> Opened:
    """Look at a folder: everything but the content of its pieces is checked.

    Raises:
        InputError: a file is missing, cut short, or not what was written.
    """
    try:
        listed = json.loads((folder / FILES).read_text(encoding="utf-8"))
        if listed.get("form") != FORM:
            raise InputError(
                f"{folder} has another form than this version of nashtune ({__version__}) reads: it was written by "
                f"{listed.get('nashtune', 'an older one')}. Go on with the version that wrote it"
            )
        sizes = {name: facts["bytes"] for name, facts in listed["files"].items()}
        found = {path.name: path.stat().st_size for path in folder.iterdir() if path.name != FILES}
        if wrong := sorted(name for name in found.keys() | sizes.keys() if found.get(name) != sizes.get(name)):
            what = _wrong_size(found.get(wrong[0]), sizes.get(wrong[0]))
            raise InputError(f"{folder}: {wrong[0]} {what}, so the checkpoint is not whole")
        check_content(folder, {STATE: listed["files"][STATE]["sha256"]})
        content = _state(folder / STATE)
        reader = HuggingFaceStorageReader(str(folder))
        tensors = reader.read_metadata().state_dict_metadata
        facts = {name: one for name, one in tensors.items() if isinstance(one, TensorStorageMetadata)}
        _check_whole(folder, facts, listed["tensors"])
    except InputError:
        raise
    except FileNotFoundError as error:
        raise InputError(f"{folder} is no whole checkpoint: {Path(error.filename).name} is missing") from error
    except Exception as error:
        raise InputError(f"{folder} is no whole checkpoint ({type(error).__name__}: {error})") from error
    pieces = {name: str(facts["sha256"]) for name, facts in listed["files"].items() if name != STATE}
    return Opened(content, reader, {name: (one.size, one.properties.dtype) for name, one in facts.items()}, pieces)


def _state(file: Path) -> dict[str, Any]:
    try:
        content: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise InputError(
            f"{file} {more_than_data(error)}. nashtune writes no such file; get the checkpoint anew"
        ) from error
    return content


def more_than_data(error: pickle.UnpicklingError) -> str:
    """What to say of a file that torch refuses to load as plain data; not torch's words, which advise to load it."""
    named = re.search(r"GLOBAL [\w.]+", str(error))
    what = f" ({named[0]})" if named else ""
    return f"holds more than tensors and plain data, and was not read: it could run any code{what}"


def _wrong_size(found: int | None, saved: int | None) -> str:
    if found is None:
        return "is missing"
    if saved is None:
        return "is not what was written: it belongs to something else"
    return f"is not what was written: it has {found} of {saved} bytes"


def check_content(folder: Path, files: Mapping[str, str]) -> None:
    """Refuse a file whose content is not what was written; each is read once for it.

    Args:
        folder: The checkpoint.
        files: Name -> sha256.

    Raises:
        InputError: one is another.
    """
    for name, sha256 in files.items():
        if sha256_of(folder / name) != sha256:
            raise InputError(
                f"{folder}: {name} is torn or was altered: its sha256 is not that in {FILES}, so the checkpoint is not "
                "whole"
            )


def _check_whole(folder: Path, found: Mapping[str, TensorStorageMetadata], saved: Mapping[str, Any]) -> None:
    """Each tensor has its name, shape and dtype, and pieces that fill it: torch leaves out what no piece says."""
    for name in sorted(found.keys() | saved.keys()):
        one = found.get(name)
        facts = None if one is None else [list(one.size), str(one.properties.dtype)]
        filled = 0 if one is None else sum(math.prod(chunk.sizes) for chunk in one.chunks)
        if name not in saved or facts != saved[name] or filled != math.prod(saved[name][0]):
            raise InputError(
                f"{folder}: pieces of {name} are missing or not what was written, so the checkpoint is not whole"
            )
