"""KL controllers that keep every rule, to be broken in one way at a time."""

from __future__ import annotations

import math

import torch

from nashtune.interfaces import KLController


class Good(KLController):
    """Steers the KL divergence of rollouts to a target.

    Args:
        beta: Before the first update, > 0 (ours).
        gain: Largest change of log beta in one update (ours).
    """

    rows = ("rollouts",)
    anchors = ("ref",)

    def __init__(self, *, beta: float = 0.1, gain: float = 0.05) -> None:
        self.value, self.gain = beta, gain

    def beta(self, batch):
        return torch.tensor(self.value, dtype=batch.token_logp.dtype)

    def report(self, batch, beta):
        kl = batch.old - batch.anchors["ref"]
        return {"kl": kl.new_zeros(len(batch.lengths)).index_add(0, batch.sequence, kl)}

    def change(self, means):
        return self.gain * min(max(means["kl"] / 6.0 - 1.0, -1.0), 1.0)

    def observe_round(self, means, completions):
        self.value *= math.exp(self.change(means))

    def setpoint(self):
        return 6.0

    def state_dict(self):
        return {"beta": self.value}

    def load_state_dict(self, state):
        self.value = state["beta"]


class GoodPairs(KLController):
    """A number for any batch."""

    def logp(self, batch):
        names = ("policy_chosen", "policy", "token_logp")
        return next(getattr(batch, name) for name in names if hasattr(batch, name))

    def beta(self, batch):
        return torch.full((), 0.1, dtype=self.logp(batch).dtype)


class PerPair(GoodPairs):
    """A beta for each pair; it does not look whether it is given pairs."""

    rows = ("pairs",)

    def beta(self, batch):
        return 0.1 + batch.policy_chosen.detach().sigmoid()
