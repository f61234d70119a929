"""Configs of LLaMA-Factory."""

from __future__ import annotations

import pytest

from nashtune.spec.resolve import resolve
from nashtune.spec.run import load_runs

EXAMPLE = """\
### model
model_name_or_path: meta-llama/Meta-Llama-3-8B-Instruct

### method
stage: dpo
do_train: true
finetuning_type: lora
lora_rank: 8
lora_target: all
pref_beta: 0.1
pref_loss: sigmoid  # choices: [sigmoid (dpo), orpo, simpo]

### dataset
dataset: dpo_en_demo
template: llama3
cutoff_len: 2048
max_samples: 1000
overwrite_cache: true
preprocessing_num_workers: 16

### output
output_dir: saves/llama3-8b/lora/dpo
logging_steps: 10
save_steps: 500
plot_loss: true
overwrite_output_dir: true

### train
per_device_train_batch_size: 1
gradient_accumulation_steps: 8
learning_rate: 5.0e-6
num_train_epochs: 3.0
lr_scheduler_type: cosine
warmup_ratio: 0.1
bf16: true
ddp_timeout: 180000000
"""


def test_the_example_of_its_repository(imported):
    result = imported("llamafactory", EXAMPLE)
    assert result["code"] == 1  # its rows have other columns, and are to be written into that file first
    assert [finding.partition(";")[0] for finding in result["findings"]] == ["dpo_en_demo.jsonl: no such file"]
    spec, runs = resolve(result["spec"]), load_runs([result["run"]])
    assert (spec.loss.name, spec.kl.args["beta"], spec.loss.args["label_smoothing"]) == ("dpo", 0.1, 0.0)
    assert (spec.optimizer.lr, spec.optimizer.warmup, spec.optimizer.decay) == (5e-6, 0.1, "cosine")
    assert runs.data["policy"] == {
        "path": "hub:meta-llama/Meta-Llama-3-8B-Instruct",
        "lora": {"r": 8, "target_modules": "all-linear", "alpha": 16.0, "dropout": 0.0},
        "gradient_checkpointing": True,
    }
    assert runs.data["data"] == {
        "train": "dpo_en_demo.jsonl",
        "template": "chat",
        "max_length": 2048,
        "limit": 1000,
        "batch_size": 1,
        "eval_batch_size": 8,
    }
    assert (runs.data["trainer"]["max_epochs"], runs.data["trainer"]["precision"]) == (3, "bf16-mixed")
    assert any(note.startswith("template: LLaMA-Factory puts its own template") for note in result["notes"])


@pytest.mark.parametrize(
    ("lines", "spec_name", "values"),
    [
        ("dpo_label_smoothing: 0.1", "dpo", {"label_smoothing": 0.1}),
        ("pref_loss: ipo", "ipo", {"tau": 0.1, "reduction": "mean"}),
        ("pref_loss: orpo", "orpo", {"lam": 0.1}),
        ("pref_loss: simpo", "simpo", {"beta": 0.1, "gamma_beta_ratio": 5.0}),
        ("pref_loss: hinge", "slic_hinge", {}),
    ],
)
def test_its_losses(imported, lines: str, spec_name: str, values: dict[str, object]):
    result = imported("llamafactory", f"stage: dpo\n{lines}\n")
    spec = resolve(result["spec"])
    assert result["base"] == spec_name and dict(spec.loss.args) == values


def test_kto(imported):
    result = imported("llamafactory", "stage: kto\nkto_chosen_weight: 1.5\n")
    assert dict(resolve(result["spec"]).loss.args) == {"lam_desirable": 1.5, "lam_undesirable": 1.0}


