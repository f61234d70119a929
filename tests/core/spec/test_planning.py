"""A game's plan is what its rounds come to, counted by hand."""

from __future__ import annotations

import dataclasses
from dataclasses import replace

import pytest

from nashtune.errors import InputError
from nashtune.interfaces.schedule import Anchor, Collect, Judge, Pair, Round, Snapshot, Update
from nashtune.pairing.iid import IID
from nashtune.pairing.ranked import AllPairs
from nashtune.pairing.tournament import Tournament
from nashtune.schedules.online import OnlineSchedule
from nashtune.spec.planning import Setup, make_plan

ONLINE = OnlineSchedule(rounds=3).rounds()
SETUP = Setup(
    prompts=20,
    prompts_per_round=10,
    completions=8,
    max_new_tokens=64,
    most=Tournament().most,
    anchored=("start", "previous"),
    batch_size=2,
    accumulate=2,
    snapshot_bytes=1000,
)


def steps(rounds: int, t: int) -> tuple[Round, ...]:
    """Rounds of one optimiser step on rollouts, without anchor phases, with a moving average."""
    old = "start" if t == 1 else f"ema@{t - 1}"
    one = Round(
        phases=(
            Collect(policy=None),
            Collect(policy=old, role="opponent"),
            Judge(),
            Pair(),
            Update(reset=False),
            Snapshot(name=f"ema@{t}", average={old: 0.9, "live": 0.1}),
        )
    )
    return (one, *steps(rounds, t + 1)) if t < rounds else (one,)


def test_a_tournament_of_three_rounds():
    """10 prompts with 8 completions: 11 comparisons and a pair each; windows of 4 pairs: 3 steps an update."""
    plan = make_plan(ONLINE, SETUP)
    assert (plan.rounds, plan.prompts, plan.completions, plan.kind) == (3, 10, 8, "pairs")
    assert plan.generations == 3 * 10 * 8
    assert (plan.judgements, plan.judged_by) == (3 * 10 * 11, "comparisons")
    assert plan.rows == 3 * 10
    assert plan.steps_per_update == (3, 3, 3)
    assert (plan.steps, plan.ended_early) == (9, False)
    assert plan.training_passes == 3 * 10 * 2
    # in round 1 `previous` is the start, scored once for both references
    assert plan.anchor_passes == 10 * 2 * (1 + 2 + 2)
    assert plan.reference_passes == 0
    assert plan.snapshots == 4  # start, main@1, main@2, main@3
    # 4 snapshots, two checkpoints of weights and two moments, the export; 24 bytes for each of 240 * 64 tokens
    assert plan.disk_bytes == 1000 * (4 + 2 * 3 + 1) + 24 * 240 * 64


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"epochs": 2}, {"steps": 18, "training_passes": 120, "anchor_passes": 100}),
        ({"max_steps": 5}, {"steps": 5, "ended_early": True, "generations": 240}),
        ({"max_steps": 9}, {"steps": 9, "ended_early": False}),
        ({"accumulate": 1}, {"steps": 15}),
        ({"prompts_per_round": None}, {"prompts": 7, "rows": 20, "steps": 6}),  # 6 + 7 + 7: 2 windows each
        ({"most": IID().most}, {"judgements": 120, "rows": 120, "steps": 30}),
        ({"most": AllPairs().most, "completions": 4}, {"judgements": 180, "rows": 180, "generations": 120}),
        ({"judged_by": "scores"}, {"judgements": 240}),
        ({"judged_by": "scores", "draws": 4}, {"generations": 960, "judgements": 960 + 240}),
        ({"draws": 4}, {"generations": 960, "judgements": 330}),
        ({"judged_by": None, "recorded": True}, {"generations": 0, "judgements": 0, "rows": 30, "steps": 9}),
        ({"anchored": ("previous",)}, {"anchor_passes": 60}),
        ({"anchored": ("start",)}, {"anchor_passes": 60}),
        ({"anchored": (), "live_references": 1}, {"anchor_passes": 0, "reference_passes": 60}),
        ({"moments": 1}, {"disk_bytes": 1000 * (4 + 2 * 2 + 1) + 24 * 240 * 64}),
        ({"snapshot_bytes": None}, {"disk_bytes": None}),
        ({"max_new_tokens": None}, {"disk_bytes": 11000}),
    ],
)
def test_what_changes_the_plan(changed, expected):
    plan = make_plan(ONLINE, replace(SETUP, **changed))
    assert {name: getattr(plan, name) for name in expected} == expected


