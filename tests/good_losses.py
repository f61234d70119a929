"""Losses that keep every rule, to be broken in one way at a time."""

from __future__ import annotations

import torch
from torch.nn.functional import logsigmoid

from nashtune.interfaces import Advantages, Loss, LossOutput


class Good(Loss):
    """DPO, with soft labels.

    Args:
        scale: Factor of the loss, > 0 (ours).
    """

    uses_p_chosen = True

    def __init__(self, *, scale: float = 1.0) -> None:
        self.scale = scale

    def delta(self, batch):
        chosen, rejected = batch.log_ratios()
        return chosen - rejected

    def margin(self, batch, step):
        return step.beta * self.delta(batch)

    def values(self, batch, step):
        margin = self.margin(batch, step)
        p = 1.0 if batch.p_chosen is None else batch.p_chosen.to(margin.dtype)
        return self.scale * (-p * logsigmoid(margin) - (1.0 - p) * logsigmoid(-margin))

    def rewards(self, batch, step):
        return [(step.beta * ratio).detach() for ratio in batch.log_ratios()]

    def metrics(self, batch, step):
        return {"margin": self.margin(batch, step).detach()}

    def __call__(self, batch, step):
        chosen, rejected = self.rewards(batch, step)
        return LossOutput(
            values=self.values(batch, step),
            reward_chosen=chosen,
            reward_rejected=rejected,
            metrics=self.metrics(batch, step),
        )


class Hard(Good):
    """DPO with hard labels alone."""

    uses_p_chosen = False

    def values(self, batch, step):
        return -logsigmoid(self.margin(batch, step))


class Running(Hard):
    """Takes a running mean of the margin off."""

    def __init__(self):
        super().__init__()
        self.mean = 0.0

    def margin(self, batch, step):
        return super().margin(batch, step) - self.mean

    def observe(self, means):
        self.mean += 0.1 * float(means["margin"])

    def state_dict(self):
        return {"mean": self.mean}

    def load_state_dict(self, state):
        self.mean = state["mean"]


class GoodPG(Loss):
    """Clipped ratio; the advantage is the score minus the mean of the prompt.

    Args:
        clip: Half-width of the interval, > 0 (ours).
    """

    rows = "rollouts"
    anchors = ()
    uses_beta = False
    uses_old = True
    min_completions = 2

    def __init__(self, *, clip: float = 0.2) -> None:
        self.clip = clip

    def advantages(self, batch, step):
        same = (batch.group[:, None] == batch.group).to(batch.score.dtype)
        centred = batch.score - (same @ batch.score) / same.sum(1)
        return Advantages(advantage=centred[batch.sequence])

    def __call__(self, batch, step):
        ratio = (batch.token_logp - batch.old).exp()
        held = ratio.clamp(1.0 - self.clip, 1.0 + self.clip)
        tokens = -(ratio * batch.advantage).minimum(held * batch.advantage)
        return LossOutput(values=tokens.new_zeros(len(batch.lengths)).index_add(0, batch.sequence, tokens))


class GoodScores(Loss):
    """Bradley-Terry of an ensemble's scores."""

    reads = "scores"
    anchors = ()
    uses_beta = False

    def members(self, batch):
        chosen, rejected = batch.scores.reshape(-1, 2, batch.scores.shape[-1]).unbind(1)
        return -logsigmoid(chosen - rejected)

    def __call__(self, batch, step):
        values = self.members(batch)
        return LossOutput(values=(values if batch.share is None else batch.share * values).mean(-1))


class GoodExamples(Loss):
    """A sigmoid for each labelled completion."""

    rows = "examples"

    def sign(self, batch):
        return torch.where(batch.desirable, 1.0, -1.0).to(batch.policy.dtype)

    def __call__(self, batch, step):
        ratio = batch.policy - batch.anchors["ref"]
        return LossOutput(values=torch.sigmoid(-step.beta * ratio * self.sign(batch)))
