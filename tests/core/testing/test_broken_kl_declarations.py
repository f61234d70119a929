"""A KL controller is broken in what its class says of it: rows, statistics, anchors, attributes."""

from __future__ import annotations

import pytest
import torch

from good_kl import Good, GoodPairs, PerPair
from nashtune.errors import InputError
from nashtune.testing import check_component


class Unsaid(PerPair):
    """Does not say that it works on pairs alone."""

    rows = ()


class UnsaidRefusal(PerPair):
    """Refuses what it seems to work on."""

    rows = ("pairs", "rollouts")

    def beta(self, batch):
        if not hasattr(batch, "policy_chosen"):
            raise InputError("kl: pairs alone")
        return super().beta(batch)


class ByOption(UnsaidRefusal):
    """Works on rollouts with one of its options.

    Args:
        rollouts: Whether it does.
    """

    def __init__(self, *, rollouts: bool = False) -> None:
        self.rollouts = rollouts

    def beta(self, batch):
        return GoodPairs.beta(self, batch) if self.rollouts else super().beta(batch)


class OddRows(GoodPairs):
    """Works on rows that nobody has."""

    rows = ("pears",)


class OneWord(GoodPairs):
    """Says it as a loss does."""

    rows = "pairs"


class Unmoved(GoodPairs):
    """Is told of rollouts alone, and says that it works on all."""

    def observe_round(self, means, completions):
        pass


class ScalarCompares(PerPair):
    """One beta for the batch, of its mean."""

    compares_rows = True

    def beta(self, batch):
        return super().beta(batch).mean()


class UnreadRows(PerPair):
    """Says that it compares pairs, and it does not."""

    compares_rows = True


class Statistics(PerPair):
    """Reads a statistic of the vocabulary."""

    statistics = ("entropy",)

    def token_statistics(self, policy_logits_MV, ref_logits_MV, targets_M):
        policy = policy_logits_MV.detach().softmax(-1)
        return {"entropy": torch.special.entr(policy).sum(-1)}


class OtherStatistics(Statistics):
    """Gives it under another name."""

    def token_statistics(self, policy_logits_MV, ref_logits_MV, targets_M):
        return {"entropie": super().token_statistics(policy_logits_MV, ref_logits_MV, targets_M)["entropy"]}


class TileStatistics(Statistics):
    """Centres over the tokens at hand."""

    def token_statistics(self, policy_logits_MV, ref_logits_MV, targets_M):
        found = super().token_statistics(policy_logits_MV, ref_logits_MV, targets_M)["entropy"]
        return {"entropy": found - found.mean()}


class ByVariance(GoodPairs):
    """Reads a variance that it does not declare."""

    def beta(self, batch):
        variance = getattr(batch, "variance", None)
        return super().beta(batch) * (1.0 if variance is None else 2.0)


class OtherAnchor(Good):
    """Reads an anchor that it does not declare."""

    anchors = ()

    def beta(self, batch):
        return super().beta(batch) + 0.0 * batch.anchors["ref"].sum()


class OldName(Good):
    """Says what it works on as an earlier version did."""

    needs_rollouts = True


class UnreadVariance(Good):
    """Declares a variance that it never reads."""

    uses_variance = True


@pytest.mark.parametrize("controller", [ByOption, ScalarCompares, Statistics])
def test_a_good_one_passes(controller):
    check_component(controller)


@pytest.mark.parametrize(
    ("rule", "controller", "said"),
    [
        ("kl-statistics", OtherStatistics, "gave entropie, and `statistics` declares entropy"),
        ("kl-statistics", TileStatistics, "depends on the tokens beside it"),
        ("kl-declares", ByVariance, "uses_variance is not declared"),
        ("kl-declares", OtherAnchor, "it reads 'ref', and `anchors` declares none"),
        ("kl-declares", UnreadRows, "it declares compares_rows"),
        ("runs", Unsaid, "beta for examples raised AttributeError"),
        ("runs", Unsaid, "let the class say which, such as rows = ('pairs',)"),
        ("kl-declares", UnsaidRefusal, "it refuses rollouts (kl: pairs alone), and `rows` declares pairs and rollouts"),
        ("kl-declares", Unmoved, "it moves in observe_round, which is not called for pairs and examples"),
        ("attributes", OldName, "OldName.needs_rollouts is read by nobody; write rows = ('rollouts',) in its place"),
        ("attributes", OddRows, "rows is ('pears',); it names some of pairs, examples, rollouts"),
        ("attributes", OneWord, "rows is 'pairs'; it is a tuple of names, such as ('ref',)"),
        ("kl-declares", UnreadVariance, "it declares uses_variance"),
    ],
)
def test_a_broken_one_is_found(rule, controller, said, finds):
    assert said in finds(rule, controller)
