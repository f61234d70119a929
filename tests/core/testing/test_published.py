"""Methods as they were published pass, also where they do something unusual: the checks look for errors."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import logsigmoid, relu, softplus

from nashtune.errors import InputError
from nashtune.interfaces import Advantages, KLController, Loss, LossOutput
from nashtune.kl.fixed import scalar_beta
from nashtune.samplers.policy import PolicySampler
from nashtune.testing import ContractError, check_component, check_loss


class Pairwise(Loss):
    """A function of beta h_w and beta h_l."""

    def of(self, win, lose):
        raise NotImplementedError

    def __call__(self, batch, step):
        win, lose = (step.beta * ratio for ratio in batch.log_ratios())
        return LossOutput(values=self.of(win, lose))


class RobustDPO(Pairwise):
    """rDPO, arXiv:2403.00409."""

    def of(self, win, lose):
        flip, z = 0.1, win - lose
        return (-(1 - flip) * logsigmoid(z) + flip * logsigmoid(-z)) / (1 - 2 * flip)


class NCA(Pairwise):
    """Noise contrastive alignment, arXiv:2402.05369, as TRL writes it."""

    def of(self, win, lose):
        return -logsigmoid(win) - 0.5 * logsigmoid(-win) - 0.5 * logsigmoid(-lose)


class EXO(Pairwise):
    """Reverse KL between (1 - eps, eps) and the policy's preference, arXiv:2402.00856."""

    def of(self, win, lose):
        z, eps = win - lose, torch.tensor(1e-3, dtype=win.dtype)
        return torch.sigmoid(z) * (logsigmoid(z) - (1 - eps).log()) + torch.sigmoid(-z) * (logsigmoid(-z) - eps.log())


class DPOP(Loss):
    """DPO-Positive, arXiv:2402.13228: the chosen completion may not fall below the reference."""

    def __call__(self, batch, step):
        win, lose = batch.log_ratios()
        return LossOutput(values=-logsigmoid(step.beta * (win - lose - 5.0 * relu(-win))))


class RPO(Loss):
    """DPO and the negative log-likelihood per token, arXiv:2404.19733."""

    def __call__(self, batch, step):
        win, lose = batch.log_ratios()
        return LossOutput(values=-logsigmoid(step.beta * (win - lose)) - batch.policy_chosen / batch.len_chosen)


class WPO(Loss):
    """DPO weighed by how likely the pair is to the policy, held constant, arXiv:2406.11827."""

    detaches = True

    def __call__(self, batch, step):
        win, lose = batch.log_ratios()
        with torch.no_grad():
            likely = batch.policy_chosen / batch.len_chosen + batch.policy_rejected / batch.len_rejected
            weight = likely.exp().clamp(max=1.0)
        return LossOutput(values=-weight * logsigmoid(step.beta * (win - lose)))


class AlphaDPO(Loss):
    """SimPO with a margin from the reference, normalised over the batch and held constant, arXiv:2410.10148."""

    detaches = True
    compares_rows = True

    def __call__(self, batch, step):
        win, lose = batch.log_ratios()
        gap = (win - lose).detach()
        shift = (gap - gap.mean()) / (gap.std(correction=0) + 1e-4)
        z = step.beta * (batch.policy_chosen / batch.len_chosen - batch.policy_rejected / batch.len_rejected)
        return LossOutput(values=-logsigmoid(z - 0.5 - 0.1 * shift))


class BCO(Loss):
    """A classifier of pairs around the mean reward of the batch, held constant, arXiv:2404.04656."""

    detaches = True
    compares_rows = True

    def __call__(self, batch, step):
        win, lose = (step.beta * ratio for ratio in batch.log_ratios())
        delta = 0.5 * (win.mean() + lose.mean()).detach()
        return LossOutput(values=-logsigmoid(win - delta) - logsigmoid(delta - lose))


class RunningBCO(BCO):
    """BCO with a running mean over the optimiser steps in place of the batch's."""

    detaches = False
    compares_rows = False

    def __init__(self):
        self.delta = 0.0

    def __call__(self, batch, step):
        win, lose = (step.beta * ratio for ratio in batch.log_ratios())
        return LossOutput(
            values=-logsigmoid(win - self.delta) - logsigmoid(self.delta - lose),
            reward_chosen=win.detach(),
            reward_rejected=lose.detach(),
        )

    def observe(self, means):
        self.delta = 0.9 * self.delta + 0.05 * float(means["reward_chosen"] + means["reward_rejected"])

    def state_dict(self):
        return {"delta": self.delta}

    def load_state_dict(self, state):
        self.delta = float(state.get("delta", 0.0))


class KTOPair(Loss):
    """KTO on pairs: each side against the other's KL estimate over the batch, held constant (TRL's `kto_pair`)."""

    detaches = True
    compares_rows = True

    def __call__(self, batch, step):
        win, lose = batch.log_ratios()
        win_kl, lose_kl = (ratio.mean().clamp(min=0).detach() for ratio in (win, lose))
        values = 2.0 - torch.sigmoid(step.beta * (win - lose_kl)) - torch.sigmoid(step.beta * (win_kl - lose))
        return LossOutput(values=values)


