"""The `data` section of a run: reads, checks and tokenises the splits, and hands out micro-batches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

from jsonargparse.typing import PositiveInt
from lightning.pytorch import LightningDataModule
from lightning.pytorch.trainer.states import TrainerFn

from nashtune.data.collate import CollateExamples, collate_pairs, collate_ranked
from nashtune.data.lengths import Limits, Overflow
from nashtune.data.loader import Collate, RowLoader, TrainLoader
from nashtune.data.micro_batches import MicroBatches
from nashtune.data.prompts import PromptRow
from nashtune.data.report import TokenisationReport
from nashtune.data.row_file import TokenRows
from nashtune.data.rows import Labels, RankedPairs
from nashtune.data.serve import DataKind, refusals
from nashtune.data.split_reader import SplitReader
from nashtune.data.template import TemplateName
from nashtune.data.tokenise import TokenRow
from nashtune.errors import InputError


class PreferenceData(LightningDataModule):
    """Training and held-out preferences; for a game, prompts.

    Rows are {prompt, chosen, rejected[, p_chosen, margin]}, {prompt, completion, label} or
    {prompt, responses[, scores]}; a game reads the prompt of each, or rows of {prompt} alone. A prompt is a text or a
    list of messages {role, content}. Files are .jsonl, .jsonl.gz or .parquet; `hub:owner/name[:split]` is a data set by
    name.

    Args:
        train: Rows to train on.
        validation: Held-out rows, measured during training.
        test: Held-out rows for the test command.
        batch_size: Pairs (or examples, or ranked lists) of a micro-batch on one device.
        eval_batch_size: The same for held-out rows; as batch_size when absent.
        batch_tokens: Most tokens of one forward and backward pass on a device, counted as the engine computes them; a
            batch with more is computed in several passes of rows alike in length, and the objective stays the mean over
            the batch's rows. Without it 16384 on an accelerator, and 512 to 2048 on a CPU, fewer for a larger model. A
            longer row is a pass of its own.
        max_length: Longest prompt and completion together, in tokens; in a game, prompt and sampler.max_new_tokens.
        max_prompt_length: Longest prompt, in tokens.
        overflow: What to do with longer rows: stop, leave them out, or keep only the end of the prompt. Completions
            are never cut.
        labels: hard: chosen is better for certain. soft: with probability p_chosen, a column of the rows; in a game,
            as the oracle says.
        ranked_pairs: Which pairs a row with ranked responses gives.
        template: chat: the tokenizer's chat template. plain: prompt and completion as they are.
        limit: Use only the first rows of each split.
        prompts_per_round: Prompts of a game's round, fresh ones in each as long as there are any; without it, all
            prompts are split evenly over the rounds.
    """

    def __init__(
        self,
        train: str | None = None,
        validation: str | None = None,
        test: str | None = None,
        *,
        batch_size: PositiveInt = 4,
        eval_batch_size: PositiveInt | None = None,
        batch_tokens: PositiveInt | None = None,
        max_length: PositiveInt = 1024,
        max_prompt_length: PositiveInt | None = None,
        overflow: Overflow = "error",
        labels: Labels = "hard",
        ranked_pairs: RankedPairs = "best_worst",
        template: TemplateName = "chat",
        limit: PositiveInt | None = None,
        prompts_per_round: PositiveInt | None = None,
    ) -> None:
        super().__init__()
        self.sources = {"train": train, "validation": validation, "test": test}
        self.batch_size = int(batch_size)
        self.eval_batch_size = int(eval_batch_size or batch_size)
        self.batch_tokens = int(batch_tokens) if batch_tokens is not None else None
        self.limits = Limits(max_length=max_length, max_prompt_length=max_prompt_length, overflow=overflow)
        self.labels: Labels = labels
        self.ranked_pairs: RankedPairs = ranked_pairs
        self.template: TemplateName = template
        self.limit = limit
        self.prompts_per_round = int(prompts_per_round) if prompts_per_round is not None else None
        self.tokenizer: Any = None
        self.reports: dict[str, TokenisationReport] = {}
        self._rows: dict[str, TokenRows] = {}
        self._prompts: dict[str, list[PromptRow]] = {}
        self._train_loader: TrainLoader | None = None
        self._reader: SplitReader  # these two are made by `bind`
        self._micro_batches: MicroBatches

    def bind(
        self,
        *,
        tokenizer: Any,
        rows: DataKind,
        uses_p_chosen: bool,
        seed: int,
        completion_room: int = 0,
        context: int | None = None,
        reads: Literal["logprobs", "scores"] = "logprobs",
        uses_margin: bool = False,
        compares_rows: bool = False,
    ) -> None:
        """Say what the data are for; to be called before `setup`.

        Args:
            tokenizer: The policy's.
            rows: What the loss trains on, or "prompts" for a game.
            uses_p_chosen: Whether the loss reads soft labels.
            seed: Of the order of rows, >= 0.
            completion_room: With "prompts", most tokens that the sampler draws behind one (its `max_new_tokens`).
            context: Tokens that the model can read (`max_position_embeddings`), where its configuration says so.
            reads: What the loss reads; for "scores" prompt and completion are one text, as a reward model reads them.
            uses_margin: Whether the loss reads the column `margin`.
            compares_rows: Whether the loss or the KL controller compares the rows of a micro-batch.

        Raises:
            InputError: settings that this loss, sampler or tokenizer cannot serve.
        """
        self.limits = replace(self.limits, context=context)
        for option, problem in refusals(
            rows,
            labels=self.labels,
            uses_p_chosen=uses_p_chosen,
            ranked_pairs=self.ranked_pairs,
            prompts_per_round=self.prompts_per_round,
            sizes={"batch_size": self.batch_size, "eval_batch_size": self.eval_batch_size},
            batch_tokens=self.batch_tokens,
            compares_rows=compares_rows,
            max_length=self.limits.max_length,
            max_prompt_length=self.limits.max_prompt_length,
            overflow=self.limits.overflow,
            reads=reads,
            context=context,
            completion_room=completion_room,
        ):
            raise InputError(f"{option}: {problem}")
        reader = SplitReader(
            tokenizer=tokenizer,
            kind=rows,
            reads=reads,
            uses_margin=uses_margin,
            completion_room=completion_room,
            template=self.template,
            limits=self.limits,
            labels=self.labels,
            ranked_pairs=self.ranked_pairs,
            limit=self.limit,
        )
        if self.tokenizer is not None:  # bound again, perhaps to another tokenizer: nothing read before counts
            self.reports, self._rows, self._prompts = {}, {}, {}
        self.tokenizer, self._reader = tokenizer, reader
        self._micro_batches = MicroBatches(
            collate=self._collate(rows),
            least=2 if rows == "examples" else 1,
            batch_size=self.batch_size,
            eval_batch_size=self.eval_batch_size,
            seed=seed,
            compares_rows=compares_rows,
        )

    def _collate(self, rows: DataKind) -> Collate:
        if rows in ("pairs", "comparisons"):
            return collate_pairs
        if rows == "ranked":
            return collate_ranked
        return CollateExamples(self.limits.whole, self.tokenizer.bos_token_id)

    def setup(self, stage: str) -> None:
        """Read, check and tokenise the splits of a stage ("fit", "validate", "test" or "predict"), once.

        Raises:
            InputError: a split is missing, or anything is wrong with its rows.
        """
        self._train_loader = None
        splits = self._splits(stage)
        for split in splits:
            if split not in self.reports:
                self._read(split)
        if stage == "fit" and "validation" not in splits and self.trainer is not None:
            self.trainer.limit_val_batches = 0  # Lightning warns of an empty loader, and has no way to say "none"

    def _splits(self, stage: str) -> list[str]:
        given = [split for split, source in self.sources.items() if source is not None]
        if stage == "predict":
            wanted = "test" if "test" in given else "validation"
        else:
            wanted = {"fit": "train", "validate": "validation", "test": "test"}[stage]
        if wanted not in given:
            have = f" (given: {', '.join(given)})" if given else ""
            raise InputError(
                f"data.{wanted}: missing, and `nashtune {stage}` needs it{have}; give a file: --data.{wanted} FILE"
            )
        return ["train", "validation"] if stage == "fit" and "validation" in given else [wanted]

    def _read(self, split: str) -> None:
        source = self.sources[split]
        assert source is not None and self.tokenizer is not None, "bind() comes before setup()"
        if self._reader.kind == "prompts":
            self._prompts[split], self.reports[split] = self._reader.prompts(source, split)
        else:
            self._rows[split], self.reports[split] = self._reader.rows(source, split)

    def train_dataloader(self) -> TrainLoader:
        """Shuffled micro-batches of this rank, resumable in the middle of an epoch; one loader for the whole run."""
        trainer = self.trainer
        assert trainer is not None, "a training loader counts by its trainer's progress"
        if self._train_loader is None:
            self._train_loader = self._micro_batches.train(self._rows["train"], trainer, self.fingerprint("train"))
        return self._train_loader

    def val_dataloader(self) -> RowLoader:
        """The validation rows in their own order."""
        return self._micro_batches.held_out(self._rows["validation"], self.trainer)

    def test_dataloader(self) -> RowLoader:
        """The test rows in their own order."""
        return self._micro_batches.held_out(self._rows["test"], self.trainer)

    def predict_dataloader(self) -> RowLoader:
        """The test rows, or the validation rows where there is no test split."""
        return self._micro_batches.held_out(self._rows[self._splits("predict")[0]], self.trainer)

    def every_row(self, split: str) -> RowLoader:
        """All rows of a split, in order, on every rank: for what is computed once per row before training."""
        return self._micro_batches.every(self._rows[split])

    def steps_per_epoch(self, accumulate: int, world_size: int) -> int:
        """Optimiser steps of an epoch.

        Args:
            accumulate: Micro-batches per optimiser step.
            world_size: Data-parallel ranks.
        """
        return self._micro_batches.steps_per_epoch(self._rows["train"], self.trainer, accumulate, world_size)

    def window_size(self, batch_idx: int, accumulate: int) -> float:
        """Pairs or examples, on all ranks, of the optimiser step that a micro-batch belongs to.

        Infinite where this rank's micro-batch is empty and its row is borrowed. The last step of an epoch may have
        fewer micro-batches, and its last micro-batch fewer rows: dividing the summed loss by this number gives the mean
        over the step's true number of pairs.

        Args:
            batch_idx: Index of the micro-batch in its epoch.
            accumulate: Micro-batches per optimiser step.
        """
        return self._micro_batches.window_size(self._rows["train"], self.trainer, batch_idx, accumulate)

    def fingerprint(self, split: str) -> str:
        """sha256 of a split's token ids and labels; in a game, of its prompts."""
        return self.reports[split].fingerprint

    def where(self, split: str, row: int) -> str:
        """`file:line` of a row of a batch; in a game, of a prompt."""
        rows: Sequence[TokenRow | PromptRow] = (
            self.prompts(split) if self._reader.kind == "prompts" else self._rows[split]
        )
        return rows[row].where

    def prompts(self, split: str) -> list[PromptRow]:
        """The prompts of a split, none where the run has no such; after `bind` with rows="prompts" and `setup`."""
        return self._prompts.get(split, [])

    def sample_prompts(self, n: int) -> list[tuple[str, list[int]]]:
        """The first `n` different held-out prompts, as text and as token ids; none without a validation split.

        None either where prompts are not apart from completions, which a reward model does not write.
        """
        if self._reader.reads == "scores":
            return []
        held_out: Sequence[TokenRow | PromptRow] = self._prompts.get("validation") or self._rows.get("validation") or ()
        prompts: dict[tuple[int, ...], str] = {}
        for row in held_out:
            if len(prompts) == n:
                break
            prompts.setdefault(row.prompt_ids, row.prompt_text)
        return [(text, list(ids)) for ids, text in prompts.items()]

    def state_dict(self) -> dict[str, Any]:
        """Which data a checkpoint was made with, and where in them.

        The place is saved here and not only by the loader: Lightning hands a loader its state back in the middle of an
        epoch alone.
        """
        state: dict[str, Any] = {"fingerprints": {split: self.fingerprint(split) for split in self.reports}}
        if self._train_loader is not None:
            state["train_loader"] = self._train_loader.state_dict()
        return state

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on with training where the checkpoint was made; nothing to do for the other commands.

        Raises:
            InputError: the training rows or their order are not those of the checkpoint, or it was altered.
        """
        trainer = self.trainer
        if trainer is not None and trainer.state.fn == TrainerFn.FITTING:
            if not isinstance(state_dict, Mapping) or not isinstance(state_dict.get("train_loader"), Mapping):
                raise InputError(
                    "--ckpt_path: the checkpoint does not say where in the training data it was saved: it was altered, "
                    "restore it from a copy"
                )
            loader = self.train_dataloader()
            loader.load_state_dict(state_dict["train_loader"])
            if loader.position()[1] % trainer.accumulate_grad_batches:
                raise InputError(
                    "--ckpt_path: the checkpoint was saved between two micro-batches of one optimiser step, whose "
                    f"gradients are lost (trainer.accumulate_grad_batches {trainer.accumulate_grad_batches}); go on "
                    "from an earlier one"
                )
