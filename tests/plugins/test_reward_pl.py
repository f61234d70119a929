"""Plackett-Luce: the likelihood of a ranking. Scores [0.5, 1.5, -0.2, 0.1], ranked 1, 0, 3, 2: loss 1.9138628898."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import permutations

import pytest
import torch
from torch.nn.functional import cross_entropy

from method_batches import assert_digits, column
from nashtune.interfaces import ScoreBatch, Step
from nashtune_plugins.reward_bt import RewardBTLoss
from nashtune_plugins.reward_pl import RewardPLLoss, plackett_luce
from reward_numbers import BEST_OF_FOUR, FOUR, FOUR_RANKED

RANKING = [1, 0, 3, 2]


def of_lists(*lists) -> ScoreBatch:
    scores = torch.cat([column(one) for one in lists]).unsqueeze(-1)
    return ScoreBatch(scores=scores.requires_grad_(), sizes=torch.tensor(list(map(len, lists))))


def slopes(values, batch) -> torch.Tensor:
    (grad,) = torch.autograd.grad(values.sum(), batch.scores)
    return grad


def test_published_numbers():
    batch = of_lists(*FOUR_RANKED)
    output = RewardPLLoss()(batch, Step())
    assert_digits(output.values, [1.9138628898])
    in_ranked_order = slopes(output.values, batch).flatten()
    as_printed = torch.empty(4, dtype=torch.float64)
    as_printed[RANKING] = in_ranked_order
    assert_digits(as_printed, [-0.3338119294, -0.4435664941, 0.7563766886, 0.0210017350])
    assert (output.reward_chosen.item(), output.reward_rejected.item()) == (1.5, -0.2)
    assert output.metrics["best_first"].item() == 1.0


def test_published_numbers_of_the_best_alone():
    assert_digits(RewardPLLoss(top_1=True)(of_lists(*FOUR_RANKED), Step()).values, [0.5862076017])
    batch = of_lists(*BEST_OF_FOUR)
    output = RewardPLLoss(top_1=True)(batch, Step())
    assert_digits(output.values, [0.7191007284])
    printed = [-0.512809824682, 0.241931481215, 0.108706821842, 0.162171521625]
    torch.testing.assert_close(slopes(output.values, batch).flatten(), column(printed), rtol=0, atol=1e-12)


def test_the_best_alone_is_softmax_cross_entropy():
    scores = torch.randn(5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = plackett_luce(scores.unsqueeze(-1), top_1=True)
    torch.testing.assert_close(found.squeeze(), cross_entropy(scores, torch.tensor(0)))


LEVELS = torch.tensor([0, 1, 1, 2])


def test_equal_ranks_share_a_denominator():
    """Breslow's form by hand: the first among all four, each of the two tied ones among three, the last from itself."""
    a, b, c, d = 1.0, 0.3, 0.6, -0.2
    among = [math.log(sum(math.exp(r) for r in rest)) for rest in ((a, b, c, d), (b, c, d))]
    expected = (among[0] - a) + (2 * among[1] - b - c)
    batch = replace(of_lists([a, b, c, d]), levels=LEVELS)
    output = RewardPLLoss()(batch, Step())
    assert output.values.item() == pytest.approx(expected, abs=1e-14)
    turned = RewardPLLoss()(replace(of_lists([a, c, b, d]), levels=LEVELS), Step())
    assert turned.values.item() == pytest.approx(expected, abs=1e-14)
    assert abs(slopes(output.values, batch).sum().item()) < 1e-14


def test_a_tie_at_the_end_leaves_which_answer_is_best():
    lists, levels = of_lists([0.9, 0.3, -0.1, 0.4]), torch.tensor([0, 1, 1, 1])
    tied = RewardPLLoss()(replace(lists, levels=levels), Step())
    best = RewardPLLoss(top_1=True)(lists, Step())
    torch.testing.assert_close(tied.values, best.values, rtol=0, atol=1e-14)


