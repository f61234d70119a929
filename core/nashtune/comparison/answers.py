"""Every policy answers the same held-out prompts; what is answered is kept, part by part, and never sampled again.

Each trained policy is in memory once, beside the one that training started from, which says how likely it finds the
answers, and how far its own next token would have been from the policy's.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nashtune.comparison.divergence import Moved, Mover, Start
from nashtune.comparison.folder import run_folder
from nashtune.comparison.judged import START
from nashtune.comparison.request import Request
from nashtune.data.digests import known_sha256
from nashtune.data.prompt_tokens import prompt_fingerprint
from nashtune.data.prompts import PromptRow
from nashtune.errors import InputError
from nashtune.files import write_bytes_atomically
from nashtune.interfaces import Completion
from nashtune.journal.records import completions_name
from nashtune.journal.store import Journal
from nashtune.logprobs import get_engine
from nashtune.models.config import PolicyConfig
from nashtune.models.locate import EXPORT, locate
from nashtune.models.preflight import load_tokenizer
from nashtune.pipeline.journalled import PROMPTS, ROUND
from nashtune.pipeline.settings import sections
from nashtune.samplers.policy import PolicySampler
from nashtune.training.samples import SampleSettings

BATCH_TOKENS = 4096
"""Largest batch of answers that are scored, with padding."""
KEY = "weights.txt"
"""Which weights have answered what: sha256 of the files and of the prompts."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a policy said.

    Args:
        policy: Its name.
        seed: Of its training, and of the noise of its answers.
        prompt: Number of the prompt, from 0.
        text: Without special tokens.
        tokens: Length, EOS included.
        finished: Whether it ended by itself, and not at the limit of tokens.
        logp: Under the policy, summed over tokens, in nats, at temperature 1.
        logp_start: Likewise under the policy that training started from.
        kl: KL(policy || start) of the next token, exact over the vocabulary, summed over the answer's tokens, in nats.
    """

    policy: str
    seed: int
    prompt: int
    text: str
    tokens: int
    finished: bool
    logp: float
    logp_start: float
    kl: float


def answer_all(
    request: Request,
    prompts: Sequence[PromptRow],
    folder: Path,
    say: Callable[[str], None],
    *,
    trained: Sequence[tuple[str, int]],
    check: Callable[[], None],
) -> list[Answer]:
    """Sample and score what is missing; all answers by policy, seed and prompt.

    Args:
        request: The comparison.
        prompts: Held-out prompts.
        folder: Of the comparison.
        say: Prints a line of progress.
        trained: Which policies there are, by spec and seed; the start answers under each of their seeds.
        check: Called before the starting policy answers; raises where it is not the one that was trained.

    Raises:
        InputError: a policy's weights are broken, or not those that answered before.
    """
    return _Answering(request, prompts, folder, say).all(trained, check)


class _Answering:
    def __init__(
        self, request: Request, prompts: Sequence[PromptRow], folder: Path, say: Callable[[str], None]
    ) -> None:
        run = sections(request.runs)
        self._request, self._prompts, self._folder, self._say = request, prompts, folder, say
        self._policy = {name: value for name, value in run["policy"].items() if name in ("precision", "attention")}
        self._path, self._engine = run["policy"]["path"], run.get("engine", "auto")
        self._settings = SampleSettings(**run["samples"])
        self._cpu = run["trainer"].get("accelerator") == "cpu"
        self._tokenizer: Any = load_tokenizer(self._path)
        self._start = Start(PolicyConfig(path=self._path, **self._policy))

    def all(self, trained: Sequence[tuple[str, int]], check: Callable[[], None]) -> list[Answer]:
        check()
        seeds = [seed for seed in self._request.seeds if any(seed == its for _, its in trained)]
        found: dict[tuple[str, int], list[Answer]] = {}
        for seed in seeds:
            found[START, seed] = self._answered(START, seed, self._path)
        for name, seed in trained:
            found[name, seed] = self._answered(name, seed, str(run_folder(self._folder, name, seed) / EXPORT))
        names = (START, *(spec.name for spec in self._request.specs))
        return [one for name in names for seed in seeds for one in found.get((name, seed), ())]

    def _answered(self, name: str, seed: int, path: str) -> list[Answer]:
        """A policy's answers and how far each is from the start."""
        folder = self._journal(name, seed)
        claim_weights(folder / KEY, path, self._prompts)
        policy = Mover(
            PolicyConfig(path=path, **self._policy),
            get_engine(self._engine),
            folder,
            cpu=self._cpu,
            batch_tokens=BATCH_TOKENS,
            say=self._say,
        )
        sampler = PolicySampler(
            completions=1, max_new_tokens=self._settings.max_new_tokens, temperature=self._settings.temperature
        )
        last = completions_name("policy", (len(self._prompts) - 1) // PROMPTS)
        before = Journal(folder).has(ROUND, last)
        self._say(f"answers of {name}, seed {seed}: {len(self._prompts)} prompts{', done before' * before}")
        drawn = policy.own_samples(sampler, [row.prompt_ids for row in self._prompts], noise_seed(name, seed))
        sequences = [(self._prompts[one.prompt].prompt_ids, one.token_ids) for one in drawn]
        moved = policy.moved(
            sequences, self._start, lambda i: f"answer {i} ({self._prompts[drawn[i].prompt].where}) of {name}"
        )
        policy.close()
        return [self._answer(name, seed, *of) for of in zip(drawn, moved, strict=True)]

    def _journal(self, name: str, seed: int) -> Path:
        return self._folder / "journal" / "answers" / name / f"seed-{seed}"

    def _answer(self, name: str, seed: int, one: Completion, moved: Moved) -> Answer:
        return Answer(
            policy=name,
            seed=seed,
            prompt=one.prompt,
            text=self._tokenizer.decode(one.token_ids, skip_special_tokens=True).strip(),
            tokens=len(one.token_ids),
            finished=one.finish == "stop",
            **vars(moved),
        )


def noise_seed(policy: str, seed: int) -> int:
    """Seed of a policy's answers: each has noise of its own.

    P(y > y') is about independent answers. With common noise two policies that are alike say the same, and a win rate
    would depend on how their vocabularies happen to be sorted.
    """
    return int.from_bytes(hashlib.sha256(f"{policy}/{seed}".encode()).digest()[:6], "big")


def claim_weights(file: Path, model: str, prompts: Sequence[PromptRow]) -> None:
    """Note which weights answer what, or see that they are those that did before.

    Args:
        file: Where it is noted.
        model: Path of a model or an adapter, whose base model counts, too.
        prompts: What is answered; a journal counts them.

    Raises:
        InputError: the weights or the prompts are other ones.
    """
    found = locate(model)
    now = "".join(f"{path.name} {known_sha256(path)}\n" for path in found.weight_files() + found.config_files())
    now += f"prompts {prompt_fingerprint(prompts)}\n"
    if file.exists() and file.read_text(encoding="utf-8") != now:
        raise InputError(
            f"{model}: other weights, or other prompts, than those whose answers are in {file.parent}; put them back, "
            f"or delete the folder {file.parents[3]}, so that everything is answered and judged anew"
        )
    if not file.exists():
        write_bytes_atomically(file, now.encode())
