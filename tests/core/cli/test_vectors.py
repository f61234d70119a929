from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from nashtune.cli.main import main

INPUTS = {"policy_chosen": [-20.0], "policy_rejected": [-25.0], "ref_chosen": [-22.0], "ref_rejected": [-24.0]}
LOSS, GRAD = 0.5543552444685271, -0.0425557483188341


def write(folder: Path, **case: Any) -> str:
    file = folder / "mine.json"
    file.write_text(json.dumps({"cases": [{"params": {"kl": {"beta": 0.1}}, "inputs": INPUTS, **case}]}))
    return str(file)


def test_a_spec_passes_its_own_vectors(capsys):
    assert main(["vectors", "dpo"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("dpo: cases checked 5, largest difference") and out.endswith("ok\n")


def test_all_runs_every_spec(capsys):
    assert main(["vectors", "--all", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {"dpo", "ipo", "kto", "epsilon_dpo"} <= {one["spec"] for one in found["specs"]}
    assert all(one["passed"] for one in found["specs"]) and found["without_vectors"] == []


def test_without_expected_it_prints_what_it_computed(tmp_path: Path, capsys):
    assert main(["vectors", "dpo", "--file", write(tmp_path)]) == 0
    assert "0.55435524446" in capsys.readouterr().out


def test_json_gives_loss_and_gradients_per_pair(tmp_path: Path, capsys):
    assert main(["vectors", "dpo", "--file", write(tmp_path), "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)["cases"]
    assert found == {
        "loss": pytest.approx([LOSS]),
        "grad_policy_chosen": pytest.approx([GRAD]),
        "grad_policy_rejected": pytest.approx([-GRAD]),
    }


@pytest.mark.parametrize("as_json", [(), ("--json",)])
def test_a_failing_case_exits_1_and_says_the_largest_difference(as_json, tmp_path: Path, capsys):
    expected = {"loss": [LOSS + 1e-5], "grad_policy_chosen": [GRAD + 1e-3]}
    assert main(["vectors", "dpo", "--file", write(tmp_path, expected=expected, name="mine"), *as_json]) == 1
    out, err = capsys.readouterr()
    assert "FAILED dpo, case 1 (mine): largest difference 1.000e-03, tolerance 1e-09: grad_policy_chosen[0]" in err
    if as_json:
        assert json.loads(out)["cases"][0]["largest_difference"] == pytest.approx(1e-3)


def test_a_case_sets_its_own_tolerance(tmp_path: Path):
    assert main(["vectors", "dpo", "--file", write(tmp_path, expected={"loss": [LOSS + 1e-5]}, tolerance=1e-4)]) == 0


def test_unread_inputs_are_noted_on_stderr(tmp_path: Path, capsys):
    file = write(tmp_path, inputs={**INPUTS, "len_chosen": [3], "len_rejected": [4]})
    assert main(["vectors", "dpo", "--file", file, "--json"]) == 0
    out, err = capsys.readouterr()
    assert "note: dpo, case 1: dpo does not read len_chosen, len_rejected" in err
    assert len(json.loads(out)["cases"]) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["vectors"], "give a SPEC or --all"),
        (["vectors", "dpo", "--all"], "give a SPEC or --all"),
        (["vectors", "--all", "--file", "x.json"], "--file holds the cases of one method"),
        (["vectors", "dopo"], "did you mean 'dpo'"),
        (["vectors", "dpo", "--file", "none.json"], "none.json: no such file"),
        (["vectors", "dpo", "--fil", "x"], "did you mean '--file'"),
        (["vectors", "dpo", "--spec.kl.beta", "1"], "--spec.kl.beta: vectors take no settings; a case sets its own in"),
        (["vectors", "dpo", "--spec.kl.beta=1"], '"params": {"kl": {"beta": VALUE}}'),
    ],
)
def test_a_wrong_command_line_exits_2(arguments, message, capsys):
    assert main(arguments) == 2
    assert message in capsys.readouterr().err


def test_a_wrong_input_name_exits_2_with_its_place(tmp_path: Path, capsys):
    assert main(["vectors", "dpo", "--file", write(tmp_path, inputs={**INPUTS, "len_chosn": [1]})]) == 2
    err = capsys.readouterr().err
    assert "mine.json: cases[0].inputs.len_chosn" in err and "did you mean 'len_chosen'" in err


def test_vectors_beside_a_spec_of_ones_own(tmp_path: Path, capsys):
    spec = tmp_path / "mine.yaml"
    spec.write_text("base: dpo\nloss: {label_smoothing: 0.2}\n")
    assert main(["vectors", str(spec)]) == 2
    err = capsys.readouterr().err
    assert "mine.yaml: brings no vectors: there is no " in err and "mine.json, and the loss is not the one" in err
    assert "of its base 'dpo': loss.label_smoothing is 0.2, and there 0.0. Write them, or give --file" in err
    spec.write_text("base: dpo\nkl: {name: fixed, beta: 0.1}\n")
    (tmp_path / "vectors").mkdir()
    write(tmp_path / "vectors", expected={"loss": [LOSS]})
    assert main(["vectors", str(spec)]) == 0
    assert "mine: cases checked 1" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("change", "kl"),
    [
        ("about: {title: mine}", ""),
        ("kl: {beta: 0.7}", "; of its kl, which has other options, they say nothing"),
        ("kl: {name: epsilon_dpo, epsilon: 0.01, beta: 0.1}", "; of its kl, which is another one"),
    ],
)
def test_vectors_of_the_base_are_run_where_the_loss_is_its_own(change, kl, tmp_path: Path, capsys):
    spec = tmp_path / "mine.yaml"
    spec.write_text(f"base: dpo\n{change}\n")
    assert main(["vectors", str(spec)]) == 0
    out, err = capsys.readouterr()
    assert out.startswith("mine: cases checked 5, largest difference") and out.endswith("ok\n")
    lent = "note: mine: no vectors of its own; the loss is that of its base 'dpo', whose are run"
    assert (f"{lent}{kl}" in err) if kl else err.rstrip().endswith(lent)


def test_a_spec_without_base_and_vectors_says_so(tmp_path: Path, capsys):
    spec = tmp_path / "mine.yaml"
    spec.write_text("loss: dpo\nkl: {name: fixed, beta: 0.1}\nreferences: {ref: base}\n")
    assert main(["vectors", str(spec)]) == 2
    assert "mine.json, and it has no base. Write them, or give --file" in capsys.readouterr().err


WRONG = """
from nashtune.interfaces import KLController, Loss, LossOutput

class FloatKL(KLController):
    def __init__(self, *, beta: float = 0.1):
        self._beta = beta

    def beta(self, batch):
        return self._beta

class Detached(Loss):
    def __init__(self, *, label_smoothing: float = 0.0): ...

    def __call__(self, batch, step):
        return LossOutput(values=(batch.policy_chosen - batch.policy_rejected).detach())
"""


@pytest.mark.parametrize(
    ("part", "said"),
    [
        ("kl: {name: wrong_parts.FloatKL, beta: 0.1}", "kl FloatKL: beta() returns a tensor, a scalar or one number"),
        ("loss: wrong_parts.Detached", "loss Detached: its values have no gradient, so nothing would be learned"),
    ],
)
@pytest.mark.parametrize("command", ["vectors", "verify"])
def test_a_component_that_gives_something_else_exits_2(command, part, said, tmp_path: Path, capsys, monkeypatch):
    (tmp_path / "wrong_parts.py").write_text(WRONG)
    monkeypatch.syspath_prepend(tmp_path)
    spec = tmp_path / "mine.yaml"
    spec.write_text(f"base: dpo\n{part}\n")
    options = ["--file", write(tmp_path)] if command == "vectors" else []
    assert main([command, str(spec), *options, "--allow-import", "wrong_parts"]) == 2
    assert said in capsys.readouterr().err
