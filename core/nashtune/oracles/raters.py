"""Raters: a vote of several scorers. Each is transitive, their majority need not be."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from nashtune.data.texts import check_lengths
from nashtune.errors import InputError, nearest
from nashtune.interfaces.oracle import PreferenceOracle, Prompt, RewardOracle
from nashtune.oracles.compare import scores_of_pairs
from nashtune.oracles.probability import around_half
from nashtune.oracles.reward_model import RewardModelOracle
from nashtune.oracles.rules import NAMES, RulesOracle, parse_rule

MODEL = "reward_model:"
KNOWN = (*NAMES, "reward_model:FOLDER")


def make_rater(rater: str) -> RewardOracle:
    """The scorer behind a rater's name.

    Raises:
        InputError: it is no rule and no reward model.
    """
    if rater.startswith(MODEL):
        if not rater.removeprefix(MODEL):
            raise InputError(
                f"oracle.raters: {MODEL!r} has no folder; write one behind it, such as {MODEL}models/my-rm"
            )
        return RewardModelOracle(path=rater.removeprefix(MODEL))
    parse_rule(rater, "oracle.raters", KNOWN)
    return RulesOracle(rules=[rater])


class RatersOracle(PreferenceOracle):
    """P(y > y') is the share of raters that score y higher; a rater with equal scores gives half a vote to each side.

    With three or more raters the majority can run in a circle (Condorcet), which no single reward can express.

    Args:
        raters: One or more rules (`sentiment`, `length`, `brevity`, `distinct_N`, `regex:PATTERN`: see the oracle
            `rules`) or reward models (`reward_model:FOLDER`, with that oracle's defaults). One named twice has two
            votes.
    """

    def __init__(self, *, raters: list[str]) -> None:
        if not raters:
            raise InputError(f"oracle.raters: the list is empty{nearest('', (*NAMES, f'{MODEL}FOLDER'))}")
        made = {rater: make_rater(rater) for rater in raters}
        self.raters = [made[rater] for rater in raters]

    def prepare(self) -> None:
        """Prepares every rater.

        Raises:
            InputError: one cannot work.
        """
        for rater in dict.fromkeys(self.raters):
            rater.prepare()

    def counts(self) -> Mapping[str, int]:
        """The raters' own counts, added up."""
        total: Counter[str] = Counter()
        for rater in dict.fromkeys(self.raters):
            total.update(rater.counts())
        return total

    def compare(self, prompts: Sequence[Prompt], first: Sequence[str], second: Sequence[str]) -> Tensor:
        """Share of the votes for `first` (N,), float64."""
        lead_N = torch.zeros(check_lengths(prompts, first, second), dtype=torch.float64)
        for rater, votes in Counter(self.raters).items():
            one_N, other_N = scores_of_pairs(rater, prompts, first, second)
            lead_N += votes * torch.sign(one_N - other_N)
        return around_half(lead_N / (2 * len(self.raters)))
