from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "2")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from lab import Lab, pair_rows, write_rows
from nashtune.testing import tiny_model


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a tiny random model."""
    return tiny_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture
def lab(tmp_path: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch) -> Lab:
    monkeypatch.chdir(tmp_path)
    write_rows(tmp_path / "train.jsonl", pair_rows(14))
    write_rows(tmp_path / "validation.jsonl", pair_rows(6, start=100))
    run = {
        "policy": {"path": str(tiny)},
        "data": {"train": "train.jsonl", "validation": "validation.jsonl", "batch_size": 4, "max_length": 128},
        "trainer": {"accelerator": "cpu", "max_epochs": 2, "enable_progress_bar": False},
        "samples": {"prompts": 0},
        "spec": {"optimizer": {"lr": 1e-2}},
    }
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump(run))
    return Lab(tmp_path, path)


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Run a command that must be refused: exit code 2, one message, no traceback. Returns the message."""

    def run(*arguments: str) -> str:
        from nashtune.cli.main import main

        capsys.readouterr()
        code = main(list(arguments))
        captured = capsys.readouterr()
        assert code == 2, f"exit code {code}, stderr: {captured.err}"
        assert "Traceback" not in captured.err
        message = captured.err[captured.err.rindex("error: ") :]
        return " ".join(message.split())

    return run
