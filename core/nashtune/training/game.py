"""Puts a game together: spec and run settings in, the objects that its rounds are played with out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from nashtune.data.prompts import round_prompts
from nashtune.errors import InputError
from nashtune.interfaces import Pairing, PreferenceOracle, RewardOracle, Sampler, Surroundings
from nashtune.interfaces.schedule import Update
from nashtune.journal.store import Journal
from nashtune.models.snapshots import SnapshotBank
from nashtune.oracles.checked import scored
from nashtune.references.base import BaseReference
from nashtune.rounds.data import GameData
from nashtune.rounds.order import WindowOrder
from nashtune.rounds.table import Table
from nashtune.samplers.mixture import start_logits
from nashtune.spec.members import check_folders
from nashtune.spec.planning import one_step_message
from nashtune.spec.resolve import build

if TYPE_CHECKING:
    from lightning.pytorch import Trainer

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
        self._seed, self._epochs, self._accumulate, self._settings = seed, epochs, accumulate, settings

    def prepare(self) -> None:
        """Look at what the game needs from outside, before the policy's weights are loaded.

        Raises:
            InputError: the oracle cannot work, was not chosen, or has too few members for the variance that is read.
        """
        if self.oracle is not None:
            self.oracle.prepare()
            check_folders(self._module.spec, elsewhere=True)

    def orders(self) -> list[WindowOrder]:
        """The micro-batches of each update of the run, at most."""
        rounds = self._module.schedule.rounds()
        n = self.sampler.completions
        each = n if self.pairing is None else self.pairing.most(n)[1]
        prompts, per_round = len(self._prompts.prompts("train")), self._prompts.prompts_per_round
        return [
            WindowOrder(
                size=len(round_prompts(prompts, len(rounds), per_round, self._seed, t)) * each,
                batch_size=self._prompts.batch_size,
                accumulate=self._accumulate,
                epochs=self._epochs,
                seed=self._seed,
            )
            for t, one in enumerate(rounds, start=1)
            for phase in one.phases
            if isinstance(phase, Update)
        ]

    def data(self, trainer: Callable[[], Trainer], progress: Progress) -> GameData:
        """The data module that Lightning gets."""
        orders = self.orders()
        self._module.planned_steps = sum(order.steps for order in orders)
        self._refuse_stale_rollouts(orders)
        if self._module.kl is not None and self._module.schedule.scores:
            self._module.kl.check_round(max(order.size for order in orders))
        return GameData(
            self._prompts,
            lambda: self.table(trainer(), progress),
            epochs=self._epochs,
            accumulate=self._accumulate,
            length=sum(map(len, orders)),
            identity={
                "fingerprint": self._prompts.fingerprint("train"),
                "seed": self._seed,
                "prompts_per_round": self._prompts.prompts_per_round,
                "labels": self._prompts.labels,
                "batch_size": self._prompts.batch_size,
                "batch_tokens": self._prompts.batch_tokens,
                "accumulate": self._accumulate,
                "epochs": self._epochs,
                **self._settings,
            },
        )

    def _refuse_stale_rollouts(self, orders: list[WindowOrder]) -> None:
        """A policy gradient is that of the policy that drew: after one step the completions are another's."""
        stale = [order for order in orders if order.steps > 1]
        if self._module.loss.rows == "rollouts" and not self._module.loss.uses_old and stale:
            first = stale[0]
            raise InputError(one_step_message(first.size, first.batch_size, first.accumulate, first.epochs))

    def table(self, trainer: Trainer, progress: Progress) -> Table:
        """What the rounds are played with; the policy is loaded by now."""
        module, policy = self._module, self._module.policy
        tokenizer = self._prompts.tokenizer
        self.sampler.attach(
            Surroundings(
                policy=policy,
                tokenizer=tokenizer,
                start_logits=self._start_logits() if self.sampler.mixes else None,
                score=self._score(tokenizer) if self.sampler.selects else None,
                run_dir=str(self.folder),
            )
        )
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
            journal=Journal(self.folder / "journal"),
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
            if isinstance(reference, BaseReference) and (model := reference.own_model()) is not None:
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
