from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import ClassVar

import numpy as np
import pytest
import torch

from nashtune.errors import CheckFailed, InputError
from nashtune.games import find_game
from nashtune.games.matrices import from_upper, make_game
from nashtune.games.population import Population
from nashtune.interfaces import KLController, Loss, LossBatch, LossOutput, Schedule, Step
from nashtune.interfaces.schedule import Anchor, Collect, Judge, Pair, Round, Snapshot, Update
from tabular import normalised


class DecidedByPolicy(KLController):
    """β = 1 + the policy's largest probability: moves with what it controls."""

    def __init__(self) -> None:
        self.seen: list[dict[str, float]] = []

    def beta(self, batch: LossBatch) -> torch.Tensor:
        return 1.0 + batch.policy_chosen.detach().exp().max()

    def report(self, batch: LossBatch, beta: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"beta": beta}


class MixtureLoss(Loss):
    """(log-ratio difference - 1/4)^2 against `ref`, of pairs drawn from a mixture that moves with the round."""

    uses_beta: ClassVar[bool] = False

    def reference_weight(self, round: int) -> float:
        return 1.0 / (1.0 + round)

    def __call__(self, batch: LossBatch, step: Step) -> LossOutput:
        chosen, rejected = batch.log_ratios()
        values = (chosen - rejected - 0.25 * step.round * step.scale) ** 2
        return LossOutput(values=values, reward_chosen=chosen.detach(), reward_rejected=rejected.detach())


class AveragingSchedule(Schedule):
    """Two rounds; an average of weights, live weights that go on, a step of two."""

    reads: ClassVar[tuple[str, ...]] = ("oracle", "sampler", "pairing")

    def rounds(self) -> tuple[Round, ...]:
        play = (Collect(policy=None), Judge(), Pair(), Anchor(), Update(start=None, step_scale=2.0))
        average = Snapshot(name="ema", average={"start": 0.75, "live": 0.25})
        return (Round(phases=play), Round(phases=(*play, average), policy="ema"))


GAME = make_game("mine", from_upper(np.random.default_rng(3).random((5, 5))), [0.3, 0.25, 0.2, 0.15, 0.1])
SECTIONS = {"oracle": "preference", "sampler": "policy", "pairing": "iid"}


def test_the_population_is_every_ordered_pair_with_its_probability():
    two = find_game("rps")
    mu = np.concatenate([np.log(GAME.start), np.log(two.start)])
    rows = Population([GAME, two])(mu, 1)
    assert float(rows.weight_B.sum()) == pytest.approx(1.0)
    first = (rows.chosen_B == 1) & (rows.rejected_B == 2)
    assert float(rows.weight_B[first]) == pytest.approx(0.25 * 0.2 * GAME.matrix[1, 2])
    assert float(rows.win_rate_chosen_B[first]) == pytest.approx((GAME.matrix @ GAME.start)[1])
    assert float(rows.p_chosen_B[first]) == GAME.matrix[1, 2]
    second = (rows.chosen_B == 5) & (rows.rejected_B == 6)
    assert float(rows.weight_B[second]) == pytest.approx(0.6 * 0.3)  # 2 of 2 games, P = 1
    assert not ((rows.chosen_B == 6) & (rows.rejected_B == 5)).any()  # never drawn
    assert not ((rows.chosen_B < 5) != (rows.rejected_B < 5)).any()


def test_dpo_against_a_certain_population_is_the_bradley_terry_policy(play):
    """Where P comes from scores, DPO's population minimiser is pi_ref exp(s / beta), in any number of rounds."""
    scores = [1.0, 0.3, 0.0, -0.5]
    game = find_game("bradley_terry:" + ",".join(map(str, scores)))
    expected = np.exp(normalised(np.log(game.start) + np.array(scores) / 0.5))
    assert play("dpo", [game], kl={"beta": 0.5}).last[0][1] == pytest.approx(expected, abs=1e-12)
    report = play("online_dpo", [game], rounds=3, kl={"beta": 0.5})
    assert report.last[0][3] == pytest.approx(expected, abs=1e-12)
    assert report.bound is None and report.tau is None


def test_ipo_has_the_closed_form_of_its_paper(play):
    report = play("ipo_sum", [GAME], loss={"tau": 0.4})
    expected = np.exp(normalised(np.log(GAME.start) + GAME.matrix @ GAME.start / 0.4))
    assert report.last[0][1] == pytest.approx(expected, abs=1e-12)
    assert report.tau == 0.4


def test_losses_without_reference_reach_a_stationary_point(play):
    """SimPO and ORPO: nudging a log-prob of the minimiser changes the population loss to second order only."""
    from nashtune.spec.resolve import build, resolve

    for name in ("simpo", "orpo"):
        policy = np.log(play(name, [GAME]).last[0][1])
        rows, loss = Population([GAME])(np.log(GAME.start), 1), build(resolve(name).loss)

        def value(logits: np.ndarray, rows=rows, loss=loss) -> float:
            batch = rows.batch(torch.from_numpy(normalised(logits)), {}, {})
            return float((loss(batch, Step()).values * rows.weight_B).sum())

        for action in range(5):
            nudge = 1e-4 * np.eye(5)[action]
            assert abs(value(policy + nudge) - value(policy - nudge)) / 2e-4 < 1e-7
            assert value(policy + 100 * nudge) > value(policy)


