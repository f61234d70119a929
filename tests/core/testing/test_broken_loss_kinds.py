"""Losses of rollouts, scores and single examples are broken in one way at a time."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import logsigmoid

from good_losses import GoodExamples, GoodPG, GoodScores
from nashtune.errors import InputError
from nashtune.interfaces import Advantages, LossOutput
from nashtune.testing import check_component


class WrongWayPG(GoodPG):
    """Makes bad completions likelier."""

    def advantages(self, batch, step):
        return Advantages(advantage=-super().advantages(batch, step).advantage)


class FlatAdvantages(GoodPG):
    """One advantage for each completion, where tokens are wanted."""

    def advantages(self, batch, step):
        return Advantages(advantage=batch.score)


class InOrder(GoodPG):
    """A baseline of the completions that came before."""

    def advantages(self, batch, step):
        centred = batch.score - batch.score.cumsum(0) / torch.arange(1, len(batch.score) + 1)
        return Advantages(advantage=centred[batch.sequence])


class ScaledByZero(GoodPG):
    """Divides by a standard deviation that may be 0."""

    def advantages(self, batch, step):
        found = super().advantages(batch, step).advantage
        return Advantages(advantage=found / found.std())


class WholeBatchPG(GoodPG):
    """Divides by all tokens of the micro-batch."""

    def __call__(self, batch, step):
        return LossOutput(values=super().__call__(batch, step).values / len(batch.token_logp))


class NoRatio(GoodPG):
    """Says that it weighs by the ratio, and it does not."""

    def __call__(self, batch, step):
        tokens = -batch.advantage * batch.token_logp
        return LossOutput(values=tokens.new_zeros(len(batch.lengths)).index_add(0, batch.sequence, tokens))


class SecretRatio(GoodPG):
    """Weighs by the ratio and does not say so, so that a second step would be refused."""

    uses_old = False


class ForgetsPG(GoodPG):
    """A running mean that a resume loses, in reinforcement learning."""

    mean = 0.0

    def __call__(self, batch, step):
        output = super().__call__(batch, step)
        return LossOutput(values=output.values * (1.0 + self.mean))

    def observe(self, means):
        self.mean += 1.0 + abs(float(means["loss"]))


class TurnedRatio(GoodPG):
    """The ratio the wrong way up, with the sign that makes up for it at the start."""

    def __call__(self, batch, step):
        tokens = (batch.old - batch.token_logp).exp() * batch.advantage
        return LossOutput(values=tokens.new_zeros(len(batch.lengths)).index_add(0, batch.sequence, tokens))


class PenalisedPG(GoodPG):
    """REINFORCE with a KL penalty in the reward."""

    anchors = ("ref",)
    uses_beta = True
    uses_old = False
    sign = -1.0

    def advantages(self, batch, step):
        beta = step.beta[batch.sequence] if step.beta.ndim else step.beta
        kl = beta * (batch.old - batch.anchors["ref"])
        return Advantages(advantage=super().advantages(batch, step).advantage + self.sign * kl)

    def __call__(self, batch, step):
        tokens = -batch.token_logp * batch.advantage
        return LossOutput(values=tokens.new_zeros(len(batch.lengths)).index_add(0, batch.sequence, tokens))


class BonusPG(PenalisedPG):
    """Pays for the KL divergence."""

    sign = 1.0


class NoShare(GoodScores):
    """Gives every member the whole row."""

    def __call__(self, batch, step):
        return LossOutput(values=self.members(batch).mean(-1))


class MixedMembers(GoodScores):
    """Trains the members' mean, so that they learn alike."""

    def __call__(self, batch, step):
        chosen, rejected = batch.scores.mean(-1).reshape(-1, 2).unbind(1)
        share = 1.0 if batch.share is None else batch.share.mean(-1)
        return LossOutput(values=-share * logsigmoid(chosen - rejected))


class WrongWayScores(GoodScores):
    """Scores the worse one higher."""

    def members(self, batch):
        chosen, rejected = batch.scores.reshape(-1, 2, batch.scores.shape[-1]).unbind(1)
        return -logsigmoid(rejected - chosen)


