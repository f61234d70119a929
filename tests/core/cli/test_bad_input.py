"""What bad input gets: one clear message, exit code 2, no traceback, nothing overwritten, before weights are loaded."""

from __future__ import annotations

import gzip
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from lab import Lab, pair_rows, write_rows
from nashtune.models.policy import HFPolicy

Refused = Callable[..., str]


@pytest.fixture(autouse=True)
def no_weights(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """Loading weights fails the test: every case here must be told before."""
    if "loads" in request.keywords:
        return

    def load(self: HFPolicy) -> None:
        raise AssertionError("weights were loaded before the input was checked")

    monkeypatch.setattr(HFPolicy, "load", load)


@pytest.fixture
def fit(lab: Lab, refused: Refused) -> Refused:
    """`nashtune fit` on the laboratory's run file, which must be refused and leave no run folder."""

    def run(*arguments: str, spec: str = "dpo") -> str:
        message = refused("fit", "--spec", spec, "--config", str(lab.run_file), "--run_dir", "run", *arguments)
        assert not (lab.folder / "run").exists()
        return message

    return run


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["--spec.los.label_smoothing", "0.1"], ["los", "did you mean 'loss'"]),
        (["--spec.loss.label_smothing", "0.1"], ["label_smothing", "did you mean 'label_smoothing'"]),
        (["--spec.kl.beta", "much"], ["kl.beta", "much"]),
        (["--spec.kl.beta", "-1"], ["kl.beta", "-1"]),
        (["--trainer.max_step", "2"], ["trainer.max_step", "did you mean 'trainer.max_steps'"]),
        (["--data.batch_size", "x"], ["data.batch_size", "x"]),
        (["--engine", "tild"], ["engine", "tild", "tiled"]),
        (["--polcy.path", "x"], ["polcy", "did you mean 'policy'"]),
        (["--data.train", "nowhere.jsonl"], ["nowhere.jsonl"]),
        (["--seed_everything", "-1"], ["seed_everything", "-1"]),
        (["--trainer.accumulate_grad_batches", "0"], ["accumulate_grad_batches", "1 or more"]),
        (["--trainer.accelerator", "gpu"], ["trainer"]),
        (["--trainer.strategy", "fdsp"], ["trainer", "fdsp"]),
        (["--trainer.precision", "bf16-true"], ["trainer.precision", "policy.precision"]),
        (["--policy.precision", "bf16"], ["policy.precision", "bf16-mixed"]),
        (["--samples.max_new_tokens", "0"], ["samples.max_new_tokens", "0"]),
        (["--trainer.val_check_interval", "100"], ["val_check_interval", "4 micro-batches"]),
        (["--ckpt_path="], ["--ckpt_path", "is empty"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) and value and value[0].startswith("--") else "",
)
def test_a_wrong_option_is_named_with_the_nearest(fit: Refused, arguments: list[str], parts: list[str]) -> None:
    message = fit(*arguments)
    assert all(part in message for part in parts), message


def test_a_misspelt_spec_is_named_with_the_nearest(fit: Refused) -> None:
    message = fit(spec="epsilon_dop")
    assert "epsilon_dop" in message and "did you mean 'epsilon_dpo'" in message


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        (
            "loss: {name: dpoo}\nreferences: {ref: base}\nkl: {name: fixed, beta: 0.1}\nschedule: offline\n",
            [":1:", "did you mean 'dpo'"],
        ),
        ("loss: dpo\nlos: ipo\n", [":2:", "did you mean 'loss'"]),
        ("loss: dpo\nkl: {name: fixed, beta: 0.1}\nkl: none\n", [":3:", "kl", "twice"]),
        ("loss: {name: dpo\n", ["spec.yaml:"]),
        (
            "loss: {name: dpo, label_smoothing: 0.7}\nreferences: {ref: base}\nkl: {name: fixed, beta: 0.1}\n",
            [":1:", "label_smoothing", "0.7"],
        ),
    ],
    ids=["component", "section", "duplicate key", "broken YAML", "out of range"],
)
def test_a_wrong_spec_file_is_told_by_line(lab: Lab, fit: Refused, text: str, parts: list[str]) -> None:
    (lab.folder / "spec.yaml").write_text(text)
    message = fit(spec="spec.yaml")
    assert "spec.yaml" in message and all(part in message for part in parts), message


def test_a_wrong_run_file_is_told_by_line(lab: Lab, fit: Refused) -> None:
    for text, part in [
        ("polcy: {path: x}\n", "did you mean 'policy'"),
        ("data: {batch_sizes: 2}\n", "did you mean 'batch_size'"),
        ("polcy: {}\n", "did you mean 'policy'"),
    ]:
        (lab.folder / "more.yaml").write_text(text)
        message = fit("--config", "more.yaml")
        assert "more.yaml:1" in message and part in message, message


ROWS = [
    ({"prompt": "a", "chosen": "b"}, ["rejected"]),
    ({"prompt": "a", "chosen": "same", "rejected": "same"}, ["identical"]),
    ({"prompt": "a", "chosen": "b", "rejected": "c", "p_chosen": 1.5}, ["p_chosen", "1.5"]),
    ({"prompt": "a", "chosen": "b", "rejected": "c", "p_chosen": float("nan")}, ["p_chosen", "nan"]),
    ({"prompt": "a " * 300, "chosen": "b", "rejected": "c"}, ["max_length", "128"]),
]


