"""Runs on two hosts, by torchrun and by SLURM's environment: the bits of two processes of one host in any case."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pyarrow.parquet as parquet
import pytest
import torch
from safetensors.torch import load_file

from lab import Lab
from ranks import fit_on_ranks
from two_hosts import JOB, Hosts, strategy

DDP, FSDP2 = "lightning.pytorch.strategies.DDPStrategy", "nashtune.sharding.strategy.FSDP2Strategy"
OFFLINE = ("--spec", "dpo", "--data.batch_size", "2")
GAME = ("--spec", "online_dpo", "--spec.schedule.rounds", "2")
LONG = 400  # seconds until a run is given up: each begins with imports, which take minutes on a loaded machine


def one_host(lab: Lab, *options: str, by: str) -> Path:
    """The same run on two processes of one host."""
    command = ["fit", "--config", str(lab.run_file), "--run_dir", "alone", *options]
    fit_on_ranks(command, lab.folder, strategy=strategy(by))
    return lab.folder / "alone"


def expect_equal_runs(lab: Lab, run: Path, true: Path) -> None:
    """The same weights and the same logged losses, bit for bit."""
    ours, theirs = (load_file(one / "export" / "model.safetensors") for one in (run, true))
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], value) for name, value in theirs.items())
    losses = [lab.metrics(one).series["train/loss"] for one in (run, true)]
    assert losses[0] == losses[1] and [at for at, _ in losses[0]] == list(range(1, len(losses[0]) + 1))


def wait_for(run: Path, pattern: str, hosts: Hosts) -> None:
    """Until a file is there, or a host has ended."""
    end = time.monotonic() + LONG
    while not list(run.glob(pattern)):
        ended = [host.command.poll() for host in hosts.ends if host.command]
        assert ended == [None, None] and time.monotonic() < end, f"{pattern}: {ended}\n{hosts.log(run.parent)}"
        time.sleep(0.01)


@pytest.fixture
def game(lab: Lab) -> Lab:
    """A run file for a game of 8 prompts with 4 answers each."""
    lab.become_game(batch_size=2)
    return lab


def test_a_pulled_cable_stops_both_hosts_and_the_run_goes_on_to_the_bits_of_one_host(hosts: Hosts, lab: Lab) -> None:
    options = (*OFFLINE, "--save_every", "1", "--trainer.max_epochs", "8")
    true = one_host(lab, *options, by=DDP)
    run = hosts.fit(lab, *options, by=DDP, seconds=30)
    wait_for(run, "checkpoints/step=*.ckpt", hosts)
    hosts.cut()
    assert hosts.wait(LONG) == [1, 1], hosts.log(lab.folder)
    (kept,) = (run / "checkpoints").glob("*")  # one whole file, and no part of another
    step = int(kept.stem.removeprefix("step="))
    assert torch.load(kept, weights_only=True)["global_step"] == step < 32
    log = hosts.log(lab.folder)
    assert log.count(f"the newest checkpoint is {kept.name}; go on with: nashtune fit --ckpt_path last") == 2, log
    hosts.heal()
    hosts.start(["fit", "--ckpt_path", "last", "--run_dir", str(run)], lab.folder)
    assert hosts.wait(LONG) == [0, 0], hosts.log(lab.folder)
    expect_equal_runs(lab, run, true)


def test_a_slurm_job_saves_before_its_end_is_queued_again_and_goes_on(hosts: Hosts, lab: Lab) -> None:
    """By SLURM's environment and its signal; the command that queues a job is a stand-in."""
    scontrol = lab.folder / "bin" / "scontrol"
    scontrol.parent.mkdir()
    scontrol.write_text('#!/bin/sh\necho "$*" >> queued.txt\n')
    scontrol.chmod(0o755)
    options = (*OFFLINE, "--trainer.max_epochs", "16")
    true = one_host(lab, *options, by=DDP)
    run = hosts.fit(lab, *options, "--ckpt_path", "auto", by=DDP, slurm=True)
    wait_for(run, "logs/attempt_0/metrics.csv", hosts)
    hosts.tell(signal.SIGUSR1)
    assert hosts.wait(LONG) == [0, 0], hosts.log(lab.folder)
    assert (lab.folder / "queued.txt").read_text() == f"requeue {JOB}\n"
    assert len(list((run / "checkpoints").glob("step=*.ckpt"))) == 1 and not (run / "export").exists()
    hosts.fit(lab, *options, "--ckpt_path", "auto", by=DDP, slurm=True)
    assert hosts.wait(LONG) == [0, 0], hosts.log(lab.folder)
    expect_equal_runs(lab, run, true)


def test_sharded_weights(hosts: Hosts, lab: Lab) -> None:
    true = one_host(lab, *OFFLINE, by=FSDP2)
    run = hosts.fit(lab, *OFFLINE, by=FSDP2)
    assert hosts.wait(LONG) == [0, 0], hosts.log(lab.folder)
    expect_equal_runs(lab, run, true)


@pytest.mark.parametrize("by", [DDP, FSDP2], ids=["ddp", "fsdp2"])
def test_a_game(by: str, hosts: Hosts, game: Lab) -> None:
    true = one_host(game, *GAME, by=by)
    run = hosts.fit(game, *GAME, by=by)
    assert hosts.wait(LONG) == [0, 0], hosts.log(game.folder)
    expect_equal_runs(game, run, true)
    tables = sorted(path.relative_to(true) for path in true.glob("journal/round-*/*.parquet"))
    assert len([path for path in tables if path.name.startswith("completions")]) >= 4  # of two ranks in two rounds
    for path in tables:
        assert parquet.read_table(run / path).equals(parquet.read_table(true / path)), path