class MeanOfUndesirable(GoodExamples):
    """A reference point of the undesirable examples, of which there may be none."""

    compares_rows = True
    detaches = True

    def __call__(self, batch, step):
        ratio = batch.policy - batch.anchors["ref"]
        point = ratio[~batch.desirable].mean().detach()
        return LossOutput(values=torch.sigmoid(-step.beta * (ratio - point) * self.sign(batch)))


class RefusesUneven(MeanOfUndesirable):
    """Says that it needs an undesirable example."""

    def __call__(self, batch, step):
        if bool(batch.desirable.all()):
            raise InputError("a batch without undesirable examples has no reference point")
        return super().__call__(batch, step)


class RunningExamples(GoodExamples):
    """The mean reward of desirable examples over the steps, as BCO has it."""

    delta = 0.0

    def __call__(self, batch, step):
        reward = step.beta * (batch.policy - batch.anchors["ref"])
        given = {"reward_chosen": reward.detach(), "reward_rejected": reward.detach(), "desirable": batch.desirable}
        return LossOutput(values=torch.sigmoid(self.sign(batch) * (self.delta - reward)), **given)

    def observe(self, means):
        if "reward_chosen" in means:
            self.delta = 0.9 * self.delta + 0.1 * float(means["reward_chosen"])

    def state_dict(self):
        return {"delta": self.delta}

    def load_state_dict(self, state):
        self.delta = float(state["delta"])


class NeedsDesirable(RunningExamples):
    """Takes for granted that every step has a desirable example."""

    def observe(self, means):
        self.delta = 0.9 * self.delta + 0.1 * float(means["reward_chosen"])


class NaNExamples(RunningExamples):
    """A running mean that a step without desirable examples ends."""

    def observe(self, means):
        self.delta = 0.9 * self.delta + 0.1 * float(means.get("reward_chosen", torch.tensor(float("nan"))))


class RunningUneven(RefusesUneven):
    """As that, with a running number."""

    mean = 0.0

    def __call__(self, batch, step):
        return LossOutput(values=super().__call__(batch, step).values * (1.0 + self.mean))

    def observe(self, means):
        self.mean = 0.9 * self.mean + 0.1 * float(means["loss"])

    def state_dict(self):
        return {"mean": self.mean}

    def load_state_dict(self, state):
        self.mean = float(state["mean"])


class WrongWayExamples(GoodExamples):
    """Likes what is undesirable."""

    def sign(self, batch):
        return -super().sign(batch)


@pytest.mark.parametrize(
    "loss", [GoodPG, PenalisedPG, GoodScores, GoodExamples, RefusesUneven, RunningExamples, RunningUneven]
)
def test_a_good_one_passes(loss):
    check_component(loss)


@pytest.mark.parametrize(
    ("rule", "loss", "said"),
    [
        ("loss-finite", ScaledByZero, "equal scores of all completions"),
        ("loss-finite", MeanOfUndesirable, "with row 0 alone"),
        ("loss-penalty", BonusPG, "likes 1 nat a token more than 'ref' does is made likelier"),
        ("loss-ratio", TurnedRatio, "where tokens became 0.02 nats likelier the gradient's size is"),
        ("loss-rows", WholeBatchPG, "alone and"),
        ("loss-sign", WrongWayPG, "gains as much as, or more than"),
        ("loss-sign", WrongWayScores, "score of the best completion"),
        ("loss-sign", WrongWayExamples, "desirable completion"),
        ("loss-state", ForgetsPG, "stopped after 1 steps and resumed, the loss of step 2 is"),
        ("loss-state", NeedsDesirable, "observe after a step with undesirable examples alone raised KeyError"),
        ("loss-state", NaNExamples, "with undesirable examples alone the state is {'delta': nan}"),
        ("loss-declares", NoRatio, "it declares uses_old"),
        ("loss-declares", SecretRatio, "`old` in its values, and uses_old is not declared"),
        ("loss-advantages", FlatAdvantages, "advantage is a tensor of shape (6,)"),
        ("loss-advantages", InOrder, "in another order"),
        ("loss-share", NoShare, "a share of 1/2 does not halve the values"),
        ("loss-share", MixedMembers, "a member with a share of 0 has a gradient"),
    ],
)
def test_a_broken_one_is_found(rule, loss, said, finds):
    assert said in finds(rule, loss)