def test_a_preference_that_is_certain_has_no_finite_dpo_minimiser(play):
    with pytest.raises(CheckFailed, match=r"dpo, round 1, update of main: .*no finite minimiser"):
        play("dpo", [find_game("condorcet:4")])


def test_a_loss_with_kinks_is_refused(play):
    with pytest.raises(CheckFailed, match="without curvature"):
        play("slic_hinge", [GAME])


@pytest.mark.parametrize(
    ("spec", "message"),
    [("kto", "reads single examples"), ("nash_md_pg", "`nashtune verify nash_md` proves")],
)
def test_losses_that_are_not_of_pairs_are_refused(spec: str, message: str, play):
    with pytest.raises(InputError, match=message):
        play(spec, [GAME])


class OfTheBatch(DecidedByPolicy):
    compares_rows = True


class FollowsSteps(MixtureLoss):
    """Its weight is a running mean."""

    def observe(self, means: Mapping[str, torch.Tensor]) -> None:
        self.weight = float(means["loss"])


def test_a_loss_that_follows_optimiser_steps_is_refused(play):
    """One exact minimisation has no steps, and the state would be another one than training's."""
    with pytest.raises(InputError, match=r"FollowsSteps' changes with what it observes at each optimiser step, and"):
        play({"loss": f"{__name__}:FollowsSteps", "references": {"ref": "base"}}, [GAME])


def test_a_controller_that_compares_rows_is_refused(play):
    """All pairs in both orders, unweighted: the mean of their margins is 0 whatever the policy is."""
    with pytest.raises(InputError, match=rf"the kl '{__name__}:OfTheBatch' compares the rows of a batch"):
        play({"loss": "dpo", "kl": f"{__name__}:OfTheBatch", "references": {"ref": "base"}}, [GAME])


def test_phases_mixture_live_weights_and_averages(play):
    """Everything that a schedule may ask for, by class path, against the same steps written out."""
    spec = {
        "loss": f"{__name__}:MixtureLoss",
        "references": {"ref": "base"},
        "schedule": f"{__name__}:AveragingSchedule",
        **SECTIONS,
    }
    report = play(spec, [GAME])
    P, start = GAME.matrix, np.log(GAME.start)
    live = start
    for t in (1, 2):
        weight = 1.0 / (1.0 + t)
        mu = np.exp(normalised((1 - weight) * live + weight * start))
        live = normalised(start + 2 * (0.25 * t * 2.0) * (P @ mu))
        expected = live if t == 1 else normalised(0.75 * start + 0.25 * live)
        assert report.last[0][t] == pytest.approx(np.exp(expected), abs=1e-12)


def test_a_beta_that_depends_on_the_policy_is_sought_until_both_agree(play):
    spec = {
        "loss": "dpo",
        "kl": f"{__name__}:DecidedByPolicy",
        "references": {"ref": "base"},
    }
    scores = np.array([0.4, 0.2, 0.0])
    report = play(spec, [find_game("bradley_terry:0.4,0.2,0")])
    policy = report.last[0][1]
    beta = 1.0 + policy.max()
    assert policy == pytest.approx(np.exp(normalised(scores / beta)), abs=1e-9)
    assert any("β depends on the policy" in note for note in report.notes)


def test_epsilon_dpo_decides_from_one_token_logits(play):
    """Its statistics on a tabular policy are the shifts of the logit mix; epsilon 0 is DPO."""
    game = find_game("bradley_terry:1,0.3,0")
    plain = play("dpo", [game], kl={"beta": 0.5})
    without = play("epsilon_dpo", [game], kl={"beta": 0.5, "epsilon": 0.0})
    assert without.last[0][1] == pytest.approx(plain.last[0][1], abs=1e-12)
    moved = play("epsilon_dpo", [game], kl={"beta": 0.5, "epsilon": 0.1})
    assert np.abs(moved.last[0][1] - plain.last[0][1]).max() > 1e-3
    told = "kl epsilon_dpo is told what happened once an update here"
    assert [any(note.startswith(told) for note in one.notes) for one in (moved, plain)] == [True, False]


def test_references_of_their_own_are_the_start_and_it_is_said(play, tmp_path):
    spec = {
        "loss": {"name": "ipo", "tau": 0.4, "reduction": "sum"},
        "references": {"ref": {"name": "checkpoint", "path": str(tmp_path)}},
    }
    report = play(spec, [GAME])
    assert report.last[0][1] == pytest.approx(play("ipo_sum", [GAME], loss={"tau": 0.4}).last[0][1])
    assert "the reference 'ref' (checkpoint) is taken to be the start policy" in report.notes


def test_rows_leave_out_an_action_against_itself():
    rows = Population([GAME])(np.log(GAME.start), 1)
    kept = rows.without_identical()
    assert len(rows.weight_B) == 25 and len(kept.weight_B) == 20
    assert float(kept.weight_B.sum()) == pytest.approx(1.0 - float((GAME.start**2).sum()))
    assert replace(kept, p_chosen_B=kept.p_chosen_B).win_rate_chosen_B.shape == (20,)
