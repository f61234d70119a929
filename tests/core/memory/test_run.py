"""The prediction of a whole run, as `nashtune check` prints it."""

from __future__ import annotations

import json

import pytest

from nashtune.cli.main import main
from nashtune.data.pass_sizes import MOST_CPU_TOKENS
from nashtune.logprobs import packable
from nashtune.memory import run as memory_run
from nashtune.memory.shape import read_shape
from nashtune.models.locate import ModelFolder


@pytest.fixture
def check(tiny, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    rows = [{"prompt": "p" * n, "chosen": "c" * 2 * n, "rejected": "r" * n} for n in range(1, 41)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    shared = ["--policy.path", str(tiny), "--data.train", "rows.jsonl", "--data.template", "plain"]

    def run(*options: str, spec: str = "dpo") -> dict:
        assert main(["check", spec, "--json", *shared, "--trainer.accelerator", "cpu", *options]) == 0
        (result,) = json.loads(capsys.readouterr().out)
        return result

    return run


def test_what_is_printed(check) -> None:
    result = check("--data.batch_size", "40")
    memory = result["memory"]
    assert sum(memory["parts"].values()) == memory["peak"]
    assert any(note.startswith("memory: about ") for note in result["notes"])
    assert any(note.startswith("memory with policy.gradient_checkpointing: ") for note in result["notes"])


def test_positions_follow_the_engine(check) -> None:
    whole = ("--data.batch_size", "40", "--data.batch_tokens", "100000")
    # 1 + ... + 40 tokens of each part, with 80 EOS; padded, 80 sequences of 40 + 81
    assert check(*whole)["memory"]["positions"] == 4 * 820 + 80
    assert check(*whole, "--engine", "packed")["memory"]["positions"] == 5 * 820 + 80
    assert check(*whole, "--engine", "tiled")["memory"]["positions"] == 18 * 121  # the pairs of 97 to 121 tokens
    assert check(*whole)["memory"]["completion_tokens"] == 3 * 820 + 80


def test_passes_are_bounded(check) -> None:
    # of a small model; 40 rows are 3,360 positions
    assert 1500 < check("--data.batch_size", "40")["memory"]["positions"] <= MOST_CPU_TOKENS
    assert check("--data.batch_size", "40", "--data.batch_tokens", "500")["memory"]["positions"] <= 500


@pytest.mark.parametrize(("spec", "tokens"), [("kto", True), ("reward_bt", False), ("orpo", True)])
def test_other_kinds_of_losses(check, spec: str, tokens: bool) -> None:
    memory = check(spec=spec)["memory"]
    assert memory["peak"] > 0 and (memory["completion_tokens"] > 0) is tokens


def test_a_reference_that_is_cached_weighs_nothing(check) -> None:
    assert check()["memory"]["parts"]["references"] > 0
    assert check("--spec.references.ref", "cached")["memory"]["parts"]["references"] == 0
    assert check("--policy.lora.r", "4")["memory"]["parts"]["references"] == 0


def test_bf16_with_all_weights_is_refused_before_anything_loads(tiny, tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rows.jsonl").write_text('{"prompt": "Q", "chosen": "a", "rejected": "b"}\n' * 3)
    argv = ["check", "simpo", "--policy.path", str(tiny), "--data.train", "rows.jsonl", "--policy.precision", "bf16"]
    assert main([*argv, "--spec.optimizer.name", "adamw"]) == 2
    assert "spec.optimizer.rounding: stochastic" in capsys.readouterr().err
    assert main([*argv, "--spec.optimizer.name", "adamw", "--spec.optimizer.rounding", "stochastic"]) == 0


def test_sizes_of_a_model(tiny) -> None:
    shape = read_shape(ModelFolder(path=tiny, base=tiny, tokenizer=tiny))
    assert shape is not None and shape.tied
    assert (shape.hidden, shape.intermediate, shape.layers, shape.queries, shape.keys) == (32, 64, 2, 32, 16)
    assert shape.parameters == shape.embedding + shape.linear + 5 * 32  # five norms


def test_passes_and_engines_are_those_of_training() -> None:
    assert set(memory_run.PACKABLE) == set(packable.KNOWN)


def test_on_an_accelerator_the_line_says_which_card_is_assumed(check) -> None:
    notes = check("--trainer.accelerator", "gpu")["notes"]
    (line,) = (note for note in notes if note.startswith("memory: about "))
    assert "allocated on the device, taken for one of 80 GiB" in line
