"""Puts a game together: spec and run settings in, the objects that its rounds are played with out."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from lightning.pytorch import Callback, LightningModule, Trainer

from nashtune.data.prompts import prompts_in_round, round_prompts
from nashtune.errors import InputError
from nashtune.interfaces import Pairing, PreferenceOracle, RewardOracle, Sampler, Surroundings
from nashtune.interfaces.schedule import Update
from nashtune.journal.store import Journal
from nashtune.models.snapshots import SnapshotBank
from nashtune.oracles.checked import scored
from nashtune.references.base import BaseReference
from nashtune.rounds.data import GameData
from nashtune.rounds.ledger import Ledger
from nashtune.rounds.order import WindowOrder
from nashtune.rounds.table import Table
from nashtune.samplers.mixture import start_logits
from nashtune.spec.members import check_folders
from nashtune.spec.overdrawn import Rounds, overdrawn
from nashtune.spec.planning import one_step_message, updates_of
from nashtune.spec.resolve import build

if TYPE_CHECKING:
    from nashtune.data.module import PreferenceData
    from nashtune.rounds.progress import Progress
    from nashtune.training.module import AlignmentModule


class Game:
    """A spec's game, before and after its policy is loaded.

    Args:
        module: The module that trains it.
        data: The run's prompts.
        folder: The run folder.
        seed: The run's.
        epochs: Passes over a round's rows in each update.
        accumulate: Micro-batches of an optimiser step.
        settings: Further settings that the result depends on, by the names of `nashtune.rounds.identity`.
    """

    def __init__(
        self,
        module: AlignmentModule,
        data: PreferenceData,
        *,
        folder: Path,
        seed: int,
        epochs: int,
        accumulate: int,
        settings: Mapping[str, Any],
    ) -> None:
        spec = module.spec
        assert spec.sampler is not None, "the cross-check demands a sampler for a schedule that reads it"
        self.sampler = cast(Sampler, build(spec.sampler))
        oracle = cast("RewardOracle | PreferenceOracle", build(spec.oracle)) if spec.oracle else None
        # a spec that leaves its oracle to the run needs none where a journal brings the judgements
        self.oracle = None if oracle is not None and oracle.chosen_by_run and self.sampler.replays else oracle
        self.pairing = cast(Pairing, build(spec.pairing)) if spec.pairing else None
        self.folder = folder
        self._module, self._prompts = module, data
        self._seed, self._epochs, self.accumulate, self._settings = seed, epochs, accumulate, settings

    def prepare(self) -> None:
        """Look at what the game needs from outside, before the policy's weights are loaded.

        Raises:
            InputError: the sampler or the oracle cannot work, or no oracle was chosen, or it has too few members for
                the variance that is read.
        """
        self.sampler.prepare()
        if self.oracle is not None:
            self.oracle.prepare()
            check_folders(self._module.spec, elsewhere=True)

    def orders(self, ranks: int) -> list[WindowOrder]:
        """The micro-batches of each update of the run, at most, for the first of so many ranks."""
        rounds = self._module.schedule.rounds()
        n = self.sampler.completions
        each = n if self.pairing is None else self.pairing.most(n)[1]
        prompts, per_round = len(self._prompts.prompts("train")), self._prompts.prompts_per_round
        return [
            WindowOrder(
                size=len(round_prompts(prompts, len(rounds), per_round, self._seed, t)) * each,
                batch_size=self._prompts.batch_size,
                accumulate=self.accumulate,
                epochs=self._epochs,
                seed=self._seed,
                world_size=ranks,
            )
            for t, one in enumerate(rounds, start=1)
            for phase in one.phases
            if isinstance(phase, Update)
        ]

    def overdrawn(self, ranks: int, max_steps: int) -> str | None:
        """What to say where a round draws far more than its steps use before `trainer.max_steps`; see `Rounds`."""
        rounds, n = self._module.schedule.rounds(), self.sampler.completions
        prompts, per_round = len(self._prompts.prompts("train")), self._prompts.prompts_per_round
        drawn = Rounds(
            prompts=[prompts_in_round(prompts, len(rounds), per_round, t) for t in range(1, len(rounds) + 1)],
            updates=updates_of(rounds),
            completions=n,
            rows=n if self.pairing is None else self.pairing.most(n)[1],
            kind="rollouts" if self.pairing is None else "pairs",
            step_rows=self._prompts.batch_size * self.accumulate * ranks,
            epochs=self._epochs,
        )
        return overdrawn(drawn, max_steps)

    def data(self, trainer: Trainer, progress: Progress) -> GameData:
        """The data module that Lightning gets."""
        orders = self.orders(trainer.world_size)
        self._module.planned_steps = steps = sum(order.steps for order in orders)
        if steps * self.accumulate > sys.maxsize:
            raise InputError(
                "trainer.max_epochs or trainer.accumulate_grad_batches: more micro-batches than can be counted; in a "
                "game the first is the passes over the rows of each update, usually 1"
            )
        self._refuse_stale_rollouts(orders)
        if self._module.kl is not None and self._module.schedule.scores:
            self._module.kl.check_round(max(order.size for order in orders))
        return GameData(
            self._prompts,
            lambda: self.table(trainer, progress),
            epochs=self._epochs,
            accumulate=self.accumulate,
            length=steps * self.accumulate,
            identity={
                "fingerprint": self._prompts.fingerprint("train"),
                "seed": self._seed,
                "prompts_per_round": self._prompts.prompts_per_round,
                "labels": self._prompts.labels,
                "step_rows": self._prompts.batch_size * self.accumulate * trainer.world_size,
                # else a step's rows may be divided anew among micro-batches: on other ranks they must be
                "batch_size": self._prompts.batch_size if self._compares_rows() else None,
                "batch_tokens": self._prompts.batch_tokens,
                "epochs": self._epochs,
                **self._settings,
            },
        )

    def _compares_rows(self) -> bool:
        return self._module.objective.compares_rows("rollouts" if self.pairing is None else "pairs")

    def _refuse_stale_rollouts(self, orders: list[WindowOrder]) -> None:
        """A policy gradient is that of the policy that drew: after one step the completions are another's."""
        stale = [order for order in orders if order.steps > 1]
        if self._module.loss.rows == "rollouts" and not self._module.loss.uses_old and stale:
            first = stale[0]
            raise InputError(
                one_step_message(first.size, first.batch_size * first.world_size, first.accumulate, first.epochs)
            )

    def table(self, trainer: Trainer, progress: Progress) -> Table:
        """What the rounds are played with; the policy is loaded by now."""
        module, policy = self._module, self._module.policy
        tokenizer = self._prompts.tokenizer
        surroundings = Surroundings(
            policy=policy,
            tokenizer=tokenizer,
            start_logits=self._start_logits() if self.sampler.mixes else None,
            score=self._score(tokenizer) if self.sampler.selects else None,
            run_dir=str(self.folder),
        )
        with policy.inference_model():
            self.sampler.attach(surroundings)
        return Table(
            rounds=module.schedule.rounds(),
            loss=module.loss,
            policy=policy,
            tokenizer=tokenizer,
            engine=module.engine,
            sampler=self.sampler,
            oracle=self.oracle,
            pairing=self.pairing,
            prompts=self._prompts.prompts("train"),
            prompts_per_round=self._prompts.prompts_per_round,
            bank=SnapshotBank(self.folder / "snapshots"),
            journal=Journal(self.folder / "journal", writer=trainer.global_rank),
            ledger=Ledger(self.folder / "oracle", self.oracle, writer=trainer.global_rank),
            progress=progress,
            seed=self._seed,
            soft_labels=self._prompts.labels == "soft",
            batch_size=self._prompts.eval_batch_size,
            batch_tokens=self._prompts.batch_tokens,
            autocast=trainer.precision_plugin.forward_context,
            judged_by_scores=module.schedule.scores,
        )

    def _start_logits(self) -> Any:
        """The starting policy next to the live one: a reference that is loaded anyway, or one of its own."""
        for reference in self._module.references.values():
            model = reference.own_model() if isinstance(reference, BaseReference) else None
            if model is not None and self._module.policy.sharding is None:
                return model, nullcontext
        return start_logits(self._module.policy)

    def _score(self, tokenizer: Any) -> Callable[[Sequence[int], Sequence[Sequence[int]]], list[float]]:
        oracle = self.oracle
        if not isinstance(oracle, RewardOracle):
            raise InputError(
                "spec.sampler: it chooses among completions by their scores, and the oracle compares pairs; use an "
                "oracle that scores, such as --spec.oracle rules"
            )
        prompts = {tuple(row.prompt_ids): row.prompt for row in self._prompts.prompts("train")}

        def score(prompt_ids: Sequence[int], completions: Sequence[Sequence[int]]) -> list[float]:
            texts = [tokenizer.decode(ids, skip_special_tokens=True).strip() for ids in completions]
            return cast("list[float]", scored(oracle, [prompts[tuple(prompt_ids)]] * len(texts), texts).mean.tolist())

        return score


class SameSteps(Callback):
    """Lets a run go on with other micro-batches: Lightning counts these and takes a step after every so many of them.

    Args:
        accumulate: Micro-batches of an optimiser step now. In a game every step has as many.
    """

    def __init__(self, accumulate: int) -> None:
        self._accumulate = accumulate

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Say how many micro-batches the checkpoint's optimiser steps would have taken."""
        progress = checkpoint["loops"]["fit_loop"]["epoch_loop.batch_progress"]
        done = int(checkpoint["global_step"]) * self._accumulate
        for counts in (progress["total"], progress["current"]):
            behind = {name: counts["ready"] - count for name, count in counts.items()}
            counts.update({name: done - less for name, less in behind.items()})
