"""The data module of a game: prompts come from the run's data section, and its rounds make the training rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import TYPE_CHECKING, Any, cast

from lightning.pytorch import LightningDataModule
from lightning.pytorch.trainer.states import TrainerFn

from nashtune.interfaces.schedule import Update
from nashtune.ranks import together
from nashtune.rounds.identity import claim_rounds
from nashtune.rounds.loader import GameLoader
from nashtune.rounds.order import WindowOrder
from nashtune.rounds.prepare import Prepared, prepare
from nashtune.rounds.rows import RolloutRow
from nashtune.rounds.runner import Work, updates
from nashtune.rounds.table import Table

if TYPE_CHECKING:
    from collections.abc import Callable

    from nashtune.data.module import PreferenceData
    from nashtune.training.module import AlignmentModule


class GameData(LightningDataModule):
    """Stands in for `PreferenceData` while a game is trained.

    Args:
        prompts: The run's data, with prompts read.
        table: Makes the game's objects once the policy is loaded.
        epochs: Passes over a round's rows in each update.
        accumulate: Micro-batches of an optimiser step.
        length: Micro-batches of the whole run, at most.
        identity: What the run's rounds belong to; see `nashtune.rounds.identity`.

    Attributes:
        prepared: In reinforcement learning, the rollouts of the update in progress.
    """

    def __init__(
        self,
        prompts: PreferenceData,
        table: Callable[[], Table],
        *,
        epochs: int,
        accumulate: int,
        length: int,
        identity: Mapping[str, Any],
    ) -> None:
        super().__init__()
        self._prompts = prompts
        self._make_table = table
        self._table: Table | None = None
        self._epochs = epochs
        self._accumulate = accumulate
        self._length = length
        self._identity = dict(identity)
        self._loader: GameLoader | None = None
        self._averages: Mapping[str, Any] = {}
        self._loss_before: Mapping[str, Any] | None = None  # its state when the update in progress began
        self.prepared: Prepared | None = None

    @property
    def tokenizer(self) -> Any:
        """The policy's."""
        return self._prompts.tokenizer

    @property
    def batch_tokens(self) -> int | None:
        """Most positions of a pass, where the run says it."""
        return self._prompts.batch_tokens

    @property
    def reports(self) -> Mapping[str, Any]:
        """What was read, by split."""
        return self._prompts.reports

    def sample_prompts(self, n: int) -> list[tuple[str, list[int]]]:
        """The first `n` different held-out prompts, as text and as token ids."""
        return self._prompts.sample_prompts(n)

    @property
    def table(self) -> Table:
        """The game's objects; made at the first call, when the policy is loaded."""
        if self._table is None:
            self._table = self._make_table()
            new = not self.train_dataloader().restored
            claim_rounds(self._table.journal.folder, self._identity, new=new)
            self._table.averages.update(self._averages)
            if self._table.judged_by_scores:
                self._table.prepare, self._table.order = self._prepare, self._order
            self._averages = {}
        return self._table

    def train_dataloader(self) -> GameLoader:
        """One loader for the whole run."""
        trainer: Any = self.trainer
        if self._loader is None:
            progress = trainer.fit_loop.epoch_loop.batch_progress
            self._loader = GameLoader(
                self._works,
                self._order,
                length=self._length,
                begin=self._begin,
                processed=lambda: progress.total.processed,
                identity=self._identity,
            )
        return self._loader

    def val_dataloader(self) -> list[Any]:
        """Nothing: held-out prompts are answered when the game is over (Lightning warns where this is missing)."""
        return []

    def _prepare(self, rows: Sequence[RolloutRow], round: int, begun: bool) -> list[RolloutRow]:
        """An update's advantages come from the loss as it was before its first step, also after a resume within it."""
        loss = self._module.loss
        now = deepcopy(loss.state_dict())
        if begun and self._loss_before is not None:
            loss.load_state_dict(self._loss_before)
        else:
            self._loss_before = now
        self.prepared = prepare(rows, loss, self._module.kl, round)
        loss.load_state_dict(now)
        return self.prepared.rows

    def _works(self, done: int, step: int) -> Any:
        new = not self.train_dataloader().restored
        return updates(self.table, self._module.objective.references, done, step, new=new)

    def _order(self, size: int) -> WindowOrder:
        trainer: Any = self.trainer
        return WindowOrder(
            size=size,
            batch_size=self._prompts.batch_size,
            accumulate=self._accumulate,
            epochs=self._epochs,
            seed=int(self._identity["seed"]),
            rank=trainer.global_rank,
            world_size=trainer.world_size,
        )

    @property
    def _module(self) -> AlignmentModule:
        return cast("AlignmentModule", cast(Any, self.trainer).lightning_module)

    def _begin(self, work: Work, order: WindowOrder, *, fresh: bool, started: int | None) -> int:
        """See `nashtune.rounds.loader.Begin`."""
        trainer: Any = self.trainer
        module, phase = self._module, work.phase
        module.objective.round, module.objective.scale = work.round, phase.step_scale
        self.table.progress.phase(f"update {phase.name}", order.steps, "steps")
        self.table.progress.advance(0 if started is None else trainer.global_step - started)
        began = trainer.global_step if started is None else started
        if fresh and phase.start is not None:
            with together(f"load {phase.start}"):
                self.table.load(phase.start)
        if phase.reset:
            module.rate.start, module.rate.total = began, order.steps
            if fresh:
                module.rate.begin(trainer.optimizers[0])
        return began

    def steps_of_round(self, round: int, rows: int) -> int:
        """Optimiser steps of a round's updates with so many rows."""
        phases = self.table.rounds[round - 1].phases
        return sum(self._order(rows).steps for phase in phases if isinstance(phase, Update))

    def window_size(self, batch_idx: int, accumulate: int) -> float:
        """Rows of the optimiser step that the micro-batch in training belongs to."""
        assert self._loader is not None
        return self._loader.window_size()

    def window_tokens(self) -> int:
        """Completion tokens of the optimiser step that the micro-batch in training belongs to."""
        assert self._loader is not None
        return self._loader.window_tokens()

    def ends_of_update(self) -> tuple[bool, bool]:
        """Whether the optimiser step in training is the first and whether it is the last of its update."""
        assert self._loader is not None
        return self._loader.ends()

    def where(self, split: str, row: int) -> str:
        """Place of a row of the update in progress."""
        assert self._loader is not None
        return self._loader.where(row)

    def checkpoint_is_due(self) -> bool:
        """Whether an update is over whose result the next phases replace, or the last one of the run."""
        if self._loader is None or not self._loader.at_end():
            return False
        return not self.table.keeps_live_weights or self._loader.number() + 1 == self.table.updates

    def conclude(self) -> bool:
        """Run the phases after the last update: Lightning does not ask for a batch after the last one. All ranks do.

        Returns:
            Whether the game is over; false where the run was stopped before.
        """
        loader = self.train_dataloader()
        state = loader.state_dict()
        if state["update"] < self.table.updates:
            return False
        for work in self._works(state["update"], 0):
            raise RuntimeError(f"update {work.number} after the last one")
        return True

    def oracle_counts(self) -> dict[str, int]:
        """What happened to the oracle in the rounds of the run, in all of its attempts and on all ranks."""
        return self.table.ledger.total(self.table.journal)

    def state_dict(self) -> dict[str, Any]:
        """Where in the game a checkpoint was made, and weights that are in no snapshot."""
        state: dict[str, Any] = {
            "fingerprints": {split: self._prompts.fingerprint(split) for split in self._prompts.reports}
        }
        if self._loader is not None:
            state["game"] = self._loader.state_dict()
        if self._table is not None:
            state["averages"] = dict(self._table.averages)
        if self._loss_before is not None:
            state["loss_before"] = dict(self._loss_before)
        return state

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on with the game where the checkpoint was made."""
        self._averages = state_dict.get("averages", {})
        self._loss_before = state_dict.get("loss_before")
        if self.trainer is not None and self.trainer.state.fn == TrainerFn.FITTING:
            self.train_dataloader().load_state_dict(state_dict["game"])
