"""Schedules that cannot be executed are told apart from those that can, before anything runs."""

from __future__ import annotations

import math

import pytest

from nashtune.interfaces.schedule import Anchor, Collect, Judge, Pair, Round, Snapshot, Update
from nashtune.schedules.offline import OfflineSchedule
from nashtune.schedules.online import OnlineSchedule
from nashtune.spec.phases import check_schedule

DRAW = (Collect(policy="start"), Judge(), Pair())
AVERAGE = {"start": 0.9, "live": 0.1}


def found(*phases, policy=None) -> list[str]:
    return check_schedule([Round(phases=phases, policy=policy)])


@pytest.mark.parametrize("schedule", [OfflineSchedule(), OnlineSchedule(rounds=1), OnlineSchedule(rounds=4)])
def test_the_schedules_of_the_core_are_right(schedule):
    assert check_schedule(schedule.rounds()) == []


def test_two_updates_of_a_round_each_with_its_snapshot():
    assert (
        found(
            *DRAW,
            Anchor(previous={"start": 1.0}),
            Update(start="start", name="aux"),
            Snapshot(name="aux@1"),
            Anchor(previous={"aux@1": 1.0}),
            Update(start="aux@1"),
            Snapshot(name="main@1"),
            policy="main@1",
        )
        == []
    )


def test_a_schedule_that_goes_on_with_the_live_weights_may_draw_from_others_in_between():
    def one(t: int) -> Round:
        old = f"ema@{t - 1}" if t > 1 else "start"
        draw = (Collect(policy=None), Collect(policy=old, role="opponent"), Judge(), Pair())
        return Round(phases=(*draw, Update(reset=False), Snapshot(name=f"ema@{t}", average={old: 0.9, "live": 0.1})))

    assert check_schedule([one(t) for t in range(1, 5)]) == []


@pytest.mark.parametrize(
    ("phases", "said"),
    [
        (
            (Collect(policy="main@1"), Judge(), Pair(), Update(start="start")),
            "round 1, phase 1 (Collect): there is no snapshot 'main@1' at that point (known: start)",
        ),
        (
            (*DRAW, Anchor(previous={"strat": 1.0}), Update(start="start")),
            "round 1, phase 4 (Anchor): there is no snapshot 'strat' at that point; did you mean 'start'?",
        ),
        ((*DRAW, Update(start="main@1")), "phase 4 (Update): there is no snapshot 'main@1'"),
        (
            (*DRAW, Update(), Snapshot(name="ema@1", average={"ema@0": 0.5, "live": 0.5})),
            "phase 5 (Snapshot): there is no snapshot 'ema@0'",
        ),
        (
            (*DRAW, Update(start="start"), Anchor(previous={"start": 1.0}), Update(start="start")),
            "phase 5 (Anchor): the weights of the update before are in no snapshot and would be lost",
        ),
        (
            (*DRAW, Update(start="start"), Update(start="start")),
            "phase 5 (Update): the weights of the update before are in no snapshot",
        ),
        (
            (*DRAW, Update(), Update(start="start")),
            "phase 5 (Update): the weights of the update before are in no snapshot",
        ),
        (
            (*DRAW, Anchor(), Snapshot(name="a"), Update(start="start")),
            "phase 5 (Snapshot): the live weights are those of another snapshot at that point",
        ),
        (
            (*DRAW, Collect(policy=None, role="opponent"), Update(start="start")),
            "phase 4 (Collect): the live weights are those of another snapshot",
        ),
        (
            (*DRAW, Anchor(previous={"start": 0.5}), Update(start="start")),
            "phase 4 (Anchor): the weights of `previous` sum to 0.5 ({'start': 0.5}); they sum to 1",
        ),
        ((*DRAW, Anchor(previous={"start": math.nan}), Update(start="start")), "sum to nan"),
        (
            (*DRAW, Update(), Snapshot(name="ema@1", average={"start": 0.9, "live": 0.2})),
            "phase 5 (Snapshot): the weights of `average` sum to 1.1",
        ),
        ((*DRAW, Update(start="start", step_scale=0.0)), "phase 4 (Update): step_scale is 0; it is a number > 0"),
        ((*DRAW, Update(start="start"), Snapshot(name="start")), "there is a snapshot 'start' already"),
        ((*DRAW, Update(start="start"), Snapshot(name="live")), "'live' is no name for a snapshot"),
        ((*DRAW, Update(start="start"), Snapshot(name="a/b")), "'a/b' is no name for a snapshot"),
        ((Collect(policy="start", reference_weight=1.5), Judge(), Pair(), Update()), "reference_weight is 1.5"),
        ((Judge(), Update()), "phase 1 (Judge): no completions of the policy were drawn in this round"),
        ((Collect(policy="start", role="opponent"), Judge(), Update()), "no completions of the policy were drawn"),
        ((Collect(policy="start"), Pair(), Update()), "phase 2 (Pair): nothing was judged in this round"),
        ((Collect(policy="start"), Judge(), Update()), "phase 3 (Update): the round has no rows yet"),
        ((Anchor(), *DRAW, Update()), "phase 1 (Anchor): the round has no rows yet"),
        ((*DRAW, Collect(policy="start"), Update()), "phase 4 (Collect): the round has drawn the completions of the"),
        ((*DRAW, Collect(policy="start", role="opponent"), Update()), "phase 4 (Collect): it comes after Judge"),
        (DRAW, "no round has an Update, so that nothing is trained"),
    ],
)
def test_what_is_refused(phases, said):
    assert any(said in line for line in found(*phases)), found(*phases)


def test_a_round_must_have_made_its_result():
    lines = found(*DRAW, Update(start="start"), Snapshot(name="main@1"), policy="main@2")
    assert lines == [
        "round 1: its policy: there is no snapshot 'main@2' at that point; did you mean 'main@1'? "
        "(known: main@1, start)"
    ]


def test_no_rounds():
    assert check_schedule([]) == ["there are no rounds"]


def test_an_average_may_enter_several_others_and_is_no_result_of_a_round():
    phases = (
        *DRAW,
        Update(),
        Snapshot(name="ema@1", average=AVERAGE),
        Snapshot(name="ema@2", average={"ema@1": 0.9, "live": 0.1}),
        Snapshot(name="ema@3", average={"ema@1": 0.5, "live": 0.5}),
    )
    assert found(*phases) == []
    problem = check_schedule([Round(phases=phases, policy="ema@1")])
    assert problem == ["round 1: its policy: 'ema@1' is an average, which no snapshot keeps on disk"]


def test_a_mistake_that_every_round_makes_is_reported_once():
    bad = Round(phases=(*DRAW, Update(start="nowhere"), Snapshot(name="a")))
    assert len(check_schedule([bad] * 50)) == 1
