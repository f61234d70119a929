"""A game that SIGTERM stops in each kind of phase, one attempt after the other, ends as one that was not stopped."""

from __future__ import annotations

import os
from pathlib import Path

import torch

from faults import STEP, Fault, faulty, said
from lab import Lab
from nashtune.training.checkpoint import checkpoints_in, newest_checkpoint

MOMENTS = (
    ("nashtune.rounds.collect:write_completions", 1, False),
    ("nashtune.rounds.judge:write_judgements", 1, False),
    (STEP, 2, True),
    ("nashtune.models.snapshots:SnapshotBank._write_index", 1, True),
    ("nashtune.training.face_off:write_completions", 1, True),
)
"""Where, which call, and whether a checkpoint is there then."""


def files(run: Path) -> dict[str, bytes]:
    return {str(path.relative_to(run)): path.read_bytes() for path in sorted(run.glob("journal/*/*"))}


def test_stopped_in_each_phase(game: Lab) -> None:
    """Far from any regular checkpoint: the signal alone saves."""
    options = ("--spec", "onpo", "--spec.schedule.rounds", "2", "--save_every", "1000")
    whole = game.fit(*options, spec=None, run="whole")
    parts = game.folder / "parts"
    command = ["fit", "--config", str(game.run_file), *options, "--run_dir", str(parts), "--ckpt_path", "auto"]
    for where, call, saved in MOMENTS:
        assert faulty(command, game.folder, Fault("term", where, call)) == [143], said(game.folder)
        assert bool(checkpoints_in(parts)) == saved, where
        assert "Traceback" not in said(game.folder) and "--ckpt_path" in said(game.folder)
    assert faulty(command, game.folder, None) == [0], said(game.folder)
    assert files(whole) == files(parts)
    ours, theirs = (torch.load(newest_checkpoint(run), weights_only=True)["state_dict"] for run in (whole, parts))
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_two_ranks_stopped_at_the_border_of_a_phase_and_an_update(game: Lab) -> None:
    """Rank 0 is in a step when rank 1 still reads the rows and leaves; then rank 1 alone hears the signal at first."""
    options = ("--spec", "onpo", "--spec.schedule.rounds", "2", "--data.batch_size", "2", "--save_every", "1000")
    command = ["fit", "--config", str(game.run_file), *options, "--run_dir", str(game.folder / "run")]
    command += ["--ckpt_path", "auto"]
    tools = game.folder / "tools"
    tools.mkdir()
    (tools / "scontrol").write_text(f'#!/bin/sh\necho "$@" >> {game.folder}/asked\n')
    (tools / "scontrol").chmod(0o755)
    slurm = {"SLURM_JOB_ID": "77", "SLURM_JOB_NAME": "train", "PATH": f"{tools}:{os.environ['PATH']}"}
    reads, loads = "nashtune.rounds.loader:collate", "nashtune.rounds.runner:load_rows"
    for faults, env, codes in (
        ((Fault("usr1", STEP), Fault("usr1", reads)), slurm, [0, 0]),
        ((None, Fault("term", loads)), {}, [143, 143]),
    ):
        assert faulty(command, game.folder, *faults, env=env) == codes, said(game.folder)
        assert "Traceback" not in said(game.folder) and "what was sampled is kept" in said(game.folder)
    assert (game.folder / "asked").read_text() == "requeue 77\n"


def test_rank_0_leaves_alone_and_takes_the_store_with_it(game: Lab) -> None:
    """The others learn from the run folder that it was stopped."""
    command = ["fit", "--config", str(game.run_file), "--spec", "onpo", "--spec.schedule.rounds", "2"]
    command += ["--run_dir", str(game.folder / "run"), "--data.batch_size", "2"]
    leaves = Fault("term", "nashtune.rounds.judge:write_judgements")
    assert faulty(command, game.folder, leaves, None) == [143, 143], said(game.folder)
    assert "Traceback" not in said(game.folder)
