from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from nashtune.errors import InputError
from nashtune.evaluation.vector_files import load_cases
from nashtune.evaluation.vectors import compare, evaluate, run_case
from nashtune.spec.resolve import resolve

PAIR: dict[str, Any] = {
    "policy_chosen": [-20.0],
    "policy_rejected": [-25.0],
    "ref_chosen": [-22.0],
    "ref_rejected": [-24.0],
}
LOGITS: dict[str, Any] = {
    "policy_logits_chosen": [[[0.5, -0.5], [0.25, 0.0]]],
    "policy_logits_rejected": [[[0.0, 1.0], [1.0, 0.0]]],
    "ref_logits_chosen": [[[0.0, 0.0], [0.0, 0.0]]],
    "ref_logits_rejected": [[[0.0, 0.0], [0.0, 0.0]]],
    "chosen_tokens": [[0, 1]],
    "rejected_tokens": [[1, 1]],
}


def case(**inputs: Any) -> dict[str, Any]:
    return {"inputs": {**PAIR, **inputs}}


def refused(name: str, given: dict[str, Any], match: str) -> None:
    with pytest.raises(InputError, match=match):
        evaluate(resolve(name), given, "F: cases[0]")


def test_values_are_per_pair_and_not_divided_by_the_batch():
    doubled = {"inputs": {name: value * 2 for name, value in PAIR.items()}}
    once, twice = (run_case(resolve("dpo"), one) for one in (case(), doubled))
    assert set(once) == {"loss", "grad_policy_chosen", "grad_policy_rejected"}
    assert once["loss"] == pytest.approx([0.5543552444685271], abs=1e-15)
    assert twice == {name: value * 2 for name, value in once.items()}


def test_params_override_the_options_of_the_spec():
    given = {**case(), "params": {"loss": {"label_smoothing": 0.1}, "kl": {"beta": 0.5}}}
    plain = run_case(resolve("dpo"), {**case(), "params": {"kl": {"beta": 0.5}}})
    assert run_case(resolve("dpo"), given)["loss"] == pytest.approx([plain["loss"][0] + 0.1 * 0.5 * 3.0])


def test_params_may_name_another_component():
    given = {**case(), "params": {"kl": "none", "loss": {"tau": 0.1, "reduction": "sum", "name": "ipo"}}}
    assert run_case(resolve("dpo"), given)["loss"] == pytest.approx([4.0])


def test_a_step_of_a_game_has_a_round_and_a_scale():
    anchors = {f"{name}_{side}": [0.0] for name in ("ref", "previous") for side in ("chosen", "rejected")}
    params = {"loss": {"eta": None, "tau": 0.5, "eta_rule": "last_iterate"}}
    inpo = {"params": params, "inputs": {**PAIR, **anchors}}
    first, third = (run_case(resolve("inpo"), {**inpo, "step": {"round": t}})["loss"][0] for t in (1, 3))
    assert first == pytest.approx((5 - 1 / (0.5 * 3)) ** 2) and third == pytest.approx((5 - 1 / (0.5 * 5)) ** 2)
    onpo = {"params": {"loss": {"eta": 2.0}}, "inputs": {**PAIR, "aux_chosen": [0.0], "aux_rejected": [0.0]}}
    assert run_case(resolve("onpo"), {**onpo, "step": {"scale": 2.0}})["loss"] == [9.0]


@pytest.mark.parametrize(
    ("step", "match"),
    [
        ({"rounds": 2}, r"step: expected an object such as"),
        (2, r"step: expected an object such as"),
        ({"round": 0}, r"step\.round: 0 is not a round"),
        ({"scale": 0}, r"step\.scale: 0 is not a number of steps"),
    ],
)
def test_wrong_steps_are_refused(step, match):
    refused("dpo", {**case(), "step": step}, match)


def test_params_leave_the_spec_as_it_was():
    spec = resolve("dpo")
    run_case(spec, {**case(), "params": {"kl": {"beta": 0.5}}})
    assert run_case(spec, case())["loss"] == pytest.approx([0.5543552444685271])


def test_standard_inputs_that_a_method_does_not_read_are_named():
    result = evaluate(resolve("dpo"), case(len_chosen=[3], len_rejected=[2], p_chosen=[1.0]))
    assert result.unread == ["len_chosen", "len_rejected"]
    free = evaluate(resolve("simpo"), case(len_chosen=[3], len_rejected=[2], p_chosen=[1.0]))
    assert free.unread == ["p_chosen", "ref_chosen", "ref_rejected"]


