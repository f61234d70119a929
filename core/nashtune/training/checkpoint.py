"""Checkpoints: atomic saving, what they say about their run, and finding the newest one."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.plugins.io import TorchCheckpointIO
from lightning.pytorch.trainer.states import TrainerFn

from nashtune import __version__
from nashtune.errors import InputError
from nashtune.files import atomic_path

SECTION = "nashtune"  # where a checkpoint keeps the run's configuration


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


def _reason(error: BaseException) -> str:
    while error.__context__ is not None and not isinstance(error, OSError):
        error = error.__context__
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__


class Checkpoints(Callback):
    """Saves `step=N.ckpt` every so many optimiser steps and at the end of the run, and removes the one before.

    Not Lightning's ModelCheckpoint: after a resume it saves again in the middle of an accumulation window, over the
    only good checkpoint, and it saves before a validation that a resume then skips.

    Args:
        folder: Where checkpoints lie.
        every: Optimiser steps between two of them.
        due: Further moments to save at, asked after each step; None for none.
    """

    def __init__(self, folder: Path, every: int, due: Callable[[], bool] | None = None) -> None:
        self._folder = folder
        self._every = every
        self._due = due if due is not None else lambda: False
        self._saved_at = -1
        self._previous: Path | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """A resumed run has the checkpoint that it came from."""
        self._saved_at = trainer.global_step
        resumed = Path(trainer.ckpt_path) if trainer.ckpt_path else None
        self._previous = resumed if resumed and resumed.resolve().parent == self._folder.resolve() else None

    def on_train_batch_end(self, trainer: Trainer, *args: Any) -> None:
        """Save where a step is complete, unless a validation comes first."""
        if not _validation_is_due(trainer):
            self._save_if_due(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save what `on_train_batch_end` left for after the validation."""
        if trainer.state.fn == TrainerFn.FITTING and not trainer.sanity_checking:
            self._save_if_due(trainer)

    def _save_if_due(self, trainer: Trainer) -> None:
        step = trainer.global_step
        if step == self._saved_at or not (step % self._every == 0 or _is_last(trainer) or self._due()):
            return
        for name, weight in trainer.lightning_module.named_parameters():
            if weight.requires_grad and not bool(torch.isfinite(weight).all()):
                raise InputError(
                    f"step {step}: {name} is not finite any more, so nothing was saved; earlier checkpoints are whole. "
                    "Start a new run with a lower learning rate (--spec.optimizer.lr)"
                )
        path = self._folder / f"step={step}.ckpt"
        trainer.save_checkpoint(path, weights_only=False)
        self._saved_at = step
        if self._previous is not None and self._previous != path and trainer.is_global_zero:
            self._previous.unlink(missing_ok=True)
        self._previous = path


def _validation_is_due(trainer: Trainer) -> bool:
    """Whether Lightning validates after this micro-batch."""
    fetcher = trainer.fit_loop._data_fetcher
    return fetcher is not None and trainer.fit_loop.epoch_loop._should_check_val_fx(fetcher)


def _is_last(trainer: Trainer) -> bool:
    """Whether no optimiser step follows."""
    epochs, steps = trainer.max_epochs, trainer.max_steps
    ends = epochs is not None and epochs > 0 and trainer.current_epoch + 1 >= epochs
    finished = trainer.fit_loop.epoch_loop.batch_progress.is_last_batch
    return trainer.should_stop or (steps > 0 and trainer.global_step >= steps) or (ends and finished)


class RunState(Callback):
    """Puts the run's configuration and the random state into each checkpoint, and restores the latter.

    Args:
        config: The run as plain data: spec, policy, data, engine, seed.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        self._config = dict(config)
        self._random: dict[str, Any] | None = None

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Add the configuration and every rank's generators."""
        states: list[Any] = [random_state()]
        if trainer.world_size > 1:
            states = [None] * trainer.world_size
            torch.distributed.all_gather_object(states, random_state())
        checkpoint[SECTION] = {"version": __version__, "config": self._config, "random": states}

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Keep this rank's generators until training starts."""
        states = checkpoint[SECTION]["random"]
        self._random = states[trainer.global_rank] if trainer.global_rank < len(states) else None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Set the generators: everything before this point may have drawn from them."""
        if self._random is not None:
            set_random_state(self._random)
            self._random = None


def random_state() -> dict[str, Any]:
    """The generators of python, numpy and torch, as data that loads with `weights_only=True`."""
    version, internal, gauss = random.getstate()
    name, keys, position, has_gauss, cached = np.random.get_state(legacy=True)
    return {
        "python": [version, list(internal), gauss],
        "numpy": [
            str(name),
            torch.from_numpy(np.asarray(keys).astype(np.int64)),
            int(position),
            int(has_gauss),
            float(cached),
        ],
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def set_random_state(state: Mapping[str, Any]) -> None:
    """Inverse of `random_state`."""
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))
    name, keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), position, has_gauss, cached))
    torch.set_rng_state(state["torch"])
    if state["cuda"] and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(state["cuda"])


def read_checkpoint(path: Path, option: str = "--ckpt_path") -> dict[str, Any]:
    """A checkpoint as plain data and tensors (memory-mapped); loading never executes code.

    Args:
        path: The file.
        option: What the user gave it as, for messages.

    Raises:
        InputError: missing, broken, or not one of ours.
    """
    if not path.is_file():
        raise InputError(f"{option}: no file {path}; a run keeps its checkpoints in RUN_DIR/checkpoints")
    try:
        content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:
        raise InputError(
            f"{option}: {path} is no whole checkpoint ({type(error).__name__}: {_reason(error)})"
        ) from error
    if SECTION not in content:
        raise InputError(f"{option}: {path} was not written by nashtune: it does not say which spec it belongs to")
    return content


def newest_checkpoint(run_dir: Path) -> Path:
    """The checkpoint with the most steps in a run folder.

    Raises:
        InputError: the folder holds none.
    """
    found = sorted((run_dir / "checkpoints").glob("step=*.ckpt"), key=lambda p: int(p.stem.partition("=")[2]))
    if not found:
        if not run_dir.is_dir():
            raise InputError(f"{run_dir}: there is no such run folder; start the run again, without --ckpt_path")
        raise InputError(f"{run_dir}: no checkpoint in {run_dir / 'checkpoints'}; has this run saved one yet?")
    return found[-1]
