"""A vote of raters."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from nashtune.errors import InputError
from nashtune.interfaces.oracle import RewardOracle, Rewards
from nashtune.oracles.raters import RatersOracle
from nashtune.oracles.reward_model import RewardModelOracle

# Three raters, each of which counts one letter, rank three answers in a circle:
#   a's: 3 2 1,   b's: 1 3 2,   c's: 2 1 3
CYCLE = ["aaabcc", "aabbbc", "abbccc"]
RATERS = ["regex:a", "regex:b", "regex:c"]


def matrix(oracle: RatersOracle, answers: list[str]) -> torch.Tensor:
    n = len(answers)
    pairs = list(itertools.product(range(n), repeat=2))
    first, second = ([answers[pair[side]] for pair in pairs] for side in (0, 1))
    return oracle.compare(["?"] * len(pairs), first, second).view(n, n)


def test_three_raters_make_a_condorcet_cycle():
    p = matrix(RatersOracle(raters=RATERS), CYCLE)
    third = torch.tensor(1 / 3, dtype=torch.float64)
    expected = torch.tensor([[0.5, 2 / 3, 1 / 3], [1 / 3, 0.5, 2 / 3], [2 / 3, 1 / 3, 0.5]], dtype=torch.float64)
    torch.testing.assert_close(p, expected, rtol=0, atol=1e-15)
    assert p[0, 1] > 0.5 and p[1, 2] > 0.5 and p[2, 0] > 0.5  # no reward orders these
    # By symmetry the Nash policy is uniform: against it every answer wins half of the time.
    torch.testing.assert_close(p @ third.expand(3), torch.full((3,), 0.5, dtype=torch.float64), rtol=0, atol=1e-15)


def test_unequal_votes_move_the_nash_policy_as_calculated_by_hand():
    # One more vote for the a-rater: P(1>2) = 3/4, P(2>3) = 3/4, P(3>1) = 1/2 with four votes. Answers 1 and 3 tie, 1
    # beats 2 and 2 beats 3: nobody beats answer 1, and answer 3 loses to 2, so the Nash policy is answer 1.
    p = matrix(RatersOracle(raters=[*RATERS, "regex:a"]), CYCLE).numpy()
    np.testing.assert_array_equal(p, [[0.5, 0.75, 0.5], [0.25, 0.5, 0.75], [0.5, 0.25, 0.5]])
    nash = np.array([1.0, 0.0, 0.0])
    assert (p @ nash).max() == 0.5


def test_a_tie_is_half_a_vote():
    oracle = RatersOracle(raters=["regex:a", "regex:b"])
    assert oracle.compare(["?"], ["aab"], ["ab"]).item() == 0.75
    assert oracle.compare(["?"], ["ab"], ["ba"]).item() == 0.5


def test_swapping_gives_exactly_one_minus():
    oracle = RatersOracle(raters=RATERS)
    p = oracle.compare(["?"] * 2, CYCLE[:2], CYCLE[1:])
    swapped = oracle.compare(["?"] * 2, CYCLE[1:], CYCLE[:2])
    assert torch.equal(1 - p, swapped) and torch.equal(1 - swapped, p)


def test_the_demonstration_raters_disagree():
    oracle = RatersOracle(raters=["sentiment", "brevity", "distinct_2"])
    oracle.prepare()
    long = "It is a lovely, lovely, lovely day and it is a lovely day."
    assert oracle.compare(["?"], [long], ["A grey day."]).item() == pytest.approx(1 / 3)


def test_each_rater_scores_a_text_once():
    class Counting(RewardOracle):
        seen: list[str]

        def score(self, prompts, completions):
            self.seen = list(completions)
            return Rewards(mean=torch.zeros(len(completions)))

    oracle = RatersOracle(raters=["length"])
    counting = Counting()
    oracle.raters = [counting]
    oracle.compare(["p", "p", "q"], ["x", "x", "x"], ["y", "z", "y"])
    assert sorted(counting.seen) == ["x", "x", "y", "y", "z"]  # of p: x, y, z; of q: x, y


def test_reward_models_can_rate(tmp_path):
    oracle = RatersOracle(raters=["brevity", f"reward_model:{tmp_path}"])
    assert isinstance(oracle.raters[1], RewardModelOracle) and oracle.raters[1].path == str(tmp_path)
    with pytest.raises(InputError, match=r"has no config\.json"):
        oracle.prepare()


@pytest.mark.parametrize(
    ("raters", "words"),
    [
        (["brevty"], "oracle.raters: no rule 'brevty'; did you mean 'brevity'? (known: "),
        (["brevty"], "reward_model:FOLDER"),
        (["reward_model:"], "has no folder"),
        ([], "the list is empty"),
    ],
)
def test_wrong_raters_are_refused(raters, words):
    with pytest.raises(InputError) as caught:
        RatersOracle(raters=raters)
    assert words in str(caught.value)
