from __future__ import annotations

import random
import resource
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from lab import Lab
from nashtune.errors import InputError
from nashtune.training.checkpoint import (
    AtomicCheckpointIO,
    newest_checkpoint,
    random_state,
    read_checkpoint,
    set_random_state,
)


@pytest.fixture
def small_disk() -> Iterator[Callable[[int], None]]:
    """Limits how large a file this process may write, as a full disk does: the write fails half-way."""
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

    def limit(size: int) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, old[1]))

    yield limit
    resource.setrlimit(resource.RLIMIT_FSIZE, old)
    signal.signal(signal.SIGXFSZ, handler)


def test_disk_full_while_saving_keeps_the_old_checkpoint_whole(
    tmp_path: Path, small_disk: Callable[[int], None]
) -> None:
    path = tmp_path / "checkpoints" / "step=1.ckpt"
    io = AtomicCheckpointIO()
    io.save_checkpoint({"weights": torch.zeros(10)}, path)
    before = path.read_bytes()
    small_disk(50_000)
    with pytest.raises(InputError, match=r"could not be written.*earlier checkpoints .* are whole"):
        io.save_checkpoint({"weights": torch.zeros(100_000)}, path)
    assert path.read_bytes() == before
    assert [p.name for p in path.parent.iterdir()] == ["step=1.ckpt"]


def test_a_run_that_meets_a_full_disk_stops_and_resumes(
    lab: Lab, refused: Callable[..., str], small_disk: Callable[[int], None]
) -> None:
    whole = lab.fit("--save_every", "1", run="whole")
    run = lab.fit("--save_every", "1", "--trainer.max_steps", "2", run="run")
    size = newest_checkpoint(run).stat().st_size
    small_disk(size // 2)
    message = refused("fit", "--ckpt_path", "last", "--run_dir", str(run), "--trainer.max_steps", "-1")
    assert "could not be written" in message and "--ckpt_path last" in message
    small_disk(resource.RLIM_INFINITY)
    assert newest_checkpoint(run).name == "step=2.ckpt"
    lab.fit("--ckpt_path", "last", "--trainer.max_steps", "-1", spec=None, run="run")
    ours, theirs = (read_checkpoint(newest_checkpoint(r))["state_dict"] for r in (whole, run))
    assert all(torch.equal(ours[k], theirs[k]) for k in ours)


def test_random_state_survives_a_safe_load(tmp_path: Path) -> None:
    torch.save(random_state(), tmp_path / "rng.pt")
    first = (random.random(), np.random.rand(), torch.rand(3).tolist())
    set_random_state(torch.load(tmp_path / "rng.pt", weights_only=True))
    assert (random.random(), np.random.rand(), torch.rand(3).tolist()) == first


def test_the_newest_checkpoint_is_the_one_with_the_most_steps(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").mkdir()
    for step in (2, 10, 9):
        (tmp_path / "checkpoints" / f"step={step}.ckpt").touch()
    assert newest_checkpoint(tmp_path).name == "step=10.ckpt"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda p: None, "no file"),
        (lambda p: p.write_bytes(b"not a checkpoint"), "is no whole checkpoint"),
        (lambda p: torch.save({"state_dict": {}}, p), "was not written by nashtune"),
        (lambda p: torch.save({"x": Lab}, p), "is no whole checkpoint"),
    ],
    ids=["missing", "garbage", "foreign", "code inside"],
)
def test_what_is_no_checkpoint_of_ours_is_refused(tmp_path: Path, make: Callable[[Path], object], message: str) -> None:
    path = tmp_path / "x.ckpt"
    make(path)
    with pytest.raises(InputError, match=message):
        read_checkpoint(path)
