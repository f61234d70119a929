"""What a training spends, counted over all of its attempts; its end where tokens are the budget; its learning rate.

A training of a comparison ends with its budget, and so does its learning-rate schedule: else a game would warm up for
rounds that it never plays, while an offline method goes through all of its own.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from jsonargparse.typing import PositiveInt
from lightning.pytorch import LightningModule, Trainer
from torch.optim import Optimizer

from nashtune.comparison.spent_file import FILE
from nashtune.interfaces import TokenBatch
from nashtune.ranks import everyone
from nashtune.training.run_folder import write_json
from nashtune.training.throughput import Throughput

if TYPE_CHECKING:
    from nashtune.training.module import AlignmentModule

SAVED = "nashtune_spent"
"""Key of a checkpoint."""


class Spent(Throughput):
    """Counts tokens and time of a run, also where it was killed and went on, and fits its schedule into its steps.

    Args:
        tokens: Stop after the optimiser step with which so many tokens, of all ranks, were trained on.
    """

    def __init__(self, tokens: PositiveInt | None = None) -> None:
        super().__init__()
        self._limit = None if tokens is None else int(tokens)
        self._before = {
            "tokens": 0,
            "other_tokens": 0,
            "positions": 0,
            "padding": 0,
            "seconds": 0.0,
            "wall_seconds": 0.0,
        }
        self._other_tokens = 0
        self._began = time.monotonic()
        self._peak_share = 0.0

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """The clock of the whole training; a game is planned for no more steps than it may take."""
        self._began = time.monotonic()
        module = cast("AlignmentModule", pl_module)
        if module.planned_steps is not None and trainer.max_steps > 0:
            module.planned_steps = min(module.planned_steps, trainer.max_steps)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """An update that the budget ends has a schedule that ends there, too."""
        super().on_train_batch_start(trainer, pl_module, batch, batch_idx)
        rate = cast("AlignmentModule", pl_module).rate
        if trainer.max_steps > 0 and rate.start + rate.total > trainer.max_steps:
            rate.total = trainer.max_steps - rate.start
            for group in trainer.optimizers[0].param_groups:
                group["lr"] = group["initial_lr"] * rate.factor(trainer.global_step)

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        """The learning rate of this step, as a share of its peak."""
        shares = [float(group["lr"]) / group["initial_lr"] for group in optimizer.param_groups if group["initial_lr"]]
        self._peak_share = max(self._peak_share, *shares, 0.0)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: list[TokenBatch], batch_idx: int
    ) -> None:
        """Count; where the step is complete and the budget used up, let this step be the last one."""
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
        for one in batch[: cast("AlignmentModule", pl_module).counted_passes]:
            if one.kind == "examples":  # the second half are mismatched completions, which carry no gradient
                self._other_tokens += int(one.attention_mask[len(one) :].sum())
        if self._limit is None or trainer.fit_loop.epoch_loop._should_accumulate():
            return
        if self._total()["tokens"] >= self._limit:
            trainer.should_stop = True

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Keep the totals, and show them in the run folder."""
        total = self._total()
        checkpoint[SAVED] = total
        if trainer.is_global_zero:
            write_json(Path(trainer.default_root_dir) / FILE, {"steps": trainer.global_step, **total})

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Go on counting where the checkpoint was made."""
        self._before = dict(checkpoint[SAVED])

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """A run that was killed after its last step has nothing left to train."""
        if self._limit is not None and self._total()["tokens"] >= self._limit:
            trainer.should_stop = True

    def _total(self) -> dict[str, Any]:
        """Of all ranks, with what earlier attempts have left; collective."""
        wall = time.monotonic() - self._began
        own = (self.real_tokens, self._other_tokens, self.positions, self.padding, self.seconds, wall)
        tokens, other, positions, padding, seconds, walls = zip(*everyone(own), strict=True)
        before = self._before
        return {
            "tokens": before["tokens"] + sum(tokens) - sum(other),
            "other_tokens": before["other_tokens"] + sum(other),
            "positions": before["positions"] + sum(positions),
            "padding": before["padding"] + sum(padding),
            "seconds": before["seconds"] + max(seconds),
            "wall_seconds": before["wall_seconds"] + max(walls),
            "lr_share": max(self._peak_share, before.get("lr_share", 0.0)),
        }
