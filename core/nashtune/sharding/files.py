"""A checkpoint in pieces: a folder into which every rank writes what it holds, whole or not there at all.

    step=100.ckpt/
        shard-00001-model-00001-of-00001.safetensors   of each rank, as torch.distributed.checkpoint writes them
        state.pt                                       everything small, plain data and tensors
        files.json                                     the others' sizes and sha256, each tensor's shape and dtype;
                                                       written last

No file holds a pickled object: the pieces say in their own headers where they belong. Any number of ranks can read it.
A file that is not what was written is named before anything is used: by its size, and where it is read, by its sha256.
"""

from __future__ import annotations

import math
import os
import shutil
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.distributed.checkpoint import state_dict_loader, state_dict_saver
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageWriter

from nashtune.errors import InputError
from nashtune.ranks import everyone, rank, share, together
from nashtune.sharding.listing import STATE, check_content, facts_of, opened, write_listing
from nashtune.sharding.tensors import DTensor

WEIGHTS, OPTIMIZER = "weights", "optimizer"
WAIT = 20.0
"""Seconds in which rank 0 must see what the others have written: a network file system may show it late."""


def save_sharded(folder: Path, checkpoint: Mapping[str, Any]) -> None:
    """Write a checkpoint whose weights and optimiser states are cut up. Collective.

    Args:
        folder: To make; all ranks see the same file system.
        checkpoint: As Lightning makes it, with tensors that are cut up in `state_dict` and `optimizer_states`; of
            everything else, what rank 0 has is kept.

    Raises:
        InputError: it cannot be written, or the ranks see different folders; what was there before is untouched.
    """
    rest = dict(checkpoint)
    weights, states = dict(rest.pop("state_dict")), rest.pop("optimizer_states")
    pieces = {f"{WEIGHTS}.{name}": weight for name, weight in weights.items()}
    small: list[Any] = []
    for number, state in enumerate(states):
        kept: dict[Any, dict[str, Any]] = {}
        for index, values in state["state"].items():
            cut = {key: value for key, value in values.items() if isinstance(value, DTensor)}
            pieces |= {f"{OPTIMIZER}.{number}.{index}.{key}": value for key, value in cut.items()}
            kept[index] = {key: value for key, value in values.items() if key not in cut}
        small.append({**state, "state": kept})
    partial = folder.with_name(f".{folder.name}.partial")
    with together("saving"), _named(folder):
        if rank() == 0:
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)
    try:
        with together("saving"), _named(folder):
            state_dict_saver.save(pieces, storage_writer=HuggingFaceStorageWriter(str(partial), save_distributed=True))
            own = {name: facts_of(partial / name) for name in _pieces_in(partial, f"shard-{rank() + 1:05}-*")}
        written = {name: facts for files in everyone(own) for name, facts in files.items()}
        with together("saving"), _named(folder):
            if rank() == 0:
                _wait_for(partial, {name: int(facts["bytes"]) for name, facts in written.items()})
                with (partial / STATE).open("wb") as stream:
                    torch.save({**rest, "optimizer_states": small}, stream)
                    stream.flush()
                    os.fsync(stream.fileno())
                write_listing(partial, {**written, STATE: facts_of(partial / STATE)}, pieces)
                shutil.rmtree(folder, ignore_errors=True)
                partial.rename(folder)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)  # by every rank: perhaps each has written into one of its own
        raise


def load_sharded(
    folder: Path, weights: Mapping[str, Tensor], optimizers: Sequence[torch.optim.Optimizer]
) -> dict[str, Any]:
    """A checkpoint with each tensor cut up as this run's are. Collective.

    Args:
        folder: Written by `save_sharded`, of any number of ranks.
        weights: What is trained, by name; they give shapes and places and are not changed. A weight of another name or
            shape in the folder comes back without its numbers.
        optimizers: Of this run.

    Raises:
        InputError: a file is missing, cut short, or not what was written.
    """
    with together("reading the checkpoint"):
        content, reader, tensors, files = opened(folder)
        check_content(folder, {name: files[name] for name in share(sorted(files))})
    params = [[weight for group in one.param_groups for weight in group["params"]] for one in optimizers]
    targets: dict[str, Tensor] = {}
    for name, (size, dtype) in tensors.items():
        kind, _, own = name.partition(".")
        like = weights.get(own) if kind == WEIGHTS else _param(params, own)
        if like is not None and like.shape == size:
            targets[name] = torch.full_like(like, _unread(dtype), dtype=dtype, requires_grad=False)
    with together("reading the checkpoint"), _readable(folder):
        state_dict_loader.load(targets, storage_reader=reader)
    absent = {name: torch.empty(size, device="meta") for name, (size, _) in tensors.items() if name not in targets}
    return _joined(content, {**targets, **absent})


