"""Vectors of reinforcement learning: an update's flow, ensembles' members, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from nashtune.errors import InputError
from nashtune.evaluation.vectors import compare, evaluate
from nashtune.spec.resolve import resolve
from rl_numbers import BASE, CRITIC

INPUTS: dict[str, Any] = {**BASE, **CRITIC}
GROUPED: dict[str, Any] = {**BASE, "group": [0, 0]}


def ppo(**change: Any) -> dict[str, Any]:
    return {"inputs": {**INPUTS, **change}}


def test_a_vector_shows_every_stage_of_an_update():
    result = evaluate(resolve("ppo"), ppo())
    assert set(result.outputs) == {"loss", "grad_policy", "grad_value"}
    shown = {"beta", "score", "advantage", "target", "return", "explained_variance", "objective"}
    assert shown <= set(result.further) and "variance" not in result.further
    assert [len(row) for row in result.further["advantage"]] == [4, 3]
    assert result.further["beta"] == 0.05 and result.further["mean_return"] == pytest.approx(0.5 + 0.05 * 0.075)
    assert result.unread == []


def test_what_was_known_before_defaults_to_what_is_known_now():
    """Then it is the update's first step."""
    inputs = {name: value for name, value in INPUTS.items() if name not in ("old", "value")}
    result = evaluate(resolve("ppo"), {"inputs": inputs})
    assert result.further["mean_ratio"] == 1.0
    same = evaluate(resolve("ppo"), ppo(old=INPUTS["policy"], value=INPUTS["old_value"]))
    assert result == same


def test_members_make_score_and_variance():
    members = [[1.0, -1.0], [2.0, 0.0]]
    result = evaluate(resolve("rloo"), {"inputs": {**without(GROUPED, "score"), "members": members}})
    assert result.further["score"] == [1.5, -0.5] and result.further["variance"] == [0.5, 0.5]
    plain = evaluate(resolve("rloo"), {"inputs": GROUPED})
    assert result.outputs == plain.outputs
    one = evaluate(resolve("rloo"), {"inputs": {**without(GROUPED, "score"), "members": [[1.5, -0.5]]}})
    assert one.outputs == plain.outputs and "variance" not in one.further


def test_rewards_may_be_any_numbers():
    found = evaluate(resolve("rloo"), {"inputs": {**GROUPED, "score": [-30.0, 1000.0]}})
    assert found.further["score"] == [-30.0, 1000.0]


def test_inputs_that_a_method_does_not_read_are_named():
    result = evaluate(resolve("rloo"), {"inputs": {**GROUPED, "old_value": CRITIC["old_value"], "weight": [1, 1]}})
    assert result.unread == ["old_value", "weight"]
    assert evaluate(resolve("reinforce"), {"inputs": GROUPED}).unread == ["group"]


def without(inputs: dict[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in inputs.items() if key != name}


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"old_valu": [[1.0]]}, "did you mean 'old_value'"),
        ({"old": [[-1.0] * 4, [-1.0] * 2]}, r"old: completions of \[4, 2\] tokens, but policy has \[4, 3\]"),
        ({"value": [1.0, 2.0]}, "one list of per-token numbers for each completion"),
        ({"finished": [True]}, "finished: 1 numbers, but policy has 2 completions"),
        ({"variance": [0.1, -0.1]}, "a variance is >= 0"),
        ({"members": [[1.0, 2.0]]}, "'members' and 'score' together"),
    ],
)
def test_wrong_inputs_are_refused_by_name(change, match):
    with pytest.raises(InputError, match=match):
        evaluate(resolve("ppo"), ppo(**change), "F: cases[0]")


@pytest.mark.parametrize(("name", "match"), [("old_value", "ppo needs old_value"), ("score", "'score' is missing")])
def test_missing_inputs_are_named(name, match):
    with pytest.raises(InputError, match=match):
        evaluate(resolve("ppo"), {"inputs": without(INPUTS, name)}, "F: cases[0]")
    with pytest.raises(InputError, match="which prompt each one answers"):
        evaluate(resolve("grpo"), {"inputs": BASE})
    with pytest.raises(InputError, match="members: 1 numbers, but policy has 2"):
        evaluate(resolve("ppo"), {"inputs": {**without(INPUTS, "score"), "members": [[1.0]]}})


def test_an_objective_may_be_expected():
    case = {**ppo(), "expected": {"objective": 1.0}}
    difference = compare(evaluate(resolve("ppo"), case), case)
    assert difference is not None and difference.at.startswith("objective[0] is ")


def test_games_against_an_opponent_are_as_they_were():
    """Their scores are probabilities, and there is no critic."""
    inputs = {"policy": [[-1.0]], "ref": [[-1.0]], "score": [0.5]}
    result = evaluate(resolve("nash_md_pg"), {"inputs": inputs})
    assert set(result.outputs) == {"loss", "grad_policy"}
    with pytest.raises(InputError, match="old is not an input"):
        evaluate(resolve("nash_md_pg"), {"inputs": {**inputs, "old": [[-1.0]]}})
