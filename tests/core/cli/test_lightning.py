from __future__ import annotations

import json
from collections.abc import Callable

import pytest
import yaml

from lab import Lab
from nashtune.cli.main import main
from nashtune.cli.session import merge, take_option
from nashtune.errors import InputError
from nashtune.training.checkpoint import newest_checkpoint


def test_take_option_reads_both_spellings_and_leaves_the_rest() -> None:
    assert take_option(["--a", "1", "--b=2", "--a=3"], "--a") == ("3", ["--b=2"])
    assert take_option(["--ab", "1"], "--a") == (None, ["--ab", "1"])
    with pytest.raises(InputError, match="--a: a value is missing"):
        take_option(["--a"], "--a")


def test_merge_is_deep_and_the_higher_layer_wins() -> None:
    assert merge({"a": {"b": 1, "c": 2}, "d": 3}, {"a": {"b": 9}, "d": {"e": 1}}) == {
        "a": {"b": 9, "c": 2},
        "d": {"e": 1},
    }


def test_validate_needs_only_the_checkpoint(lab: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    run = lab.fit()
    logged = json.loads((run / "report.json").read_text())["held_out"]
    capsys.readouterr()
    assert main(["validate", "--ckpt_path", str(newest_checkpoint(run))]) == 0
    printed = capsys.readouterr().out
    assert f"{logged['loss']:.6g}" in printed and f"{logged['accuracy']:.6g}" in printed


def test_test_and_predict_run_on_a_checkpoint(lab: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    checkpoint = str(newest_checkpoint(lab.fit()))
    assert main(["test", "--ckpt_path", checkpoint, "--data.test", "validation.jsonl"]) == 0
    assert "accuracy" in capsys.readouterr().out
    assert main(["predict", "--ckpt_path", checkpoint, "--data.test", "validation.jsonl"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines() if line.startswith("{")]
    assert len(lines) == 6
    assert set(lines[0]) == {"row", "reward_chosen", "reward_rejected", "weights", "data", "made_by"}


def test_the_saved_config_runs_again_and_gives_the_same(lab: Lab) -> None:
    first = lab.fit("--spec.kl.beta", "0.3")
    code = main(["fit", "--config", str(first / "config.yaml"), "--run_dir", str(lab.folder / "again")])
    assert code == 0
    assert lab.metrics(first).series == lab.metrics(lab.folder / "again").series
    assert yaml.safe_load((lab.folder / "again" / "config.yaml").read_text())["spec"]["kl"]["beta"] == 0.3


def test_flags_rank_above_run_files_and_run_files_above_the_spec(lab: Lab) -> None:
    (lab.folder / "more.yaml").write_text("spec: {kl: {beta: 0.7}, optimizer: {lr: 1e-5}}\ndata: {batch_size: 2}\n")
    run = lab.fit("--config", "more.yaml", "--spec.kl.beta", "0.9", "--trainer.max_steps", "1")
    saved = yaml.safe_load((run / "config.yaml").read_text())
    assert saved["spec"]["kl"]["beta"] == 0.9
    assert saved["spec"]["optimizer"]["lr"] == 1e-5
    assert saved["data"]["batch_size"] == 2 and saved["data"]["max_length"] == 128


def test_print_config_prints_and_trains_nothing(lab: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["fit", "--spec", "dpo", "--config", str(lab.run_file), "--print_config"])
    assert stopped.value.code in (0, None)
    assert "label_smoothing: 0.0" in capsys.readouterr().out


def test_a_strategy_that_is_none_is_not_imported(lab: Lab, refused: Callable[..., str]) -> None:
    same = ("fit", "--spec", "dpo", "--config", str(lab.run_file), "--run_dir", "run")
    for named in ("subprocess.Popen", "lightning.pytorch.strategies.Nothing"):
        message = refused(*same, "--trainer.strategy", named)
        assert f"trainer.strategy: {named} is no strategy, or not one that may be imported: that runs its" in message
    assert not (lab.folder / "run").exists()