@pytest.mark.parametrize(
    ("row", "parts"), ROWS, ids=["no rejected", "identical", "p out of range", "NaN label", "too long"]
)
def test_a_bad_row_is_told_by_line(lab: Lab, fit: Refused, row: dict[str, object], parts: list[str]) -> None:
    write_rows(lab.folder / "train.jsonl", [*pair_rows(4), row, *pair_rows(2, start=50)])
    message = fit()
    assert "train.jsonl:5" in message and all(part in message.lower() for part in parts), message


def test_empty_data(lab: Lab, fit: Refused) -> None:
    (lab.folder / "train.jsonl").write_text("")
    message = fit()
    assert ("train.jsonl" in message and "no rows" in message.lower()) or "empty" in message.lower()


def test_json_broken_at_a_line(lab: Lab, fit: Refused) -> None:
    path = lab.folder / "train.jsonl"
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines[:6], lines[6][:20], *lines[7:]]))
    assert "train.jsonl:7" in fit()


def test_a_gz_cut_off(lab: Lab, fit: Refused) -> None:
    whole = gzip.compress((lab.folder / "train.jsonl").read_bytes())
    (lab.folder / "train.jsonl.gz").write_bytes(whole[: len(whole) // 2])
    message = fit("--data.train", "train.jsonl.gz")
    assert "train.jsonl.gz" in message and "cut off" in message


def copy_of(tiny: Path, lab: Lab) -> Path:
    return Path(shutil.copytree(tiny, lab.folder / "model"))


def test_a_model_folder_that_is_not_there(fit: Refused) -> None:
    assert "nowhere" in fit("--policy.path", "nowhere")


def test_a_model_folder_without_tokenizer(lab: Lab, tiny: Path, fit: Refused) -> None:
    folder = copy_of(tiny, lab)
    for path in folder.glob("tokenizer*"):
        path.unlink()
    assert "tokenizer" in fit("--policy.path", str(folder))


def test_no_chat_template(lab: Lab, tiny: Path, fit: Refused) -> None:
    folder = copy_of(tiny, lab)
    (folder / "chat_template.jinja").unlink()
    message = fit("--policy.path", str(folder))
    assert "chat template" in message and "plain" in message


def test_tokenizer_and_model_vocabulary_mismatch(lab: Lab, tiny: Path, fit: Refused) -> None:
    folder = copy_of(tiny, lab)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "vocab_size": 100}))
    message = fit("--policy.path", str(folder))
    assert "vocabulary" in message and "100" in message


def test_lora_on_a_module_that_is_not_there(fit: Refused) -> None:
    message = fit("--policy.lora.r", "4", "--policy.lora.target_modules", "[q_prj]")
    assert "q_prj" in message and "q_proj" in message


@pytest.mark.loads
def test_adapter_off_reference_after_an_sft_adapter(lab: Lab, refused: Refused) -> None:
    """The peers' trap: with the SFT adapter switched off the reference is the base model, and the loss starts at 0."""
    run = lab.fit("--policy.lora.r", "4", "--policy.lora.alpha", "8", run="sft")
    message = refused(
        *["fit", "--spec", "dpo", "--config", str(lab.run_file), "--run_dir", "next"],
        *["--policy.path", str(run / "export"), "--spec.references.ref", "adapter_off"],
    )
    assert "adapter" in message and "base" in message
    assert not (lab.folder / "next").exists()


@pytest.mark.loads
def test_a_run_folder_that_holds_another_run(lab: Lab, refused: Refused) -> None:
    run = lab.fit("--trainer.max_steps", "1")
    before = {p: p.stat().st_mtime_ns for p in run.rglob("*") if p.is_file()}
    message = refused("fit", "--spec", "ipo", "--config", str(lab.run_file), "--run_dir", str(run))
    assert "never overwritten" in message
    assert {p: p.stat().st_mtime_ns for p in run.rglob("*") if p.is_file()} == before


@pytest.mark.loads
def test_a_checkpoint_of_another_spec(lab: Lab, refused: Refused) -> None:
    run = lab.fit("--trainer.max_steps", "1")
    checkpoint = str(next((run / "checkpoints").iterdir()))
    for command in (["fit"], ["validate", "--config", str(lab.run_file)]):
        message = refused(*command, "--spec", "ipo", "--ckpt_path", checkpoint)
        assert "belongs to the spec 'dpo'" in message and "loss.name: dpo there, ipo here" in message


@pytest.mark.loads
def test_other_data_than_the_checkpoint_saw(lab: Lab, refused: Refused) -> None:
    run = lab.fit("--trainer.max_steps", "2")
    write_rows(lab.folder / "train.jsonl", pair_rows(14, start=30))
    message = refused("fit", "--ckpt_path", "last", "--run_dir", str(run), "--trainer.max_steps", "4")
    assert "data" in message


def test_no_spec_at_all(lab: Lab, refused: Refused) -> None:
    assert "--spec dpo" in refused("fit", "--config", str(lab.run_file))
    assert "did you mean --spec ipo?" in refused("fit", "ipo", "--config", str(lab.run_file))


def test_no_model_at_all(refused: Refused, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert "policy.path" in refused("fit", "--spec", "dpo")