@pytest.mark.parametrize(
    ("name", "inputs", "match"),
    [
        ("dpo", {"policy_chosn": [1.0]}, r"F: cases\[0\]\.inputs\.policy_chosn.*did you mean 'policy_chosen'"),
        ("dpo", {"z0": 1.0}, "inputs.z0 is not an input of this method"),
        ("dpo", {"policy_chosen": "x"}, "inputs.policy_chosen: 'x' is not a finite number"),
        ("dpo", {"policy_chosen": [float("nan")]}, "nan is not a finite number"),
        ("dpo", {"policy_chosen": [None]}, "None is not a finite number"),
        ("dpo", {"policy_chosen": -1.0}, "expected a list with one number per pair"),
        ("dpo", {"policy_chosen": []}, "expected a list with one number per pair"),
        ("dpo", {"ref_rejected": [1.0, 2.0]}, r"ref_rejected: shape \(2,\), but policy_chosen has \(1,\)"),
        ("dpo", {"p_chosen": [1.5]}, r"p_chosen: \[1\.5\]; a probability is in \[0, 1\]"),
        ("sppo", {"win_rate_chosen": [-0.5]}, r"win_rate_chosen: \[-0\.5\]; a probability is in \[0, 1\]"),
        ("sppo", {}, "sppo needs previous_chosen and previous_rejected"),
        ("simpo", {}, "simpo needs len_chosen and len_rejected"),
        ("ipo", {"len_chosen": [3], "len_rejected": [0]}, "at least one token"),
        ("kto", {}, "kto needs policy_mismatched and ref_mismatched or z0"),
        ("kto", {"policy": [1.0], "desirable": [True]}, "'policy' and 'policy_chosen' together"),
        ("epsilon_dpo", {}, "give policy_logits_.*or steps"),
    ],
)
def test_wrong_inputs_are_refused_by_name(name, inputs, match):
    refused(name, case(**inputs), match)


def test_missing_inputs_are_refused_by_name():
    refused("dpo", {"inputs": {"policy_chosen": [1.0]}}, "'policy_rejected' is missing")
    refused(
        "dpo", {"inputs": {"policy_chosen": [1.0], "policy_rejected": [1.0]}}, "dpo needs ref_chosen and ref_rejected"
    )
    refused("dpo", {"inputs": {**PAIR, "ref_rejected": [1.0]} | {"ref_chosn": [1.0]}}, "ref_chosn")
    refused("dpo", {}, "'inputs' is missing")
    refused("kto", {"inputs": {"policy": [1.0], "ref": [1.0], "z0": 0.0}}, "'desirable' is missing")


def test_wrong_keys_and_options_are_refused_by_name():
    refused("dpo", {**case(), "expectd": {}}, "did you mean 'expected'")
    refused("dpo", {**case(), "params": {"kl": {"bta": 0.1}}}, "did you mean 'beta'")
    refused("dpo", {**case(), "params": {"kll": {"beta": 0.1}}}, "params.kll is not a section.*did you mean 'kl'")
    refused("ipo", {**case(), "params": {"loss": {"reduction": "median"}}}, "median")
    refused("dpo", {**case(), "params": [1]}, "params: expected an object")


def test_logits_give_log_probs_statistics_and_the_next_beta():
    found = run_case(resolve("epsilon_dpo"), {"inputs": LOGITS, "params": {"kl": {"beta": 0.1, "epsilon": 0.1}}})
    assert set(found) == {"loss", "grad_policy_chosen", "grad_policy_rejected", "steps", "beta", "beta_next"}
    assert found["steps"] in ([1.0], [-1.0], [0.0])
    assert found["beta"] == pytest.approx([0.1 / (1 + 0.1 * found["steps"][0])])
    assert found["beta_next"] == pytest.approx(found["beta"][0])


def test_logits_of_unequal_lengths_are_one_list_per_pair():
    longer = {name: [*value, [*value[0], value[0][0]]] for name, value in LOGITS.items()}
    kl = {"params": {"kl": {"beta": 0.1, "epsilon": 0.1}}}
    alone, both = (run_case(resolve("epsilon_dpo"), {"inputs": one, **kl}) for one in (LOGITS, longer))
    assert both["loss"][:1] == alone["loss"] and len(both["loss"]) == 2


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"chosen_tokens": [[0]]}, r"expected \(T, V\), \(T, V\), \(T,\)"),
        ({"chosen_tokens": [[0, 2]]}, r"are not all in 0\.\.1"),
        ({"chosen_tokens": [[0, 1], [0, 1]]}, "one entry per pair"),
        ({"ref_logits_chosen": [[[0.0], [0.0]]]}, "shapes"),
        ({"policy_logits_chosen": [[["x", 1.0], [0.0, 1.0]]]}, "numbers"),
        ({"policy_chosen": [-9.0]}, "but the logits give"),
    ],
)
def test_wrong_logits_are_refused(change, match):
    refused("epsilon_dpo", {"inputs": {**LOGITS, **change}}, match)


