from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from lab import Lab, pair_rows, write_rows


@pytest.fixture
def game(lightning_log: None, tmp_path: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch) -> Lab:
    """A folder with prompts and a run file for a game of two rounds: 8 prompts, 4 answers of at most 6 tokens."""
    monkeypatch.chdir(tmp_path)
    write_rows(tmp_path / "train.jsonl", [{"prompt": row["prompt"]} for row in pair_rows(8)])
    write_rows(tmp_path / "validation.jsonl", [{"prompt": row["prompt"]} for row in pair_rows(3, start=100)])
    run = {
        "policy": {"path": str(tiny)},
        "data": {"train": "train.jsonl", "validation": "validation.jsonl", "batch_size": 3, "max_length": 128},
        "trainer": {"accelerator": "cpu", "max_epochs": 1, "enable_progress_bar": False},
        "samples": {"prompts": 3, "show": 0, "max_new_tokens": 6},
        "spec": {
            "optimizer": {"lr": 1e-3},
            "oracle": {"name": "rules", "rules": ["distinct_1"]},
            "sampler": {"completions": 4, "max_new_tokens": 6},
        },
    }
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump(run))
    return Lab(tmp_path, path)
