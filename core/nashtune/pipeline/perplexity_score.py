"""Log-probs of answers under the model that is to be trained, and answers of its own.

Work is done and journalled in parts; a part's batches depend on the part and on `batch_tokens` alone, so that a killed
filter which goes on with the same `batch_tokens` finds the same numbers, to the last bit, as one that was not killed.
With another one, parts that are left to score have other batches, and their numbers other last bits.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from nashtune import cpu
from nashtune.data.budget import budget_batches
from nashtune.data.collate import completion_batch
from nashtune.errors import InputError
from nashtune.interfaces.policy import LogProbEngine
from nashtune.interfaces.sampler import Completion, Surroundings
from nashtune.journal.records import completions_name, read_completions, write_completions
from nashtune.journal.store import Journal
from nashtune.models.config import PolicyConfig
from nashtune.models.mode import frozen_mode
from nashtune.models.policy import HFPolicy
from nashtune.oracles.frozen import pick_device
from nashtune.samplers.generate import LiveSampler

PART = 256  # answers of a journal file: as many are scored again after a kill
PROMPTS = 32  # prompts of a journal file of own samples
ROUND = 1  # the journal counts rounds; a filter has one

Ids = Sequence[int]
Scored = tuple[float, int]
"""Mean negative log-prob in nats per token, and tokens."""
Measured = dict[str, torch.Tensor]
"""Name -> a number of each sequence, float64."""


class Scorer:
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
        self._policy = HFPolicy(replace(config, lora=None))  # a fresh adapter changes nothing yet
        self._engine = engine
        self._journal = Journal(folder)
        self._cpu = cpu
        self._batch_tokens = batch_tokens
        self._say = say

    def score(self, name: str, sequences: Sequence[tuple[Ids, Ids]], where: Callable[[int], str]) -> list[Scored]:
        """Of every answer behind its prompt, at temperature 1.

        Args:
            name: Of the journal's files.
            sequences: Tokens of prompt and answer, EOS included.
            where: What to call sequence i in a message.

        Raises:
            InputError: a log-prob is not finite.
        """
        scored: list[Scored] = []
        for start, chunk, kept in self._parts(name, sequences, self._sums):
            for i, (total, (_, answer)) in enumerate(zip(kept["sums"], chunk, strict=True), start=start):
                if not math.isfinite(total):
                    raise InputError(
                        f"{where(i)}: the model's log-prob is {total}; its weights or its precision are broken "
                        "(policy.precision: fp32)"
                    )
                scored.append((-total / len(answer), len(answer)))
        return scored

    def own_samples(self, sampler: LiveSampler, prompts: Sequence[Ids], seed: int) -> list[Completion]:
        """The model's own answers; `Completion.prompt` counts within `prompts`.

        Raises:
            InputError: a prompt does not fit into the model's context with what is drawn.
        """
        drawn: list[Completion] = []
        for part, start in enumerate(range(0, len(prompts), PROMPTS)):
            chunk = range(start, min(start + PROMPTS, len(prompts)))
            if not self._journal.has(ROUND, completions_name("policy", part)):
                policy = self._loaded()
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

    def close(self) -> None:
        """Let go of the model's memory; the next stage is another process, which needs it."""
        self._policy = HFPolicy(self._policy.config)
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def _parts(
        self, name: str, sequences: Sequence[tuple[Ids, Ids]], measure: Callable[[Sequence[tuple[Ids, Ids]]], Measured]
    ) -> Iterator[tuple[int, Sequence[tuple[Ids, Ids]], dict[str, list[float]]]]:
        """(first number, sequences, what was measured of each) of every part; a part that is journalled is read."""
        for part, start in enumerate(range(0, len(sequences), PART)):
            chunk, file = sequences[start : start + PART], f"{name}-{part:04d}"
            if not self._journal.has(ROUND, file):
                self._journal.write_tensors(ROUND, file, measure(chunk))
                self._say(f"  {name}: {start + len(chunk)} of {len(sequences)} answers scored")
            kept = self._journal.read_tensors(ROUND, file)
            yield start, chunk, {key: values.tolist() for key, values in kept.items()}

    def _sums(self, sequences: Sequence[tuple[Ids, Ids]]) -> Measured:
        policy = self._loaded()
        sums = torch.zeros(len(sequences), dtype=torch.float64)
        with frozen_mode(policy.loaded()):
            for places in budget_batches([[*prompt, *answer] for prompt, answer in sequences], self._batch_tokens):
                batch = completion_batch([sequences[i] for i in places]).to(policy.device)
                sums[list(places)] = policy.logprobs(batch, self._engine).sums.double().cpu()
        return {"sums": sums}

    def _loaded(self) -> HFPolicy:
        if not self._policy.is_loaded:
            device = pick_device("cpu" if self._cpu else "auto")
            if device.type == "cpu":
                cpu.tune()
            self._policy.load()
            self._policy.to(device)
            self._engine.attach(self._policy.loaded())
        return self._policy
