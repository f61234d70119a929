"""The one LightningModule: log-probs in, a spec's loss and KL controller in the middle, gradient steps out.

Legend: B = pairs, N = sequences, M = completion tokens, V = vocabulary.

The objective is the mean of the loss over the pairs of an optimiser step, on all ranks: each micro-batch contributes
its sum divided by the pairs of its whole accumulation window, so that neither gradient accumulation, nor an incomplete
last window, nor unequal shares change what is optimised.
A loss that compares examples within a micro-batch, as KTO's KL estimate does, still sees the micro-batch alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from lightning_utilities.core.rank_zero import rank_zero_info
from torch import Tensor

from nashtune.errors import InputError
from nashtune.evaluation.metrics import Means
from nashtune.interfaces import LossOutput, Schedule, TokenBatch
from nashtune.interfaces.schedule import Anchor
from nashtune.logprobs import EngineName
from nashtune.models.policy import HFPolicy, PolicyConfig
from nashtune.references.anchored import AnchoredReference
from nashtune.schedules.offline import OfflineSchedule
from nashtune.spec.resolve import build, resolve
from nashtune.training.objective import Objective
from nashtune.training.optimizer import LearningRate, configure

if TYPE_CHECKING:
    from nashtune.data.module import PreferenceData
    from nashtune.rounds.data import GameData


WHAT_TO_DO = (
    "Nothing was updated by this step. Look at the rows, and start a new run with a lower learning rate "
    "(--spec.optimizer.lr), gradient clipping (--trainer.gradient_clip_val 1.0) or fp32 (--policy.precision fp32)"
)


class AlignmentModule(LightningModule):
    """Trains a policy by a spec.

    Args:
        spec: A resolved spec in its plain short form (`Spec.to_dict()`): it goes into checkpoints as it is.
        policy: The fields of `PolicyConfig`.
        engine: Log-prob engine: "tiled" or "dense".
    """

    def __init__(self, spec: dict[str, Any], policy: dict[str, Any], engine: EngineName = "tiled") -> None:
        super().__init__()
        self.save_hyperparameters()
        self.spec = resolve(spec)
        self.policy = HFPolicy(PolicyConfig.from_plain(policy))
        self.objective = Objective(self.spec, self.policy, engine, self._mean_over_ranks)
        self.loss, self.kl, self.engine = self.objective.loss, self.objective.kl, self.objective.engine
        self.references = self.objective.references
        self.strict_loading = (
            False  # a checkpoint holds what is trained; on_load_checkpoint checks that nothing is missing
        )
        self.schedule = cast(Schedule, build(self.spec.schedule))
        self.is_game = "sampler" in self.schedule.reads
        if not self.is_game:
            _refuse_other_schedules(self.schedule, self.spec.schedule.name)
        self.rate = LearningRate(self.spec.optimizer, 1)
        self.planned_steps: int | None = None  # of a game, at most; an offline run knows its steps from its rows
        self._window = Means()
        self._evaluation = Means()
        self._step_metrics: dict[str, float] = {}
        self.held_out: dict[str, float] = {}  # newest means over held-out rows
        self.validated_at = -1  # optimiser steps done when held-out metrics were last measured

    @property
    def data(self) -> PreferenceData | GameData:
        """The data module of the running trainer."""
        return cast("PreferenceData | GameData", cast(Any, self.trainer).datamodule)

    def configure_model(self) -> None:
        """Load the weights; Lightning calls this once data are checked and before the optimiser is made."""
        if self.policy.is_loaded:
            return
        self.policy.load()
        if self.is_game and any(isinstance(phase, Anchor) for one in self.schedule.rounds() for phase in one.phases):
            # one model in memory: anchor phases score the round's rows with the snapshot in the live policy
            for name, reference in self.references.items():
                if reference.snapshot is not None:
                    self.references[name] = AnchoredReference(reference.snapshot)
        for reference in self.references.values():
            reference.attach(self.policy)

    def on_fit_start(self) -> None:
        """Give references that keep log-probs every row before the first step."""
        if self.is_game:
            return
        self._prepare_references(*(["train"] + ["validation"] * ("validation" in self.data.reports)))

    def on_validation_start(self) -> None:
        """As `on_fit_start`, for validation on its own."""
        if self.trainer.state.fn != TrainerFn.FITTING:
            self._prepare_references("validation")

    def on_test_start(self) -> None:
        """As `on_fit_start`."""
        self._prepare_references("test")

    def on_predict_start(self) -> None:
        """As `on_fit_start`."""
        self._prepare_references(*self.data.reports)

    def _prepare_references(self, *splits: str) -> None:
        data = cast("PreferenceData", self.data)
        for reference in self.references.values():
            for split in splits:
                with self.trainer.precision_plugin.forward_context():  # the autocast that the steps run under
                    reference.prepare(data.every_row(split), self.engine, data.fingerprint(split))

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """The spec's optimiser over what is trained, with the schedule over the run's total steps."""
        self.rate.total = self.total_steps()
        if note := self.spec.optimizer.warmup_note(self.rate.total):
            rank_zero_info(f"note: {note}")
        return cast(OptimizerLRScheduler, configure(self.spec.optimizer, self.policy.parameters(), self.rate))

    def total_steps(self) -> int:
        """Optimiser steps of the whole run, from the data and the trainer's limits.

        Not `trainer.estimated_stepping_batches`: reading it here makes Lightning drop the loader's state on resume.
        """
        if self.planned_steps is not None:  # a game that is stopped by max_steps and goes on has one schedule
            return self.planned_steps
        trainer = self.trainer
        limits = [int(trainer.max_steps)] if trainer.max_steps > 0 else []
        if trainer.max_epochs is not None and trainer.max_epochs > 0:
            per_epoch = cast("PreferenceData", self.data).steps_per_epoch(
                trainer.accumulate_grad_batches, trainer.world_size
            )
            limits.append(int(trainer.max_epochs) * per_epoch)
        if not limits:
            raise InputError("trainer.max_epochs: the run has no end; set trainer.max_epochs or trainer.max_steps")
        return min(limits)

    def training_step(self, batch: TokenBatch, batch_idx: int) -> Tensor:
        """The micro-batch's share of the objective."""
        output = self.objective.evaluate(batch)
        self._refuse_non_finite(output, batch)
        accumulate = self.trainer.accumulate_grad_batches
        window = self.data.window_size(batch_idx, accumulate)
        if window < float("inf"):
            self._window.update(output, len(batch), paired=batch.kind != "examples")
        # Lightning divides by `accumulate` and DDP averages over ranks: undo both, the window is the true count.
        return output.values.sum() * (accumulate * self.trainer.world_size / window)

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """One optimiser step; then the KL controller sees what happened over all of its pairs.

        What happened is logged here and not by `self.log`, which writes after callbacks have saved: a kill in between
        would lose the row.
        """
        rate = float(self.trainer.optimizers[0].param_groups[0]["lr"])
        super().optimizer_step(*args, **kwargs)
        means = self._window.compute_and_reset()
        if self.kl is not None:
            self.kl.observe(means)
        step = self.trainer.global_step + 1  # Lightning counts this step after the hook
        if step % cast(Any, self.trainer).log_every_n_steps == 0:
            row = {**{f"train/{name}": value for name, value in means.items()}, "train/lr": rate}
            self._write(row | ({"train/round": float(self.objective.round)} if self.is_game else {}), step)
        self._step_metrics = means

    def _write(self, metrics: Mapping[str, float], step: int) -> None:
        """To the loggers, at the number of optimiser steps done."""
        for logger in self.trainer.loggers:
            logger.log_metrics(dict(metrics), step=step)
            logger.save()

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Stop before a gradient that is not finite reaches the weights."""
        gradients = [p.grad for p in self.policy.parameters() if p.grad is not None]
        if not bool(torch.isfinite(torch.nn.utils.get_total_norm(gradients))):
            raise InputError(
                f"step {self.trainer.global_step}: the gradient is not finite, though the loss is. {WHAT_TO_DO}"
            )

    def on_train_batch_end(self, *args: Any) -> None:
        """Show the optimiser step that just ended in the progress bar."""
        for name in self._step_metrics.keys() & {"loss", "accuracy", "beta"}:
            self.log(f"train/{name}", self._step_metrics[name], prog_bar=True, logger=False, batch_size=1)
        self._step_metrics = {}

    def validation_step(self, batch: TokenBatch, batch_idx: int) -> None:
        """Add a held-out micro-batch to the means."""
        with torch.no_grad():
            output = self.objective.evaluate(batch, token_kl=True)
        self._evaluation.update(output, len(batch), paired=batch.kind == "pairs")

    def on_validation_epoch_end(self) -> None:
        """Log the means over the held-out pairs."""
        self.held_out = self._evaluation.compute_and_reset()
        means = {f"val/{name}": value for name, value in self.held_out.items()}
        self._write(means, self.trainer.global_step)
        for name, value in means.items():
            self.log(name, value, prog_bar=name == "val/accuracy", logger=False, batch_size=1)
        self.validated_at = self.trainer.global_step

    def test_step(self, batch: TokenBatch, batch_idx: int) -> None:
        """As validation, on the test split."""
        self.validation_step(batch, batch_idx)

    def on_test_epoch_end(self) -> None:
        """Keep the means over the test split for the command's table."""
        self.held_out = self._evaluation.compute_and_reset()

    def predict_step(self, batch: TokenBatch, batch_idx: int) -> dict[str, list[float]]:
        """Implicit rewards of every pair or example, one list per column."""
        with torch.no_grad():
            output = self.objective.evaluate(batch)
        columns = {"row": batch.rows, "reward_chosen": output.reward_chosen, "reward_rejected": output.reward_rejected}
        if batch.desirable is not None:  # unpaired: the two rewards belong to different examples
            reward = output.reward_chosen.new_empty(len(batch))
            reward[batch.desirable], reward[~batch.desirable] = output.reward_chosen, output.reward_rejected
            columns = {"row": batch.rows, "desirable": batch.desirable, "reward": reward}
        return {name: value.tolist() for name, value in columns.items()}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep what is trained, and the KL controller's state."""
        checkpoint["state_dict"] = self.policy.trainable_state_dict()
        checkpoint["kl"] = self.kl.state_dict() if self.kl is not None else {}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore weights and controller; refuse a checkpoint that lacks a trained weight."""
        self.policy.load_trainable_state_dict(checkpoint["state_dict"])
        checkpoint["state_dict"] = {}  # restored above; Lightning's own non-strict loading would hide a missing weight
        if self.kl is not None:
            self.kl.load_state_dict(cast(Mapping[str, Any], checkpoint["kl"]))

    def _mean_over_ranks(self, value: Tensor) -> Tensor:
        return cast(Tensor, self.trainer.strategy.reduce(value, reduce_op="mean"))

    def _refuse_non_finite(self, output: LossOutput, batch: TokenBatch) -> None:
        bad = ~torch.isfinite(output.values.detach())
        if not bool(bad.any()):
            return
        owners = batch.rows.repeat(bad.shape[0] // len(batch))
        rows = [self.data.where("train", int(row)) for row in owners[bad.to(owners.device)][:5]]
        raise InputError(
            f"step {self.trainer.global_step}: the loss is not finite on {int(bad.sum())} of {len(batch)} rows: "
            f"{', '.join(rows)}. {WHAT_TO_DO}"
        )


def _refuse_other_schedules(schedule: Schedule, name: str) -> None:
    """Without a sampler there is one data set, and one round over it; anything else must not pass for it."""
    rounds = schedule.rounds()
    if rounds != OfflineSchedule().rounds():
        phases = "; ".join(", ".join(type(phase).__name__.lower() for phase in one.phases) for one in rounds)
        raise InputError(
            f"spec.schedule: '{name}' draws no completions and declares {len(rounds)} round(s) ({phases}); without a "
            "sampler there is one round of anchor, update: use schedule: offline"
        )
