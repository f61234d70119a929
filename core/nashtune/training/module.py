"""The one LightningModule: log-probs in, a spec's loss and KL controller in the middle, gradient steps out.

Legend: B = pairs, N = sequences, M = completion tokens, V = vocabulary.

The objective is the mean of the loss over the pairs of an optimiser step, on all ranks: each micro-batch contributes
its sum divided by the pairs of its whole accumulation window, so that neither gradient accumulation, nor an incomplete
last window, nor unequal shares change what is optimised.
What compares the rows of a micro-batch still depends on which rows are computed together: KTO's KL estimate is over the
micro-batches of all ranks, made of completions that are paired within each.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, cast

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor

from nashtune.evaluation.metrics import COMPARED
from nashtune.evaluation.predictions import predictions
from nashtune.evaluation.reward_scores import HeldOutScores
from nashtune.interfaces import Schedule, TokenBatch
from nashtune.logprobs import EngineName
from nashtune.models.critic import make_critic
from nashtune.models.policy import HFPolicy, PolicyConfig
from nashtune.models.reward_policy import RewardPolicy
from nashtune.notes import note
from nashtune.ranks import mean_over_ranks, world
from nashtune.sharding.placing import Sharding
from nashtune.sharding.strategy import FSDP2Strategy
from nashtune.spec.gamerules import attribute
from nashtune.spec.resolve import build, resolve
from nashtune.training.finite import FiniteGuard
from nashtune.training.held_out import HeldOutMeasures
from nashtune.training.micro_batch import Passes, to_device
from nashtune.training.objective import Objective
from nashtune.training.optimizer import LearningRate, configure, total_steps
from nashtune.training.own_gradient import watch_own_gradient
from nashtune.training.references import attach_references, show_every_row
from nashtune.training.refusals import refuse_other_schedules
from nashtune.training.step_means import StepMeans

if TYPE_CHECKING:
    from nashtune.data.module import PreferenceData
    from nashtune.rounds.data import GameData


class AlignmentModule(LightningModule):
    """Trains a policy by a spec.

    Args:
        spec: A resolved spec in its plain short form (`Spec.to_dict()`): it goes into checkpoints as it is.
        policy: The fields of `PolicyConfig`.
        engine: Log-prob engine; "auto" takes "shared" where the policy can be packed, else "tiled".
    """

    def __init__(self, spec: dict[str, Any], policy: dict[str, Any], engine: EngineName = "auto") -> None:
        super().__init__()
        self.save_hyperparameters()
        self.spec = resolve(spec)
        config = PolicyConfig.from_plain(policy)
        self.policy = RewardPolicy(config, self.spec.head) if self.spec.head is not None else HFPolicy(config)
        self.objective = Objective(self.spec, self.policy, engine, mean_over_ranks)
        self.loss, self.kl, self.engine = self.objective.loss, self.objective.kl, self.objective.engine
        self.references = self.objective.references
        self.strict_loading = False  # a checkpoint holds what is trained; `on_load_checkpoint` checks that all is there
        self.schedule = cast(Schedule, build(self.spec.schedule))
        self.is_game = "sampler" in self.schedule.reads
        if not self.is_game:
            refuse_other_schedules(self.schedule, self.spec.schedule.name)
        self.rate = LearningRate(self.spec.optimizer, 1)
        # of a game, at most: stopped by max_steps and taken up again it has one schedule. None: the rows say it
        self.planned_steps: int | None = None
        self._passes = Passes(self.spec, self.policy, self.objective)
        self.counted_passes = 0  # the first ones of the micro-batch in training; others keep the ranks in step
        self._finite = FiniteGuard(type(self.kl).__name__ if self.kl is not None else None)
        in_rl = self.is_game and self.schedule.scores  # there a KL controller follows updates, and the loss steps
        told = (self.loss,) if in_rl else (self.kl, self.loss)
        self._means = StepMeans([one for one in told if one is not None])
        self._measures = HeldOutMeasures(self.loss, config.attention)
        self.verdicts: HeldOutScores | None = None  # on held-out rows, of what is trained to judge; as new as held_out
        self._step_metrics: dict[str, float] = {}
        self.held_out: dict[str, float] = {}  # newest means over held-out rows
        self.validated_at = -1  # optimiser steps done when held-out metrics were last measured

    @property
    def oracle_model(self) -> str | None:
        """Folder of the oracle's reward model, where it is one."""
        oracle = self.spec.oracle
        argument = attribute(oracle, "model_argument", None) if oracle is not None else None
        return cast("str | None", oracle.args.get(argument)) if oracle is not None and argument is not None else None

    @property
    def data(self) -> PreferenceData | GameData:
        """The data module of the running trainer."""
        return cast("PreferenceData | GameData", cast(Any, self.trainer).datamodule)

    def configure_model(self) -> None:
        """Load the weights; Lightning calls this once data are checked and before the optimiser is made."""
        if self.policy.is_loaded:
            return
        if isinstance(self.trainer.strategy, FSDP2Strategy):
            mesh = self.trainer.strategy.device_mesh["data_parallel"]
            self.policy.sharding = Sharding(mesh=mesh, device=self.trainer.strategy.root_device)
        self.policy.load()
        if self.loss.uses_values:
            self.policy.critic = make_critic(self.loss.critic_init, self.policy, self.oracle_model)
        self.policy.shard()
        self.engine.attach(self.policy.loaded())
        attach_references(self.objective, self.policy, self.schedule)

    def on_fit_start(self) -> None:
        """Give references that keep log-probs every row before the first step."""
        if self.is_game:
            return
        self._prepare_references(*(["train"] + ["validation"] * ("validation" in self.data.reports)))

    def on_train_start(self) -> None:
        """See this rank's gradients before they are averaged, so that a fault has a name."""
        watch_own_gradient(self.trainer.strategy, lambda norm: self._finite.see_own(norm, self.trainer.global_step))

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
        show_every_row(self.objective, self.policy, data, splits, self._context_of)

    def _context_of(self, split: str) -> AbstractContextManager[Any]:
        """How the rows of a split are looked at: training rows under the autocast of the steps, the others without."""
        if split == "train" and self.trainer.state.fn == TrainerFn.FITTING:
            return self.trainer.precision_plugin.forward_context()
        return self._measures.context(self.trainer, self.device)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """The spec's optimiser over what is trained, with the schedule over the run's total steps."""
        self.rate.total = self.planned_steps or total_steps(self.trainer, cast("PreferenceData", self.data))
        if text := self.spec.optimizer.warmup_note(self.rate.total):
            note(text)
        return cast(OptimizerLRScheduler, configure(self.spec.optimizer, self.policy.parameters(), self.rate))

    @property
    def _reads_each_step(self) -> bool:
        """Whether looking at numbers costs nothing: on a CPU. Elsewhere the host looks once per logging interval."""
        return self.device.type == "cpu"

    def on_before_batch_transfer(self, batch: TokenBatch, dataloader_idx: int) -> list[TokenBatch]:
        """On the host: the batch in passes that fit into memory, counted, with what references remember of them."""
        return self._passes.of(batch, self.trainer, self.data.batch_tokens, self.device)

    def transfer_batch_to_device(
        self, batch: list[TokenBatch], device: torch.device, dataloader_idx: int
    ) -> list[TokenBatch]:
        """The passes, without waiting for the device."""
        return to_device(batch, device)

    def training_step(self, batch: list[TokenBatch], batch_idx: int) -> Tensor:
        """The micro-batch's share of the objective: of its last pass, after the backward of those before."""
        accumulate = self.trainer.accumulate_grad_batches
        window = self.data.window_size(batch_idx, accumulate)
        counts = window < float("inf")  # else a borrowed row, which only keeps the ranks in step
        if counts and self.loss.mean_over == "tokens":
            window = float(cast("GameData", self.data).window_tokens())
        # Lightning divides by `accumulate` and DDP averages over ranks: undo both, the window is the true count.
        factor = accumulate * self.trainer.world_size / window
        self.counted_passes = self._passes.own if counts else 0
        again = len(batch) - self._passes.own  # of the shortest pass, which only keeps the ranks in step
        batch = batch[len(batch) - again :] + batch[: len(batch) - again]
        for number, one in enumerate(batch[:-1]):
            part = self._pass(one, counts and number >= again) * (factor / accumulate * (number >= again))
            with torch.autocast(self.device.type, enabled=False):  # as Lightning's own backward, outside of it
                self.trainer.strategy.backward(part, None)
        return self._pass(batch[-1], counts) * factor

    def _pass(self, batch: TokenBatch, counts: bool) -> Tensor:
        """Sum of the losses of a pass; takes note of what is logged."""
        output = self.objective.evaluate(batch)
        self._finite.see_loss(output, batch, self.trainer.global_step, lambda row: self.data.where("train", row))
        if self._reads_each_step and world() == 1:  # else all look before the optimiser's step, and stop together
            self._finite.look()
        assert batch.layout is not None
        tokens = batch.layout.num_targets if self.loss.mean_over == "tokens" else None
        self._means.update(output, batch, tokens=tokens, counts=counts)
        return output.values.sum()

    def optimizer_zero_grad(self, *args: Any) -> None:
        """Nothing: Lightning would do it between `training_step` and its own backward, and drop earlier passes.

        `optimizer_step` does it when the step is over, so that no gradient lies in memory during the next forward.
        """

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """One optimiser step; then the KL controller and the loss are told what happened over all of its pairs.

        What happened is logged here and not by `self.log`, which writes after callbacks have saved: a kill in between
        would lose the row. It is the mean over all pairs since the last row, or, in a game, since the update began: a
        row never mixes two updates. The host reads it when it is logged, and waits for the device nowhere else.
        """
        rate = float(self.trainer.optimizers[0].param_groups[0]["lr"])
        super().optimizer_step(*args, **kwargs)
        self.trainer.optimizers[0].zero_grad(set_to_none=True)
        first, last = cast("GameData", self.data).ends_of_update() if self.is_game else (False, False)
        self._means.end_step()
        step = self.trainer.global_step + 1  # Lightning counts this step after the hook
        self._step_metrics = {}
        row = self._observe_round(first, last)
        if last or step % cast(Any, self.trainer).log_every_n_steps == 0:
            self._step_metrics, bad = self._means.read(self._finite.flag)
            self._finite.settle(bad)
            row |= {**{f"train/{name}": value for name, value in self._step_metrics.items()}, "train/lr": rate}
        if row:
            self._write(row | ({"train/round": float(self.objective.round)} if self.is_game else {}), step)

    def _observe_round(self, first: bool, last: bool) -> dict[str, float]:
        """Tell the controller of a round whose update is over; what a round's rollouts were, at its first step."""
        prepared = cast("GameData", self.data).prepared if self.is_game else None
        if prepared is None:
            return {}
        if last and self.kl is not None:
            self.kl.observe_round(prepared.observed, prepared.completions)
        return {f"rollout/{name}": value for name, value in prepared.means.items()} if first else {}

    def _write(self, metrics: Mapping[str, float], step: int) -> None:
        """To the loggers, at the number of optimiser steps done."""
        for logger in self.trainer.loggers:
            logger.log_metrics(dict(metrics), step=step)
            logger.save()

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Stop before a gradient that is not finite reaches the weights, or hold the optimiser back until a look."""
        if getattr(self.trainer.precision_plugin, "scaler", None) is not None:
            return  # fp16: a gradient that overflows is the scaler's to skip, with a smaller scale from then on
        gradients = [p.grad for p in self.policy.parameters() if p.grad is not None]
        self._finite.see_gradient(gradients, self.trainer.global_step)
        if self._reads_each_step or not self._finite.hold(optimizer, gradients):
            self._finite.look(together=True)

    def on_train_batch_end(self, *args: Any) -> None:
        """Show what was read at this step in the progress bar."""
        for name in self._step_metrics.keys() & {"loss", *COMPARED.values(), "beta"}:
            # a tensor on the host: of a number Lightning makes one on the device, and fetches it for the bar
            value = torch.tensor(self._step_metrics[name])
            self.log(f"train/{name}", value, prog_bar=True, logger=False, batch_size=1)
        self._step_metrics = {}

    def validation_step(self, batch: list[TokenBatch], batch_idx: int) -> None:
        """Add a held-out micro-batch to what is measured."""
        for number, one in enumerate(batch):
            with self._measures.context(self.trainer, self.device):
                output = self.objective.evaluate(one, token_kl=True)
            if number < self._passes.own:  # else run to keep the ranks in step
                self._measures.update(one, output)

    def on_validation_epoch_end(self) -> None:
        """Log the means over the held-out pairs."""
        self.held_out, self.verdicts = self._measures.compute_and_reset()
        means = {f"val/{name}": value for name, value in self.held_out.items()}
        self._write(means, self.trainer.global_step)
        for name, value in means.items():
            self.log(name, value, prog_bar=name.removeprefix("val/") in COMPARED.values(), logger=False, batch_size=1)
        self.validated_at = self.trainer.global_step

    def test_step(self, batch: list[TokenBatch], batch_idx: int) -> None:
        """As validation, on the test split."""
        self.validation_step(batch, batch_idx)

    def on_test_epoch_end(self) -> None:
        """Keep what was measured on the test split for the command's table."""
        self.held_out, self.verdicts = self._measures.compute_and_reset()

    def predict_step(self, passes: list[TokenBatch], batch_idx: int) -> dict[str, list[float]]:
        """Implicit rewards of every pair or example, one list per column."""
        (batch,) = passes  # not split, so that the rows stay in order
        with self._measures.context(self.trainer, self.device):
            output = self.objective.evaluate(batch)
        return predictions(batch, output)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep what is trained, and the state of the KL controller and of the loss."""
        self._finite.look(together=True)
        pieces = getattr(self.trainer.strategy, "checkpoints", "full") == "sharded"
        checkpoint["state_dict"] = self.policy.trained() if pieces else self.policy.trainable_state_dict()
        checkpoint["kl"] = self.kl.state_dict() if self.kl is not None else {}
        checkpoint["loss"] = self.loss.state_dict()
        checkpoint["logged"] = self._means.state_dict()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore weights, controller and loss; refuse a checkpoint that lacks a trained weight."""
        self.policy.load_trainable_state_dict(checkpoint["state_dict"])
        checkpoint["state_dict"] = {}  # restored above; Lightning's own non-strict loading would hide a missing weight
        if self.kl is not None:
            self.kl.load_state_dict(cast(Mapping[str, Any], checkpoint["kl"]))
        self.loss.load_state_dict(checkpoint.get("loss", {}))
        self._means.load_state_dict(checkpoint.get("logged", {}))
