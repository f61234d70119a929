"""Equal numbers: each loss under the spec that its config is imported as, against what the tool's own code gives."""

from __future__ import annotations

import json
from importlib import resources
from typing import Any

import pytest

from nashtune.cli.main import main
from nashtune.evaluation.vectors import compare, evaluate
from nashtune.spec.resolve import resolve

IMPORTS = resources.files("nashtune_specs") / "imports"
FILES = {
    "trl": "trl-1.16.0.vectors.json",
    "llamafactory": "llamafactory-0.9.5-trl-0.24.0.vectors.json",
    "llamafactory, old TRL": "llamafactory-0.9.5-trl-0.19.1.vectors.json",
}
CASES = {name: json.loads((IMPORTS / file).read_text())["cases"] for name, file in FILES.items()}
NOT_IMPORTED = "sppo_hard"
"""A loss of games here, whose config is not imported."""
ALL_SIGMOID = ("hinge", "ipo")
"""Losses that LLaMA-Factory computes as sigmoid with the TRL that it installs."""


def loss_of(case: dict[str, Any]) -> str:
    return str(case["name"].partition(",")[0])


def config_of(tool: str, name: str) -> str:
    """The config that a case's name tells of: `ipo, beta 0.1`."""
    loss, *settings = name.split(", ")
    begins = {"trl": f"loss_type: {loss}\n", "llamafactory": f"stage: dpo\npref_loss: {loss}\n"}
    begin = "stage: kto\n" if tool == "llamafactory" and loss == "kto" else begins[tool]
    return begin + "".join(f"{key}: {value}\n" for key, value in (one.split(" ") for one in settings))


def numbers(spec: str, case: dict[str, Any]) -> float:
    """The largest difference of a spec's loss and gradients from a case's."""
    difference = compare(evaluate(resolve(spec), {key: case[key] for key in case if key != "params"}), case)
    assert difference is not None, case["name"]
    return difference.size


@pytest.mark.parametrize("name", FILES)
def test_every_loss_with_a_counterpart_is_there(name: str):
    losses = [loss_of(case) for case in CASES[name]]
    others = ["robust", "sppo_hard"] if name == "trl" else ["orpo"]
    assert sorted(set(losses)) == sorted(["hinge", "ipo", "kto", "sigmoid", "simpo", *others])
    assert all(losses.count(loss) >= 2 for loss in losses if loss != "robust")


@pytest.mark.parametrize("name", FILES)
def test_the_file_runs_as_vectors_of_one_spec(name: str, capsys):
    assert main(["vectors", "dpo", "--file", str(IMPORTS / FILES[name])]) == 0
    out = capsys.readouterr().out
    assert out.startswith(f"dpo: cases checked {len(CASES[name])}, ") and out.endswith("ok\n")


IMPORTED = [
    (name.partition(",")[0], case, f"{name}: {case['name']}")
    for name in FILES
    for case in CASES[name]
    if loss_of(case) != NOT_IMPORTED and (name != "llamafactory" or loss_of(case) not in ALL_SIGMOID)
]


@pytest.mark.parametrize(("tool", "case"), [one[:2] for one in IMPORTED], ids=[one[2] for one in IMPORTED])
def test_an_imported_config_gives_the_numbers_of_the_tool(tool: str, case: dict[str, Any], imported):
    assert numbers(imported(tool, config_of(tool, case["name"]))["spec"], case) < 1e-9


@pytest.mark.parametrize("loss", ALL_SIGMOID)
def test_llamafactory_computes_these_as_sigmoid_with_the_trl_that_it_installs(loss: str, imported):
    """Its `dpo_loss` has taken the loss as an argument since TRL 0.20, and is not given it; the import says so."""
    cases = [case for case in CASES["llamafactory"] if loss_of(case) == loss]
    for case in cases:
        result = imported("llamafactory", config_of("llamafactory", case["name"]), "--out", case["name"].split()[-1])
        assert any("computes sigmoid" in note for note in result["notes"])
        assert numbers(result["spec"], case) > 0.1
        sigmoid = next(one for one in CASES["llamafactory"] if loss_of(one) == "sigmoid")
        if loss == "hinge" and case["params"] == sigmoid["params"]:
            assert case["expected"] == sigmoid["expected"]


def test_the_table_of_differences_holds():
    """The pair on which two trainers called ipo differ by a factor of 21.6: TRL's is the mean."""
    ipo = next(case for case in CASES["trl"] if case["name"] == "ipo, beta 0.1")
    assert ipo["inputs"]["policy_chosen"][0] == -30.0 and ipo["inputs"]["len_rejected"][0] == 5
    assert ipo["expected"]["loss"][0] == pytest.approx(21.6225, abs=1e-12)
    spec = resolve("ipo_sum")
    summed = evaluate(spec, {"inputs": {k: v[:1] for k, v in ipo["inputs"].items()}}).outputs["loss"]
    assert summed == pytest.approx([1.0], abs=1e-12)


def test_label_smoothing_is_ignored_by_trl_alone():
    for name in FILES:
        plain = CASES[name][0]
        smoothed = next(case for case in CASES[name] if loss_of(case) == "sigmoid" and "smoothing" in case["name"])
        assert (plain["expected"] == smoothed["expected"]) == (name == "trl"), name
