"""Whether a checkpoint file is what was written, seen before anything of it is used.

torch writes a checkpoint as a zip archive, which has a sum (CRC-32) of each tensor, and compares none of them when the
file is mapped into memory.
"""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from nashtune.errors import InputError
from nashtune.sharding.tensors import local
from nashtune.training.checkpoint_moments import moment_problems
from nashtune.training.checkpoint_parts import part_problems

BEGINNING = b"PK\x03\x04"
"""Of a zip archive; one that is cut short still has it."""
STRUCTURE = "/data.pkl"
"""End of the name of what says which tensors there are, in the archive."""
NEEDED = (
    "state_dict",
    "optimizer_states",
    "lr_schedulers",
    "loops",
    "global_step",
    "callbacks",  # without which Lightning asks no callback to restore anything
    "kl",
    "pytorch-lightning_version",
)
"""Without which training cannot go on."""


def check_file(path: Path, *, content: bool) -> None:
    """Refuse what is no archive, or not the one that was written.

    Args:
        path: A checkpoint that is no folder.
        content: Whether tensors are looked at too; the file is read once for it.

    Raises:
        InputError: it is another kind of file, or a byte of it has changed.
        zipfile.BadZipFile: it is cut short.
    """
    if not path.is_file():  # to open a pipe would be to wait for somebody who writes
        raise InputError(f"{path} is neither a file nor a folder of pieces, so it is no checkpoint")
    with path.open("rb") as stream:
        if (begins := stream.read(len(BEGINNING))) != BEGINNING:
            what = "does not begin as one, and was not read: it could run any code" if begins else "is empty"
            raise InputError(f"{path} is no whole checkpoint: it {what}")
    with zipfile.ZipFile(path) as archive:
        if content:
            altered = archive.testzip()
        else:
            (name,) = (name for name in archive.namelist() if name.endswith(STRUCTURE))
            altered = None if _is_whole(archive, name) else name
    if altered is not None:
        raise InputError(
            f"{path} is torn or was altered: {altered.partition('/')[2]} has not the sum (CRC-32) that was written "
            "with it, so the checkpoint is not whole"
        )


def _is_whole(archive: zipfile.ZipFile, name: str) -> bool:
    try:
        archive.read(name)
    except zipfile.BadZipFile:
        return False
    return True


def check_finite(path: Path, weights: Mapping[str, Any]) -> None:
    """Refuse weights that are not finite: a run never saves any.

    Args:
        path: Of the checkpoint.
        weights: Its own, by name.

    Raises:
        InputError: names the first.
    """
    for name, weight in weights.items():
        own = local(weight)
        if own.is_floating_point() and not own.is_meta and not bool(torch.isfinite(own).all()):
            raise InputError(f"{path}: {name} is not finite, and nashtune saves no such weight; get it anew")


def check_complete(path: Path, content: Mapping[str, Any]) -> None:
    """Refuse to train on with what holds a model alone, or parts that no run has saved like this.

    Args:
        path: Of the checkpoint.
        content: Its parts.

    Raises:
        InputError: a part is missing, or was altered.
    """
    missing = [name for name in NEEDED if name not in content]
    if missing:
        raise InputError(
            f"--ckpt_path: {path} has no {', '.join(missing)}, so training cannot go on with it. Start a new run from "
            f"its weights: nashtune export {path} --out FOLDER, and --policy.path FOLDER"
        )
    problem = next(part_problems(content), None) or next(moment_problems(content, tensors=not path.is_dir()), None)
    if problem is not None:
        raise InputError(f"--ckpt_path: {path} was altered: restore it from a copy. In it, {problem}")
