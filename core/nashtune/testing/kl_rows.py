"""The contract of a KL controller's rows: it works on those that it declares, is told of them, and takes each alone.

A batch has its rows in no order: β of a row goes with the row, also after the controller has moved.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from nashtune.interfaces import KLController
from nashtune.testing.bench import close
from nashtune.testing.contract import ContractError, require
from nashtune.testing.kl_bench import KLBench
from nashtune.testing.kl_kinds import SAY_ROWS, declared_kinds
from nashtune.testing.state import numbers
from nashtune.testing.subject import Subject

STEPS = 3
"""After which its rows are looked at again."""


def check_moves(subject: Subject) -> None:
    """Check that it is told of every kind of rows that it declares: of rollouts another function tells it.

    Raises:
        ContractError: it is not.
    """
    cls = subject.cls
    assert issubclass(cls, KLController)
    functions = {"observe": cls.observe is not KLController.observe}
    functions["observe_round"] = cls.observe_round is not KLController.observe_round
    for missing, other in (("observe", "observe_round"), ("observe_round", "observe")):
        still = [kind for kind in declared_kinds(cls) if (kind == "rollouts") == (missing == "observe_round")]
        if still and functions[other] and not functions[missing]:
            found = f"it moves in {other}, which is not called for {' and '.join(still)}, and has no {missing}"
            raise ContractError(subject.who, "kl-declares", f"{found}; {SAY_ROWS}")


def check_taken(
    subject: Subject, options: Mapping[str, Any], bench_of: Callable[[Any, dict[str, Any]], KLBench]
) -> None:
    """Check that it takes every kind of rows that it declares, with one of its options at least.

    Args:
        subject: The controller.
        options: The caller's.
        bench_of: Runs an object that was made with some options.

    Raises:
        ContractError: it refuses one.
    """
    cls = subject.cls
    assert issubclass(cls, KLController)
    benches = [bench_of(made, chosen) for chosen, made in subject.swept(options, all_choices=True)]
    for kind in declared_kinds(cls):
        refusals = [bench.refusal(kind) for bench in benches]
        if all(refusals):
            said = f"`rows` declares {' and '.join(cls.rows) or 'any'}"
            raise ContractError(
                subject.who, "kl-declares", f"it refuses {kind} ({refusals[0]}), and {said}; {SAY_ROWS}"
            )


def check_rows_apart(bench: KLBench) -> None:
    """Check that β of a row depends neither on its place nor, where the class does not say so, on those beside it.

    Raises:
        ContractError: it does.
    """
    for kind in bench.kinds:
        for steps in (0, STEPS):
            _any_order(bench, kind, steps)
            if kind != "rollouts" and not bench.make().compares_rows:
                _rows_apart(bench, kind, steps)


def _any_order(bench: KLBench, kind: str, steps: int) -> None:
    columns = bench.columns(kind)
    order = [*range(1, len(columns)), 0]
    whole = bench.beta(bench.moved(kind, steps), kind, columns)
    found = bench.beta(bench.moved(kind, steps), kind, columns.pick(order))
    wanted = whole if whole.ndim == 0 else whole[order]
    said = f"in another order{_after(steps)} {kind} have {numbers(found)}, and by their first order {numbers(wanted)}"
    require(close(found, wanted), bench.who, "kl-rows", said)


def _rows_apart(bench: KLBench, kind: str, steps: int) -> None:
    columns = bench.columns(kind)
    whole = bench.beta(bench.moved(kind, steps), kind, columns)
    for i in range(len(columns)):
        alone = bench.beta(bench.moved(kind, steps), kind, columns.pick([i]))
        found = alone if alone.ndim == 0 else alone[0]
        wanted = whole if whole.ndim == 0 else whole[i]
        said = f"of {kind.removesuffix('s')} {i} alone{_after(steps)} it is {numbers(found)}"
        require(close(found, wanted), bench.who, "kl-rows", f"{said}, and beside others {numbers(wanted)}")


def _after(steps: int) -> str:
    return f" after {steps} steps" if steps else ""
