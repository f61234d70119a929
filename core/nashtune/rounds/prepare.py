"""What reinforcement learning computes once before an update, over all of its rollouts: coefficients and advantages.

Legend: S = rollouts, M = completion tokens of all rollouts, one rollout after another.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from nashtune.errors import InputError
from nashtune.interfaces import Advantages, KLController, Loss, RolloutBatch, Step
from nashtune.kl.asked import asked_beta, asked_report
from nashtune.rounds.rows import RolloutRow


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """An update's rollouts, ready to be trained on.

    Args:
        rows: With the score that is trained on, `beta`, and `advantage` and `target` of each token.
        means: Over the rollouts, by name: what is logged.
        observed: What the KL controller sees after the update: means of its own report.
        completions: How many rollouts.
    """

    rows: list[RolloutRow]
    means: dict[str, float]
    observed: dict[str, float]
    completions: int


def prepare(rows: Sequence[RolloutRow], loss: Loss, kl: KLController | None, round: int) -> Prepared:
    """β, rewards and advantages of an update's rollouts, in float64.

    Args:
        rows: Measured.
        loss: The spec's.
        kl: The spec's, if it has one.
        round: From 1.

    Raises:
        InputError: the loss or the controller cannot work with these rollouts.
    """
    batch = as_batch(rows)
    with torch.no_grad():
        scored = replace(batch, score=loss.judged(batch))
        beta = asked_beta(kl, scored) if kl is not None else None
        if beta is not None and len(bad := beta[~((beta > 0) & torch.isfinite(beta))]):
            raise InputError(
                f"kl {type(kl).__name__}: beta gave {float(bad[0]):g} in round {round}; it must be > 0 and finite"
            )
        if kl is not None and beta is not None:
            scored = replace(scored, score=kl.reward(scored, beta))
        if int(batch.lengths.min()) < 1:
            empty = rows[int(batch.lengths.argmin())]
            raise InputError(f"{empty.where}: a completion without a token cannot be trained on")
        try:
            made = loss.advantages(scored, Step(beta=beta, round=round))
        except ValueError as error:
            raise InputError(f"round {round}: {error}") from error
        observed = _floats(asked_report(kl, batch, beta)) if kl is not None and beta is not None else {}
    means = _means(rows, batch) | observed
    if beta is not None:
        means["beta"] = float(beta.double().mean())
    parts = _per_token(made, batch.lengths.tolist()) if made is not None else {}
    each = beta.expand(len(rows)).float().tolist() if beta is not None else [None] * len(rows)
    ready = [
        replace(
            row,
            score=float(scored.score[i]),
            beta=each[i],
            per_token={**row.per_token, **{name: part[i] for name, part in parts.items()}},
        )
        for i, row in enumerate(rows)
    ]
    metrics = _floats(made.metrics) if made is not None else {}
    return Prepared(rows=ready, means=means | metrics, observed=observed, completions=len(rows))


def _per_token(made: Advantages, sizes: list[int]) -> dict[str, tuple[Tensor, ...]]:
    """What the loss made, by name, one tensor for each rollout."""
    parts = {"advantage": torch.split(made.advantage.float(), sizes)}
    if made.target is not None:
        parts["target"] = torch.split(made.target.float(), sizes)
    if made.target_end is not None:
        parts["target_end"] = torch.split(made.target_end.float(), 1)
    return parts


def as_batch(rows: Sequence[RolloutRow]) -> RolloutBatch:
    """All measured rollouts as a loss sees them, in float64."""

    def joined(name: str) -> Tensor:
        return torch.cat([row.per_token[name] for row in rows]).double()

    names = list(rows[0].per_token)
    lengths_S = torch.tensor([len(row.token_ids) for row in rows])
    variances = [row.variance for row in rows if row.variance is not None]
    old_M = joined("old")
    return RolloutBatch(
        token_logp=old_M,
        sequence=torch.repeat_interleave(lengths_S),
        lengths=lengths_S,
        score=torch.tensor([row.score for row in rows], dtype=torch.float64),
        anchors={name.removeprefix("ref:"): joined(name) for name in names if name.startswith("ref:")},
        group=torch.tensor([row.group for row in rows]),
        finished=torch.tensor([row.finished for row in rows]),
        variance=torch.tensor(variances, dtype=torch.float64) if len(variances) == len(rows) else None,
        old=old_M,
        old_value=joined("old_value") if "old_value" in names else None,
        old_value_end=joined("old_value_end") if "old_value_end" in names else None,
    )


def _means(rows: Sequence[RolloutRow], batch: RolloutBatch) -> dict[str, float]:
    """What any run wants to see of its rollouts."""
    score, count = batch.score, len(rows)
    means = {
        "reward": float(score.mean()),
        "reward_std": float(score.std(correction=0)),
        "length": float(batch.lengths.double().mean()),
        "finished": float(batch.finished.double().mean()) if batch.finished is not None else 1.0,
    }
    if batch.variance is not None:
        means["variance"] = float(batch.variance.mean())
    assert batch.old is not None
    for name, frozen_M in batch.anchors.items():
        ratio_M = batch.old - frozen_M
        means[f"kl_{name}_k1"] = float(ratio_M.sum()) / count
        means[f"kl_{name}_k3"] = float((torch.expm1(-ratio_M) + ratio_M).sum()) / count
    sampled = [value for row in rows for value in row.sampled_logp]
    if len(sampled) == len(batch.old):  # what a server's kernels or precision did to the log-probs
        means["sampler_gap"] = float((batch.old - torch.tensor(sampled, dtype=torch.float64)).abs().mean())
    return means


def _floats(values: Mapping[str, Tensor]) -> dict[str, float]:
    return {name: float(value.double().mean()) for name, value in values.items()}
