"""A loss is broken in what it makes of its terms: references, β, labels, the rows of a batch."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import logsigmoid

from good_losses import Good, Hard
from nashtune.testing import check_component


class AddedReference(Hard):
    """Adds the reference."""

    def delta(self, batch):
        ref = batch.anchors["ref"]
        return (batch.policy_chosen + ref.chosen) - (batch.policy_rejected + ref.rejected)


class SwappedReference(Hard):
    """Takes the reference's log-prob of the other side."""

    def delta(self, batch):
        ref = batch.anchors["ref"]
        return (batch.policy_chosen - ref.rejected) - (batch.policy_rejected - ref.chosen)


class TurnedTarget(Hard):
    """IPO whose target is beta/2 where the paper has 1/(2 beta)."""

    def values(self, batch, step):
        return (self.delta(batch) - step.beta / 2.0) ** 2


class RightTarget(Hard):
    """IPO."""

    def values(self, batch, step):
        return (self.delta(batch) - 1.0 / (2.0 * step.beta)) ** 2


class Centred(Good):
    """Takes the batch's mean off."""

    def values(self, batch, step):
        values = super().values(batch, step)
        return values - values.mean() + 1.0


class Spread(Good):
    """The batch's mean, once for each row."""

    def values(self, batch, step):
        values = super().values(batch, step)
        return values.mean().expand(values.shape)


class ByPlace(Good):
    """The first row weighs more."""

    def values(self, batch, step):
        values = super().values(batch, step)
        return values * torch.arange(len(values), 0, -1)


class SumOfBetas(Hard):
    """Adds one beta for each row up."""

    def margin(self, batch, step):
        return step.beta.sum() * self.delta(batch)


class ScalarBeta(Hard):
    """Takes one beta for all."""

    def margin(self, batch, step):
        return float(step.beta) * self.delta(batch)


class NeedsBeta(Good):
    """Says that beta may be absent, and it may not."""

    beta_optional = True


class HalfLabels(Good):
    """No label is a coin."""

    def values(self, batch, step):
        margin = self.margin(batch, step)
        p = 0.5 if batch.p_chosen is None else batch.p_chosen.to(margin.dtype)
        return -p * logsigmoid(margin) - (1.0 - p) * logsigmoid(-margin)


class WrongWay(Hard):
    """Prefers the rejected completion."""

    def values(self, batch, step):
        return -logsigmoid(-self.margin(batch, step))


class Flat(Hard):
    """Has no slope where training starts."""

    def values(self, batch, step):
        return self.margin(batch, step) ** 2


@pytest.mark.parametrize("loss", [RightTarget])
def test_a_good_one_passes(loss):
    check_component(loss)


@pytest.mark.parametrize(
    ("rule", "loss", "said"),
    [
        ("loss-reference", AddedReference, "ref_chosen[0] has the slope -0.0"),
        ("loss-reference", SwappedReference, "of the same sign"),
        ("loss-penalty", TurnedTarget, "nats from its anchors with beta 0.1, and up to"),
        ("loss-rows", Centred, "row 0 is"),
        ("loss-rows", Spread, "row 0 is"),
        ("loss-rows", ByPlace, "with rows in the order [1, 3, 4, 2, 0] row"),
        ("loss-beta", SumOfBetas, "with beta of shape (5,) row"),
        ("runs", ScalarBeta, "a call on 5 rows raised ValueError"),
        ("loss-beta", NeedsBeta, "without beta a call on 5 rows raised TypeError"),
        ("loss-labels", HalfLabels, "p_chosen absent is not p_chosen = 1"),
        ("loss-sign", WrongWay, "log-prob of the chosen completion is 0.05, above 0"),
        ("loss-sign", Flat, "training would not begin"),
    ],
)
def test_a_broken_one_is_found(rule, loss, said, finds):
    assert said in finds(rule, loss)
