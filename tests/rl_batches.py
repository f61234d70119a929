"""Completions of unequal lengths for the tests of policy gradients, and the flow of an update."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace
from itertools import chain
from typing import Any

import torch
from torch import Tensor

from nashtune.interfaces import Loss, RolloutBatch, Step

ROWS = ("lengths", "score", "group", "finished", "variance", "weight", "old_value_end", "value_end", "target_end")
TOKENS = ("token_logp", "old", "old_value", "value", "advantage", "target")


def joined(lists: Sequence[Sequence[float]]) -> Tensor:
    return torch.tensor(list(chain.from_iterable(lists)), dtype=torch.float64)


def rollouts(policy: Sequence[Sequence[float]], ref: Sequence[Sequence[float]], **parts: Any) -> RolloutBatch:
    """A batch in float64; token parts are lists of lists, the policy carries a gradient."""
    lengths = torch.tensor([len(tokens) for tokens in policy])
    known: dict[str, Any] = {
        name: joined(value) if name in TOKENS else torch.tensor(value) for name, value in parts.items()
    }
    known["score"] = known.get("score", torch.zeros(len(lengths))).double()
    return RolloutBatch(
        token_logp=joined(policy).requires_grad_(),
        sequence=torch.repeat_interleave(lengths),
        lengths=lengths,
        anchors={"ref": joined(ref)},
        **known,
    )


def random_rollouts(seed: int, lengths: Sequence[int], group: Sequence[int] | None = None) -> RolloutBatch:
    """Completions whose policy has moved a little since they were drawn, with a critic."""
    noise = torch.Generator().manual_seed(seed)
    total, count = sum(lengths), len(lengths)

    def draw(size: int) -> Tensor:
        return torch.randn(size, generator=noise, dtype=torch.float64)

    old = -draw(total).abs() - 0.1
    value = draw(total)
    sizes = torch.tensor(list(lengths))
    return RolloutBatch(
        token_logp=(old + 0.2 * draw(total)).requires_grad_(),
        sequence=torch.repeat_interleave(sizes),
        lengths=sizes,
        score=draw(count),
        anchors={"ref": old + 0.3 * draw(total)},
        group=torch.tensor(list(group) if group is not None else [i // 2 for i in range(count)]),
        finished=torch.arange(count) % 3 != 0,
        old=old,
        old_value=value,
        value=(value + 0.3 * draw(total)).requires_grad_(),
    )


def prepared(loss: Loss, batch: RolloutBatch, beta: Any = 0.1) -> tuple[RolloutBatch, Step]:
    """The batch with advantages and targets, computed over all of its completions, and the step."""
    step = Step(beta=torch.as_tensor(beta, dtype=torch.float64))
    before = replace(batch, token_logp=batch.token_logp.detach() if batch.old is None else batch.old, value=None)
    before = replace(before, score=loss.judged(before))
    with torch.no_grad():
        made = loss.advantages(before, step)
    assert made is not None
    return replace(batch, advantage=made.advantage, target=made.target, target_end=made.target_end), step


def pick(batch: RolloutBatch, rows: Sequence[int]) -> RolloutBatch:
    """Some completions of a batch, in this order; the tokens keep their gradient to the whole batch's."""
    index = torch.tensor(list(rows))
    starts = batch.lengths.cumsum(0) - batch.lengths
    places = torch.cat([torch.arange(int(batch.lengths[i])) + starts[i] for i in index])
    parts: dict[str, Any] = {}
    for one in fields(RolloutBatch):
        value = getattr(batch, one.name)
        if one.name in ROWS and value is not None:
            parts[one.name] = value[index]
        elif one.name in TOKENS and value is not None:
            parts[one.name] = value[places]
    return RolloutBatch(
        **parts,
        sequence=torch.repeat_interleave(batch.lengths[index]),
        anchors={name: value[places] for name, value in batch.anchors.items()},
    )


def step_of(step: Step, rows: Sequence[int]) -> Step:
    """The step of some completions, where β is one per completion."""
    beta = step.beta
    return step if beta is None or beta.ndim == 0 else replace(step, beta=beta[torch.tensor(list(rows))])


def whole(loss: Loss, values: Tensor, lengths: Tensor) -> Tensor:
    """The objective of one optimiser step on these completions alone."""
    return values.sum() / lengths.sum() if loss.mean_over == "tokens" else values.mean()
