"""Keys of transformers' Trainer, which several tools share: warm-up, evaluation, DeepSpeed, names of models."""

from __future__ import annotations

from pathlib import Path

import pytest

from nashtune.spec.resolve import resolve
from nashtune.spec.run import load_runs

HERE = Path(__file__).parent
BEGINNINGS = {
    "trl": "loss_type: sigmoid\n",
    "llamafactory": "stage: dpo\n",
    "axolotl": "rl: dpo\nlearning_rate: 1e-6\n",
}


def test_a_dump_of_transformers_4(imported):
    """DPOConfig(warmup_ratio=0.1, eval_strategy="steps", logging_steps=25, ...).to_json_string() of TRL 0.24.0."""
    text = (HERE / "trl-0.24.0-transformers-4.57.3.dpo_config.json").read_text()
    result = imported("trl", text, name="config.json")
    assert result["code"] == 1 and "policy.path" in " ".join(result["findings"])
    assert not [item["key"] for item in result["keys"] if item["outcome"] == "lost"]
    spec, runs = resolve(result["spec"]), load_runs([result["run"]])
    assert (spec.optimizer.warmup, spec.optimizer.lr, result["base"]) == (0.1, 5e-7, "dpo")
    assert result["by_key"]["warmup_steps"]["outcome"] == "unread"
    assert runs.data["trainer"]["accelerator"] == "cpu"  # use_cpu is true, and its earlier name no_cuda false
    assert runs.data["data"]["overflow"] == "truncate_prompt" and runs.data["data"]["max_prompt_length"] == 512


@pytest.mark.parametrize("tool", ["trl", "llamafactory"])
@pytest.mark.parametrize(
    ("lines", "warmup"),
    [
        ("warmup_ratio: 0.1\nwarmup_steps: 0", 0.1),
        ("warmup_ratio: 0.0\nwarmup_steps: 10", 10),
        ("warmup_ratio: 0.1\nwarmup_steps: 10", 10),
        ("warmup_ratio: 0.0\nwarmup_steps: 0", 0),
        ("warmup_ratio: 0.1", 0.1),
        ("warmup_steps: 0.1", 0.1),
    ],
)
def test_warm_up_is_said_in_two_ways(imported, tool: str, lines: str, warmup: float):
    result = imported(tool, f"{BEGINNINGS[tool]}{lines}\n")
    assert resolve(result["spec"]).optimizer.warmup == warmup


@pytest.mark.parametrize("tool", BEGINNINGS)
def test_a_warm_up_of_the_whole_run_is_not_one_of_one_step(errors, tool: str):
    assert "warmup_ratio: a share of 1 or more" in errors(tool, f"{BEGINNINGS[tool]}warmup_ratio: 1.0\n")


@pytest.mark.parametrize("tool", BEGINNINGS)
def test_the_first_step_of_a_warm_up_differs_for_all(imported, tool: str):
    notes = imported(tool, BEGINNINGS[tool])["notes"]
    assert len([note for note in notes if note.startswith("warm-up of w steps: there the first")]) == 1


@pytest.mark.parametrize(
    ("tool", "lines", "interval"),
    [
        ("trl", "", 10),
        ("trl", "logging_steps: 25", 25),
        ("trl", "logging_steps: 25\ngradient_accumulation_steps: 4", 100),
        ("trl", "logging_steps: 25\neval_steps: 0", 25),
        ("trl", "logging_steps: 25\neval_steps: 7", 7),
        ("llamafactory", "", 500),
        ("llamafactory", "logging_steps: 25", 25),
    ],
)
def test_evaluation_without_an_interval_is_as_often_as_logging(imported, tool: str, lines: str, interval: int):
    result = imported(tool, f"{BEGINNINGS[tool]}eval_strategy: steps\n{lines}\n")
    assert load_runs([result["run"]]).data["trainer"]["val_check_interval"] == interval
    if "logging_steps" in lines and "eval_steps" not in lines:
        assert "# eval_steps, as logging_steps, config.yaml:" in Path(result["run"]).read_text()


