"""Rows and a run file for a run of two steps on the tiny model."""

from __future__ import annotations

import json
from pathlib import Path

import yaml

WORDS = ("red", "green", "blue", "warm", "cold", "old", "new", "tall", "short", "kind", "fast", "slow", "dark", "light")


def pair_rows(count: int, start: int = 0) -> list[dict[str, str]]:
    """Pairs of unequal lengths: the chosen answer is friendly, the rejected one is not."""
    rows = []
    for i in range(start, start + count):
        word = WORDS[i % len(WORDS)]
        chosen, rejected = f"Yes, {word} is lovely" + "!" * (i % 5), f"No {word}" + " at all" * (i % 3)
        rows.append({"prompt": f"Do you like {word} number {i}?", "chosen": chosen, "rejected": rejected})
    return rows


def write_run(folder: Path, model: Path) -> Path:
    """Write train.jsonl, validation.jsonl and run.yaml, and return the last.

    Args:
        folder: Where to.
        model: Folder of the model.
    """
    for name, count, start in (("train", 14, 0), ("validation", 4, 100)):
        text = "".join(json.dumps(row) + "\n" for row in pair_rows(count, start))
        (folder / f"{name}.jsonl").write_text(text, encoding="utf-8")
    run = {
        "policy": {"path": str(model)},
        "data": {
            "train": str(folder / "train.jsonl"),
            "validation": str(folder / "validation.jsonl"),
            "batch_size": 4,
            "max_length": 128,
        },
        "trainer": {"accelerator": "cpu", "max_epochs": 2, "max_steps": 2, "enable_progress_bar": False},
        "samples": {"prompts": 0},
        "spec": {"optimizer": {"lr": 1e-2, "warmup": 0.0}},
        "save_every": 1,
        "keep_checkpoints": 2,
    }
    path = folder / "run.yaml"
    path.write_text(yaml.safe_dump(run), encoding="utf-8")
    return path
