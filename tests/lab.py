"""A small laboratory: pairs, a run file and a tiny model in an empty folder, and the command line in this process."""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

if TYPE_CHECKING:
    from nashtune.evaluation.report import Metrics

WORDS = ["red", "green", "blue", "warm", "cold", "old", "new", "tall", "short", "kind", "fast", "slow", "dark", "light"]


def pair_rows(count: int, start: int = 0) -> list[dict[str, object]]:
    """Pairs of unequal lengths: the chosen answer is friendly, the rejected one is not."""
    rows = []
    for i in range(start, start + count):
        word = WORDS[i % len(WORDS)]
        chosen = f"Yes, {word} is lovely" + "!" * (i % 5)
        rejected = f"No {word}" + " at all" * (i % 3)
        rows.append({"prompt": f"Do you like {word} number {i}?", "chosen": chosen, "rejected": rejected})
    return rows


def write_rows(path: Path, rows: list[dict[str, object]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def set_back(path: Path, to: os.stat_result) -> None:
    """Let a file say that it was last written when it was before.

    What tells the two apart is when the system saw the change, which on older kernels is as coarse as their clock: it
    is waited for.
    """
    while True:
        os.utime(path, ns=(to.st_atime_ns, to.st_mtime_ns))
        if path.stat().st_ctime_ns != to.st_ctime_ns:
            return
        time.sleep(0.001)


@dataclass
class Lab:
    """One folder with data and a run file.

    Attributes:
        folder: Where everything lies.
        run_file: `run.yaml`, 14 training pairs in batches of 4 (4 micro-batches an epoch), no samples.
    """

    folder: Path
    run_file: Path

    def become_game(self, **data: object) -> None:
        """8 prompts with 4 answers of at most 6 tokens each, 3 held-out ones, and an oracle, in place of the pairs.

        Args:
            data: More of the section `data`.
        """
        for name, count in (("train", 8), ("validation", 3)):
            write_rows(self.folder / f"{name}.jsonl", [{"prompt": row["prompt"]} for row in pair_rows(count)])
        run = yaml.safe_load(self.run_file.read_text())
        run["spec"] = {
            "optimizer": {"lr": 1e-3},
            "oracle": {"name": "rules", "rules": ["distinct_1"]},
            "sampler": {"completions": 4, "max_new_tokens": 6},
        }
        run["data"] |= data
        run["trainer"]["max_epochs"] = 1
        self.run_file.write_text(yaml.safe_dump(run))

    def fit(self, *arguments: str, spec: str | None = "dpo", run: str = "run") -> Path:
        """Train; fails the test if the command does."""
        from nashtune.cli.main import main  # here, so that tests that never train import no Lightning

        named = ["--spec", spec] if spec else []
        code = main(["fit", *named, "--config", str(self.run_file), "--run_dir", str(self.folder / run), *arguments])
        assert code == 0, f"fit exited with {code}"
        return self.folder / run

    def metrics(self, run: Path) -> Metrics:
        from nashtune.evaluation.report import read_metrics

        return read_metrics(run)