def test_several_best_answers_share_the_first_place():
    batch = replace(of_lists([0.1, 0.8, 0.5]), levels=torch.tensor([0, 0, 1]))
    output = RewardPLLoss(top_1=True)(batch, Step())
    target = torch.tensor([0.5, 0.5, 0.0], dtype=torch.float64)
    torch.testing.assert_close(output.values[0], cross_entropy(batch.scores[:, 0], target), rtol=0, atol=1e-14)
    assert output.metrics["best_first"].tolist() == [1.0], "one of the two has the highest score"


def test_ranks_that_all_differ_change_nothing():
    for loss in (RewardPLLoss(), RewardPLLoss(top_1=True)):
        plain, ranked = of_lists(*FOUR_RANKED), of_lists(*FOUR_RANKED)
        here, there = loss(plain, Step()), loss(replace(ranked, levels=torch.arange(4)), Step())
        assert torch.equal(here.values, there.values)
        torch.testing.assert_close(slopes(here.values, plain), slopes(there.values, ranked), rtol=0, atol=1e-15)


def test_two_answers_are_bradley_terry():
    lists = of_lists(*zip(*FOUR.values(), strict=True))
    pairs = RewardBTLoss()(lists, Step())
    for loss in (RewardPLLoss(), RewardPLLoss(top_1=True)):
        output = loss(lists, Step())
        torch.testing.assert_close(output.values, pairs.values, rtol=0, atol=1e-14)
        assert torch.equal(output.reward_chosen, pairs.reward_chosen)
        assert torch.equal(output.reward_rejected, pairs.reward_rejected)


def test_probabilities_of_all_rankings_sum_to_1():
    scores = torch.randn(4, 2, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    total = sum((-plackett_luce(scores[list(order)])).exp() for order in permutations(range(4)))
    torch.testing.assert_close(total, torch.ones(2, dtype=torch.float64))


def test_equal_scores_make_every_order_equally_likely():
    batch = of_lists([0.7, 0.7, 0.7])
    values = RewardPLLoss()(batch, Step()).values
    torch.testing.assert_close(values.detach(), column([6.0]).log())  # 3! rankings, each as likely


def test_a_constant_of_the_prompt_changes_nothing():
    here = RewardPLLoss()(of_lists([1.0, 0.2, -0.3]), Step()).values
    there = RewardPLLoss()(of_lists([41.0, 40.2, 39.7]), Step()).values
    torch.testing.assert_close(here, there, rtol=0, atol=1e-12)


@pytest.mark.parametrize("top_1", [False, True])
def test_gradients_equal_numerical_ones_and_members_learn_alone(top_1):
    scores = torch.randn(7, 2, generator=torch.Generator().manual_seed(3), dtype=torch.float64, requires_grad=True)
    sizes, share = torch.tensor([4, 3]), column([[2.0, 0.0], [0.5, 1.5]])
    loss = RewardPLLoss(top_1=top_1)

    def values(at: torch.Tensor) -> torch.Tensor:
        return loss(ScoreBatch(scores=at, sizes=sizes, share=share), Step()).values

    assert torch.autograd.gradcheck(values, (scores,))
    (grad,) = torch.autograd.grad(values(scores).sum(), scores)
    assert bool((grad[:4, 1] == 0).all()) and bool((grad[4:] != 0).all())
    both = [loss(ScoreBatch(scores=scores[:, k : k + 1], sizes=sizes), Step()).values for k in (0, 1)]
    torch.testing.assert_close(values(scores), (share[:, 0] * both[0] + share[:, 1] * both[1]) / 2)


def test_far_scores_stay_finite():
    batch = of_lists([-1e4, 0.0, 1e4])
    values = RewardPLLoss()(batch, Step()).values
    assert values.tolist() == [3e4]
    torch.testing.assert_close(slopes(values, batch).flatten(), column([-1.0, -1.0, 2.0]))


def test_values_keep_the_dtype_of_the_scores():
    scores = torch.tensor([[1.0], [0.5], [0.2]], requires_grad=True)
    output = RewardPLLoss()(ScoreBatch(scores=scores, sizes=torch.tensor([3])), Step())
    assert output.values.dtype == torch.float32 and output.values.requires_grad
    assert not output.reward_chosen.requires_grad and not output.metrics["best_first"].requires_grad
