"""What a loss says its implicit rewards are measured in is what they are measured in."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from nashtune.interfaces import Anchor, Loss, PairBatch, Step
from nashtune.spec.resolve import build, resolve

LENGTH = 4.0
BETA = 0.3


def reward(loss: Loss, log_ratio: float) -> float:
    """Implicit reward of a chosen answer of 4 tokens with this log-prob; the references give it 0."""
    zero = torch.zeros(1, dtype=torch.float64)
    sizes = torch.full((1,), LENGTH, dtype=torch.float64)
    batch = PairBatch(
        policy_chosen=zero + log_ratio,
        policy_rejected=zero - 1.0,
        len_chosen=sizes,
        len_rejected=sizes,
        anchors={name: Anchor(chosen=zero, rejected=zero) for name in loss.anchors},
        win_rate_chosen=zero + 0.75,
        win_rate_rejected=zero + 0.25,
    )
    found = loss(batch, Step(beta=torch.tensor(BETA, dtype=torch.float64), mean_over_ranks=lambda x: x)).reward_chosen
    assert found is not None
    return float(found)


@pytest.mark.parametrize(
    ("spec", "unit", "factor"),
    [
        ("dpo", "", lambda loss: BETA),
        ("slic_hinge", "", lambda loss: BETA),
        ("ipo", "τ · nats per token", lambda loss: loss.tau / LENGTH),
        ("ipo_sum", "τ · nats", lambda loss: loss.tau),
        ("simpo", "β · nats per token", lambda loss: loss.beta / LENGTH),
        ("orpo", "λ · nats per token", lambda loss: loss.lam / LENGTH),
        ("onpo", "nats / η", lambda loss: 1.0 / loss.eta),
        ("nash_md", "nats / η", lambda loss: 1.0 / loss.eta),
        ("sppo", "nats / η", lambda loss: 1.0 / loss.eta),
        ("inpo", "η · nats", lambda loss: loss.eta),
    ],
)
def test_a_nat_more_is_worth_what_the_unit_says(spec: str, unit: str, factor: Any) -> None:
    loss = build(resolve(spec).loss)
    assert isinstance(loss, Loss) and loss.reward_unit == unit
    assert reward(loss, -1.0) - reward(loss, -2.0) == pytest.approx(factor(loss), rel=1e-6)
