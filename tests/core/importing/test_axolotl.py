"""Configs of Axolotl."""

from __future__ import annotations

import pytest

from nashtune.spec.resolve import resolve
from nashtune.spec.run import load_runs

EXAMPLE = """\
base_model: NousResearch/Meta-Llama-3.1-8B-Instruct
model_type: LlamaForCausalLM
tokenizer_type: AutoTokenizer

load_in_8bit: false
load_in_4bit: false

rl: dpo
rl_beta: 0.2
chat_template: llama3
datasets:
  - path: fozziethebeat/alpaca_messages_2k_dpo_test
    split: train
    type: chat_template.default
    field_messages: prompt
    field_chosen: chosen
    field_rejected: rejected
dataset_prepared_path:
val_set_size: 0.0
output_dir: ./outputs/lora-out

sequence_len: 4096
sample_packing: false
pad_to_sequence_len: true

adapter: lora
lora_model_dir:
lora_r: 32
lora_alpha: 16
lora_dropout: 0.05
lora_target_linear: true

wandb_project:
gradient_accumulation_steps: 4
micro_batch_size: 2
num_epochs: 4
optimizer: adamw_bnb_8bit
lr_scheduler: cosine
learning_rate: 0.0002

bf16: auto
tf32: false
gradient_checkpointing: true
resume_from_checkpoint:
logging_steps: 1
flash_attention: true
warmup_ratio: 0.1
evals_per_epoch: 4
saves_per_epoch: 1
weight_decay: 0.0
"""


def test_a_usual_config(imported):
    result = imported("axolotl", EXAMPLE.replace("adamw_bnb_8bit", "adamw_torch"))
    assert result["code"] == 0, result["findings"]
    spec, runs = resolve(result["spec"]), load_runs([result["run"]])
    assert (spec.loss.name, spec.kl.args["beta"], spec.optimizer.lr, spec.optimizer.warmup) == ("dpo", 0.2, 2e-4, 0.1)
    assert runs.data["policy"] == {
        "path": "hub:NousResearch/Meta-Llama-3.1-8B-Instruct",
        "precision": "bf16",
        "lora": {"r": 32, "alpha": 16, "dropout": 0.0, "target_modules": "all-linear"},
        "gradient_checkpointing": True,
    }
    assert runs.data["data"] == {
        "template": "chat",
        "train": "hub:fozziethebeat/alpaca_messages_2k_dpo_test:train",
        "max_length": 4096,
        "overflow": "drop",
        "batch_size": 2,
    }
    assert runs.data["trainer"]["accumulate_grad_batches"] == 4 and runs.data["trainer"]["max_epochs"] == 4


def test_eight_bit_moments(imported):
    spec = resolve(imported("axolotl", EXAMPLE)["spec"])
    assert spec.optimizer.name == "adamw_8bit"


@pytest.mark.parametrize(
    ("lines", "base", "values"),
    [
        ("rl: ipo", "ipo", {"tau": 0.1, "reduction": "mean"}),
        ("rl: dpo\ndpo_loss_type: [ipo]\nrl_beta: 0.3", "ipo", {"tau": 0.3, "reduction": "mean"}),
        ("rl: orpo\norpo_alpha: 0.2", "orpo", {"lam": 0.2}),
        ("rl: simpo\nrl_beta: 2.5\nsimpo_gamma: 1.0\ncpo_alpha: 0.0", "simpo", {"beta": 2.5, "gamma_beta_ratio": 0.4}),
        ("rl: kto\nkto_desirable_weight: 0.5", "kto", {"lam_desirable": 0.5, "lam_undesirable": 1.0}),
    ],
)
def test_its_losses(imported, lines: str, base: str, values: dict[str, object]):
    result = imported("axolotl", f"{lines}\nlearning_rate: 1e-6\n")
    assert result["base"] == base and dict(resolve(result["spec"]).loss.args) == values


