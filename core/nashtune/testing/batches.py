"""Random batches of every kind that a loss or a KL controller may see.

Legend: B = rows, M = completion tokens, K = members of an ensemble.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from nashtune.interfaces import Anchor, ExampleBatch, PairBatch, RolloutBatch, ScoreBatch
from nashtune.testing.columns import Columns

At = Literal["usual", "wide", "start"]
"""Log-ratios of a few nats, of up to 300 with rows in which policy and reference agree, or all 0."""

ANCHORS = ("ref", "previous", "aux")
SIDES = ("chosen", "rejected")
MEMBERS = 3
PAIRS = 5


class Draw:
    """Random numbers in float64 from a seed."""

    def __init__(self, seed: int) -> None:
        self._noise = torch.Generator().manual_seed(seed)

    def normal(self, *size: int) -> Tensor:
        """Standard normal."""
        return torch.randn(*size, generator=self._noise, dtype=torch.float64)

    def uniform(self, *size: int) -> Tensor:
        """In [0, 1)."""
        return torch.rand(*size, generator=self._noise, dtype=torch.float64)

    def lengths(self, count: int) -> Tensor:
        """1 to 29."""
        return torch.randint(1, 30, (count,), generator=self._noise)

    def ratio(self, count: int, at: At, width: float = 300.0) -> Tensor:
        """Log-ratios (count,); of wide ones the first is 0."""
        if at == "start":
            return torch.zeros(count, dtype=torch.float64)
        if at == "usual":
            return 3.0 * self.normal(count)
        found = width * (2.0 * self.uniform(count) - 1.0)
        found[0] = 0.0
        return found


def pairs(anchors: Sequence[str], at: At = "usual", seed: int = 0, statistics: Sequence[str] = ()) -> Columns:
    """Pairs with everything that a loss may declare; drop what it does not.

    Sums of statistics are >= 0, as divergences are, and 0 at the start.
    """
    draw = Draw(seed)
    rows: dict[str, Tensor] = {}
    for side in SIDES:
        lengths = draw.lengths(PAIRS)
        policy = -lengths * (0.2 + 2.0 * draw.uniform(PAIRS))
        if at == "wide":
            lengths[1], policy[1], policy[2] = 1, -1e-6, -3000.0
        rows |= {f"policy_{side}": policy, f"len_{side}": lengths}
        rows |= {f"{name}_{side}": policy - draw.ratio(PAIRS, at) for name in anchors}
    rows["p_chosen"] = draw.uniform(PAIRS)
    rows["win_rate_chosen"] = 0.5 + 0.5 * draw.uniform(PAIRS) if at == "start" else draw.uniform(PAIRS)
    rows["win_rate_rejected"] = 0.5 * draw.uniform(PAIRS) if at == "start" else draw.uniform(PAIRS)
    rows |= {f"variance_{side}": draw.normal(PAIRS).exp() for side in SIDES}
    rows |= {f"{name}_{side}": draw.ratio(PAIRS, at).abs() for name in statistics for side in SIDES}
    return Columns(rows)


def pair_batch(columns: Columns, anchors: Sequence[str], statistics: Sequence[str] = ()) -> PairBatch:
    """What a pairwise loss sees."""
    return PairBatch(
        policy_chosen=columns["policy_chosen"],
        policy_rejected=columns["policy_rejected"],
        len_chosen=columns["len_chosen"],
        len_rejected=columns["len_rejected"],
        anchors={
            name: Anchor(chosen=columns[f"{name}_chosen"], rejected=columns[f"{name}_rejected"]) for name in anchors
        },
        p_chosen=columns.get("p_chosen"),
        win_rate_chosen=columns.get("win_rate_chosen"),
        win_rate_rejected=columns.get("win_rate_rejected"),
        variance_chosen=columns.get("variance_chosen"),
        variance_rejected=columns.get("variance_rejected"),
        statistics_chosen={name: columns[f"{name}_chosen"] for name in statistics},
        statistics_rejected={name: columns[f"{name}_rejected"] for name in statistics},
    )


def examples(anchors: Sequence[str], at: At = "usual", seed: int = 0) -> Columns:
    """Labelled completions, each with a mismatched one that the policy likes more than the references do."""
    count, draw = 6, Draw(seed)
    lengths = draw.lengths(count)
    policy, mismatched = (-lengths * (0.2 + 2.0 * draw.uniform(count)) for _ in range(2))
    rows = {"policy": policy, "length": lengths, "desirable": torch.arange(count) % 2 == 0}
    rows["policy_mismatched"] = mismatched
    for name in anchors:
        rows[name] = policy - draw.ratio(count, at)
        rows[f"{name}_mismatched"] = mismatched - draw.ratio(count, at).abs()
    return Columns(rows)


def example_batch(columns: Columns, anchors: Sequence[str]) -> ExampleBatch:
    """What an unpaired loss sees."""
    return ExampleBatch(
        policy=columns["policy"],
        length=columns["length"],
        desirable=columns["desirable"],
        anchors={name: columns[name] for name in anchors},
        policy_mismatched=columns["policy_mismatched"],
        anchors_mismatched={name: columns[f"{name}_mismatched"] for name in anchors},
    )


def lists(ranked: bool, at: At = "usual", seed: int = 0) -> Columns:
    """Scores of an ensemble's members, of pairs or of ranked lists, best first."""
    draw = Draw(seed)
    sizes = torch.tensor([2, 3, 4, 2]) if ranked else torch.full((4,), 2)
    total, count = int(sizes.sum()), len(sizes)
    width = {"usual": 1.0, "wide": 200.0, "start": 0.0}[at]
    scores = width * draw.normal(total, MEMBERS)
    rows = {
        "margin": torch.zeros(count, dtype=torch.float64) if at == "start" else draw.uniform(count),
        "p_chosen": draw.uniform(count),
        "share": draw.uniform(count, MEMBERS),
    }
    return Columns(rows, {"scores": scores}, sizes)


