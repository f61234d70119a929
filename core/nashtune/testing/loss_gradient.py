"""The gradient of a loss against differences of its values, with what it detaches on purpose held constant."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from nashtune.testing.bench import LEAVES, Bench
from nashtune.testing.columns import Columns
from nashtune.testing.contract import ContractError, require
from nashtune.testing.frozen import Frozen, OtherPath

SHIFT = 1e-5
"""Of an input, in nats, for differences that a message shows."""
RULE = "loss-gradient"
Hold = Callable[[Callable[[], Tensor]], Tensor]
"""Evaluates values, as they are or with what is detached held."""


def check_gradient(bench: Bench) -> None:
    """Check that the gradient is that of the values.

    Raises:
        ContractError: it is another.
    """
    columns = bench.ready()
    agrees = _agrees(bench, columns, Frozen().held if bench.loss.detaches else _as_is)
    if agrees:
        return
    said = _slopes(bench, columns, Frozen().held if bench.loss.detaches else _as_is)
    if not bench.loss.detaches and _agrees(bench, columns, Frozen().held):
        said += "; with what it detaches held constant they agree: if that is meant, say `detaches = True` in the class"
    require(False, bench.who, RULE, said)


def detaches(bench: Bench) -> bool:
    """Whether something that is detached depends on what has a gradient."""
    return not _agrees(bench, bench.ready(), _as_is)


def _as_is(evaluate: Callable[[], Tensor]) -> Tensor:
    return evaluate()


def _leaves(bench: Bench, columns: Columns) -> dict[str, Tensor]:
    return {name: columns[name].detach().clone() for name in LEAVES[bench.kind] if name in columns}


def _agrees(bench: Bench, columns: Columns, hold: Hold) -> bool:
    leaves = _leaves(bench, columns)

    def values(*given: Tensor) -> Tensor:
        return hold(lambda: bench.call(columns.put(**dict(zip(leaves, given, strict=True)))).values)

    try:
        torch.autograd.gradcheck(values, [leaf.requires_grad_() for leaf in leaves.values()])
    except ContractError:
        raise
    except (RuntimeError, OtherPath):  # GradcheckError is the first
        return False
    return True


def _slopes(bench: Bench, columns: Columns, hold: Hold) -> str:
    """Where the gradient is farthest from differences of the values."""
    _, gradients = bench.graded(columns)
    found = []
    try:
        summed(bench, columns, hold)  # what is held is recorded here
        for name in _leaves(bench, columns):
            for at, slope in enumerate(slopes(bench, columns, name, hold)):
                said = float(gradients[name].reshape(-1)[at])
                text = f"the gradient for {name}[{at}] is {said:.6g}, differences give {slope:.6g}"
                found.append((abs(slope - said), text))
    except OtherPath as error:
        return str(error)
    return max(found)[1]


def slopes(bench: Bench, columns: Columns, name: str, hold: Hold) -> list[float]:
    """Slope of the sum of the values in each number of a column, by differences.

    Raises:
        OtherPath: what is held is another thing beside the point.
    """
    found = []
    for at in range(columns[name].numel()):
        step = torch.zeros_like(columns[name])
        step.view(-1)[at] = SHIFT
        ends = [summed(bench, columns.put(**{name: columns[name] + shift}), hold) for shift in (step, -step)]
        found.append((ends[0] - ends[1]) / (2.0 * SHIFT))
    return found


def summed(bench: Bench, columns: Columns, hold: Hold) -> float:
    """Sum of the values."""
    live = {name: value.requires_grad_() for name, value in _leaves(bench, columns).items()}
    return float(hold(lambda: bench.call(columns.put(**live)).values).detach().sum())
