from __future__ import annotations

import json

import pytest

from nashtune.cli import show
from nashtune.cli.main import main
from nashtune.spec.resolve import resolve


def shown(capsys, *argv: str) -> dict:
    assert main(["show", *argv, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_what_is_trained_with_the_origin_of_everything(capsys):
    page = shown(capsys, "epsilon_dpo")
    assert page["name"] == "epsilon_dpo"
    assert page["about"]["equation"].startswith("−log σ(")
    assert "sums over completion tokens" in page["about"]["conventions"]
    components = {component["key"]: component for component in page["components"]}
    assert list(components) == ["loss", "kl", "references.ref", "schedule"]
    kl = components["kl"]
    assert (kl["name"], kl["plugin"]) == ("epsilon_dpo", "builtin")
    assert kl["file"].endswith("epsilon_dpo.py")
    assert kl["line"] > 1
    assert kl["set_at"].endswith("epsilon_dpo.yaml:18")
    arguments = {argument["name"]: argument for argument in kl["arguments"]}
    assert arguments["epsilon"]["value"] == 0.01
    assert arguments["epsilon_step"] == {**arguments["epsilon_step"], "value": None, "set_at": "default"}
    assert all(argument["doc"] for argument in kl["arguments"])
    assert resolve(page["resolved"]) == resolve("epsilon_dpo")


def test_settings_are_shown_as_they_would_be_trained(capsys):
    page = shown(capsys, "dpo", "--spec.kl.beta", "0.5", "--spec.optimizer.lr=1e-6")
    kl = next(component for component in page["components"] if component["key"] == "kl")
    assert kl["arguments"][0]["value"] == 0.5
    assert kl["arguments"][0]["set_at"] == "--spec.kl.beta"
    lr = next(argument for argument in page["optimizer"] if argument["name"] == "lr")
    assert (lr["value"], lr["set_at"]) == (1e-6, "--spec.optimizer.lr")


def test_a_class_path_says_so(capsys):
    page = shown(capsys, "dpo", "--spec.loss", "nashtune_plugins.dpo.DPOLoss")
    assert page["components"][0]["plugin"] is None
    assert main(["show", "dpo", "--spec.loss", "nashtune_plugins.dpo.DPOLoss"]) == 0
    assert "class path, " in capsys.readouterr().out


def test_the_page(capsys):
    assert main(["show", "dpo"]) == 0
    out = capsys.readouterr().out
    spec = resolve("dpo")
    for text in (
        spec.about["title"],
        spec.about["paper"],
        spec.about["equation"],
        spec.about["conventions"],
        "loss: dpo",
        "kl: fixed",
        "references.ref: base",
        "dpo.py:",
        "dpo.yaml:",
        "oracle, sampler, pairing: none",
        "rmsprop",
        "builtin",
    ):
        assert text in out
    assert any(line.split()[:2] == ["weight_decay", "0.0"] and line.endswith("default") for line in out.splitlines())


def test_text_is_broken_to_the_terminal_and_not_in_a_pipe():
    text = "word " * 40
    assert len(show._paragraph(text, 60).plain.splitlines()) > 3
    assert all(len(line) <= 60 for line in show._paragraph(text, 60).plain.splitlines())
    assert len(show._paragraph(text, 0).plain.splitlines()) == 1


@pytest.mark.parametrize("text", ["loss: dpo\n", "loss: dpo\nkl: {name: fixed, bta: 1}"])
def test_a_wrong_spec_is_not_shown(text, tmp_path, capsys):
    file = tmp_path / "wrong.yaml"
    file.write_text(text)
    assert main(["show", str(file)]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "wrong.yaml" in captured.err