def score_batch(columns: Columns, *, counted: bool = True) -> ScoreBatch:
    """What a reward loss sees."""
    assert columns.sizes is not None, "lists have sizes"
    return ScoreBatch(
        scores=columns["scores"],
        sizes=columns.sizes,
        counts=tuple(columns.sizes.tolist()) if counted else None,
        levels=columns.get("levels"),
        margin=columns.get("margin"),
        p_chosen=columns.get("p_chosen"),
        share=columns.get("share"),
    )


def rollouts(anchors: Sequence[str], at: At = "usual", seed: int = 0, group: int = 2) -> Columns:
    """Completions of three prompts, `group` of each, with a critic and a policy that has moved since they were drawn.

    At the start nothing has moved, all have one length, and of two completions of a prompt the first is the better.
    """
    draw, count = Draw(seed), 3 * group
    sizes = torch.full((count,), 3) if at == "start" else 1 + draw.lengths(count) % 5
    total, narrow = int(sizes.sum()), 5.0
    old = -draw.normal(total).abs() - 0.1
    moved = draw.ratio(total, at, narrow) * (0.07 if at == "usual" else 1.0)
    value = torch.zeros(total, dtype=torch.float64) if at == "start" else draw.normal(total)
    end = torch.zeros(count, dtype=torch.float64) if at == "start" else draw.normal(count)
    better = torch.arange(count) % 2 == 0
    rows = {
        "score": 0.1 + 0.8 * better if at == "start" else draw.uniform(count),
        "group": torch.arange(count) // group,
        "finished": better if at != "start" else torch.ones(count, dtype=torch.bool),
        "variance": draw.normal(count).exp(),
        "old_value_end": end,
        "value_end": end + (0.0 if at == "start" else 0.3) * draw.normal(count),
    }
    items = {
        "token_logp": old + moved,
        "old": old,
        "old_value": value,
        "value": value + (0.0 if at == "start" else 0.3) * draw.normal(total),
        **{name: old - draw.ratio(total, at, narrow) * (0.1 if at == "usual" else 1.0) for name in anchors},
    }
    return Columns(
        {name: column.double() if name == "score" else column for name, column in rows.items()}, items, sizes
    )


def rollout_batch(columns: Columns, anchors: Sequence[str], *, counted: bool = True) -> RolloutBatch:
    """What a policy gradient sees."""
    sizes = columns.sizes
    assert sizes is not None, "rollouts have tokens"
    names = ("group", "finished", "variance", "old", "old_value", "value", "old_value_end", "value_end")
    made = ("advantage", "target", "target_end")
    return RolloutBatch(
        token_logp=columns["token_logp"],
        sequence=torch.repeat_interleave(sizes),
        lengths=sizes,
        counts=tuple(sizes.tolist()) if counted else None,
        score=columns["score"],
        anchors={name: columns[name] for name in anchors},
        **{name: columns.get(name) for name in (*names, *made)},
    )