def test_two_updates_a_round_on_the_same_pairs():
    phases = (
        *(Collect(policy="start"), Judge(), Pair()),
        *(Anchor(previous={"start": 1.0}), Update(start="start", name="aux"), Snapshot(name="aux@1")),
        *(Anchor(previous={"aux@1": 1.0}), Update(start="aux@1"), Snapshot(name="main@1")),
    )
    plan = make_plan([Round(phases=phases, policy="main@1")], replace(SETUP, anchored=("previous",)))
    assert plan.steps_per_update == (3, 3)
    assert (plan.rows, plan.training_passes, plan.anchor_passes, plan.snapshots) == (10, 40, 40, 3)


def test_rollouts_against_an_opponent():
    """Both draw 2 completions of 4 prompts in 5 rounds; comparison k is k against k."""
    setup = replace(
        SETUP,
        prompts=4,
        prompts_per_round=4,
        completions=2,
        most=None,
        one_step=True,
        anchored=("start",),
        batch_size=4,
    )
    plan = make_plan(steps(5, 1), setup)
    assert (plan.kind, plan.rows) == ("rollouts", 40)
    assert (plan.generations, plan.judgements) == (80, 40)
    assert make_plan(steps(5, 1), replace(setup, judged_by="scores")).judgements == 80
    assert plan.steps_per_update == (1,) * 5
    with pytest.raises(InputError, match="8 rollouts, and an optimiser step takes 6"):
        make_plan(steps(5, 1), replace(setup, batch_size=3))
    # without an anchor phase the reference stays loaded
    assert (plan.training_passes, plan.anchor_passes, plan.reference_passes) == (40, 0, 40)
    assert plan.snapshots == 1  # an average is in memory and in checkpoints
    assert plan.disk_bytes == 1000 * (1 + 2 * 4 + 1) + 24 * 80 * 64


@pytest.mark.parametrize(("rows", "batch_size", "accumulate", "epochs"), [(10, 2, 2, 1), (7, 3, 2, 2), (1, 4, 4, 3)])
def test_steps_are_those_of_the_training_order(rows, batch_size, accumulate, epochs):
    from nashtune.rounds.order import WindowOrder

    order = WindowOrder(size=rows, batch_size=batch_size, accumulate=accumulate, epochs=epochs, seed=0)
    setup = replace(
        SETUP, prompts=rows, prompts_per_round=rows, batch_size=batch_size, accumulate=accumulate, epochs=epochs
    )
    assert make_plan(ONLINE[:1], setup).steps == order.steps


def test_prompts_that_cannot_be_dealt_out():
    with pytest.raises(InputError, match=r"2 prompts cannot be split over 3 rounds"):
        make_plan(ONLINE, replace(SETUP, prompts=2, prompts_per_round=None))
    with pytest.raises(InputError, match=r"data\.prompts_per_round: 10, but data\.train has 9 different prompts"):
        make_plan(ONLINE, replace(SETUP, prompts=9))


def test_in_words():
    assert make_plan(ONLINE, replace(SETUP, max_steps=5)).lines() == [
        "game: 3 rounds of 10 prompts, 8 completions each",
        "steps: at most 5 in all, 3 updates of 3",
        "generations: 240 completions of at most 64 tokens",
        "judgements: at most 330 comparisons; they make at most 30 pairs",
        "forward passes: at most 60 sequences in training, 100 once before the updates",
        "disk: 4 snapshots of 1 kB; at most 380 kB with checkpoints, exported model and journal",
        "note: trainer.max_steps 5 ends the game before its last round is over; all of it has at most 9 steps",
    ]
    recorded = replace(
        SETUP, recorded=True, judged_by=None, max_new_tokens=None, snapshot_bytes=None, prompts_per_round=None
    )
    assert make_plan(ONLINE, recorded).lines()[1:] == [
        "steps: at most 6 in all, 3 updates of 2",
        "generations: as recorded",
        "judgements: as recorded; they make at most 20 pairs",
        "forward passes: at most 40 sequences in training, 68 once before the updates",
        "disk: 4 snapshots; the size is known when the model is ready",
    ]


def test_the_comparison_at_the_end_is_counted():
    """Start and three rounds answer 5 prompts; every two are compared in both orders."""
    plan = make_plan(ONLINE, replace(SETUP, held_out=5))
    assert (plan.answers, plan.comparisons) == (20, 5 * 4 * 3 // 2)
    assert "at the end: 20 answers to held-out prompts, 30 comparisons of them, each in both orders" in plan.lines()


def test_as_plain_values():
    import json

    plan = make_plan(ONLINE, SETUP)
    values = json.loads(json.dumps(plan.as_dict()))
    assert values.keys() == {field.name for field in dataclasses.fields(plan)} | {"updates"}
    assert (values["updates"], values["steps_per_update"]) == (3, [3, 3])