class DiscoPOP(Pairwise):
    """Log-ratio modulated loss, arXiv:2406.08414."""

    def of(self, win, lose):
        z = win - lose
        modulation = torch.sigmoid(z / 0.05)
        return -logsigmoid(z) * (1 - modulation) + (-z).clamp(max=80.0).exp() * modulation


class TDPO(Loss):
    """Token-level DPO, arXiv:2404.11999: the margin minus the difference of the sequences' KL divergences."""

    def __call__(self, batch, step):
        win, lose = batch.log_ratios()
        gap = batch.statistics_rejected["token_kl"] - batch.statistics_chosen["token_kl"]
        return LossOutput(values=softplus(-step.beta * (win - lose - gap)))


class CISPO(Loss):
    """REINFORCE with a clipped ratio that is held constant, arXiv:2506.13585."""

    rows = "rollouts"
    anchors = ()
    uses_beta = False
    uses_old = True
    min_completions = 2
    mean_over = "tokens"
    detaches = True

    def advantages(self, batch, step):
        same = (batch.group[:, None] == batch.group).to(batch.score.dtype)
        return Advantages(advantage=(batch.score - (same @ batch.score) / same.sum(1))[batch.sequence])

    def __call__(self, batch, step):
        ratio = (batch.token_logp - batch.old).exp().clamp(max=1.2).detach()
        tokens = -ratio * batch.advantage * batch.token_logp
        return LossOutput(values=tokens.new_zeros(len(batch.lengths)).index_add(0, batch.sequence, tokens))


class BetaDPO(KLController):
    """beta-DPO, arXiv:2407.08639: one beta for a batch, by its mean margin over a running threshold.

    Args:
        beta: Where the margin is at the threshold, > 0 (ours).
    """

    anchors = ("ref",)
    rows = ("pairs",)
    compares_rows = True

    def __init__(self, *, beta: float = 0.1) -> None:
        self.base, self.threshold = beta, 0.0

    def margins(self, batch):
        from nashtune.errors import InputError

        if not hasattr(batch, "policy_chosen"):
            raise InputError("kl: beta_dpo is of pairs")
        chosen, rejected = batch.log_ratios()
        return (chosen - rejected).detach()

    def beta(self, batch):
        margin = self.margins(batch).mean()
        return (self.base * (1.0 + 0.6 * (margin - self.threshold))).clamp(min=1e-3)

    def report(self, batch, beta):
        return {"margin": self.margins(batch)}

    def observe(self, means):
        self.threshold = 0.9 * self.threshold + 0.1 * float(means["margin"])

    def state_dict(self):
        return {"threshold": self.threshold}

    def load_state_dict(self, state):
        self.threshold = float(state["threshold"])


class Scheduled(KLController):
    """One number, that falls to a floor with each optimiser step."""

    rows = ("pairs", "examples")
    value = 0.1

    def beta(self, batch):
        return scalar_beta(self.value, batch)

    def observe(self, means):
        self.value = max(0.01, 0.98 * self.value)

    def state_dict(self):
        return {"beta": self.value}

    def load_state_dict(self, state):
        self.value = float(state["beta"])


@pytest.mark.parametrize(
    "component",
    [RobustDPO, NCA, EXO, DPOP, RPO, WPO, AlphaDPO, BCO, RunningBCO, KTOPair, CISPO, BetaDPO, Scheduled],
    ids=lambda one: one.__name__,
)
def test_a_published_method_passes(component):
    check_component(component)


def test_a_sampler_without_chance_passes():
    check_component(PolicySampler, temperature=0.0)


def test_statistics_come_from_the_caller_where_no_spec_uses_the_loss():
    check_loss(TDPO, statistics=["token_kl"])
    with pytest.raises(ContractError, match=r"reads the statistic 'token_kl'.*statistics=\['token_kl'\]") as found:
        check_loss(TDPO)
    assert found.value.rule == "loss-declares"


def test_a_waiver_is_printed_with_its_reason(monkeypatch):
    said: list[str] = []
    monkeypatch.setattr("nashtune.testing.contract.note", said.append)
    with pytest.raises(ContractError) as found:
        check_component(DiscoPOP)
    assert found.value.rule == "loss-sign"
    check_component(DiscoPOP, waive={"loss-sign": "its slope at the start is that of the paper"})
    [line] = said
    assert "DiscoPOP breaks `loss-sign`: the gradient" in line and "Waived: its slope at the start" in line


@pytest.mark.parametrize(
    ("waive", "said"),
    [
        ({"loss-sign": "why not"}, "does not break loss-sign; take the waiver out"),
        ({"loss-sing": "why not"}, "the rule 'loss-sing' cannot be waived; did you mean 'loss-sign'?"),
        ({"constructs": "why not"}, "the rule 'constructs' cannot be waived; these can: loss-gradient"),
        ({"loss-sign": " "}, "has no reason"),
    ],
)
def test_a_waiver_that_waives_nothing_is_refused(waive, said):
    with pytest.raises(InputError, match=said.replace("?", r"\?")):
        check_component(RobustDPO, waive=waive)
