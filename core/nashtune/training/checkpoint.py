"""Checkpoint files: written whole or not at all, read without executing anything, found, and thrown away."""

from __future__ import annotations

import os
import pickle
import shutil
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO
from lightning_utilities.core.apply_func import apply_to_collection

from nashtune import __version__
from nashtune.confined import is_loop
from nashtune.errors import InputError
from nashtune.files import atomic_path
from nashtune.notes import note
from nashtune.ranks import rank, together
from nashtune.sharding.files import consolidate, is_sharded_checkpoint
from nashtune.sharding.listing import more_than_data
from nashtune.training.checkpoint_check import check_file, check_finite
from nashtune.training.checkpoint_parts import SECTION as SECTION


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes a checkpoint beside its final name and renames it: a full disk or a kill leaves the old ones whole.

    Lightning's own saving builds the file in memory and moves it from the system's temporary folder, which may be
    another disk, where a move is a copy and can stop half-way.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | os.PathLike[str], storage_options: Any = None
    ) -> None:
        """Save, or leave nothing behind and say why."""
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            with atomic_path(target) as partial, partial.open("wb") as stream:
                torch.save(checkpoint, stream)
        except (OSError, RuntimeError) as error:  # torch's zip writer reports a full disk as RuntimeError
            raise InputError(
                f"{target}: the checkpoint could not be written ({_reason(error)}); earlier checkpoints in "
                f"{target.parent} are whole. Free some space and go on with: nashtune fit --ckpt_path last --run_dir "
                f"{target.parent.parent}"
            ) from error

    def load_checkpoint(
        self, path: str | Path, map_location: Any = "cpu", weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Of a file, mapped into memory and never written to, or of a folder that FSDP2 has left, put together.

        Weights and optimiser states alone are mapped: they are copied to where they belong. Of the rest something may
        be kept (a game's averages), and a file that another machine removes is gone over a network.

        Raises:
            InputError: it is broken, or holds more than data; on all ranks where it is so on one.
        """
        with together("reading the checkpoint"):
            # the file of all is looked at by one
            content = _read_or_say(Path(path), "--ckpt_path", weights=True, optimizer=True, check=rank() == 0)
        rest = {name: part for name, part in content.items() if name not in ("state_dict", "optimizer_states")}
        return {**content, **apply_to_collection(rest, torch.Tensor, torch.clone)}


def _reason(error: BaseException) -> str:
    while error.__context__ is not None and not isinstance(error, OSError):
        error = error.__context__
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__


def read_checkpoint(path: Path, option: str = "--ckpt_path", *, weights: bool = True) -> dict[str, Any]:
    """A checkpoint as plain data and tensors (memory-mapped); loading never executes code.

    Args:
        path: The file.
        option: What the user gave it as, for messages.
        weights: Whether those of a folder are put together; in a file they are mapped in any case.

    Raises:
        InputError: missing, broken (then an older whole one is named, if there is one), or not one of ours.
    """
    if is_loop(path):
        raise InputError(f"{option}: {path} is a link to itself; remove it, or put back what was there")
    if not path.exists():
        raise InputError(f"{option}: no file {path}; a run keeps its checkpoints in RUN_DIR/checkpoints")
    content = _read_or_say(path, option, weights=weights)
    own = content.get(SECTION) if isinstance(content, dict) else None
    config = own.get("config") if isinstance(own, dict) else None
    if not isinstance(config, dict) or not all(isinstance(config.get(key), dict) for key in ("spec", "policy", "data")):
        raise InputError(f"{option}: {path} was not written by nashtune: it does not say which spec it belongs to")
    for name in ("trainer", "samples"):
        if not isinstance(config.get(name, {}), dict):
            raise InputError(
                f"{option}: {path} was altered: restore it from a copy. In it, the run's {name} is {config[name]!r} "
                "and no section"
            )
    return content


def note_other_version(path: Path, version: object) -> None:
    """Say it in a line where a checkpoint was written by another version of nashtune.

    Args:
        path: The checkpoint.
        version: That wrote it, as it says.
    """
    if version != __version__:
        note(f"{path} was written by nashtune {version}, and this is {__version__}; a result may differ")


def _read_or_say(
    path: Path, option: str, *, weights: bool, optimizer: bool = False, check: bool = True
) -> dict[str, Any]:
    """What a checkpoint holds, or why it cannot be read and what to do."""
    try:
        content = _read(path, weights=weights, optimizer=optimizer, check=check)
    except pickle.UnpicklingError as error:
        raise InputError(
            f"{option}: {path} {more_than_data(error)}. nashtune writes no such checkpoint; get it anew{_instead(path)}"
        ) from error
    except InputError as error:  # says itself what is wrong, and with which part
        raise InputError(f"{option}: {error}{_instead(path)}") from error
    except Exception as error:
        raise InputError(
            f"{option}: {path} is no whole checkpoint ({type(error).__name__}: {_reason(error)}){_instead(path)}"
        ) from error
    return content


def _read(path: Path, *, weights: bool, optimizer: bool = False, check: bool = True) -> dict[str, Any]:
    if is_sharded_checkpoint(path):
        content = consolidate(path, weights=weights, optimizer=optimizer)
    else:
        check_file(path, content=weights and check)
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    if weights and check and isinstance(content, dict):
        check_finite(path, content.get("state_dict", {}))
    return content


def checkpoints_in(run_dir: Path) -> dict[int, Path]:
    """Optimiser steps -> checkpoint, of a run folder, in order of steps."""
    paths = (run_dir / "checkpoints").glob("step=*.ckpt")
    found = {int(steps): path for path in paths if (steps := path.stem.partition("=")[2]).isdecimal()}
    return dict(sorted(found.items()))


def newest_checkpoint(run_dir: Path) -> Path:
    """The checkpoint with the most steps in a run folder; clocks have no say in it.

    Raises:
        InputError: the folder holds none.
    """
    found = checkpoints_in(run_dir)
    if found:
        return found[max(found)]
    if not run_dir.is_dir():
        raise InputError(f"{run_dir}: there is no such run folder; start the run again, without --ckpt_path")
    raise InputError(
        f"{run_dir}: no checkpoint in {run_dir / 'checkpoints'}; has this run saved one yet? With --ckpt_path auto it "
        "begins again in the same folder"
    )


def remove(path: Path) -> None:
    """Remove a checkpoint, or what is left of one; one that is half removed has no checkpoint's name any more.

    Raises:
        OSError: it stays, perhaps in part.
    """
    gone = path if path.name.startswith(".") else path.rename(path.with_name(f".{path.name}.removed"))
    if gone.is_dir():
        shutil.rmtree(gone)
    else:
        gone.unlink()


def _instead(path: Path) -> str:
    """What to do about a broken checkpoint of a run, for the end of a message."""
    if path.parent.name != "checkpoints":
        return ""
    run = path.parent.parent
    for other in reversed(checkpoints_in(run).values()):
        if other.name != path.name and _is_whole(other):
            return f"; {other.name} is whole, go on from it: nashtune fit --ckpt_path {other}"
    return (
        f"; there is no other one beside it (--keep_checkpoints 2 keeps two). Move it away and begin again in the same "
        f"folder: nashtune fit --ckpt_path auto --run_dir {run}"
    )


def _is_whole(path: Path) -> bool:
    try:
        return SECTION in _read(path, weights=True)
    except Exception:
        return False
