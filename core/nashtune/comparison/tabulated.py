"""Answers and judgements as files for people and programs, and as the arrays that ratings are made of. No torch.

Legend: M = policies, C = M (M - 1) / 2 pairs in the order of itertools.combinations, S = seeds, N = prompts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from nashtune.comparison.judged import PER_TOKEN, Judged
from nashtune.files import atomic_path

if TYPE_CHECKING:
    from nashtune.comparison.answers import Answer
    from nashtune.comparison.judgements import Score, Verdict
    from nashtune.data.prompts import PromptRow

ANSWER_TYPES = {
    "policy": pa.string(),
    "seed": pa.int64(),
    "prompt": pa.int32(),
    "prompt_text": pa.string(),
    "text": pa.string(),
    "tokens": pa.int32(),
    "finished": pa.bool_(),
    "logp": pa.float64(),
    "logp_start": pa.float64(),
    "kl": pa.float64(),
    "reward": pa.float64(),
    "variance": pa.float64(),
}
"""Columns of answers.parquet; `kl` is `PER_TOKEN`, `reward` and `variance` are null where the judge gives none."""
VERDICT_TYPES = {
    "prompt": pa.int32(),
    "prompt_text": pa.string(),
    "first": pa.string(),
    "second": pa.string(),
    "seed": pa.int64(),
    "order": pa.string(),
    "p": pa.float64(),
}
"""Columns of judgements.parquet; `p` is null where the judge gave no answer."""
ABOUT = {"kl": {"estimator": PER_TOKEN, "unit": "nats per answer"}}
"""What the files themselves say of a column."""

MANY_SAME = 0.25
"""Share of answers with one and the same reward from which on a remark is made."""
TIED = 1e-12
"""Rounding of a mean of two probabilities."""


def write_answers(path: Path, answers: Sequence[Answer], scores: Sequence[Score], prompts: Sequence[PromptRow]) -> None:
    """Every answer with what is known of it."""
    known = {(one.policy, one.seed, one.prompt): one for one in scores}
    rows = []
    for one in answers:
        score = known.get((one.policy, one.seed, one.prompt))
        rewards = {"reward": score.reward, "variance": score.variance} if score is not None else {}
        rows.append({**vars(one), "prompt_text": prompts[one.prompt].prompt_text, **rewards})
    _write(path, ANSWER_TYPES, rows)


def write_verdicts(path: Path, verdicts: Sequence[Verdict], prompts: Sequence[PromptRow]) -> None:
    """Every judgement."""
    rows = [
        {**vars(one), "prompt_text": prompts[one.prompt].prompt_text, "p": None if np.isnan(one.p) else one.p}
        for one in verdicts
    ]
    _write(path, VERDICT_TYPES, rows)


def _write(path: Path, types: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> None:
    fields = [pa.field(name, kind, metadata=ABOUT.get(name)) for name, kind in types.items()]
    columns = [pa.array([row.get(name) for row in rows], type=kind) for name, kind in types.items()]
    table = pa.table(columns, schema=pa.schema(fields))
    with atomic_path(path) as partial:
        pq.write_table(table, partial, compression="zstd")


def judged_arrays(
    answers: Sequence[Answer],
    verdicts: Sequence[Verdict],
    scores: Sequence[Score],
    *,
    temperature: float,
    policies: Sequence[str] | None = None,
) -> Judged:
    """What the ratings need.

    Args:
        answers: Of every policy, seed and prompt.
        verdicts: Of every two of them, in both orders where the texts differ.
        scores: Of every answer, or none.
        policies: Names, of those without an answer, too; None for those that have answered.
        temperature: At which the answers were drawn; a KL divergence is known at 1.0 alone, where they are the
            policy's own. At another one it is NaN where there are rewards, which hold all the same.
    """
    found, seeds, prompts = (
        list(dict.fromkeys(getattr(one, name) for one in answers)) for name in ("policy", "seed", "prompt")
    )
    policies = found if policies is None else list(policies)
    shape = len(policies), len(seeds), len(prompts)

    def place(policy: str, seed: int, prompt: int) -> tuple[int, int, int]:
        return policies.index(policy), seeds.index(seed), prompts.index(prompt)

    tokens, kl, reward = (np.full(shape, np.nan) for _ in range(3))
    for one in answers:
        at = place(one.policy, one.seed, one.prompt)
        tokens[at] = one.tokens
        if temperature == 1.0:
            kl[at] = one.kl
    for score in scores:
        reward[place(score.policy, score.seed, score.prompt)] = score.reward
    pairs = list(combinations(policies, 2))
    total = np.zeros((len(pairs), *shape[1:]))
    count = np.zeros_like(total)
    for verdict in verdicts:
        _, s, n = place(verdict.first, verdict.seed, verdict.prompt)
        c = pairs.index((verdict.first, verdict.second))
        total[c, s, n] += verdict.p  # a NaN in one order leaves none of both
        count[c, s, n] += 1
    return Judged(
        policies=tuple(policies),
        p=np.divide(total, count, out=np.full_like(total, np.nan), where=count > 0),
        tokens=tokens,
        kl=kl if scores or temperature == 1.0 else None,
        reward=reward if scores else None,
        kl_estimator=PER_TOKEN,
        absent=np.isnan(tokens).all(axis=2),
    )


def same_scores(scores: Sequence[Score]) -> list[str]:
    """Which reward many answers have in common, in a sentence: the judge tells these apart by nothing, and they tie.

    Args:
        scores: Of all answers; none where the judge gives no rewards.
    """
    if len(scores) < 2:
        return []
    (reward, count), *_ = Counter(one.reward for one in scores).most_common(1)
    if count <= MANY_SAME * len(scores):
        return []
    return [
        f"the judge gave {count} of {len(scores)} answers the same reward, {reward:g}: two of these tie, whatever they "
        "say, and every win rate is pulled towards 1/2 (nothing in them that this judge knows?)"
    ]


def tallies(verdicts: Sequence[Verdict]) -> list[dict[str, Any]]:
    """Of every two policies, over all prompts and seeds, for `comparison.json`.

    Args:
        verdicts: All of them, by prompt, pair and seed.

    Returns:
        {"first", "second", "wins", "ties", "losses": of the first, by the mean of both orders, "changed": comparisons
        whose winner was another one in the other order, "pairs" of answers, "unanswered"}.
    """
    comparisons: dict[tuple[str, str], dict[tuple[int, int], list[float]]] = {}
    for one in verdicts:
        comparisons.setdefault((one.first, one.second), {}).setdefault((one.seed, one.prompt), []).append(one.p)
    found = []
    for (first, second), asked in comparisons.items():
        means = np.array([np.mean(orders) for orders in asked.values()])
        changed = sum(len(orders) == 2 and (orders[0] - 0.5) * (orders[1] - 0.5) < 0 for orders in asked.values())
        tied = np.abs(means - 0.5) < TIED
        found.append(
            {
                "first": first,
                "second": second,
                "wins": int(((means > 0.5) & ~tied).sum()),
                "ties": int(tied.sum()),
                "losses": int(((means < 0.5) & ~tied).sum()),
                "changed": changed,
                "pairs": len(asked),
                "unanswered": int(np.isnan(means).sum()),
            }
        )
    return found
