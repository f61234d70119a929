"""Bradley-Terry reward losses: -log sigma(r_w - r_l) and what may be added to it."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.nn.functional import logsigmoid

from method_batches import assert_digits, column
from nashtune.interfaces import LossOutput, ScoreBatch, Step
from nashtune.spec.resolve import resolve
from nashtune_plugins.reward_bt import RewardBTLoss, RewardBTRankedLoss, bradley_terry
from reward_numbers import FOUR, GRADED, GRADES, MARGINS, RANKED


def of_pairs(chosen, rejected, **more) -> ScoreBatch:
    """Pairs with one score each, or (L, K) scores."""
    sides = [torch.as_tensor(side, dtype=torch.float64) for side in (chosen, rejected)]
    sides = [side if side.ndim == 2 else side.unsqueeze(-1) for side in sides]
    scores_NK = torch.stack(sides, dim=1).flatten(0, 1).requires_grad_()
    return ScoreBatch(scores=scores_NK, sizes=torch.full((len(sides[0]),), 2), **more)


def of_lists(*lists, members: int = 1) -> ScoreBatch:
    scores = torch.cat([column(one) for one in lists]).unsqueeze(-1).repeat(1, members)
    return ScoreBatch(scores=scores.requires_grad_(), sizes=torch.tensor(list(map(len, lists))))


def four(**more) -> ScoreBatch:
    return of_pairs(*FOUR.values(), **more)


def slopes(output: LossOutput, batch: ScoreBatch) -> torch.Tensor:
    """Gradient of the sum of the values with respect to the scores (N, K)."""
    (grad,) = torch.autograd.grad(output.values.sum(), batch.scores)
    return grad


def run(loss, batch: ScoreBatch) -> tuple[LossOutput, torch.Tensor, torch.Tensor]:
    """The output, and d/dr_c and d/dr_r of pairs (L,)."""
    output = loss(batch, Step())
    chosen, rejected = slopes(output, batch).reshape(-1, 2).unbind(1)
    return output, chosen, rejected


def test_published_numbers_of_the_plain_loss():
    output, chosen, rejected = run(RewardBTLoss(), four())
    assert_digits(output.values, [0.4740769842, 1.0374879505, 0.3132616875, 0.6931471806])
    assert_digits(chosen, [-0.3775406688, -0.6456563062, -0.2689414214, -0.5])
    assert torch.equal(rejected, -chosen)
    assert output.reward_chosen.tolist() == FOUR["score_chosen"]
    assert output.reward_rejected.tolist() == FOUR["score_rejected"]


def test_published_numbers_with_a_margin():
    output, chosen, rejected = run(RewardBTLoss(), four(margin=column(MARGINS)))
    assert_digits(output.values, [0.4740769842, 1.3873353251, 0.6931471806, 0.8259394199])
    assert_digits(chosen, [-0.3775406688, -0.7502601056, -0.5, -0.5621765009])
    assert torch.equal(rejected, -chosen)


def test_published_numbers_with_label_smoothing():
    output, chosen, _ = run(RewardBTLoss(label_smoothing=0.1), four())
    assert_digits(output.values, [0.5240769842, 0.9774879505, 0.4132616875, 0.6931471806])
    assert_digits(chosen, [-0.2775406688, -0.5456563062, -0.1689414214, -0.4])


def test_published_numbers_with_margin_and_centring():
    """The pull to the middle is added to both sides with the same sign, so that the two gradients differ."""
    output, chosen, rejected = run(RewardBTLoss(centring=0.01), four(margin=column(MARGINS)))
    assert_digits(output.values, [0.5101769842, 1.4017353251, 0.7331471806, 0.9859394199])
    assert output.values.mean().item() == pytest.approx(0.9077497274, abs=1e-10)
    assert_digits(chosen, [-0.3395406688, -0.7262601056, -0.54, -0.4821765009])
    assert_digits(rejected, [0.4155406688, 0.7742601056, 0.46, 0.6421765009])


def test_published_numbers_of_graded_pairs():
    plain, chosen, _ = run(RewardBTLoss(), of_pairs(*GRADED.values()))
    assert_digits(plain.values, [0.3132616875, 0.8543552445, 0.3132616875, 0.6931471806])
    assert plain.values.mean().item() == pytest.approx(0.543506450016, abs=1e-12)
    assert_digits(chosen / 4, [-0.0672353553, -0.1436106292, -0.0672353553, -0.125])
    margin, chosen, _ = run(RewardBTLoss(), of_pairs(*GRADED.values(), margin=column(GRADES)))
    assert_digits(margin.values, [0.6931471806, 1.0591365140, 0.3132616875, 1.3132616875])
    assert_digits(chosen, [-0.5, -0.6532449007, -0.2689414214, -0.7310585786])
    centred, chosen, rejected = run(RewardBTLoss(centring=0.01), of_pairs(*GRADED.values()))
    assert_digits(centred.values, [0.3328616875, 0.8624552445, 0.3532616875, 0.7187471806])
    assert_digits(chosen, [-0.2409414214, -0.5564425168, -0.3089414214, -0.468])
    assert_digits(rejected, [0.2969414214, 0.5924425168, 0.2289414214, 0.532])


def test_published_numbers_of_open_assistants_loss():
    batch = of_lists(*RANKED)
    output = RewardBTRankedLoss(score_l2=0.001)(batch, Step())
    assert_digits(output.values, [0.3624387013, 0.9135452524])
    assert output.values.mean().item() == pytest.approx(0.6379919769, abs=1e-10)
    printed = [-0.0870317560, -0.0111858583, 0.0985176143, -0.2990938301, 0.2997938301]
    assert_digits(slopes(output, batch).flatten() / 2, printed)  # of the mean over the two conversations
    assert output.reward_chosen.tolist() == [1.0, 0.5] and output.reward_rejected.tolist() == [-0.3, 0.9]
    assert output.metrics["pairs_right"].tolist() == [1.0, 0.0]


def test_pairs_of_a_prompt_are_averaged_within_it():
    """Three answers: -log sigma of 0.8, 1.3 and 0.5, and their mean."""
    (value,) = RewardBTRankedLoss()(of_lists([1.0, 0.2, -0.3]), Step()).values
    parts = [0.371100665948, 0.241008453833, 0.474076984180]
    assert value.item() == pytest.approx(sum(parts) / 3, abs=1e-12)
    assert value.item() == pytest.approx(0.362062034654, abs=1e-12)


def test_equal_ranks_are_compared_with_the_others_and_not_with_one_another():
    """One best answer and three of equal rank, as of one right and three wrong ones: three pairs, and the file's order
    of the three says nothing."""
    scores, levels = [1.0, 0.2, -0.3, 0.7], torch.tensor([0, 1, 1, 1])
    batch = of_lists(scores)
    output = RewardBTRankedLoss(score_l2=0.1)(replace(batch, levels=levels), Step())
    pairs = RewardBTLoss(score_l2=0.1)(of_pairs([1.0] * 3, scores[1:]), Step())
    torch.testing.assert_close(output.values, pairs.values.mean(0, keepdim=True), rtol=0, atol=1e-14)
    assert output.metrics["pairs_right"].tolist() == [1.0]
    turned = RewardBTRankedLoss(score_l2=0.1)(replace(of_lists([1.0, 0.7, -0.3, 0.2]), levels=levels), Step())
    torch.testing.assert_close(turned.values, output.values, rtol=0, atol=1e-14)
    two = RewardBTRankedLoss()(replace(of_lists([0.1, 0.4, 0.3]), levels=torch.tensor([0, 0, 1])), Step())
    assert two.metrics["pairs_right"].tolist() == [0.5], "0.1 < 0.3 < 0.4"


def test_ranks_that_all_differ_change_nothing():
    plain, ranked = of_lists(*RANKED), of_lists(*RANKED)
    here = RewardBTRankedLoss()(plain, Step())
    there = RewardBTRankedLoss()(replace(ranked, levels=torch.tensor([0, 1, 2, 0, 1])), Step())
    assert torch.equal(here.values, there.values) and torch.equal(slopes(here, plain), slopes(there, ranked))


def test_lists_of_two_are_pairs():
    chosen, rejected = FOUR.values()
    lists = RewardBTRankedLoss(score_l2=0.3)(of_lists(*zip(chosen, rejected, strict=True)), Step())
    pairs = RewardBTLoss(score_l2=0.3)(four(), Step())
    assert torch.equal(lists.values, pairs.values)
    assert torch.equal(lists.reward_chosen, pairs.reward_chosen)
    assert torch.equal(lists.reward_rejected, pairs.reward_rejected)
    assert lists.metrics["pairs_right"].tolist() == [1.0, 0.0, 1.0, 0.5]


def test_a_constant_of_the_prompt_changes_nothing_without_penalties():
    shift = column([3.0, -7.0, 0.25, 40.0])
    moved = of_pairs(*(column(side) + shift for side in FOUR.values()), margin=column(MARGINS))
    here, *_ = run(RewardBTLoss(label_smoothing=0.2), four(margin=column(MARGINS)))
    there, *_ = run(RewardBTLoss(label_smoothing=0.2), moved)
    torch.testing.assert_close(there.values, here.values, rtol=0, atol=1e-13)
    for loss in (RewardBTLoss(centring=0.01), RewardBTLoss(score_l2=0.001)):
        assert (run(loss, moved)[0].values - run(loss, four(margin=column(MARGINS)))[0].values).abs().max() > 1e-2


def test_gradients_of_a_pair_sum_to_0_without_penalties():
    p = column([1.0, 0.75, 0.3, 0.0])
    _, chosen, rejected = run(RewardBTLoss(label_smoothing=0.1), four(margin=column(MARGINS), p_chosen=p))
    assert torch.equal(chosen + rejected, torch.zeros(4, dtype=torch.float64))


def test_gradients_equal_numerical_ones():
    noise = torch.Generator().manual_seed(0)
    scores = torch.randn(6, 3, generator=noise, dtype=torch.float64, requires_grad=True)
    margin, p = torch.rand(2, 3, generator=noise, dtype=torch.float64)
    sizes, share = torch.tensor([2, 2, 2]), torch.rand(3, 3, generator=noise, dtype=torch.float64)
    loss = RewardBTLoss(label_smoothing=0.1, centring=0.02, score_l2=0.01)

    def values(at):
        return loss(ScoreBatch(scores=at, sizes=sizes, margin=margin, p_chosen=p, share=share), Step()).values

    assert torch.autograd.gradcheck(values, (scores,))
    ranked = RewardBTRankedLoss(score_l2=0.01)
    lists = torch.tensor([4, 2])
    assert torch.autograd.gradcheck(lambda at: ranked(ScoreBatch(scores=at, sizes=lists), Step()).values, (scores,))


def test_far_right_and_far_wrong_pairs_stay_finite():
    output, chosen, _ = run(RewardBTLoss(), of_pairs([1e4, -1e4], [-1e4, 1e4]))
    assert output.values.tolist() == [0.0, 2e4]
    assert chosen.tolist() == [0.0, -1.0]  # a capped logarithm would lose the second one's gradient


def test_smoothing_of_one_half_has_its_minimum_at_the_margin():
    gap = torch.linspace(-3, 3, 601, dtype=torch.float64).unsqueeze(-1)
    margin = torch.full((601,), 0.5, dtype=torch.float64)
    values = bradley_terry(gap, torch.zeros_like(gap), margin_L=margin, label_smoothing=0.5)
    assert gap[values.argmin()].item() == pytest.approx(0.5)
    with pytest.raises(ValueError, match=r"v<0\.5"):
        RewardBTLoss(label_smoothing=0.5)


def test_soft_labels_mix_the_two_labels():
    p = column([1.0, 0.75, 0.5, 0.0])
    gap = column(FOUR["score_chosen"]) - column(FOUR["score_rejected"])
    soft = run(RewardBTLoss(), four(p_chosen=p))[0].values
    torch.testing.assert_close(soft, -p * logsigmoid(gap) - (1 - p) * logsigmoid(-gap))
    smoothed = run(RewardBTLoss(label_smoothing=0.1), four())[0].values
    assert torch.equal(run(RewardBTLoss(), four(p_chosen=column([0.9] * 4)))[0].values, smoothed)


def test_members_learn_alone_and_the_value_is_their_mean():
    noise = torch.Generator().manual_seed(1)
    chosen, rejected = torch.randn(2, 5, 3, generator=noise, dtype=torch.float64)
    loss = RewardBTLoss(centring=0.01)
    batch = of_pairs(chosen, rejected)
    together = loss(batch, Step())
    alone = [loss(of_pairs(chosen[:, k], rejected[:, k]), Step()) for k in range(3)]
    torch.testing.assert_close(together.values, torch.stack([one.values for one in alone]).mean(0))
    torch.testing.assert_close(together.reward_chosen, chosen.mean(-1))
    grad = slopes(together, batch)
    for k in range(3):
        single = of_pairs(chosen[:, k], rejected[:, k])
        torch.testing.assert_close(grad[:, k : k + 1] * 3, slopes(loss(single, Step()), single))


def test_equal_members_are_one():
    one, three = four(), of_pairs(*(column(side).unsqueeze(-1).repeat(1, 3) for side in FOUR.values()))
    torch.testing.assert_close(RewardBTLoss()(three, Step()).values, RewardBTLoss()(one, Step()).values)


def test_a_member_without_a_share_learns_nothing_from_a_pair():
    chosen, rejected = (column(side).unsqueeze(-1).repeat(1, 2) for side in FOUR.values())
    share = column([[2.0, 0.0], [0.0, 2.0], [2.0, 2.0], [0.0, 0.0]])
    batch = of_pairs(chosen, rejected, share=share)
    output = RewardBTLoss()(batch, Step())
    plain = run(RewardBTLoss(), four())[0].values
    torch.testing.assert_close(output.values, plain * column([1.0, 1.0, 2.0, 0.0]))
    grad = slopes(output, batch).reshape(4, 2, 2)
    assert torch.equal(grad.abs().sum(1) > 0, share > 0)
    lists = of_lists([1.0, 0.2, -0.3], members=2)
    ranked = ScoreBatch(scores=lists.scores, sizes=lists.sizes, share=column([[0.0, 2.0]]))
    assert slopes(RewardBTRankedLoss()(ranked, Step()), lists)[:, 0].tolist() == [0.0, 0.0, 0.0]


def test_a_pair_does_not_depend_on_its_batch_mates():
    for loss in (RewardBTLoss(), RewardBTRankedLoss()):
        together = loss(four(), Step()).values
        for i, side in enumerate(zip(*FOUR.values(), strict=True)):
            assert torch.equal(loss(of_pairs([side[0]], [side[1]]), Step()).values, together[i : i + 1])


def test_values_keep_the_dtype_of_the_scores():
    for dtype in (torch.float32, torch.float64):
        batch = four(margin=torch.tensor(MARGINS), p_chosen=torch.tensor([1.0, 0.5, 0.2, 0.9]))
        batch = ScoreBatch(**{**vars(batch), "scores": batch.scores.detach().to(dtype).requires_grad_()})
        output = RewardBTLoss(centring=0.01)(batch, Step())
        assert output.values.dtype == dtype and output.values.requires_grad
        assert not output.reward_chosen.requires_grad and output.reward_chosen.dtype == dtype


def test_the_ensemble_of_heads_is_this_loss_with_ten_members():
    spec = resolve("reward_ensemble_heads")
    assert spec.loss.name == "reward_bt" and spec.loss.args == resolve("reward_bt").loss.args
    assert spec.head is not None and (spec.head.members, spec.head.own_order) == (10, True)
