"""Which of TRL's trainers a file is for: its keys say it, or the command does; nothing is taken for DPO by chance."""

from __future__ import annotations

import pytest

from nashtune.cli.main import main
from nashtune.spec.resolve import resolve
from nashtune.spec.run import load_runs

COMMON = "model_name_or_path: m\nbeta: 0.2\nlearning_rate: 1e-6\nmax_length: 512\n"


def test_keys_that_several_trainers_have_ask_for_its_name(imported, errors):
    message = errors("trl", COMMON)
    assert (
        "c.yaml: several trainers of TRL have all of its keys" in message
        and "--trainer dpo, kto, cpo, orpo or simpo" in message
    )
    for trainer, base in (("dpo", "dpo"), ("kto", "kto")):
        result = imported("trl", COMMON, "--trainer", trainer, "--out", trainer)
        assert result["base"] == base and not any("taken for" in note for note in result["notes"])
        assert resolve(result["spec"]).kl.args["beta"] == 0.2
    assert "cpo: not here without a reference" in errors("trl", COMMON, "--trainer", "cpo")


@pytest.mark.parametrize(
    ("lines", "base", "by"),
    [
        ("desirable_weight: 1.0", "kto", "kto by desirable_weight (config.yaml:5)"),
        ("loss_type: kto", "kto", "kto by loss_type (config.yaml:5)"),
        ("loss_type: [ipo]", "ipo", "dpo by loss_type (config.yaml:5), though cpo has one of that name"),
        ("loss_type: robust", "dpo", "dpo by loss_type (config.yaml:5); "),
        ("f_divergence_type: reverse_kl", "dpo", "dpo by f_divergence_type (config.yaml:5)"),
        ("cpo_alpha: 0.0\nloss_type: simpo", "simpo", "cpo by cpo_alpha (config.yaml:5)"),
    ],
)
def test_keys_that_one_trainer_has_say_it(imported, lines: str, base: str, by: str):
    result = imported("trl", f"{COMMON}{lines}\n")
    assert result["base"] == base
    (note,) = [note for note in result["notes"] if note.startswith("taken for a config of the trainer ")]
    assert by in note


@pytest.mark.parametrize(
    ("lines", "options", "says"),
    [
        ("", ["--trainer", "sft"], "supervised training is not here"),
        ("completion_only_loss: true", [], "c.yaml:5: completion_only_loss: the trainer sft of TRL: supervised"),
        ("center_rewards_coefficient: 0.01", [], "nashtune fit --spec reward_bt"),
        ("num_generations: 8", [], "nashtune show grpo"),
        ("loss_type: nll", [], "the trainer sft of TRL"),
        ("desirable_weight: 1.0", ["--trainer", "dpo"], "desirable_weight is a key of the trainer kto alone"),
        ("desirable_weight: 1.0\nld_alpha: 0.5", [], "c.yaml:6: ld_alpha is a key of the trainer dpo alone, and des"),
        ("loss_type: kto", ["--trainer", "dpo"], "loss_type 'kto' of the trainer dpo: TRL 1.16.0 has no such loss"),
        ("", ["--trainer", "ktoo"], "TRL has no trainer 'ktoo'; did you mean 'kto'?"),
    ],
)
def test_what_is_not_imported_is_said_with_what_to_use(errors, lines: str, options: list[str], says: str):
    assert says in errors("trl", f"{COMMON}{lines}\n", *options)


def test_other_tools_say_it_themselves(errors):
    message = errors("llamafactory", "stage: dpo\n", "--trainer", "dpo")
    assert "a config of LLaMA-Factory says itself what it trains" in message


def test_kto_is_told_by_its_keys(imported):
    result = imported("trl", "desirable_weight: 1.33\nbeta: 0.2\n")
    spec = resolve(result["spec"])
    assert result["base"] == "kto" and spec.loss.args == {"lam_desirable": 1.33, "lam_undesirable": 1.0}


def test_simpo_without_cpo_alpha_is_another_loss(imported, capsys, tmp_path):
    (tmp_path / "bare.yaml").write_text("loss_type: simpo\nbeta: 2.5\n")
    assert main(["import", "trl", "bare.yaml"]) == 2
    message = capsys.readouterr().err
    assert "bare.yaml: cpo_alpha: not given, and TRL's default is 1: an NLL term of that weight" in message
    result = imported("trl", "loss_type: simpo\nbeta: 2.5\nsimpo_gamma: 1.375\ncpo_alpha: 0.0\n")
    spec = resolve(result["spec"])
    assert spec.loss.args == {"beta": 2.5, "gamma_beta_ratio": 0.55} and spec.kl is None and not spec.references


MIXER = "dataset_mixer:\n  HuggingFaceH4/ultrafeedback_binarized: 1.0\ndataset_splits: [train_prefs, test_prefs]\n"


def test_orpo_is_imported_for_its_trainer(imported):
    result = imported("trl", COMMON, "--trainer", "orpo")
    spec = resolve(result["spec"])
    assert (spec.loss.name, spec.loss.args["lam"]) == ("orpo", 0.2)
    assert any(note.startswith("the SFT term: TRL's ORPO") for note in result["notes"])


def test_a_config_of_the_simpo_authors_says_so_by_its_ratio(imported, errors):
    text = f"{MIXER}beta: 10\ngamma_beta_ratio: 0.3\nevaluation_strategy: steps\neval_steps: 400\n"
    result = imported("trl", text)
    assert resolve(result["spec"]).loss.args == {"beta": 10, "gamma_beta_ratio": 0.3}
    rows = load_runs([result["run"]]).data["data"]
    name = "hub:HuggingFaceH4/ultrafeedback_binarized"
    assert (rows["train"], rows["validation"]) == (f"{name}:train_prefs", f"{name}:test_prefs")
    assert "SFT term on the chosen answer is not here" in errors("trl", f"{text}sft_weight: 0.5\n")
    assert "of the loss_type of their SimPOTrainer there is sigmoid" in errors("trl", f"{text}loss_type: hinge\n")


def test_a_mixture_of_data_sets_is_lost_with_what_to_do(imported, errors):
    assert "several data sets, or a share of one; put the rows into one file" in errors(
        "trl", "loss_type: ipo\ndataset_mixer: {a/b: 1.0, c/d: 0.5}\n"
    )
    assert "a share of one" in errors("trl", "loss_type: ipo\ndataset_mixer: {a/b: 0.5}\n")
    result = imported("trl", f"{MIXER}loss_type: sigmoid\n")  # nothing is measured, so that nothing is held out
    assert "validation" not in load_runs([result["run"]]).data["data"]
    assert "put them into one file" in errors("trl", "loss_type: ipo\ndataset_mixture: {datasets: [{id: a/b}]}\n")
