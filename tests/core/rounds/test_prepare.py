"""What reinforcement learning computes once before an update."""

from __future__ import annotations

import pytest
import torch

from nashtune.errors import InputError
from nashtune.interfaces import Advantages, KLController, Loss, LossBatch, LossOutput, RolloutBatch, Step
from nashtune.rounds.prepare import as_batch, prepare
from nashtune.rounds.rows import RolloutRow, collate


def rows() -> list[RolloutRow]:
    """Two prompts, unequal lengths; numbers that float32 holds exactly."""
    lengths, scores = (3, 1, 2), (1.0, -0.5, 0.25)
    return [
        RolloutRow(
            prompt_ids=(4, 5),
            token_ids=tuple(range(6, 6 + length)),
            score=score,
            where=f"completion {i}",
            variance=0.5 * i,
            group=i // 2,
            finished=i != 1,
            sampled_logp=(-1.0,) * length,
            per_token={"old": torch.full((length,), -1.0), "ref:ref": torch.full((length,), -1.5 + 0.25 * i)},
        )
        for i, (length, score) in enumerate(zip(lengths, scores, strict=True))
    ]


class Whole(Loss):
    """Gives every token its score times β, and remembers what it was asked with."""

    rows = "rollouts"

    def advantages(self, batch: RolloutBatch, step: Step) -> Advantages | None:
        assert step.beta is not None
        coefficient_S = batch.score * step.beta
        return Advantages(
            advantage=coefficient_S[batch.sequence], target=batch.old, metrics={"seen": batch.lengths.double()}
        )

    def __call__(self, batch: LossBatch, step: Step) -> LossOutput:
        raise AssertionError("advantages only")


class PerRollout(KLController):
    """β is one plus the variance, and the reward is doubled."""

    def beta(self, batch: LossBatch) -> torch.Tensor:
        assert isinstance(batch, RolloutBatch) and batch.variance is not None
        return 1.0 + batch.variance

    def reward(self, batch: RolloutBatch, beta: torch.Tensor) -> torch.Tensor:
        return 2.0 * batch.score

    def report(self, batch: LossBatch, beta: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"spread": beta - 1.0}


def test_flat_tensors_hold_completion_tokens_and_nothing_else() -> None:
    batch = as_batch(rows())
    assert batch.lengths.tolist() == [3, 1, 2] and batch.sequence.tolist() == [0, 0, 0, 1, 2, 2]
    assert batch.old is not None and batch.old.dtype == torch.float64 and len(batch.old) == 6
    assert batch.group is not None and batch.group.tolist() == [0, 0, 1]
    assert batch.finished is not None and batch.finished.tolist() == [True, False, True]
    assert batch.variance is not None and batch.variance.tolist() == [0.0, 0.5, 1.0]


def test_beta_reward_and_advantages_come_from_the_whole_round_and_travel_with_the_rows() -> None:
    prepared = prepare(rows(), Whole(), PerRollout(), 1)
    assert [row.beta for row in prepared.rows] == [1.0, 1.5, 2.0]
    coefficients = [row.per_token["advantage"].tolist() for row in prepared.rows]
    assert coefficients == [[2.0, 2.0, 2.0], [-1.5], [1.0, 1.0]]
    assert [row.score for row in prepared.rows] == [2.0, -1.0, 0.5], "the reward that is trained on"
    assert prepared.means["reward"] == pytest.approx(0.25), "the reward that was measured"
    batch = collate(prepared.rows, [2, 0])
    assert batch.per_token["advantage"].tolist() == [1.0, 1.0, 2.0, 2.0, 2.0]
    assert batch.beta is not None and batch.beta.tolist() == [2.0, 1.0]


def test_means_are_over_completions_and_their_own_tokens() -> None:
    means = prepare(rows(), Whole(), PerRollout(), 1).means
    assert means["reward"] == pytest.approx(0.25)
    assert means["variance"] == pytest.approx(0.5)
    assert means["length"] == 2.0 and means["finished"] == pytest.approx(2 / 3)
    assert means["kl_ref_k1"] == pytest.approx((3 * 0.5 + 1 * 0.25 + 2 * 0.0) / 3)
    k3 = [3 * (torch.e**-0.5 - 1 + 0.5), torch.e**-0.25 - 1 + 0.25, 0.0]
    assert means["kl_ref_k3"] == pytest.approx(sum(k3) / 3)
    assert means["sampler_gap"] == 0.0
    assert prepare(rows(), Whole(), PerRollout(), 1).observed == {"spread": pytest.approx(0.5)}
    assert means["beta"] == pytest.approx(1.5) and means["spread"] == pytest.approx(0.5) and means["seen"] == 2.0


def test_a_loss_that_cannot_work_with_the_rollouts_is_an_input_error() -> None:
    class Refuses(Whole):
        def advantages(self, batch: RolloutBatch, step: Step) -> Advantages | None:
            raise ValueError("a leave-one-out mean needs two completions of a prompt")

    with pytest.raises(InputError, match="round 4: a leave-one-out mean"):
        prepare(rows(), Refuses(), PerRollout(), 4)


def test_without_a_controller_rows_have_no_beta() -> None:
    class Plain(Whole):
        def advantages(self, batch: RolloutBatch, step: Step) -> Advantages | None:
            assert step.beta is None
            return Advantages(advantage=batch.score[batch.sequence])

    prepared = prepare(rows(), Plain(), None, 1)
    assert collate(prepared.rows, [0, 1]).beta is None


def test_a_loss_without_advantages_gets_the_controllers_reward_and_beta() -> None:
    class Itself(Whole):
        def advantages(self, batch: RolloutBatch, step: Step) -> Advantages | None:
            return None

    prepared = prepare(rows(), Itself(), PerRollout(), 1)
    assert [(row.score, row.beta) for row in prepared.rows] == [(2.0, 1.0), (-1.0, 1.5), (0.5, 2.0)]


def test_what_an_unfinished_completion_loses_comes_before_the_controllers_reward() -> None:
    class Cuts(Whole):
        def judged(self, batch: RolloutBatch) -> torch.Tensor:
            assert batch.finished is not None
            return batch.score.where(batch.finished, torch.tensor(-1.0, dtype=torch.float64))

    assert [row.score for row in prepare(rows(), Cuts(), PerRollout(), 1).rows] == [2.0, -2.0, 0.5]


def test_a_beta_that_is_no_tensor_is_named() -> None:
    class Number(PerRollout):
        def beta(self, batch: LossBatch) -> torch.Tensor:
            return 0.1  # type: ignore[return-value]  # what is tested

    with pytest.raises(InputError, match=r"kl Number: beta\(\) returns a tensor.*3 rows, and gave float"):
        prepare(rows(), Whole(), Number(), 1)


@pytest.mark.parametrize("value", [0.0, -1.0, float("nan"), float("inf")])
def test_a_beta_that_is_no_inverse_temperature_is_named(value: float) -> None:
    class Odd(PerRollout):
        def beta(self, batch: LossBatch) -> torch.Tensor:
            return torch.tensor([0.1, value, 0.1])

    with pytest.raises(InputError, match=rf"kl Odd: beta gave {value:g} in round 3; it must be > 0 and finite"):
        prepare(rows(), Whole(), Odd(), 3)
