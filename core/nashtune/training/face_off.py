"""The end of a game: its start and every round's policy answer the same held-out prompts, and the oracle compares them.

Legend: S = answers of one policy.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch
from rich.table import Table as Printed

from nashtune.data.collate import completion_batch
from nashtune.data.prompts import PromptRow
from nashtune.evaluation.held_out_rewards import HeldOutRewards, held_out_rewards
from nashtune.evaluation.win_rates import WinRates, win_rates
from nashtune.interfaces import Completion, RewardOracle, Surroundings
from nashtune.interfaces.schedule import START
from nashtune.journal.records import read_completions, write_completions
from nashtune.journal.store import Journal
from nashtune.kl.estimators import sampled_kl
from nashtune.models.mode import frozen_mode
from nashtune.oracles.compare import probabilities
from nashtune.rounds.table import Table
from nashtune.samplers.policy import PolicySampler
from nashtune.training.samples import SampleSettings

KEY = "answers-key"
KEY_TYPES = {"key": pa.string(), "policy": pa.string()}
PROMPTS = "prompts"  # beside each policy's answers: what they answer
COMPARISONS = "comparisons"  # beside those of the start: every verdict, both orders averaged; null where there was none
ANSWERS_SEED = 2**33  # beyond the seeds of policy and opponent, see `nashtune.rounds.collect`
LIVE = "now"  # the live weights, where the run was stopped before its last round was over


@dataclass(frozen=True)
class FaceOff:
    """What came of it.

    Args:
        win_rates: Of every policy against every other; None where there is no oracle to ask.
        rewards: Of each policy's answers, where the oracle gives rewards.
        kl: Of each policy from the start: {"k1", "k3"} in nats per answer, estimated on its own answers.
        answers: Per prompt, what the start and the last policy answered.
    """

    win_rates: WinRates | None
    rewards: HeldOutRewards | None
    kl: dict[str, dict[str, float]]
    answers: list[dict[str, str]]

    def as_dict(self) -> dict[str, Any]:
        """For the report."""
        rewards = {"rewards": self.rewards.as_dict()} if self.rewards else {}
        return {**(self.win_rates.as_dict() if self.win_rates else {}), **rewards, "kl_from_start": self.kl}

    def table(self) -> Printed:
        """KL from the start, for people; the win rates have a table of their own."""
        table = Printed("policy", "k1", "k3", title="KL divergence from the start, nats per answer")
        for name, values in self.kl.items():
            table.add_row(name, f"{values['k1']:.3g}", f"{values['k3']:.3g}")
        return table


def face_off(table: Table, prompts: Sequence[PromptRow], folder: Path, settings: SampleSettings) -> FaceOff | None:
    """Sample, score and compare; None where there are no held-out prompts or no policy to compare.

    The live weights are the run's result before and after. Answers are kept in RUN_DIR/answers, so that a run that was
    killed here samples none of them again.

    Args:
        table: The game.
        prompts: Held-out prompts.
        folder: Run folder.
        settings: How many prompts, and how long and how random the answers.
    """
    chosen = prompts[: settings.prompts]
    names = [START, *(one.policy for one in table.rounds if one.policy is not None and table.bank.has(one.policy))]
    if table.keeps_live_weights or (table.rounds[-1].policy or "") not in names:
        names.append(LIVE)
    if not chosen:
        return None
    journal = Journal(folder / "answers")
    table.progress.round(0, 0)
    with closing(table.progress):
        return _face_off(table, chosen, names, journal, settings)


def _face_off(
    table: Table, chosen: Sequence[PromptRow], names: Sequence[str], journal: Journal, settings: SampleSettings
) -> FaceOff:
    live = {key: weight.cpu().clone() for key, weight in table.policy.trainable_state_dict().items()}
    texts: dict[str, list[str]] = {}
    kl: dict[str, dict[str, float]] = {}
    drawn: dict[str, list[Completion]] = {}
    own_S: dict[str, torch.Tensor] = {}
    for number, name in enumerate(names, start=1):
        if name == LIVE:
            table.policy.load_trainable_state_dict(live)
        else:
            table.load(name)
        asked = _Asked(number, name, _key(table, chosen, settings))
        drawn[name], texts[name] = _answers(table, journal, asked, chosen, settings)
        if name != START and settings.temperature == 1.0:  # at another one the answers are not the policy's own
            own_S[name] = _logprobs(table, chosen, drawn[name])
    table.load(START)
    for name, logp_S in own_S.items():
        k1, k3 = sampled_kl(logp_S, _logprobs(table, chosen, drawn[name]))
        kl[name] = {"k1": k1, "k3": k3}
    table.policy.load_trainable_state_dict(live)
    compared = _compare(table, chosen, texts)
    if compared is not None:
        _write_comparisons(journal, compared)
    rewards = None
    if isinstance(table.oracle, RewardOracle):
        rewards = held_out_rewards(table.oracle, [row.prompt for row in chosen], texts)
    return FaceOff(
        compared,
        rewards,
        kl,
        [
            {"prompt": row.prompt_text, "before": before, "after": after}
            for row, before, after in zip(chosen, texts[START], texts[names[-1]], strict=True)
        ],
    )


@dataclass(frozen=True)
class _Asked:
    """Whose answers: number and name of the policy, and everything that its answers depend on."""

    number: int
    name: str
    key: str


def _key(table: Table, prompts: Sequence[PromptRow], settings: SampleSettings) -> str:
    """A digest of the live weights, the prompts and the settings: answers are only found again by all of them."""
    total = hashlib.sha256(
        repr((settings.max_new_tokens, settings.temperature, table.seed, [row.prompt_ids for row in prompts])).encode()
    )
    for name, weight in sorted(table.policy.trainable_state_dict().items()):
        total.update(name.encode())
        total.update(weight.cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return total.hexdigest()


def _answers(
    table: Table, journal: Journal, asked: _Asked, prompts: Sequence[PromptRow], settings: SampleSettings
) -> tuple[list[Completion], list[str]]:
    known = journal.has(asked.number, KEY) and journal.read_table(asked.number, KEY, KEY_TYPES)["key"] == [asked.key]
    if not known or not journal.has(asked.number, PROMPTS):
        _write_prompts(journal, asked.number, prompts)
    if not known:
        table.progress.phase(f"answers of {asked.name}", len(prompts), "prompts")
        sampler = PolicySampler(
            completions=1,
            max_new_tokens=settings.max_new_tokens,
            temperature=settings.temperature,
            stop=getattr(table.sampler, "stop", None) or None,
        )
        sampler.attach(Surroundings(policy=table.policy, tokenizer=table.tokenizer))
        sampler.sync(asked.name)
        # each policy has noise of its own: P(y > y') of answers with common noise is not that of independent ones
        seed = table.seed + ANSWERS_SEED * asked.number
        with table.autocast():
            found = sampler.sample([row.prompt_ids for row in prompts], 1, seed=seed)
        said = [table.tokenizer.decode(one.token_ids, skip_special_tokens=True).strip() for one in found]
        write_completions(journal, asked.number, "policy", 0, found, said)
        journal.write_table(asked.number, KEY, {"key": [asked.key], "policy": [asked.name]})
        table.progress.done(f"{len(found)} answers, {sum(len(one.token_ids) for one in found)} tokens")
    return read_completions(journal, asked.number, "policy", 0)


def _write_prompts(journal: Journal, number: int, prompts: Sequence[PromptRow]) -> None:
    """So that the answers can be read, and given again, without the file of held-out prompts."""
    columns = {
        "prompt": pa.array(range(len(prompts)), type=pa.int32()),
        "token_ids": pa.array([list(row.prompt_ids) for row in prompts], type=pa.list_(pa.int32())),
        "text": pa.array([row.prompt_text for row in prompts], type=pa.string()),
    }
    journal.write_table(number, PROMPTS, columns)


def _write_comparisons(journal: Journal, found: WinRates) -> None:
    """What the win rates are means of: a judge that is asked again may answer otherwise."""
    rows = found.comparisons
    columns = {
        "prompt": pa.array([one.prompt for one in rows], type=pa.int32()),
        "first": pa.array([one.first for one in rows], type=pa.string()),
        "second": pa.array([one.second for one in rows], type=pa.string()),
        "p": pa.array([one.p for one in rows], type=pa.float64()),
    }
    journal.write_table(1, COMPARISONS, columns)


def _logprobs(table: Table, prompts: Sequence[PromptRow], drawn: Sequence[Completion]) -> torch.Tensor:
    """Summed log-probs of the answers under the live weights (S,)."""
    sequences = [(prompts[one.prompt].prompt_ids, one.token_ids) for one in drawn]
    sums = []
    with frozen_mode(table.policy.loaded()), table.autocast():
        for start in range(0, len(sequences), table.batch_size):
            batch = completion_batch(sequences[start : start + table.batch_size]).to(table.policy.device)
            sums.append(table.policy.logprobs(batch, table.engine).sums)
    return torch.cat(sums)


def _compare(table: Table, prompts: Sequence[PromptRow], texts: dict[str, list[str]]) -> WinRates | None:
    oracle = table.oracle
    if oracle is None or len(texts) < 2:
        return None
    table.progress.phase("win rates", None)
    found = win_rates(
        [row.prompt for row in prompts],
        texts,
        lambda about, first, second: probabilities(oracle, about, first, second),
        seed=table.seed,
    )
    table.progress.done(f"{len(found.comparisons)} comparisons")
    return found