def test_an_interval_that_axolotl_computes_is_to_be_given(imported, errors):
    rows = f"{BEGINNINGS['axolotl']}test_datasets:\n  - path: held.jsonl\neval_strategy: steps\n"
    assert "c.yaml:5: eval_strategy: without eval_steps it is every logging_steps there" in errors("axolotl", rows)
    result = imported("axolotl", f"{rows}eval_steps: 5\ngradient_accumulation_steps: 2\n")
    assert load_runs([result["run"]]).data["trainer"]["val_check_interval"] == 10


@pytest.mark.parametrize("tool", BEGINNINGS)
def test_settings_of_deepspeed_are_not_read_and_that_is_said(imported, tool: str):
    notes = imported(tool, f"{BEGINNINGS[tool]}deepspeed: ds.json\n")["notes"]
    (note,) = [note for note in notes if note.startswith("deepspeed: ")]
    assert "optimizer" in note and "gradient_clipping" in note and "learning rate" in note
    without = imported(tool, f"{BEGINNINGS[tool]}deepspeed:\n", "--out", "other")["notes"]
    assert not [note for note in without if note.startswith("deepspeed: ")]


def test_a_name_that_is_no_folder_here_is_a_guess(imported, tmp_path):
    (tmp_path / "models" / "mine").mkdir(parents=True)
    config = "loss_type: sigmoid\nmodel_name_or_path: {}\ndataset_name: org/rows\n"
    guessed = imported("trl", config.format("models/other"), "--out", "first")
    assert load_runs([guessed["run"]]).data["policy"]["path"] == "hub:models/other"
    notes = [note for note in guessed["notes"] if "is taken for a name on the hub" in note]
    assert [note.partition(":")[0] for note in notes] == ["model_name_or_path", "dataset_name"]
    assert "there is no models/other below the current folder" in notes[0]
    local = imported("trl", config.format("models/mine"), "--out", "second")
    assert load_runs([local["run"]]).data["policy"]["path"] == "models/mine"
    assert not [note for note in local["notes"] if note.startswith("model_name_or_path: there is no")]


@pytest.mark.parametrize(
    ("tool", "lines"),
    [
        ("trl", "use_peft: true"),
        ("trl", "use_peft: true\nlora_dropout: 0.2"),
        ("llamafactory", "lora_dropout: 0.1"),
        ("axolotl", "adapter: lora\nlora_r: 8\nlora_alpha: 16\nlora_dropout: 0.05\nlora_target_linear: true"),
    ],
)
def test_dropout_of_an_adapter_is_switched_off_by_all_of_them(imported, tool: str, lines: str):
    result = imported(tool, f"{BEGINNINGS[tool]}{lines}\n")
    assert load_runs([result["run"]]).data["policy"]["lora"]["dropout"] == 0.0
    (note,) = [note for note in result["notes"] if note.startswith("lora_dropout: ")]
    assert "trains with 0, which is what is written" in note


def test_trl_with_dropout_is_refused(errors):
    message = errors("trl", "loss_type: sigmoid\ndisable_dropout: false\n")
    assert "c.yaml:2: disable_dropout: base models run without dropout here" in message


def test_a_handbook_recipe_names_what_is_lost(imported):
    """recipes/zephyr-7b-beta/dpo/config_qlora.yaml of the alignment handbook, of TRL's early days."""
    recipe = (HERE / "zephyr_dpo_qlora.yaml").read_text()
    result = imported("trl", recipe, "--allow-lossy", "--trainer", "dpo")
    lost = {item["key"] for item in result["keys"] if item["outcome"] == "lost"}
    assert lost == {"dtype", "load_in_4bit"}
    rows = load_runs([result["run"]]).data["data"]
    name = "hub:HuggingFaceH4/ultrafeedback_binarized"
    assert (rows["train"], rows["validation"]) == (f"{name}:train_prefs", f"{name}:test_prefs")
    spec = resolve(result["spec"])
    assert (spec.kl.args["beta"], spec.optimizer.lr, spec.optimizer.warmup) == (0.01, 5e-6, 0.1)
