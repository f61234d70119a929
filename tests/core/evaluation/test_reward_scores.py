from __future__ import annotations

from dataclasses import replace

import torch

from nashtune.evaluation.reward_scores import HeldOut, HeldOutScores
from nashtune.interfaces import LossOutput, TokenBatch
from nashtune.testing import token_batch
from nashtune.training.batches import score_batch

SIZES = [(0, 3), (0, 5), (0, 4), (0, 2), (0, 6), (0, 7)]  # three pairs: chosen, then rejected
SCORES = torch.arange(12, dtype=torch.float32).reshape(6, 2)


def output(batch: TokenBatch, scores_NK: torch.Tensor) -> LossOutput:
    return LossOutput(values=torch.zeros(len(batch)), scores=score_batch(batch, scores_NK).scores)


def columns(found: HeldOutScores | None) -> dict[str, list[object]]:
    assert found is not None
    return {name: getattr(found, name).tolist() for name in ("row", "place", "length", "scores")}


def test_sides_of_a_pair_stand_together_in_the_order_of_the_rows() -> None:
    batch = replace(token_batch(SIZES), rows=torch.tensor([4, 0, 2]))
    collected = HeldOut(comparisons=False)
    collected.update(batch, output(batch, SCORES))
    found = columns(collected.compute_and_reset())
    assert found["row"] == [0, 0, 2, 2, 4, 4] and found["place"] == [0, 1] * 3
    assert found["length"] == [5, 6, 4, 7, 3, 2]
    assert found["scores"] == [SCORES[i].tolist() for i in (1, 4, 2, 5, 0, 3)]


def test_micro_batches_change_nothing_and_a_reset_forgets() -> None:
    whole, split = HeldOut(comparisons=False), HeldOut(comparisons=False)
    batch = token_batch(SIZES)
    whole.update(batch, output(batch, SCORES))
    for i in (2, 0, 1):
        part = replace(token_batch([SIZES[i], SIZES[3 + i]]), rows=torch.tensor([i]))
        split.update(part, output(part, SCORES[[i, 3 + i]]))
    assert columns(whole.compute_and_reset()) == columns(split.compute_and_reset())
    assert whole.compute_and_reset() is None


def test_lists_of_unequal_sizes() -> None:
    batch = replace(token_batch(SIZES, kind="ranked"), rows=torch.tensor([7, 3]), sizes=torch.tensor([4, 2]))
    collected = HeldOut(comparisons=False)
    collected.update(batch, output(batch, SCORES))
    found = columns(collected.compute_and_reset())
    assert found["row"] == [3, 3, 7, 7, 7, 7] and found["place"] == [0, 1, 0, 1, 2, 3]
    assert found["length"] == [6, 7, 3, 5, 4, 2]


def test_ranks_come_along_and_scores_may_be_put_on_another_scale() -> None:
    batch = replace(token_batch(SIZES, kind="ranked"), rows=torch.tensor([7, 3]), sizes=torch.tensor([4, 2]))
    collected = HeldOut(comparisons=False)
    for levels in (None, torch.tensor([0, 1, 1, 2, 0, 1])):
        part = replace(batch, levels=levels)
        collected.update(part, output(part, SCORES))
        found = collected.compute_and_reset()
        assert found is not None and found.level is not None
        assert found.level.tolist() == [0, 1, 0, 1, *([2, 3] if levels is None else [1, 2])]
    scaled = found.rescaled([2.0, 0.5], [1.0, -1.0])
    torch.testing.assert_close(scaled.scores[:, 0], 2.0 * found.scores[:, 0] + 1.0)
    torch.testing.assert_close(scaled.scores[:, 1], 0.5 * found.scores[:, 1] - 1.0)


def test_one_score_of_one_pair_keeps_its_shape() -> None:
    batch = replace(token_batch(SIZES[:2]), p_chosen=torch.tensor([0.75]))
    collected = HeldOut(comparisons=False)
    collected.update(batch, output(batch, SCORES[:2, :1]))
    found = collected.compute_and_reset()
    assert found is not None and found.scores.shape == (2, 1) and found.p_chosen.tolist() == [0.75, 0.75]


def test_comparisons_are_the_log_odds_of_the_label_in_both_orders() -> None:
    batch = replace(token_batch(SIZES[:4]), rows=torch.tensor([3, 2]))
    said = LossOutput(
        values=torch.zeros(2), reward_chosen=torch.tensor([-0.5, -2.0]), reward_rejected=torch.tensor([-1.0, -0.25])
    )
    collected = HeldOut(comparisons=True)
    collected.update(batch, said)
    found = columns(collected.compute_and_reset())
    assert found["row"] == [1, 1] and found["place"] == [0, 1] and found["scores"] == [[-1.75], [0.5]]