def test_warm_up_that_is_not_said(imported):
    spec = resolve(imported("axolotl", "rl: dpo\nlearning_rate: 1e-6\n")["spec"])
    assert (spec.optimizer.warmup, spec.optimizer.decay, spec.optimizer.lr) == (0.03, "cosine", 1e-6)


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        ("rl: dpo\nadapter: lora\nlora_r: 8\nlora_alpha: 8", "lora_target_modules: the layers of the adapter"),
        ("rl: dpo\nadapter: lora\nlora_r: 8\nlora_alpha: 8\nlora_target_modules: []", "c.yaml:5: lora_target_modules"),
        (
            "rl: dpo\nadapter: lora\nlora_target_linear: true",
            "lora_r: the rank of the adapter, for which",
        ),
        ("rl: dpo\nadapter: lora\nlora_r: 8\nlora_target_linear: true", "lora_alpha: the scale of the adapter"),
        ("rl: simpo\nrl_beta: 2.0\ncpo_alpha: 0.0", "simpo_gamma: Axolotl has no default for it"),
        ("rl: dpo\ndpo_loss_type: [sigmoid, ipo]", "a sum of losses is not here"),
        ("rl: dpo\nadapter: qlora", "quantised weights and other adapters are not here"),
        ("rl: dpo\ndpo_label_smoothing: 0.1", "whose sigmoid loss ignores it"),
        ("rl: simpo\nrl_beta: 2.0", "cpo_alpha: not given, and Axolotl's default is 1"),
        ("rl: dpo\nval_set_size: 0.05", "split the rows into two files"),
        ("rl: dpo\ndatasets:\n  - {path: a/b}\n  - {path: c/d}", "several data sets"),
        ("rl: dpo\nplugins: [my.Plugin]", "what a plugin of Axolotl does is not known here"),
        ("rl: dpo\nlerning_rate: 1", "did you mean 'learning_rate'?"),
        ("rl: grpo", "reinforcement learning: not imported"),
        ("learning_rate: 1e-5", "supervised training: without `rl` it is that"),
    ],
)
def test_what_has_no_counterpart_is_an_error(refused, tmp_path, monkeypatch, capsys, lines: str, says: str):
    from nashtune.cli.main import main

    monkeypatch.chdir(tmp_path)
    (tmp_path / "c.yaml").write_text(f"{lines}\n")
    assert main(["import", "axolotl", "c.yaml"]) == 2
    assert says in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["c.yaml"]


ADAPTER = "rl: dpo\nlearning_rate: 1e-6\nadapter: lora\nlora_r: 8\nlora_alpha: 8\nlora_target_linear: true\n"


def test_all_linear_layers_and_some_of_them_are_all(imported):
    result = imported("axolotl", f"{ADAPTER}lora_target_modules: [q_proj, lm_head]\n")
    assert load_runs([result["run"]]).data["policy"]["lora"]["target_modules"] == "all-linear"
    assert result["by_key"]["lora_target_modules"]["outcome"] == "left"
    assert any(
        note.startswith("lora_target_linear: Axolotl joins it with lora_target_modules") for note in result["notes"]
    )
    alone = imported("axolotl", ADAPTER.replace("_linear: true", "_modules: [q_proj]"), "--out", "other")
    assert load_runs([alone["run"]]).data["policy"]["lora"]["target_modules"] == ["q_proj"]


@pytest.mark.parametrize(
    ("lines", "weights"),
    [
        ("", "bf16"),
        ("bf16: auto", "bf16"),
        ("bf16: true", "bf16"),
        ("bf16: false", None),
        ("bf16: false\nfp16: true", None),
    ],
)
def test_frozen_weights_are_bf16_where_bf16_is_on(imported, lines: str, weights: str | None):
    runs = load_runs([imported("axolotl", f"{ADAPTER}{lines}\n")["run"]])
    assert runs.data["policy"].get("precision") == weights


@pytest.mark.parametrize(
    ("kind", "noted"),
    [("chatml.intel", True), ("chatml.ultra", True), ("llama3.icr", True), ("chat_template.default", False)],
)
def test_types_that_write_a_template_of_their_own_are_noted(imported, kind: str, noted: bool):
    rows = f"datasets: [{{path: a.jsonl, type: {kind}}}]"
    result = imported("axolotl", f"rl: dpo\nlearning_rate: 1e-5\n{rows}\n")
    assert result["by_key"]["datasets.type"]["outcome"] == "left"
    assert any("in a chat template of their own" in note for note in result["notes"]) == noted


def test_one_step_of_warm_up_is_two_there(imported):
    result = imported("axolotl", "rl: dpo\nlearning_rate: 1e-5\nwarmup_steps: 1\n")
    assert resolve(result["spec"]).optimizer.warmup == 1
    assert "warmup_steps: Axolotl takes 2 steps where 1 is asked for" in result["notes"]


def test_keys_of_other_methods_are_not_read(imported):
    text = "rl: dpo\nlearning_rate: 1e-5\ntrl: {num_generations: 4, beta: 0.2}\n"
    result = imported(
        "axolotl", f"{text}datasets: [{{path: a.jsonl, roles_to_train: [assistant], train_on_eos: turn}}]\n"
    )
    assert resolve(result["spec"]).kl.args["beta"] == 0.2
    for key in ("trl.num_generations", "datasets.roles_to_train", "datasets.train_on_eos"):
        assert result["by_key"][key]["outcome"] == "unread", key
