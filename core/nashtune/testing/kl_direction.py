"""Which way a KL controller moves: many updates at a KL divergence of 0, and as many at a very large one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import torch
from torch import Tensor

from nashtune.interfaces import KLController
from nashtune.kl.plant import Plant, rollouts
from nashtune.testing.bench import close
from nashtune.testing.contract import require, running
from nashtune.testing.kl_bench import FAR, KLBench, bounded

ROUNDS = 200
NEAR = 1e-9
"""Relative difference of two β that counts for none."""


def check_direction(bench: KLBench, plant: Plant) -> None:
    """Check that β is no lower for a large KL divergence, and that one that watches it answers.

    One that never looks at what it is told follows a schedule of rounds, and what it reports is for the log.

    Args:
        bench: Runs the controller.
        plant: How many rollouts an update has, and how they scatter.

    Raises:
        ContractError: it moves the wrong way, the same way at both ends, or never back up.
    """
    low, high, rule = bench.make(), bench.make(), "kl-stable"
    at_0, at_far = _rounds(bench, low, plant, 0.0), _rounds(bench, high, plant, FAR)
    ends = f"after {ROUNDS} rounds beta is {at_far[-1]:.6g} at a KL of {FAR:g} nats, and {at_0[-1]:.6g} at one of 0"
    require(at_far[-1] >= at_0[-1] * (1.0 - NEAR), bench.who, rule, ends)
    if not _watches(bench) or not _listens(bench, plant):
        return
    moved = not _alike(at_0[0], at_0[-1]) or not _alike(at_far[0], at_far[-1])
    said = f"{ends}: it is told of {' and '.join(low.anchors)}, and moves the same way whatever it is told"
    require(not moved or not _alike(at_0[-1], at_far[-1]), bench.who, rule, said)
    if at_0[-1] < at_0[0] * (1.0 - NEAR):
        back = _rounds(bench, low, plant, FAR)[-1]
        said = (
            f"at a KL of 0 beta fell to {at_0[-1]:.6g}, and after {ROUNDS} more rounds at {FAR:g} nats it is {back:.6g}"
        )
        require(back > at_0[-1] * (1.0 + NEAR), bench.who, rule, said)


def _rounds(bench: KLBench, controller: KLController, plant: Plant, kl: float) -> list[float]:
    """The mean β after each round at one KL divergence."""
    found = []
    for number in range(ROUNDS):
        beta = bench.round(controller, kl, plant, number)
        bounded(bench.who, beta, f"in round {number + 1} at a KL of {kl:g} nats")
        found.append(float(beta.double().mean()))
    return found


def _alike(one: float, other: float) -> bool:
    return abs(one - other) <= NEAR * max(abs(one), abs(other))


def _watches(bench: KLBench) -> bool:
    """Whether what it reports of rollouts, and is told, depends on an anchor."""
    columns = bench.columns("rollouts")
    anchors = bench.make().anchors
    away = columns.put(**{name: columns[name] + torch.linspace(-1.0, 1.0, len(columns[name])) for name in anchors})

    def told() -> list[Tensor]:
        reports = []
        for given in (columns, away):
            controller, batch = bench.make(), bench.batch("rollouts", given)
            with running(bench.who, "report"):
                values = controller.report(batch, controller.beta(batch)).values()
            reports.append(
                torch.cat([torch.zeros(1, dtype=torch.float64), *(one.double().flatten() for one in values)])
            )
        return reports

    first, second = told()
    return not close(first, second)


class _Told(Mapping[str, float]):
    """Means of a report, and whether anybody has looked at them."""

    def __init__(self, means: Mapping[str, float]) -> None:
        self._means = means
        self.seen = False

    def __getitem__(self, name: str) -> float:
        self.seen = True
        return self._means[name]

    def __iter__(self) -> Iterator[str]:
        self.seen = True
        return iter(self._means)

    def __len__(self) -> int:
        return len(self._means)


def _listens(bench: KLBench, plant: Plant) -> bool:
    """Whether it looks at what it is told, in any of many updates."""
    controller = bench.make()
    batch = rollouts(plant.kl_rest, plant, np.random.default_rng(0))
    with running(bench.who, "a round on the test bench"):
        report = controller.report(batch, controller.beta(batch))
        told = _Told({name: float(value.mean()) for name, value in report.items()})
        for _ in range(ROUNDS):
            controller.observe_round(told, plant.completions)
    return told.seen
