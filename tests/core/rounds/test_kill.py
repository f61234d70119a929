"""A game that is killed at any moment and taken up again ends as one that was not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from killing import killed_run
from lab import Lab

MOMENTS = {
    "in the first round, while sampling": ("nashtune.rounds.collect:write_completions", 1, False),
    "in the second round, while sampling": ("nashtune.rounds.collect:write_completions", 2, False),
    "while judging": ("nashtune.rounds.judge:write_judgements", 2, False),
    "between judging and pairing": ("nashtune.rounds.judge:write_judgements", 1, True),
    "while pairing": ("nashtune.rounds.pair:write_pairs", 2, False),
    "while anchoring": ("nashtune.journal.store:Journal.write_tensors", 2, False),
    "in the first update": ("nashtune.training.module:AlignmentModule.training_step", 1, True),
    "in the middle of a later update": ("nashtune.training.module:AlignmentModule.training_step", 6, False),
    "between the last step of an update and its checkpoint": (
        "nashtune.training.checkpoint:AtomicCheckpointIO.save_checkpoint",
        2,
        False,
    ),
    "while a snapshot is written": ("nashtune.models.snapshots:SnapshotBank._write_index", 3, False),
    "after a snapshot": ("nashtune.models.snapshots:SnapshotBank.save", 4, True),
    "while the policies face each other": ("nashtune.training.face_off:write_completions", 2, False),
}


UNDISTURBED: list[tuple[dict[str, object], object]] = []


def outcome(run: Path) -> dict[str, object]:
    """Everything that a run leaves: every journal file, the weights, the metrics, the win rates."""
    checkpoint = torch.load(next((run / "checkpoints").glob("step=*.ckpt")), weights_only=True)
    report = json.loads((run / "report.json").read_text())
    return {
        "journal": {str(p.relative_to(run)): p.read_bytes() for p in sorted(run.glob("journal/*/*"))},
        "snapshots": json.loads((run / "snapshots" / "snapshots.json").read_text()),
        "weights": {name: value.tolist() for name, value in checkpoint["state_dict"].items()},
        "optimizer": str(checkpoint["optimizer_states"]),
        "report": {name: report[name] for name in ("steps", "rounds", "win_rates")},
    }


ARGUMENTS = ("--spec.schedule.rounds", "2")


def stamps(run: Path) -> dict[str, int]:
    """When each finished file of the journal was written."""
    return {
        f"{manifest.parent.name}/{name}": (manifest.parent / name).stat().st_mtime_ns
        for manifest in run.glob("journal/*/manifest.json")
        for name in json.loads(manifest.read_text())["files"]
    }


@pytest.mark.parametrize("moment", MOMENTS)
def test_killed_and_resumed_equals_uninterrupted(game: Lab, moment: str) -> None:
    if not UNDISTURBED:  # nothing of a run depends on its folder, so one serves all moments
        whole = game.fit(*ARGUMENTS, spec="onpo", run="whole")
        UNDISTURBED.append((outcome(whole), game.metrics(whole)))
    expected, metrics = UNDISTURBED[0]
    target, call, after = MOMENTS[moment]
    command = ["fit", "--spec", "onpo", "--config", str(game.run_file), "--run_dir", str(game.folder / "run")]
    assert killed_run([*command, *ARGUMENTS], str(game.folder), target, call, after=after) == -9
    finished = stamps(game.folder / "run")
    run = game.fit("--ckpt_path", "last", spec=None)
    assert finished.items() <= stamps(run).items(), "finished work was done again"
    found = outcome(run)
    for name in expected:
        assert found[name] == expected[name], name
    assert game.metrics(run) == metrics
