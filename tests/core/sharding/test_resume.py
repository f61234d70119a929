"""A run with weights in pieces goes on where it was, by itself to the last bit, and as any other run of its kind."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from lab import Lab
from nashtune.cli.main import main
from nashtune.errors import InputError
from nashtune.sharding.files import consolidate, is_sharded_checkpoint
from nashtune.training.checkpoint import checkpoints_in, read_checkpoint
from ranks import call_on_ranks
from sharded_runs import COMMON, FSDP2, ONE, PIECES, TWO, command, distance, fit_each, weights

KEEP = ("--save_every", "2", "--keep_checkpoints", "2", "--spec.optimizer.name", "adamw")
FULL = ("--trainer.strategy.checkpoints", "full")


def on_ranks(lab: Lab, run: str, *options: str, spec: str | None = None) -> Path:
    call_on_ranks(fit_each, lab.folder, [command(lab, run, spec, *TWO, *KEEP, *options)])
    return lab.folder / run


def interrupted(run: Path, name: str) -> Path:
    """A copy of a run folder as it was after step 2."""
    copy = run.with_name(name)
    shutil.copytree(run, copy)
    shutil.rmtree(copy / "export")
    last = checkpoints_in(copy)[3]
    shutil.rmtree(last) if last.is_dir() else last.unlink()
    return copy


def again(lab: Lab, run: Path, *options: str) -> Path:
    """On one device: a run goes on with its own strategy where it is told no other."""
    alone = ("--trainer.devices", "1", "--trainer.strategy", "auto")
    return lab.fit(*COMMON, *KEEP, *alone, *options, "--ckpt_path", "last", run=run.name, spec=None)


def test_resume_from_pieces(lab: Lab) -> None:
    whole = on_ranks(lab, "whole", *PIECES, spec="dpo")
    newest = checkpoints_in(whole)[3]
    assert is_sharded_checkpoint(newest)
    assert not [file for file in newest.iterdir() if file.suffix not in (".safetensors", ".pt", ".json")]
    assert (whole / "export" / "model.safetensors").is_file()

    same = interrupted(whole, "same")
    on_ranks(lab, "same", *PIECES, "--ckpt_path", "last")
    ours, theirs = consolidate(newest), consolidate(checkpoints_in(same)[3])
    for name, value in ours["state_dict"].items():
        assert torch.equal(value, theirs["state_dict"][name]), name
    for ours_of, theirs_of in zip(
        ours["optimizer_states"][0]["state"].values(), theirs["optimizer_states"][0]["state"].values(), strict=True
    ):
        assert all(torch.equal(value, theirs_of[key]) for key, value in ours_of.items())

    alone = again(lab, interrupted(whole, "alone"), *ONE)
    assert distance(whole, alone) < 1e-6
    other = interrupted(alone, "other")
    shutil.rmtree(other / "checkpoints")
    (other / "checkpoints").mkdir()
    shutil.copytree(checkpoints_in(whole)[2], other / "checkpoints" / "step=2.ckpt")
    on_ranks(lab, "other", *FSDP2, *FULL, "--ckpt_path", "last")
    assert distance(whole, other) == 0.0 and checkpoints_in(other)[3].is_file()

    assert main(["export", str(newest), "--out", str(lab.folder / "exported")]) == 0
    exported = load_file(lab.folder / "exported" / "model.safetensors")
    assert all(torch.equal(value, exported[name]) for name, value in weights(whole).items())

    piece = sorted(newest.glob("*.safetensors"))[1]
    piece.write_bytes(piece.read_bytes()[:-8])
    with pytest.raises(InputError, match=f"{piece.name} is not what was written: it has"):
        consolidate(newest)
    with pytest.raises(InputError, match=f"^--ckpt_path: .*{piece.name} is not .*; step=2.ckpt is whole"):
        read_checkpoint(newest)


def test_resume_from_one_device(lab: Lab) -> None:
    one = lab.fit(*COMMON, *KEEP, *ONE, run="one")
    shared = interrupted(one, "shared")
    on_ranks(lab, "shared", *FSDP2, "--ckpt_path", "last")
    assert distance(one, shared) < 1e-6
    back = again(lab, interrupted(shared, "back"), *ONE)
    assert distance(one, back) < 1e-6
