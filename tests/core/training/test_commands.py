"""`validate` and `predict` on two ranks say what they say on one, once."""

from __future__ import annotations

import json
from contextlib import redirect_stdout
from pathlib import Path

import pytest

from lab import Lab
from nashtune.cli.main import main
from ranks import DDP, call_on_ranks


def say(rank: int, run: str) -> None:
    for command in ("validate", "predict"):
        options = ["--ckpt_path", "last", "--run_dir", run, "--data.batch_size", "1", "--trainer.devices", "2", *DDP]
        with open(f"{command}-{rank}.txt", "w") as file, redirect_stdout(file):
            assert main([command, *options]) == 0


def test_rank_0_says_it_for_all(lab: Lab, capfd: pytest.CaptureFixture[str]) -> None:
    run = lab.fit("--trainer.max_steps", "1")
    capfd.readouterr()
    assert main(["predict", "--ckpt_path", "last", "--run_dir", str(run), "--data.batch_size", "1"]) == 0
    alone = [json.loads(line) for line in capfd.readouterr().out.splitlines()]
    assert len(alone) > 2

    call_on_ranks(say, lab.folder, str(run))
    said = {name: Path(f"{name}.txt").read_text() for name in ("validate-0", "validate-1", "predict-0", "predict-1")}
    assert not said["validate-1"] and not said["predict-1"]
    assert said["validate-0"].count("kl_to_reference") == 1
    rows = [json.loads(line) for line in said["predict-0"].splitlines()]
    assert [row["row"] for row in rows] == list(range(len(alone)))
    assert all(row == pytest.approx(one, abs=1e-5) for row, one in zip(rows, alone, strict=True))


def test_a_launcher_and_the_trainer_agree_on_the_number_of_processes(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Else each process of torchrun would be a run of its own, in one folder."""
    for name, value in {"LOCAL_RANK": "0", "RANK": "0", "WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    run = lab.folder / "two"
    assert main(["fit", "--spec", "dpo", "--config", str(lab.run_file), "--run_dir", str(run)]) == 2
    assert (
        "2 processes were started by torchrun, and trainer.num_nodes x trainer.devices is 1" in capfd.readouterr().err
    )
    assert not run.exists()