def consolidate(folder: Path, *, weights: bool = True, optimizer: bool = True) -> dict[str, Any]:
    """The checkpoint with whole tensors in main memory, as the file that one device writes; not collective.

    Args:
        folder: Written by `save_sharded`.
        weights: Whether they are read.
        optimizer: Whether its states are read.

    Raises:
        InputError: as `load_sharded`.
    """
    content, reader, tensors, files = opened(folder)
    if weights or optimizer:
        check_content(folder, files)
    targets = {
        name: torch.full(size, _unread(dtype), dtype=dtype)
        for name, (size, dtype) in tensors.items()
        if (weights if name.startswith(f"{WEIGHTS}.") else optimizer)
    }
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "torch.distributed is disabled", UserWarning)  # as is meant
        if targets:
            state_dict_loader.load(targets, storage_reader=reader, no_dist=True)
    return _joined(content, targets)


def is_sharded_checkpoint(path: Path) -> bool:
    """Whether a path is a checkpoint in pieces."""
    return path.suffix == ".ckpt" and path.is_dir()


def _unread(dtype: torch.dtype) -> float:
    """What a number is before it is read: one that would be left out shows."""
    return math.nan if dtype.is_floating_point else 0


def _pieces_in(folder: Path, pattern: str) -> dict[str, int]:
    """Names and sizes of the files of tensors."""
    return {path.name: path.stat().st_size for path in sorted(folder.glob(f"{pattern}.safetensors"))}


def _wait_for(folder: Path, written: Mapping[str, int]) -> None:
    """Until this machine sees what all ranks have written, and nothing else."""
    end = time.monotonic() + WAIT
    while (seen := _pieces_in(folder, "*")) != written:
        if time.monotonic() > end:
            wrong = sorted(n for n in seen.keys() | written.keys() if seen.get(n) != written.get(n))
            raise InputError(
                f"{folder}: rank 0 does not see what another rank has written there ({wrong[0]}), after {WAIT:.0f} "
                "seconds; nothing was saved, and earlier checkpoints are whole. All machines must see the same run "
                "folder: give one on a shared file system (--run_dir)"
            )
        time.sleep(0.1)


def _param(params: list[list[Tensor]], name: str) -> Tensor | None:
    number, index, _ = name.split(".", 2)
    own = params[int(number)] if int(number) < len(params) else []
    return own[int(index)] if int(index) < len(own) else None


def _joined(content: dict[str, Any], tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    content["state_dict"] = {}
    for name, tensor in tensors.items():
        kind, _, own = name.partition(".")
        if kind == WEIGHTS:
            content["state_dict"][own] = tensor
        else:
            number, index, key = own.split(".", 2)
            content["optimizer_states"][int(number)]["state"][int(index)][key] = tensor
    return content


@contextmanager
def _named(folder: Path) -> Iterator[None]:
    """Says which checkpoint could not be written, in the words that one file has."""
    try:
        yield
    except InputError:
        raise
    except (Exception, CheckpointException) as error:  # torch's own is no Exception
        raise InputError(
            f"{folder}: the checkpoint could not be written ({_cause(error)}); earlier checkpoints in {folder.parent} "
            f"are whole. Free some space and go on with: nashtune fit --ckpt_path last --run_dir {folder.parent.parent}"
        ) from error


@contextmanager
def _readable(folder: Path) -> Iterator[None]:
    """Says which checkpoint could not be read."""
    try:
        yield
    except CheckpointException as error:
        raise InputError(f"{folder} cannot be read ({_cause(error)})") from error


def _cause(error: BaseException) -> BaseException:
    """What went wrong on the first rank that failed, where torch has collected it from all."""
    failures = error.failures if isinstance(error, CheckpointException) else {}
    return next((failure[0] for failure in failures.values()), error)
