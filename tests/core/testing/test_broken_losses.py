"""A loss is broken in what a call gives: values, gradients, what is logged."""

from __future__ import annotations

import pytest
import torch

from good_losses import Good, Hard
from nashtune.interfaces import LossOutput
from nashtune.testing import check_component


class MeanOverBatch(Good):
    """Averages over the batch."""

    def values(self, batch, step):
        return super().values(batch, step).mean()


class Narrow(Good):
    """Gives float32, whatever it is given."""

    def values(self, batch, step):
        return super().values(batch, step).float()


class NoGradient(Good):
    """Detaches its values."""

    def values(self, batch, step):
        return super().values(batch, step).detach()


class LiveRewards(Good):
    """Forgets to detach the implicit rewards."""

    def rewards(self, batch, step):
        return [step.beta * ratio for ratio in batch.log_ratios()]


class OneReward(Good):
    """Gives the reward of one side alone."""

    def __call__(self, batch, step):
        output = super().__call__(batch, step)
        return LossOutput(values=output.values, reward_chosen=output.reward_chosen)


class OddMetric(Good):
    """A metric that belongs to nothing."""

    def metrics(self, batch, step):
        return {"odd": torch.zeros(3)}


class FloatMetric(Good):
    """A metric that is no tensor."""

    def metrics(self, batch, step):
        return {"margin": 1.0}


class LiveMetric(Good):
    """A metric with a gradient."""

    def metrics(self, batch, step):
        return {"margin": self.margin(batch, step)}


class Overflows(Hard):
    """log(1 + exp(-z)) written as it stands."""

    def values(self, batch, step):
        return (1.0 + (-10.0 * self.margin(batch, step)).exp()).log()


class RootAtZero(Hard):
    """A square root whose slope at equal policies is no number."""

    def values(self, batch, step):
        chosen, rejected = batch.log_ratios()
        return rejected - chosen + (chosen**2).sqrt()


class NarrowInside(Good):
    """Computes in float32 in between."""

    def values(self, batch, step):
        return super().values(batch, step).float().to(batch.policy_chosen.dtype)


class HalfGradient(Hard):
    """The rejected completion gets no gradient."""

    def margin(self, batch, step):
        chosen, rejected = batch.log_ratios()
        return step.beta * (chosen - rejected.detach())


class DoubledGradient(Hard):
    """Doubles the gradient on its way back, and says that this is a stop-gradient."""

    detaches = True

    def margin(self, batch, step):
        margin = super().margin(batch, step)
        if margin.requires_grad:
            margin.register_hook(lambda gradient: 2.0 * gradient)
        return margin


class StdOfOne(Hard):
    """Divides by the batch's standard deviation, of which a pair alone has none."""

    compares_rows = True
    detaches = True

    def margin(self, batch, step):
        margin = super().margin(batch, step)
        spread = (margin - margin.mean()).detach()
        return margin / (1e-3 + ((spread**2).sum() / (len(margin) - 1)).sqrt())


class Counts(Good):
    """Changes with every call."""

    calls = 0

    def values(self, batch, step):
        self.calls += 1
        return super().values(batch, step) * self.calls


class InPlace(Good):
    """Sharpens the labels it was given, where they lie."""

    def values(self, batch, step):
        values = super().values(batch, step)
        if batch.p_chosen is not None:
            batch.p_chosen.round_()
        return values


class Raises(Good):
    """Fails on what it is given."""

    def values(self, batch, step):
        return batch.policy_chosen[batch.nothing]


@pytest.mark.parametrize("loss", [Good, Hard])
def test_a_good_one_passes(loss):
    check_component(loss)


@pytest.mark.parametrize(
    ("rule", "loss", "said"),
    [
        ("loss-values", MeanOverBatch, "shape (), float32 for 5 rows"),
        ("loss-values", Narrow, "float32 where all inputs are float64"),
        ("loss-values", NoGradient, "carry no gradient"),
        ("loss-output", LiveRewards, "reward_chosen carries a gradient; detach it"),
        ("loss-output", OneReward, "reward_chosen alone"),
        ("loss-output", OddMetric, "the metric odd is a tensor of shape (3,), float32 for 5 rows"),
        ("loss-output", FloatMetric, "the metric margin is a float, no tensor"),
        ("loss-output", LiveMetric, "the metric margin carries a gradient"),
        ("loss-finite", Overflows, "in float32, with log-ratios up to 300 nats"),
        ("loss-finite", RootAtZero, "the gradient of policy_chosen[0] is nan"),
        ("loss-gradient", NarrowInside, "the gradient for policy_"),
        ("loss-gradient", HalfGradient, "] is 0, differences give 0.0"),
        ("loss-finite", StdOfOne, "in float32, with row 0 alone"),
        ("loss-gradient", HalfGradient, "held constant they agree: if that is meant, say `detaches = True`"),
        ("loss-gradient", DoubledGradient, "differences give"),
        ("loss-pure", Counts, "called again on the same batch row"),
        ("loss-pure", InPlace, "changes its batch in place"),
        ("runs", Raises, "raised AttributeError"),
    ],
)
def test_a_broken_one_is_found(rule, loss, said, finds):
    assert said in finds(rule, loss)