def test_other_stages_are_refused(refused, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for stage, says in (("sft", "supervised training"), ("rm", "reward_bt"), ("ppo", "methodology_ppo")):
        (tmp_path / "c.yaml").write_text(f"stage: {stage}\n")
        assert says in refused("import", "llamafactory", "c.yaml")


def test_an_adapter_of_supervised_training_is_trained_further_and_the_reference_is_without_it(imported):
    result = imported("llamafactory", "stage: dpo\nmodel_name_or_path: base\nadapter_name_or_path: sft\nlora_rank: 8\n")
    spec, runs = resolve(result["spec"]), load_runs([result["run"]])
    assert runs.data["policy"]["path"] == "sft" and "lora" not in runs.data["policy"]
    assert spec.references["ref"].name == "adapter_off"
    assert result["by_key"]["model_name_or_path"]["text"] == "the adapter's folder names its base model"
    assert any("adapter_off" in note for note in result["notes"])


def test_a_reference_model(imported):
    spec = resolve(imported("llamafactory", "stage: dpo\nref_model: ./sft\n")["spec"])
    assert (spec.references["ref"].name, spec.references["ref"].args) == ("checkpoint", {"path": "./sft"})


def test_what_it_cannot_say_is_an_error(refused, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "c.yaml").write_text("stage: dpo\npref_ftx: 0.1\nquantization_bit: 4\ndataset: a,b\n")
    message = refused("import", "llamafactory", "c.yaml")
    assert "3 keys have no counterpart" in message


def test_an_adapter_with_a_reference_model_of_its_own(imported):
    result = imported("llamafactory", "stage: dpo\nadapter_name_or_path: sft\nref_model: merged\n")
    spec, runs = resolve(result["spec"]), load_runs([result["run"]])
    assert runs.data["policy"]["path"] == "sft" and "lora" not in runs.data["policy"]
    assert (spec.references["ref"].name, spec.references["ref"].args) == ("checkpoint", {"path": "merged"})
    assert not any("adapter_off" in note for note in result["notes"])


@pytest.mark.parametrize(("line", "reference"), [("", "base"), ("ref_model: merged\n", "checkpoint")])
def test_a_fresh_adapter_on_a_merged_one_begins_at_its_reference(imported, line: str, reference: str):
    config = f"stage: dpo\nadapter_name_or_path: sft\ncreate_new_adapter: true\nlora_rank: 4\n{line}"
    result = imported("llamafactory", config)
    spec, runs = resolve(result["spec"]), load_runs([result["run"]])
    assert runs.data["policy"]["path"] == "sft" and runs.data["policy"]["lora"]["r"] == 4
    assert spec.references["ref"].name == reference
    (note,) = [note for note in result["notes"] if note.startswith("adapter_name_or_path: ")]
    assert "first merges the adapter into the weights" in note


@pytest.mark.parametrize("names", ["first,second", "[first, second]"])
def test_adapters_upon_one_another_are_no_path(errors, names: str):
    message = errors("llamafactory", f"stage: dpo\nadapter_name_or_path: {names}\n")
    assert "c.yaml:2: adapter_name_or_path: 2 adapters, one upon the other; merge all but the last" in message


@pytest.mark.parametrize("method", ["stage: dpo", "stage: kto", "stage: dpo\npref_loss: simpo"])
def test_an_adapter_where_all_weights_are_trained_is_refused_as_the_tool_does(errors, method: str):
    message = errors("llamafactory", f"{method}\nfinetuning_type: full\nadapter_name_or_path: sft\n")
    assert "adapter_name_or_path: LLaMA-Factory refuses an adapter with this finetuning_type" in message


def test_the_empty_template_has_no_end_of_sequence(imported):
    result = imported("llamafactory", "stage: dpo\ntemplate: empty\n")
    assert load_runs([result["run"]]).data["data"]["template"] == "plain"
    (note,) = [note for note in result["notes"] if note.startswith("template: ")]
    assert "answers without an end-of-sequence token" in note and "tokenizer's own" not in note


@pytest.mark.parametrize(
    ("line", "precision", "said"),
    [
        ("", "32-true", True),
        ("bf16: false", "32-true", True),
        ("bf16: true", "bf16-mixed", False),
        ("fp16: true", "16-mixed", False),
        ("pure_bf16: true", "32-true", False),
    ],
)
def test_without_a_precision_the_tool_takes_the_configs(imported, line: str, precision: str, said: bool):
    result = imported("llamafactory", f"stage: dpo\n{line}\n")
    assert load_runs([result["run"]]).data["trainer"]["precision"] == precision
    assert any("in the data type that the model's config names" in note for note in result["notes"]) == said


@pytest.mark.parametrize(
    ("lines", "columns"),
    [
        ("stage: dpo", "{prompt, chosen, rejected}"),
        ("stage: dpo\npref_loss: hinge", "{prompt, chosen, rejected}"),
        ("stage: dpo\npref_loss: simpo", "{prompt, chosen, rejected}"),
        ("stage: kto", "{prompt, completion, label}"),
    ],
)
def test_the_note_on_rows_names_the_columns_of_the_method(imported, lines: str, columns: str):
    (note,) = [note for note in imported("llamafactory", f"{lines}\n")["notes"] if "dataset_info.json" in note]
    assert columns in note and "docs/migrate/llamafactory.md" in note


def test_a_refusal_says_its_name_once(errors):
    assert "c.yaml:1: supervised training: not here; a preference method" in errors("llamafactory", "stage: sft\n")


def test_the_folder_of_runs_is_the_one_that_fit_makes(imported, tmp_path):
    from nashtune.training.run_folder import choose_run_dir

    result = imported("llamafactory", "stage: dpo\noutput_dir: saves\n", name="mine.yaml")
    folder = choose_run_dir(None, resolve(result["spec"]).name, resumed=None)
    assert str(folder).replace("mine", "NAME") in result["by_key"]["output_dir"]["text"]


def test_images_are_named_where_a_config_has_them(imported):
    result = imported("llamafactory", "stage: dpo\nimage_max_pixels: 262144\n")
    assert any(note.startswith("image_max_pixels: rows with images are not read here") for note in result["notes"])


def test_keys_that_go_with_one_that_is_lost_are_not_lost_too(errors):
    message = errors("llamafactory", "stage: dpo\nuse_kt: true\nkt_optimize_rule: rule.yaml\ncpu_infer: 32\n")
    assert "1 key has no counterpart" in message and "c.yaml:2: use_kt: KTransformers is not here" in message
