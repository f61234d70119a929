"""Configs of TRL: what is taken over, what its defaults are, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from nashtune.cli.main import main
from nashtune.spec.resolve import resolve
from nashtune.spec.run import load_runs

CONFIG = """\
model_name_or_path: Qwen/Qwen2-0.5B-Instruct
dataset_name: trl-lib/ultrafeedback_binarized
loss_type: [sigmoid]
beta: 0.05
learning_rate: 5e-7
num_train_epochs: 1
per_device_train_batch_size: 2
gradient_accumulation_steps: 8
lr_scheduler_type: cosine
warmup_ratio: 0.1
max_length: 512
eval_strategy: steps
eval_steps: 50
bf16: true
gradient_checkpointing: false
precompute_ref_log_probs: true
report_to: wandb
push_to_hub: yes
seed: 7
output_dir: out
"""
DUMP = Path(__file__).parent / "trl-1.16.0.dpo_config.json"


def test_a_usual_config(imported):
    result = imported("trl", CONFIG)
    assert result["code"] == 0 and result["findings"] == []
    spec, runs = resolve(result["spec"]), load_runs([result["run"]])
    assert (spec.loss.name, spec.kl.args["beta"], spec.about["paper"]) == ("dpo", 0.05, "arXiv:2305.18290")
    assert spec.optimizer.to_dict() == {
        "name": "adamw",
        "lr": 5e-7,
        "weight_decay": 0.0,
        "betas": [0.9, 0.999],
        "rounding": "nearest",
        "warmup": 0.1,
        "decay": "cosine",
    }
    assert runs.data["policy"] == {
        "path": "hub:Qwen/Qwen2-0.5B-Instruct",
        "gradient_checkpointing": False,
        "precision": "fp32",
    }
    assert runs.data["data"] == {
        "train": "hub:trl-lib/ultrafeedback_binarized:train",
        "validation": "hub:trl-lib/ultrafeedback_binarized:test",
        "batch_size": 2,
        "eval_batch_size": 8,
        "max_length": 512,
    }
    assert runs.data["trainer"] == {
        "accumulate_grad_batches": 8,
        "max_epochs": 1,
        "gradient_clip_val": 1.0,
        "precision": "bf16-mixed",
        "check_val_every_n_epoch": None,
        "val_check_interval": 400,  # 50 optimiser steps of 8 micro-batches
    }
    assert runs.data["seed_everything"] == 7
    keys = result["by_key"]
    assert keys["push_to_hub"]["outcome"] == keys["report_to"]["outcome"] == "left"
    assert keys["learning_rate"]["where"] == "config.yaml:5" and keys["max_grad_norm"]["given"] is False


def test_what_is_not_said_is_what_trl_does_without_it(imported):
    result = imported("trl", "beta: 0.1\n", "--trainer", "dpo")
    asked = " ".join(result["findings"])  # which model and which rows, the config does not say
    assert result["code"] == 1 and "policy.path" in asked
    spec, runs = resolve(result["spec"]), load_runs([result["run"]])
    own = resolve("dpo").optimizer
    assert (spec.optimizer.lr, spec.optimizer.decay, spec.optimizer.warmup) == (1e-6, "linear", 0.0)
    assert (own.lr, own.decay, own.warmup) != (1e-6, "linear", 0.0)
    assert (runs.data["trainer"]["max_epochs"], runs.data["data"]["batch_size"]) == (3, 8)
    assert (runs.data["seed_everything"], runs.data["policy"]["gradient_checkpointing"]) == (42, True)


def test_a_dump_of_the_whole_config_is_read(imported):
    """DPOConfig(...).to_json_string() of TRL 1.16.0 itself: every key is known."""
    result = imported("trl", DUMP.read_text(), name="config.json")
    assert result["code"] == 1 and not [item for item in result["keys"] if item["outcome"] == "lost"]
    given = json.loads(DUMP.read_text())
    assert set(given) <= set(result["by_key"]) and len(given) > 100


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("loss_weights: [0.8, 0.2]", "loss_weights: a sum of losses is not here"),
        ("f_divergence_type: js_divergence", "f-DPO is not here"),
        ("use_weighting: true", "WPO's weights are not here"),
        ("sync_ref_model: true", "TR-DPO is not here"),
        ("ld_alpha: 0.5", "LD-DPO is not here"),
        ("load_in_4bit: true", "quantised weights are not here"),
        ("num_train_epochs: 0.5", "epochs are whole numbers here"),
        ("optim: galore_adamw", "galore_adamw has no counterpart"),
        ("max_completion_length: 64", "completions are never cut"),
        ("learning_rat: 1.0e-6", "not in the table of TRL 1.16.0; did you mean 'learning_rate'?"),
        ("max_length: null", "no limit; give the longest row in tokens"),
        ("dtype: float16", "weights are float32 or bfloat16 here"),
    ],
)
def test_a_key_without_counterpart_is_an_error_with_its_line(imported, refused, tmp_path, line: str, message: str):
    config = f"{CONFIG.replace('num_train_epochs: 1', '# n').replace('max_length: 512', '# m')}{line}\n"
    (tmp_path / "config.yaml").write_text(config)
    last = len(config.splitlines())
    (tmp_path / "other").mkdir()
    lossy = imported("trl", config, "--allow-lossy", "--out", "other")
    assert lossy["by_key"][line.partition(":")[0]]["outcome"] == "lost"
    text = Path(lossy["spec"]).read_text()
    assert f"# LOST: config.yaml:{last}: {line.partition(':')[0]}: " in text and message in text
    assert main(["import", "trl", "config.yaml"]) == 2
    assert not (tmp_path / "config.spec.yaml").exists()


def test_all_losses_of_a_config_are_named_at_once(imported, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "many.yaml").write_text("beta: 0.1\nld_alpha: 0.5\nuse_dora: true\nuse_peft: true\nrpo_alpha: 1.0\n")
    assert main(["import", "trl", "many.yaml"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert [line.partition(": ")[2].partition(": ")[0] for line in lines[:3]] == [
        "many.yaml:2",
        "many.yaml:3",
        "many.yaml:5",
    ]
    assert lines[3].startswith("error: 3 keys have no counterpart here, and nothing was written; ")
    assert not list(tmp_path.glob("many.*.yaml"))


@pytest.mark.parametrize(
    ("loss", "says"),
    [
        ("bco_pair", "BCO is not here"),
        ("apo_zero", "APO is not here"),
        ("exo_pair", "EXO is not here"),
        ("sppo_hard", "for pairs that a game draws and not for fixed ones"),
        ("nonsense", "no such loss"),
        ("[sigmoid, sft]", "a sum of losses is not here"),
    ],
)
def test_a_loss_without_counterpart_is_refused_even_lossy(refused, tmp_path, monkeypatch, loss: str, says: str):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config.yaml").write_text(f"beta: 0.1\nloss_type: {loss}\n")
    message = refused("import", "trl", "config.yaml", "--allow-lossy")
    assert says in message and "config.yaml:2" in message


def test_robust_with_label_smoothing_is_not_cdpo(imported, capsys, tmp_path):
    assert imported("trl", "loss_type: robust\n")["base"] == "dpo"
    (tmp_path / "second.yaml").write_text("loss_type: robust\nlabel_smoothing: 0.1\n")
    assert main(["import", "trl", "second.yaml"]) == 2
    assert "second.yaml:2: label_smoothing: robust is rDPO" in capsys.readouterr().err


def test_label_smoothing_of_sigmoid_has_no_effect_there_and_none_here(imported):
    result = imported("trl", "loss_type: sigmoid\nlabel_smoothing: 0.1\n")
    item = result["by_key"]["label_smoothing"]
    assert item["outcome"] == "unread" and "ignores it without a word" in item["text"]
    assert resolve(result["spec"]).loss.args == {"label_smoothing": 0.0}


def test_an_adapter(imported):
    config = "loss_type: sigmoid\nuse_peft: true\nlora_r: 32\nlora_target_modules: [q_proj, k_proj]\nlora_alpha: 16\n"
    lora = load_runs([imported("trl", config)["run"]]).data["policy"]["lora"]
    assert lora == {"r": 32, "alpha": 16, "dropout": 0.0, "target_modules": ["q_proj", "k_proj"]}
    unread = imported("trl", "loss_type: sigmoid\nlora_r: 32\n", name="second.yaml")
    assert unread["by_key"]["lora_r"]["text"] == "TRL reads it only with use_peft true"
    assert "lora" not in load_runs([unread["run"]]).data["policy"]


def test_steps_instead_of_epochs(imported):
    trainer = load_runs([imported("trl", "loss_type: sigmoid\nmax_steps: 300\nnum_train_epochs: 2\n")["run"]]).data[
        "trainer"
    ]
    assert (trainer["max_steps"], trainer["max_epochs"]) == (300, -1)


def test_a_constant_rate_has_no_warm_up_there(imported):
    spec = resolve(imported("trl", "loss_type: sigmoid\nlr_scheduler_type: constant\nwarmup_steps: 100\n")["spec"])
    assert (spec.optimizer.decay, spec.optimizer.warmup) == ("constant", 0.0)
