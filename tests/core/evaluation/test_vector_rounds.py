"""Rounds that a conformance vector's controller was told of before the batch."""

from __future__ import annotations

import pytest

from nashtune.errors import InputError
from nashtune.evaluation.vectors import evaluate
from nashtune.spec.resolve import resolve

INPUTS = {"policy": [[-0.5, -1.0]], "ref": [[-0.7, -0.9]], "score": [1.0]}
PARAMS = {"loss": {"name": "reinforce", "baseline": "none"}, "kl": {"name": "adaptive", "beta": 0.15}}


def case(rounds: object, **more: object) -> dict[str, object]:
    return {"inputs": INPUTS, "params": PARAMS, "rounds": rounds, **more}


def test_beta_after_each_round_and_in_the_batch():
    rounds = [{"kl": 1, "completions": 512}, {"kl": 5.5, "completions": 512}]
    found = evaluate(resolve("ppo"), case(rounds))
    assert found.further["beta_rounds"] == pytest.approx([0.148464, 0.1478305536])
    assert found.further["beta"] == pytest.approx(0.1478305536)
    assert found.outputs["grad_policy"] == [pytest.approx([-(1.0 - 0.1 * 0.1478305536)] * 2)]


def test_a_controller_that_does_not_react_stays():
    found = evaluate(resolve("ppo"), case([{"kl": 100.0}], params={"loss": PARAMS["loss"]}))
    assert found.further["beta_rounds"] == [0.05]


@pytest.mark.parametrize(
    ("rounds", "said"),
    [
        ([], "case.rounds: expected a list such as"),
        ({"kl": 1.0}, "case.rounds: expected a list such as"),
        ([1.0], r"case.rounds\[0\]: expected means by name and completions, found 1.0"),
        ([{"completions": 5}], r"case.rounds\[0\]: 'kl' is missing; the controller reads it"),
        ([{"kl": 1.0}, {"kl": "high"}], r"case.rounds\[1\].kl: 'high' is not a finite number"),
        ([{"kl": 1.0, "completions": 0}], r"case.rounds\[0\].completions: 0; give a whole number > 0"),
    ],
)
def test_malformed_rounds(rounds, said):
    with pytest.raises(InputError, match=said):
        evaluate(resolve("ppo"), case(rounds))


def test_rounds_without_a_controller():
    inputs = {"policy": [[-0.5]], "ref": [[-0.7]], "score": [0.5]}
    with pytest.raises(InputError, match="the spec has no KL controller that could be told of rounds"):
        evaluate(resolve("nash_md_pg"), {"inputs": inputs, "rounds": [{"kl": 1.0}]})
