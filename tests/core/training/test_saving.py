"""The noise of each rank."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch

from nashtune.training.checkpoint import SECTION
from nashtune.training.generators import random_state
from nashtune.training.saving import RunState

CPU = torch.device("cpu")


def drawn(rank: int, states: list[dict[str, Any]] | None = None) -> torch.Tensor:
    """What a rank's generator gives when training starts, anew or from a checkpoint with these generators."""
    strategy = SimpleNamespace(root_device=CPU)
    trainer: Any = SimpleNamespace(global_rank=rank, world_size=3, datamodule=None, strategy=strategy, optimizers=[])
    module: Any = None
    state = RunState({})
    torch.manual_seed(7)
    if states is not None:
        state.on_load_checkpoint(trainer, module, {SECTION: {"random": states}})
    state.on_train_start(trainer, module)
    assert torch.initial_seed() == 7, "what is seeded by it must be alike on all ranks"
    return torch.rand(1000)


def test_each_rank_draws_its_own_noise_and_goes_on_with_it() -> None:
    with torch.random.fork_rng():
        new = [drawn(rank) for rank in range(3)]
        torch.manual_seed(7)
        assert torch.equal(new[0], torch.rand(1000)), "rank 0 draws what one process draws"
        for one, other in ((0, 1), (0, 2), (1, 2)):
            assert abs(torch.corrcoef(torch.stack([new[one], new[other]]))[0, 1]) < 0.15
        assert torch.equal(new[1], drawn(1))

        states, following = [], []
        for rank in range(2):
            drawn(rank)
            states.append(random_state(CPU))
            following.append(torch.rand(1000))
        assert all(torch.equal(drawn(rank, states), following[rank]) for rank in range(2))
        assert torch.equal(drawn(2, states), new[2]), "a rank that is new begins its own"
