from __future__ import annotations

import signal
from pathlib import Path

import pytest
import torch.distributed as dist
from lightning.pytorch import Trainer

from nashtune.training import parting, stopping
from nashtune.training.stopping import Stopped, Stopping


def test_a_signal_that_comes_while_the_ranks_ask_each_other_is_told_after_the_next_step(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = Stopping()
    asked.on_train_batch_start()

    def most(value: int) -> int:
        asked._hear(signal.SIGTERM, None)  # the ranks have agreed on the value by now
        return value

    monkeypatch.setattr(stopping, "most", most)
    assert not asked.agreed()
    assert asked.agreed()


def test_a_rank_whose_collective_breaks_follows_only_one_that_was_stopped(
    tmp_path: Path,
) -> None:
    broken, full = RuntimeError("[gloo/transport/tcp/pair.cc:537] Read error"), RuntimeError("out of memory")
    Stopping().follow(broken)  # one process: nobody can be gone
    dist.init_process_group("gloo", store=dist.FileStore(str(tmp_path / "store"), 1), rank=0, world_size=1)
    try:
        here, other = Stopping(), Stopping()
        here.follow(broken)
        other.on_train_batch_start()
        other._hear(signal.SIGTERM, None)
        other.follow(full)
        with pytest.raises(Stopped):
            other.follow(broken)
        with pytest.raises(Stopped):
            here.follow(broken)
        assert here.code == other.code == 143
    finally:
        dist.destroy_process_group()


@pytest.mark.parametrize(("kept", "number"), [(b"15", 15), (b"", 0), (b"9999", 0), (b"no number", 0)])
def test_the_run_folder_says_it_where_the_store_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kept: bytes, number: int
) -> None:
    monkeypatch.setattr(parting, "_ask_store", lambda question: None)
    (tmp_path / parting.NOTE).write_bytes(kept)
    assert parting.told(tmp_path) == number
    parting.forget(tmp_path)
    assert parting.told(tmp_path) == 0
    parting.note_down(signal.SIGTERM, tmp_path / "removed")
    assert list(tmp_path.iterdir()) == []
    parting.note_down(signal.SIGTERM, tmp_path)
    assert parting.told(tmp_path) == signal.SIGTERM


def test_a_run_that_goes_on_forgets_what_was_said(tmp_path: Path) -> None:
    """Of an earlier attempt."""
    parting.note_down(signal.SIGTERM, tmp_path)
    with Stopping().listening(Trainer(logger=False, accelerator="cpu"), tmp_path):
        assert not (tmp_path / parting.NOTE).exists()
