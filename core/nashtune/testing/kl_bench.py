"""Runs a KL controller on pairs, examples and rollouts: gives it what its class attributes declare and nothing else."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from nashtune.errors import InputError
from nashtune.interfaces import KLController, LossBatch
from nashtune.kl.plant import Plant, rollouts
from nashtune.testing import batches
from nashtune.testing.batches import ANCHORS, PAIRS, SIDES, Draw
from nashtune.testing.bench import close
from nashtune.testing.columns import Columns
from nashtune.testing.contract import ContractError, require, running
from nashtune.testing.kl_kinds import SAY_ROWS, declared_kinds
from nashtune.testing.state import numbers

FAR = 1000.0
"""Nats that no controller should meet for long."""
VARIANCE = ("variance", "variance_chosen", "variance_rejected")


@dataclass(frozen=True, eq=False)
class KLBench:
    """A controller under test.

    Args:
        make: A new one with the same options.
        who: How messages name it.
    """

    make: Callable[[], KLController]
    who: str

    @functools.cached_property
    def kinds(self) -> tuple[str, ...]:
        """Which batches it takes, of those that its class declares."""
        return tuple(kind for kind in declared_kinds(type(self.make())) if not self.refusal(kind))

    def refusal(self, kind: str) -> str:
        """With what InputError it refuses such a batch; "" where it takes it.

        Raises:
            ContractError: it fails in another way.
        """
        controller = self.make()
        try:
            controller.beta(self.batch(kind, self.columns(kind)))
        except InputError as error:
            return " ".join(str(error).split())
        except KeyError as error:
            said = ", ".join(controller.anchors) or "none"
            what = f"it reads {error}, and `anchors` declares {said}"
            raise ContractError(self.who, "kl-declares", what) from error
        except Exception as error:
            text = f"beta for {kind} raised {type(error).__name__}: {error}"
            if not controller.rows:
                text += f"; {SAY_ROWS}"
            raise ContractError(self.who, "runs", text) from error
        return ""

    def columns(self, kind: str, seed: int = 0, *, everything: bool = False) -> Columns:
        """A batch with what it declares, or with everything."""
        controller = self.make()
        names = tuple(dict.fromkeys((*controller.anchors, *ANCHORS)))
        make = {"pairs": batches.pairs, "examples": batches.examples, "rollouts": batches.rollouts}[kind]
        made: Columns = make(names, seed=seed)
        draw = Draw(100 + seed)
        if kind == "pairs":
            statistics = {f"{name}_{side}": draw.normal(PAIRS) for name in controller.statistics for side in SIDES}
            made = made.add(rows=statistics)
        if everything:
            return made
        return made.without(*(() if controller.uses_variance else VARIANCE))

    def batch(self, kind: str, columns: Columns, anchors: tuple[str, ...] | None = None) -> LossBatch:
        """What the controller sees; log-probs carry a gradient, as in training."""
        controller = self.make()
        names = tuple(controller.anchors) if anchors is None else anchors
        if controller.statistics and "ref" not in names:
            names = (*names, "ref")
        if kind == "pairs":
            leaves = {f"policy_{side}": columns[f"policy_{side}"].clone().requires_grad_() for side in SIDES}
            return batches.pair_batch(columns.put(**leaves), names, controller.statistics)
        if kind == "examples":
            return batches.example_batch(columns.put(policy=columns["policy"].clone().requires_grad_()), names)
        return batches.rollout_batch(columns.put(token_logp=columns["old"].clone().requires_grad_()), names)

    def beta(self, controller: KLController, kind: str, columns: Columns) -> Tensor:
        """β of a batch."""
        with running(self.who, f"beta for {kind}"):
            return controller.beta(self.batch(kind, columns))

    def step(self, controller: KLController, seed: int, kind: str) -> Tensor:
        """One step of training: β, and then what the controller is told."""
        columns = self.columns(kind, seed)
        batch = self.batch(kind, columns)
        with running(self.who, "a step of training"):
            beta = controller.beta(batch)
            report = {name: value.double().mean() for name, value in controller.report(batch, beta).items()}
            if kind != "rollouts":
                controller.observe(report)
            else:
                controller.observe_round({name: float(value) for name, value in report.items()}, len(columns))
        return beta.clone()

    def moved(self, kind: str, steps: int) -> KLController:
        """A controller after some steps of training."""
        controller = self.make()
        for number in range(steps):
            self.step(controller, 20 + number, kind)
        return controller

    def round(self, controller: KLController, kl: float, plant: Plant, number: int) -> Tensor:
        """One update on rollouts that show a KL divergence, and β after it."""
        batch = rollouts(kl, plant, np.random.default_rng(number))
        with running(self.who, f"a round at a KL of {kl:g} nats"):
            report = controller.report(batch, controller.beta(batch))
            controller.observe_round({name: float(value.mean()) for name, value in report.items()}, plant.completions)
            return controller.beta(batch)

    def extreme_pairs(self) -> Iterator[tuple[str, Columns]]:
        """Batches of pairs at the ends of what may be reported, by what they show."""
        columns = self.columns("pairs")
        chosen, rejected = columns["policy_chosen"], columns["policy_rejected"]
        names = self.make().statistics
        shapes = {
            "a KL of 0 nats": (0.0, 0.0),
            f"a KL of {FAR:g} nats": (FAR, FAR),
            f"a margin of {FAR:g} nats": (FAR, 0.0),
            f"a margin of -{FAR:g} nats": (0.0, FAR),
        }
        for what, (up, down) in shapes.items():
            seen = {f"{name}_chosen": chosen - up for name in ANCHORS if f"{name}_chosen" in columns}
            seen |= {f"{name}_rejected": rejected - down for name in ANCHORS if f"{name}_rejected" in columns}
            yield what, columns.put(**seen)
        for side, other in (SIDES, SIDES[::-1]) if names else ():
            zero = {f"{name}_{other}": torch.zeros(PAIRS, dtype=torch.float64) for name in names}
            for sign in (1.0, -1.0):
                ends = {f"{name}_{side}": torch.full((PAIRS,), sign * FAR, dtype=torch.float64) for name in names}
                yield f"statistics of {sign * FAR:g} of the {side} completions", columns.put(**zero, **ends)
        if len(names) > 1:  # against one another
            for sign in (1.0, -1.0):
                ends = {
                    f"{name}_{side}": torch.full((PAIRS,), sign * FAR * (-1) ** (i + j), dtype=torch.float64)
                    for i, name in enumerate(names)
                    for j, side in enumerate(SIDES)
                }
                yield f"statistics of +-{FAR:g}", columns.put(**ends)

    def observed(self, controller: KLController, columns: Columns, what: str) -> Tensor:
        """β after one more step on these pairs."""
        batch = self.batch("pairs", columns)
        with running(self.who, what, "kl-bounds"):
            report = controller.report(batch, controller.beta(batch))
            controller.observe({name: value.double().mean() for name, value in report.items()})
            return controller.beta(batch)

    def check_undeclared(self, kind: str) -> None:
        """Check that what is not declared changes nothing.

        Raises:
            ContractError: it does.
        """
        controller, columns, everything = self.make(), self.columns(kind), self.columns(kind, everything=True)
        base = self.beta(controller, kind, columns)
        for names in ((), tuple(dict.fromkeys((*controller.anchors, *ANCHORS)))):
            given = everything if not names else columns
            with running(self.who, f"beta for {kind}"):
                found = self.make().beta(self.batch(kind, given, names or None))
            what = (
                "an anchor that `anchors` does not declare"
                if names
                else "a variance, and uses_variance is not declared"
            )
            require(close(found, base), self.who, "kl-declares", f"it reads {what}")

    def effective(self, kind: str) -> set[str]:
        """Which declared inputs change β or what is reported, now or at the next step."""
        columns, draw, found = self.columns(kind), Draw(9), set[str]()
        base, controller = self._future(kind, columns), self.make()
        groups = {"uses_variance": VARIANCE}
        groups |= {f"the anchor '{n}'": (n, f"{n}_chosen", f"{n}_rejected") for n in controller.anchors}
        for what, names in groups.items():
            changed = columns.put(**{n: columns[n] + draw.uniform(*columns[n].shape) for n in names if n in columns})
            if not close(self._future(kind, changed), base):
                found.add(what)
        beta = self.beta(controller, kind, columns)
        if beta.ndim == 2:
            found.add("beta_per_side")
        if kind != "rollouts":
            alone = self.beta(self.make(), kind, columns.pick([0]))  # a batch-wide beta is a scalar for both
            if not close(alone[0] if alone.ndim else alone, beta[0] if beta.ndim else beta):
                found.add("compares_rows")
        return found

    def _future(self, kind: str, columns: Columns) -> Tensor:
        """β of this batch, what is reported of it, and β of another batch after it."""
        controller, batch = self.make(), self.batch(kind, columns)
        with running(self.who, "a step of training"):
            beta = controller.beta(batch)
            report = controller.report(batch, beta)
            means = {name: value.double().mean() for name, value in report.items()}
            if kind != "rollouts":
                controller.observe(means)
            else:
                reward = controller.reward(batch, beta)  # type: ignore[arg-type]
                report = {**report, "reward": reward}
                controller.observe_round({name: float(value) for name, value in means.items()}, len(columns))
            after = controller.beta(self.batch(kind, self.columns(kind, 1)))
        parts = [beta, after, *report.values()]
        return torch.cat([part.detach().double().flatten() for part in parts])


def bounded(who: str, beta: Tensor, when: str) -> None:
    """Check that β is finite and above 0 in float32, which training has: there 1e40 is infinite and 1e-50 is 0.

    Raises:
        ContractError: it is not.
    """
    narrow = beta.float()
    good = bool((narrow.isfinite() & (narrow > 0.0)).all())
    require(good, who, "kl-bounds", f"beta is {numbers(beta)} {when}")