def test_log_probs_beside_logits_must_agree_with_them():
    steps = run_case(resolve("epsilon_dpo"), {"inputs": LOGITS})
    import torch

    value = sum(
        torch.tensor(row).double().log_softmax(-1)[y].item()
        for row, y in zip([[0.5, -0.5], [0.25, 0.0]], [0, 1], strict=True)
    )
    assert run_case(resolve("epsilon_dpo"), {"inputs": {**LOGITS, "policy_chosen": [value]}})["loss"] == pytest.approx(
        steps["loss"]
    )


def test_unpaired_names_give_one_gradient():
    inputs = {"policy": [-20.0, -25.0], "ref": [-22.0, -24.0], "desirable": [True, False], "z0": 0.75}
    found = run_case(resolve("kto"), {"inputs": inputs})
    assert found["loss"] == pytest.approx([0.4687906266, 0.4563613128], abs=1e-10)
    assert set(found) == {"loss", "grad_policy"}


def test_paired_names_list_chosen_examples_first():
    found = run_case(resolve("kto"), case(z0=0.75))
    assert found["loss"] == pytest.approx([0.4687906266, 0.4563613128], abs=1e-10)
    assert found["grad_policy_chosen"] == pytest.approx([-0.0249025975], abs=1e-10)
    assert found["grad_policy_rejected"] == pytest.approx([0.0248095665], abs=1e-10)


def test_comparison_finds_the_largest_difference():
    given = {**case(), "expected": {"loss": [0.5543552444685271], "grad_policy_chosen": [-0.0425557483188341 + 1e-6]}}
    difference = compare(evaluate(resolve("dpo"), given), given)
    assert difference is not None and not difference.passed
    assert difference.size == pytest.approx(1e-6) and difference.at.startswith("grad_policy_chosen[0] is -0.04")
    assert compare(evaluate(resolve("dpo"), given), {**given, "tolerance": 1e-5}).passed
    assert compare(evaluate(resolve("dpo"), case()), case()) is None


def test_metrics_and_report_may_be_expected():
    given = {"inputs": {**PAIR, "z0": 0.75}, "expected": {"z0": 0.75, "beta": 0.1}}
    assert compare(evaluate(resolve("kto"), given), given).passed


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"expected": {"los": [1.0]}}, "did you mean 'loss'"),
        ({"expected": {"loss": [1.0, 2.0]}}, "2 values, but the method gives 1"),
        ({"expected": {"loss": ["x"]}}, "'x' is not a number"),
        ({"expected": {}}, "leave it out"),
        ({"expected": {"loss": [1.0]}, "tolerance": -1}, "tolerance: -1"),
    ],
)
def test_wrong_expectations_are_refused(change, match):
    given = {**case(), **change}
    result = evaluate(resolve("dpo"), given)
    with pytest.raises(InputError, match=match):
        compare(result, given, "F: cases[0]")


@pytest.mark.parametrize(
    ("content", "match"),
    [
        ("", "broken JSON"),
        ('{"cases": [\n{]}', "v.json:2: broken JSON"),
        ("[]", "non-empty list `cases`"),
        ('{"cases": []}', "non-empty list `cases`"),
        ('{"cases": [1]}', r"cases\[0\] is not an object"),
        ('{"cases": [{"inputs": {}}], "case": 1}', "did you mean 'cases'"),
        ('{"cases": [{"inputs": {}, "inputs": {}}]}', "'inputs' is given twice"),
    ],
)
def test_broken_files_are_refused(content, match, tmp_path: Path):
    file = tmp_path / "v.json"
    file.write_text(content)
    with pytest.raises(InputError, match=match):
        load_cases(file)


def test_missing_and_non_text_files_are_refused(tmp_path: Path):
    with pytest.raises(InputError, match="no such file"):
        load_cases(tmp_path / "none.json")
    (tmp_path / "v.json").write_bytes(b"\xff\xfe{")
    with pytest.raises(InputError, match="not UTF-8"):
        load_cases(tmp_path / "v.json")


def test_a_file_holds_its_cases_in_order(tmp_path: Path):
    file = tmp_path / "v.json"
    file.write_text(json.dumps({"cases": [{**case(), "name": name} for name in "ab"]}))
    assert [one["name"] for one in load_cases(file)] == ["a", "b"]
