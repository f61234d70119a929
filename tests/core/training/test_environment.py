"""What a run was made with is kept, attempt by attempt, and no secret."""

from __future__ import annotations

import json
import platform
from collections.abc import Callable

import pytest
import torch

import nashtune
from lab import Lab
from nashtune.training.environment import without_secrets


def test_each_attempt_keeps_its_own(lab: Lab) -> None:
    run = lab.fit("--trainer.max_steps", "1")
    lab.fit("--ckpt_path", "last", "--trainer.max_steps=2", spec=None)
    first, second = (json.loads((run / name).read_text()) for name in ("environment.json", "environment.1.json"))
    assert list(first) == ["nashtune", "attempt", "began", "command", "versions", "machine"]
    assert (first["nashtune"], first["attempt"], second["attempt"]) == (nashtune.__version__, 0, 1)
    assert first["command"][:4] == ["nashtune", "fit", "--spec", "dpo"]
    assert second["command"][-3:] == ["--ckpt_path", "last", "--trainer.max_steps=2"]
    assert first["versions"]["python"] == platform.python_version()
    assert first["versions"]["torch"] == torch.__version__ and "transformers" in first["versions"]
    machine = first["machine"]
    assert (machine["ranks"], machine["nodes"], machine["accelerator"], machine["devices"]) == (1, 1, "cpu", [])
    assert machine["cores"] > 0 and machine["memory_gib"] > 0 and machine["processor"] and machine["host"]


@pytest.mark.parametrize(
    ("command", "kept"),
    [
        (["fit", "--spec.kl.beta", "0.2"], ["fit", "--spec.kl.beta", "0.2"]),
        (["--trainer.logger.api_key", "abc", "--x", "1"], ["--trainer.logger.api_key", "***", "--x", "1"]),
        (["--logger.token=abc"], ["--logger.token=***"]),
        (["--url", "https://me:secret@host/x"], ["--url", "***"]),
        (["--data.train", "hf_" + "a1" * 17], ["--data.train", "***"]),
        (["--spec.sampler.max_new_tokens", "8"], ["--spec.sampler.max_new_tokens", "8"]),
    ],
)
def test_no_secret_is_kept(command: list[str], kept: list[str]) -> None:
    assert without_secrets(command) == kept


def test_a_refused_run_leaves_none(lab: Lab, refused: Callable[..., str]) -> None:
    run = lab.folder / "run"
    command = ("fit", "--spec", "dpo", "--config", str(lab.run_file), "--run_dir", str(run))
    refused(*command, "--trainer.strategy", "ddp_spawn", "--trainer.devices", "2")
    assert not run.exists()
