from __future__ import annotations

import signal
from pathlib import Path

import pytest
import torch.distributed as dist

from nashtune.training import stopping
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
