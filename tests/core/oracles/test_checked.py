"""What anybody's oracle may get wrong is said at the first question, with its name."""

from __future__ import annotations

import pytest
import torch

from nashtune.errors import InputError
from nashtune.interfaces.oracle import PreferenceOracle, RewardOracle, Rewards
from nashtune.oracles.checked import compared, scored

ASKED = (["p", "p"], ["a", "bb"], ["c", "d"])


class Answers(PreferenceOracle):
    def __init__(self, given):
        self.given = given

    def compare(self, prompts, first, second):
        return self.given


class Scores(RewardOracle):
    def __init__(self, given):
        self.given = given

    def score(self, prompts, completions):
        return self.given


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (torch.tensor([0.5, 1.7]), r"gave 1\.7\d* for 'bb'"),
        (torch.tensor([-0.1, 0.5]), r"gave -0\.1\d* for 'a'"),
        (torch.tensor([0.5]), r"gave Tensor of shape \(1,\)"),
        ([0.5, 0.5], "gave list"),
        (None, "gave NoneType"),
    ],
)
def test_no_probabilities(given, said):
    with pytest.raises(InputError, match=rf"oracle Answers: compare\(\) returns a tensor of 2 .*{said}"):
        compared(Answers(given), *ASKED)


def test_probabilities_and_no_verdict_pass():
    found = compared(Answers(torch.tensor([0.25, float("nan")])), *ASKED)
    assert found.dtype == torch.float64 and found[0] == 0.25 and found[1].isnan()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (torch.tensor([0.5, 1.0]), "gave Tensor"),
        (Rewards(mean=torch.tensor([0.5])), "gave Rewards"),
        (Rewards(mean=torch.tensor([0.5, float("inf")])), "gave inf for 'bb'"),
        (Rewards(mean=torch.tensor([float("nan"), 1.0])), r"gave nan for 'a' \(prompt 'p'\)"),
        (Rewards(mean=torch.zeros(2), variance=torch.zeros(3)), r"gave a variance: Tensor of shape \(3,\)"),
        (Rewards(mean=torch.zeros(2), variance=torch.tensor([0.0, -1.0])), r"variances >= 0, and gave -1.0 for 'bb'"),
        (Rewards(mean=torch.zeros(2), variance=torch.tensor([torch.inf, 0.0])), "and gave inf for 'a'"),
        (Rewards(mean=torch.zeros(2), members=torch.zeros(2)), r"gave members: Tensor of shape \(2,\)"),
        (
            Rewards(mean=torch.zeros(2), members=torch.tensor([[0.0, 1.0], [2.0, torch.nan]])),
            r"finite members, and gave nan of member 1 for 'bb' \(prompt 'p'\)",
        ),
    ],
)
def test_no_rewards(given, said):
    with pytest.raises(InputError, match=rf"oracle Scores: score\(\) returns Rewards.*{said}"):
        scored(Scores(given), ["p", "p"], ["a", "bb"])
