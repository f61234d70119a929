from __future__ import annotations

import json

import pytest

from nashtune.cli.main import main


@pytest.fixture
def files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def write(name: str, text: str) -> str:
        (tmp_path / f"{name}.yaml").write_text(text)
        return f"{name}.yaml"

    return write


def differences(capsys, a: str, b: str) -> tuple[int, dict[str, tuple]]:
    code = main(["diff", a, b, "--json"])
    entries = json.loads(capsys.readouterr().out)
    return code, {entry["key"]: (entry.get("a"), entry.get("b")) for entry in entries}


def test_a_variant_differs_in_what_it_changes(capsys):
    assert differences(capsys, "dpo", "cdpo") == (1, {"loss.label_smoothing": (0.0, 0.1)})


def test_another_method_differs_in_components_and_their_options(capsys):
    code, found = differences(capsys, "epsilon_dpo", "simpo")
    assert code == 1
    assert found["loss"] == ("dpo", "simpo")
    assert found["loss.label_smoothing"] == (0.0, None)
    assert found["kl"] == ("epsilon_dpo", "none")
    assert found["references.ref"] == ("base", None)
    assert "schedule" not in found


def test_the_way_of_writing_does_not_count(files, capsys):
    a = files("a", "# a comment\nabout: {title: A}\nloss: dpo\nkl: {name: fixed, beta: 0.1}\nreferences: {ref: base}\n")
    b = files(
        "b",
        "about: {title: B}\nschedule: offline\nreferences:\n  ref: {name: base}\nkl:\n  beta: 1e-1\n  name: fixed\n"
        "loss: {name: nashtune_plugins.dpo.DPOLoss, label_smoothing: 0}\noptimizer: {lr: 5e-7}\noracle: none\n",
    )
    assert differences(capsys, a, b) == (0, {})
    assert main(["diff", a, b]) == 0
    assert capsys.readouterr().out == "a.yaml and b.yaml mean the same\n"


def test_the_table_names_both_sides(capsys):
    assert main(["diff", "dpo", "ipo"]) == 1
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["dpo", "ipo"] in lines
    assert ["loss", "dpo", "ipo"] in lines
    assert ["kl", "fixed", "none"] in lines
    assert ["kl.beta", "0.1", "-"] in lines


def test_a_wrong_spec_is_exit_code_2(files, capsys):
    assert main(["diff", "dpo", files("wrong", "loss: dpoo")]) == 2
    assert "wrong.yaml:1" in capsys.readouterr().err
