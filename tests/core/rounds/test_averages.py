"""Averages of weights: the moving average of a policy gradient's opponent."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from nashtune.interfaces.schedule import Collect, Round, Snapshot, Update
from nashtune.models.policy import HFPolicy
from nashtune.models.snapshots import SnapshotBank
from nashtune.rounds.table import Table


def table(policy: HFPolicy, folder: Path, rounds: tuple[Round, ...]) -> Table:
    """A table of nothing but a policy and its snapshots."""
    empty = dict.fromkeys(field.name for field in dataclasses.fields(Table))
    given = {**empty, "policy": policy, "bank": SnapshotBank(folder), "rounds": rounds, "averages": {}}
    return Table(**given)  # type: ignore[arg-type]  # the rest is not looked at


def step(t: int) -> Round:
    old = f"ema@{t - 1}" if t > 1 else "start"
    snapshot = Snapshot(name=f"ema@{t}", average={old: 0.98, "live": 0.02})
    return Round(phases=(Collect(policy=old, role="opponent"), Update(reset=False), snapshot))


def test_an_average_leaves_the_live_weights_alone_where_updates_start_from_snapshots(
    tiny: Path, tmp_path: Path, load: Callable[..., HFPolicy]
) -> None:
    policy = load(tiny)
    snapshot = Snapshot(name="mean@1", average={"start": 0.9, "live": 0.1})
    game = table(policy, tmp_path, (Round(phases=(Update(start="start"), snapshot)),))
    assert not game.keeps_live_weights
    game.bank.save("start", policy)
    start = {name: weight.clone() for name, weight in policy.trainable_state_dict().items()}
    for weight in policy.trainable_state_dict().values():
        weight.add_(1.0)
    game.average("mean@1", {"start": 0.9, "live": 0.1})
    for name, weight in policy.trainable_state_dict().items():
        assert torch.equal(weight, start[name] + 1.0)
        torch.testing.assert_close(game.averages["mean@1"][name], start[name] + 0.1)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_three_steps_are_the_closed_form(
    tiny: Path, tmp_path: Path, load: Callable[..., HFPolicy], precision: str
) -> None:
    """ema_3 = d^3 w_0 + (1-d) (d^2 w_1 + d w_2 + w_3), although bf16 itself could not hold the small steps."""
    policy = load(tiny, precision=precision)
    game = table(policy, tmp_path, tuple(step(t) for t in (1, 2, 3)))
    game.bank.save("start", policy)
    lived = [{name: weight.double() for name, weight in policy.trainable_state_dict().items()}]
    draw = torch.Generator().manual_seed(0)
    for t in (1, 2, 3):
        game.forget(t)
        for weight in policy.trainable_state_dict().values():
            weight.add_(torch.randn(weight.shape, generator=draw).to(weight.dtype), alpha=0.1)
        lived.append({name: weight.double().clone() for name, weight in policy.trainable_state_dict().items()})
        game.average(f"ema@{t}", dict(step(t).phases[-1].average))  # type: ignore[union-attr, arg-type]
        for name, weight in policy.trainable_state_dict().items():
            assert torch.equal(weight.double(), lived[-1][name]), "the live weights are as they were"
    for name, start in lived[0].items():
        expected = 0.98**3 * start + 0.02 * sum(0.98 ** (3 - t) * lived[t][name] for t in (1, 2, 3))
        torch.testing.assert_close(game.averages["ema@3"][name].double(), expected, rtol=1e-6, atol=1e-7)
    assert set(game.averages) == {"ema@2", "ema@3"}, "the third round's opponent is the second average"
