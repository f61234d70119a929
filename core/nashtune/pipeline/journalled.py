"""A frozen model that answers and is measured, in parts that are journalled.

A part's batches depend on the part and on `batch_tokens` alone, so that work which was killed and goes on with the same
`batch_tokens` finds the same numbers, to the last bit, as work that was not. With another one, parts that are left to
measure have other batches, and their numbers other last bits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from nashtune import cpu
from nashtune.data.budget import budget_batches
from nashtune.data.collate import completion_batch
from nashtune.interfaces.batch import TokenBatch
from nashtune.interfaces.policy import LogProbEngine
from nashtune.interfaces.sampler import Completion, Surroundings
from nashtune.journal.records import completions_name, read_completions, write_completions
from nashtune.journal.store import Journal
from nashtune.models.config import PolicyConfig
from nashtune.models.policy import HFPolicy
from nashtune.oracles.frozen import pick_device
from nashtune.samplers.generate import LiveSampler

PART = 256  # answers of a journal file: as many are measured again after a kill
PROMPTS = 32  # prompts of a journal file of own samples
ROUND = 1  # the journal counts rounds; here there is one

Ids = Sequence[int]
Sequences = Sequence[tuple[Ids, Ids]]
"""Tokens of prompt and answer, EOS included."""
Measured = dict[str, torch.Tensor]
"""Name -> a number of each sequence, float64."""


class JournalledModel:
    """A frozen model with its journal.

    Args:
        config: The model.
        engine: Log-prob engine.
        folder: Where the journal lies.
        cpu: Whether to stay on the CPU though there is a GPU.
        batch_tokens: Largest batch in tokens, with padding. What is journalled already keeps the batches that it had.
        say: Prints a line of progress.
    """

    def __init__(
        self,
        config: PolicyConfig,
        engine: LogProbEngine,
        folder: Path,
        *,
        cpu: bool,
        batch_tokens: int,
        say: Callable[[str], None],
    ) -> None:
        self.engine = engine
        self._policy = HFPolicy(replace(config, lora=None))  # a fresh adapter changes nothing yet
        self._journal = Journal(folder)
        self._cpu = cpu
        self._batch_tokens = batch_tokens
        self._say = say

    def own_samples(self, sampler: LiveSampler, prompts: Sequence[Ids], seed: int) -> list[Completion]:
        """The model's own answers; `Completion.prompt` counts within `prompts`.

        Raises:
            InputError: a prompt does not fit into the model's context with what is drawn.
        """
        drawn: list[Completion] = []
        for part, start in enumerate(range(0, len(prompts), PROMPTS)):
            chunk = range(start, min(start + PROMPTS, len(prompts)))
            if not self._journal.has(ROUND, completions_name("policy", part)):
                policy = self.loaded()
                tokenizer: Any = policy.tokenizer()
                sampler.attach(Surroundings(policy=policy, tokenizer=tokenizer))
                sampler.sync("start")
                found = sampler.sample(
                    [prompts[i] for i in chunk], sampler.completions, seed=seed, round=ROUND, indices=chunk
                )
                found = [replace(one, prompt=chunk[one.prompt]) for one in found]
                texts = [tokenizer.decode(one.token_ids, skip_special_tokens=True) for one in found]
                write_completions(self._journal, ROUND, "policy", part, found, texts)
                self._say(f"  own samples: prompt {chunk[-1] + 1} of {len(prompts)}")
            drawn += read_completions(self._journal, ROUND, "policy", part)[0]
        return drawn

    def measured(
        self, name: str, sequences: Sequences, measure: Callable[[Sequences], Measured]
    ) -> Iterator[tuple[int, Sequences, dict[str, list[float]]]]:
        """(first number, sequences, what was measured of each) of every part; a part that is journalled is read.

        Args:
            name: Of the journal's files.
            sequences: All of them.
            measure: Called with those of each part that is not journalled.
        """
        for part, start in enumerate(range(0, len(sequences), PART)):
            chunk, file = sequences[start : start + PART], f"{name}-{part:04d}"
            if not self._journal.has(ROUND, file):
                self._journal.write_tensors(ROUND, file, measure(chunk))
                self._say(f"  {name}: {start + len(chunk)} of {len(sequences)} answers scored")
            kept = self._journal.read_tensors(ROUND, file)
            yield start, chunk, {key: values.tolist() for key, values in kept.items()}

    def batches(self, sequences: Sequences) -> Iterator[tuple[list[int], TokenBatch]]:
        """(numbers, their batch on the host) of sequences of about one length each."""
        for places in budget_batches([[*prompt, *answer] for prompt, answer in sequences], self._batch_tokens):
            yield list(places), completion_batch([sequences[i] for i in places])

    def loaded(self) -> HFPolicy:
        """The model on its device, attached to the engine; read when it is first needed."""
        if not self._policy.is_loaded:
            device = pick_device("cpu" if self._cpu else "auto")
            if device.type == "cpu":
                cpu.tune()
            self._policy.load()
            self._policy.to(device)
            self.engine.attach(self._policy.loaded())
        return self._policy

    def close(self) -> None:
        """Let go of the model's memory; the next stage is another process, which needs it."""
        self._policy = HFPolicy(self._policy.config)
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
