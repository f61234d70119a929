"""Conformance vectors of reward losses."""

from __future__ import annotations

import json

import pytest

from nashtune.cli.main import main
from nashtune.errors import InputError
from nashtune.evaluation.vectors import compare, evaluate, run_case
from nashtune.spec.resolve import resolve

PAIRS = {"score_chosen": [1.2, 0.3], "score_rejected": [0.7, 0.9]}


def test_outputs_of_pairs():
    outputs = run_case(resolve("reward_bt"), {"inputs": PAIRS})
    assert outputs.keys() == {"loss", "grad_score_chosen", "grad_score_rejected"}
    assert outputs["loss"] == pytest.approx([0.4740769841801067, 1.0374879504858856], abs=1e-15)
    assert outputs["grad_score_chosen"] == pytest.approx([-0.37754066879814546, -0.6456563062257955], abs=1e-15)


def test_members_have_gradients_of_their_own():
    inputs = {"score_chosen": [[1.2, 0.3]], "score_rejected": [[0.7, 0.9]], "share": [[2.0, 0.0]]}
    outputs = run_case(resolve("reward_bt"), {"inputs": inputs})
    assert outputs["loss"] == pytest.approx([0.4740769841801067], abs=1e-15)
    assert outputs["grad_score_chosen"] == [[pytest.approx(-0.37754066879814546), 0.0]]


def test_lists_of_different_lengths_keep_their_shape():
    result = evaluate(resolve("reward_bt_ranked"), {"inputs": {"scores": [[1.0, 0.2, -0.3], [0.5, 0.9]]}})
    assert [len(part) for part in result.outputs["grad_scores"]] == [3, 2]
    assert result.further["pairs_right"] == [1.0, 0.0]


def test_equal_ranks_are_an_input_of_lists():
    inputs = {"scores": [[1.0, 0.2, -0.3], [0.5, 0.9]]}
    strict = run_case(resolve("reward_bt_ranked"), {"inputs": {**inputs, "levels": [[0, 1, 2], [0, 1]]}})
    assert strict == run_case(resolve("reward_bt_ranked"), {"inputs": inputs})
    tied = run_case(resolve("reward_pl"), {"inputs": {**inputs, "levels": [[0, 1, 1], [0, 1]]}})
    top = run_case(resolve("reward_pl"), {"inputs": inputs, "params": {"loss": {"top_1": True}}})
    assert tied["loss"] == pytest.approx(top["loss"], abs=1e-15)
    for wrong in ([[0, 1], [0, 1]], [[0, 0, 0], [0, 1]], [[0, 2, 3], [0, 1]], [[1, 1, 2], [0, 1]], 3):
        with pytest.raises(InputError, match=r"levels: .* ranks from 0 that rise by 0 or 1"):
            run_case(resolve("reward_pl"), {"inputs": {**inputs, "levels": wrong}})


def test_an_input_that_the_loss_does_not_read_is_said(monkeypatch):
    from nashtune_plugins.reward_bt import RewardBTLoss

    case = {"inputs": {**PAIRS, "margin": [0, 1], "p_chosen": [1, 1]}}
    assert evaluate(resolve("reward_bt"), case).unread == []
    monkeypatch.setattr(RewardBTLoss, "uses_margin", False)
    assert evaluate(resolve("reward_bt"), case).unread == ["margin"]


def test_a_wrong_number_is_found():
    case = {"inputs": PAIRS, "expected": {"grad_score_chosen": [-0.37754066879814546, -0.6]}}
    difference = compare(evaluate(resolve("reward_bt"), case), case)
    assert difference is not None and not difference.passed and difference.at.startswith("grad_score_chosen[1]")


@pytest.mark.parametrize(
    ("spec", "inputs", "words"),
    [
        ("reward_bt", {"score_chosen": [1.0]}, "case.inputs: 'score_rejected' is missing"),
        ("reward_bt", {"policy_chosen": [1.0]}, "policy_chosen is not an input of this method"),
        ("reward_bt", {"score_chosen": [1.0, 2.0], "score_rejected": [1.0]}, "score_rejected: shape (1,), but"),
        ("reward_bt", {"score_chosen": [1.0, [2.0]], "score_rejected": [1.0, 2.0]}, "score_chosen: [1.0, [2.0]]; give"),
        ("reward_bt", {"score_chosen": [], "score_rejected": []}, "score_chosen: []; give one finite score"),
        ("reward_bt", {"score_chosen": ["a"], "score_rejected": [1]}, "score_chosen: ['a']; give one finite score"),
        ("reward_bt", {"score_chosen": 1.0, "score_rejected": 1.0}, "score_chosen: 1.0; give one finite score"),
        ("reward_bt", {**PAIRS, "margin": [1.0]}, "margin: [1.0]; give finite numbers >= 0 of shape (2,)"),
        ("reward_bt", {**PAIRS, "margin": [1.0, -1.0]}, "margin: [1.0, -1.0]; give finite numbers >= 0"),
        ("reward_bt", {**PAIRS, "margin": [1.0, "x"]}, "margin: [1.0, 'x'] is not a list of numbers"),
        ("reward_bt", {**PAIRS, "p_chosen": [1.5, 0.5]}, "p_chosen: [1.5, 0.5]; a probability is in [0, 1]"),
        ("reward_bt", {**PAIRS, "share": [2.0, 0.0]}, "share: [2.0, 0.0]; give finite numbers >= 0 of shape (2, 1)"),
        ("reward_pl", {"scores": [[1.0]]}, "scores: expected lists of two scores or more"),
        ("reward_pl", {"scores": []}, "scores: expected lists of two scores or more"),
        ("reward_pl", {"score": [[1.0, 2.0]]}, "score is not an input of this method; did you mean 'scores'"),
        ("reward_pl", {"scores": [[1.0, None]]}, "scores: [1.0, None]; give one finite score"),
        ("reward_pl", {"scores": [[1.0, 2.0]], "margin": [1.0]}, "margin is not an input of this method"),
    ],
)
def test_bad_inputs_say_what_is_wrong(spec, inputs, words):
    with pytest.raises(InputError) as error:
        run_case(resolve(spec), {"inputs": inputs})
    assert words in str(error.value)


def test_on_the_command_line(tmp_path, capsys):
    file = tmp_path / "mine.json"
    file.write_text(json.dumps({"cases": [{"inputs": {"scores": [[0.5, 0.9]]}, "params": {"loss": {"top_1": True}}}]}))
    assert main(["vectors", "reward_pl", "--file", str(file)]) == 0
    assert '"grad_scores"' in capsys.readouterr().out
