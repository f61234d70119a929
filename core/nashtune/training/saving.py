"""When a run saves, what goes into a checkpoint besides the weights, and which checkpoints it keeps."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from itertools import count
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn

from nashtune import __version__
from nashtune.data.module import PreferenceData
from nashtune.errors import InputError
from nashtune.notes import note
from nashtune.ranks import everyone, together
from nashtune.training.checkpoint import SECTION, checkpoints_in, remove
from nashtune.training.checkpoint_moments import STATES
from nashtune.training.checkpoint_parts import PLACES
from nashtune.training.generators import own_stream, random_state, restore
from nashtune.training.stopping import Stopping


class Checkpoints(Callback):
    """Saves `step=N.ckpt` every so many optimiser steps, at the end of the run and when it is stopped.

    Not Lightning's ModelCheckpoint: after a resume it saves again in the middle of an accumulation window, over the
    only good checkpoint, and it saves before a validation that a resume then skips.

    Args:
        folder: The run folder.
        every: Optimiser steps between two of them.
        stopping: Who hears signals.
        keep: How many stay; older ones go when a newer one is whole and on the disk.
        due: Further moments to save at, asked after each step; None for none.
    """

    def __init__(
        self, folder: Path, every: int, stopping: Stopping, keep: int = 1, due: Callable[[], bool] | None = None
    ) -> None:
        self._folder = folder
        self._every = every
        self._stopping = stopping
        self._keep = keep
        self._due = due if due is not None else lambda: False
        self._saved_at = -1
        self._ends_update = False
        self._irremovable: set[str] = set()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """A resumed run has the checkpoint that it came from; what it leaves behind by that is set aside."""
        self._saved_at = trainer.global_step
        with together("checkpoints"):
            if trainer.is_global_zero:
                self._remove([])
                for step, path in checkpoints_in(self._folder).items():
                    if step > trainer.global_step:
                        aside = path.rename(_free_name(path))
                        note(f"{path.name} is newer than where this run goes on; it is kept as {aside.name}")

    def on_train_batch_start(self, trainer: Trainer, *args: Any) -> None:
        """In a game, phases follow the last step of an update."""
        game: Any = trainer.datamodule  # type: ignore[attr-defined]
        self._ends_update = not isinstance(game, PreferenceData) and game.ends_of_update()[1]

    def on_train_batch_end(self, trainer: Trainer, *args: Any) -> None:
        """Save where a step is complete, unless a validation comes first."""
        if not _validation_is_due(trainer):
            self._save_if_due(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save what `on_train_batch_end` left for after the validation."""
        if trainer.state.fn == TrainerFn.FITTING and not trainer.sanity_checking:
            self._save_if_due(trainer)

    def _save_if_due(self, trainer: Trainer) -> None:
        step, complete = trainer.global_step, not trainer.fit_loop.epoch_loop._should_accumulate()
        stop = complete and self._stopping.agreed()
        due = step % self._every == 0 or _is_last(trainer) or self._due()
        if step != self._saved_at and (due or stop):
            self._save(trainer, step)
        if stop:
            self._stopping.end()
        if complete and self._ends_update:
            self._stopping.rest()

    def _save(self, trainer: Trainer, step: int) -> None:
        with together("saving"):
            for name, weight in trainer.lightning_module.named_parameters():
                if weight.requires_grad and not bool(torch.isfinite(weight).all()):
                    raise InputError(
                        f"step {step}: {name} is not finite any more, so nothing was saved; earlier checkpoints are "
                        "whole. Start a new run with a lower learning rate (--spec.optimizer.lr)"
                    )
        # as trainer.save_checkpoint, whose barrier the others would wait at when rank 0 meets a full disk
        content = trainer._checkpoint_connector.dump_checkpoint(weights_only=False)
        with together("saving"):
            trainer.strategy.save_checkpoint(content, self._folder / "checkpoints" / f"step={step}.ckpt")
        self._saved_at = step
        if trainer.is_global_zero:
            past = [path for other, path in checkpoints_in(self._folder).items() if other <= step]
            self._remove(past[: -self._keep])

    def _remove(self, old: Iterable[Path]) -> None:
        """Old checkpoints, and what earlier attempts have left of some; what cannot be removed does not end a run."""
        for path in [*(self._folder / "checkpoints").glob(".step=*"), *old]:
            try:
                remove(path)
            except OSError as error:
                name = path.name.removeprefix(".").removesuffix(".removed")
                if name not in self._irremovable:
                    note(f"{path} could not be removed ({error.strerror}); it is tried again with each checkpoint")
                self._irremovable.add(name)


def _free_name(path: Path) -> Path:
    """left-step=N.ckpt, or left-2-step=N.ckpt and so on where there is one already."""
    names = ("left-" if number == 1 else f"left-{number}-" for number in count(1))
    return next(free for name in names if not (free := path.with_name(f"{name}{path.name}")).exists())


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
        states = everyone(random_state(trainer.strategy.root_device))
        checkpoint[SECTION] = {"version": __version__, "config": self._config, "random": states}
        checkpoint[SECTION][STATES] = [len(optimizer.state) for optimizer in trainer.optimizers]

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Keep this rank's generators until training starts, and count micro-batches as this run does.

        A rank that was not there before begins its own stream, as at the start of a run.

        Raises:
            InputError: the checkpoint is without this run's place in its data, which Lightning would go on without.
        """
        states = checkpoint[SECTION]["random"]
        self._random = states[trainer.global_rank] if trainer.global_rank < len(states) else None
        data = trainer.datamodule  # type: ignore[attr-defined]
        if type(data).__qualname__ in PLACES and type(data).__qualname__ not in checkpoint:
            raise InputError(
                f"--ckpt_path: the checkpoint has no {type(data).__qualname__}, which says where in the data it was "
                "saved: it was altered, restore it from a copy"
            )
        if isinstance(data, PreferenceData):
            _recount(checkpoint["loops"]["fit_loop"]["epoch_loop.batch_progress"], data)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Set the generators: everything before this point may have drawn from them.

        Ranks whose dropout drew the same noise would hide the same places of different rows. Until here they must draw
        the same: new weights are. Rank 0 draws what a run of one process draws.
        """
        with together("the random generators"):
            if self._random is not None:
                restore(self._random, trainer.strategy.root_device)
                self._random = None
            elif trainer.global_rank > 0:
                own_stream(trainer.global_rank, trainer.strategy.root_device)
        for optimizer in trainer.optimizers:
            _unmap(optimizer)


def _unmap(optimizer: torch.optim.Optimizer) -> None:
    """Copies of what may still be a mapped checkpoint: over a network, a file that another machine removes is gone.

    Torch takes what it loads as it is, where device and dtype are those of the weight; the step, always.
    """
    for state in optimizer.state.values():
        own = {key: one.clone() for key, one in state.items() if isinstance(one, torch.Tensor) and one.is_cpu}
        state.update(own)


def _recount(progress: dict[str, Any], data: PreferenceData) -> None:
    """Lightning's micro-batches of the epoch and of the run, where steps are divided into other ones than before."""
    began = int(progress["total"]["processed"]) > 0
    for counts, now in zip(
        (progress["current"], progress["total"]), data.train_dataloader().passed(began), strict=True
    ):
        behind = {name: counts["processed"] - count for name, count in counts.items()}
        counts.update({name: now - less for name, less in behind.items()})
