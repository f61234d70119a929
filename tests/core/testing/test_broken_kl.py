"""A KL controller is broken in the β that it gives: what it is, of which rows, after how many steps."""

from __future__ import annotations

import pytest
import torch

from good_kl import Good, GoodPairs, PerPair
from nashtune.testing import check_component


class NoTensor(GoodPairs):
    """Gives a float."""

    def beta(self, batch):
        return 0.1


class LiveBeta(PerPair):
    """Leaves the gradient on."""

    def beta(self, batch):
        super().beta(batch)
        return 0.1 + batch.policy_chosen.sigmoid()


class Half(GoodPairs):
    """Gives half precision."""

    def beta(self, batch):
        return super().beta(batch).bfloat16()


class OneTooMany(PerPair):
    """A beta more than there are pairs."""

    def beta(self, batch):
        return torch.cat([super().beta(batch), torch.ones(1)])


class Negative(PerPair):
    """A beta of either sign."""

    def beta(self, batch):
        return super().beta(batch) - 0.6


class RunsAway(Good):
    """Comes to 0 where the KL stays at 0."""

    def observe_round(self, means, completions):
        self.value += 0.001 * (means["kl"] / 6.0 - 1.0)


class MovesWhenAsked(Good):
    """Changes as it is asked."""

    def beta(self, batch):
        self.value *= 1.01
        return super().beta(batch)


class Compares(PerPair):
    """A beta relative to the batch's."""

    def beta(self, batch):
        beta = super().beta(batch)
        return beta / beta.mean()


class Doubles(GoodPairs):
    """Doubles at each step."""

    rows = ("pairs", "examples")
    value = 0.1

    def beta(self, batch):
        return torch.full((), self.value, dtype=torch.float64)

    def change(self):
        self.value *= 2.0

    def observe(self, means):
        self.change()

    def state_dict(self):
        return {"beta": self.value}

    def load_state_dict(self, state):
        self.value = state["beta"]


class Subtracts(Doubles):
    """Falls below 0."""

    def change(self):
        self.value -= 0.012


class ByPlaceLater(PerPair):
    """A beta by the place in the batch, from the first step on."""

    steps = 0

    def beta(self, batch):
        beta = torch.full((len(batch.policy_chosen),), 0.1)
        return beta * torch.arange(1, len(beta) + 1) if self.steps else beta

    def observe(self, means):
        self.steps += 1

    def state_dict(self):
        return {"steps": self.steps}

    def load_state_dict(self, state):
        self.steps = state["steps"]


class ComparesLater(ByPlaceLater):
    """A beta relative to the batch's, from the first step on."""

    def beta(self, batch):
        beta = PerPair.beta(self, batch)
        return beta / beta.mean() if self.steps else beta


class ByPlace(Good):
    """A beta by the place in the update."""

    def beta(self, batch):
        return super().beta(batch) * (1.0 + torch.arange(len(batch.lengths)))


class ByGroup(Good):
    """A beta by the scores of the prompt's completions."""

    anchors = ()

    def report(self, batch, beta):
        return {}

    def setpoint(self):
        return None

    def observe_round(self, means, completions):
        pass

    def beta(self, batch):
        beta = torch.zeros_like(batch.score)
        for group in batch.group.unique():
            beta[batch.group == group] = 0.1 + batch.score[batch.group == group].var(correction=0)
        return beta.to(batch.token_logp.dtype)


@pytest.mark.parametrize("controller", [Good, GoodPairs, PerPair, ByGroup])
def test_a_good_one_passes(controller):
    check_component(controller)


@pytest.mark.parametrize(
    ("rule", "controller", "said"),
    [
        ("kl-beta", NoTensor, "beta gave 0.1, no tensor"),
        ("kl-beta", LiveBeta, "beta carries a gradient"),
        ("kl-beta", Half, "bfloat16; float32 or wider"),
        ("kl-beta", OneTooMany, "shape (6,)"),
        ("kl-bounds", Negative, "for pairs"),
        ("kl-bounds", RunsAway, "at a KL of 0 nats"),
        ("kl-pure", MovesWhenAsked, "asked twice"),
        ("kl-rows", Compares, "of pair 0 alone"),
        ("kl-rows", ComparesLater, "of pair 0 alone after 3 steps"),
        ("kl-rows", ByPlaceLater, "in another order after 3 steps pairs have"),
        ("kl-rows", ByPlace, "in another order rollouts have"),
        ("kl-bounds", Doubles, "steps with a KL of 0 nats"),
        ("kl-bounds", Subtracts, "after 9 steps with a KL of 0 nats"),
    ],
)
def test_a_broken_one_is_found(rule, controller, said, finds):
    assert said in finds(rule, controller)
