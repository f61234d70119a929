"""The contract of a loss, whatever the method."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from nashtune.errors import InputError
from nashtune.evaluation.metrics import Means
from nashtune.interfaces import Loss
from nashtune.interfaces.kl import watches
from nashtune.testing.bench import Bench, close, shown
from nashtune.testing.columns import Columns
from nashtune.testing.contract import ContractError, require, running
from nashtune.testing.loss_gradient import check_gradient
from nashtune.testing.loss_inputs import check_inputs, effective
from nashtune.testing.loss_reference import check_reference
from nashtune.testing.loss_signs import check_sign
from nashtune.testing.loss_values import check_finite, check_values
from nashtune.testing.state import check_resume, plain
from nashtune.testing.subject import Subject, statistics_of_specs
from nashtune.testing.sweep import sweep

ROUNDS = (1, 2, 10)


def check(subject: Subject, options: Mapping[str, Any], statistics: Sequence[str] | None = None) -> None:
    """Check a loss with each of its options.

    Args:
        subject: The loss.
        options: Of its constructor.
        statistics: Per-token statistics of a KL controller that it reads; None for those of the specs that use it.

    Raises:
        ContractError: it breaks a rule.
    """
    names = statistics_of_specs(subject.info.target) if statistics is None else tuple(statistics)

    def bench_of(made: Any, chosen: dict[str, Any]) -> Bench:
        assert isinstance(made, Loss)
        return Bench(made, subject.named(chosen), functools.partial(subject.make, chosen), names)

    sweep(subject, options, "loss-declares", _declared(subject), bench_of, _check, effective)


def _check(bench: Bench) -> set[str]:
    check_values(bench)
    _pure(bench)  # else it would be found as something else
    _state(bench)
    check_finite(bench)
    check_gradient(bench)
    _rows(bench)
    _beta(bench)
    check_inputs(bench)
    check_sign(bench)
    check_reference(bench)
    _theory(bench)
    return effective(bench)


def _declared(subject: Subject) -> set[str]:
    """What the class says it reads, as `effective` names it."""
    cls: Any = subject.cls
    said = ("uses_beta", "uses_p_chosen", "uses_margin", "uses_variance", "uses_values", "uses_old", "uses_win_rates")
    found = {name for name in (*said, "compares_rows", "beta_per_side", "detaches") if getattr(cls, name)}
    return found | {f"the anchor '{name}'" for name in cls.anchors}


def _rows(bench: Bench) -> None:
    columns = bench.columns()
    ready = bench.prepare(columns)
    whole = bench.values(ready)
    order = [*range(1, len(columns), 2), *reversed(range(0, len(columns), 2))]
    mixed = bench.prepare(columns.pick(order))
    if "advantage" in ready:
        same = close(mixed["advantage"], ready["advantage"][ready.places(order)])
        require(same, bench.who, "loss-advantages", "they change when the completions come in another order")
    found = bench.values(mixed)
    said = f"with rows in the order {order} {_two(found, whole[order], 'else')}"
    require(close(found, whole[order]), bench.who, "loss-rows", said)
    if bench.loss.compares_rows:
        return
    for i in range(len(columns)):
        alone = bench.values(ready.pick([i]))
        said = f"row {i} is {float(alone[0]):.9g} alone and {float(whole[i]):.9g} in a batch of {len(columns)}"
        require(close(alone, whole[i : i + 1]), bench.who, "loss-rows", said)


def _beta(bench: Bench) -> None:
    loss, columns = bench.loss, bench.columns()
    if not loss.uses_beta:
        return
    beta, count = columns.beta, len(columns)
    assert beta is not None
    whole = bench.values(bench.prepare(columns))
    shapes = [(count,)] if bench.kind in ("pairs", "rollouts") else []
    shapes += [(count, 2)] if loss.beta_per_side and bench.kind == "pairs" else []  # type: ignore[list-item]
    for shape in shapes:
        spread = Columns(columns.rows, columns.items, columns.sizes, beta.expand(shape).clone())
        found = bench.values(bench.prepare(spread))
        said = f"with beta of shape {shape} {_two(found, whole, 'with the same number as a scalar')}"
        require(close(found, whole), bench.who, "loss-beta", said)
    if loss.beta_optional:
        none = Columns(columns.rows, columns.items, columns.sizes, None)
        try:
            found = bench.values(bench.prepare(none))
        except ContractError as error:
            raise ContractError(bench.who, "loss-beta", f"without beta {error.found}") from error
        fits = found.shape == (count,) and bool(found.isfinite().all())
        require(fits, bench.who, "loss-beta", f"without beta it gave {shown(found)}")


def _pure(bench: Bench) -> None:
    columns = bench.ready()
    kept = columns.clone()
    first = bench.values(columns)
    require(columns.same(kept), bench.who, "loss-pure", "it changes its batch in place")
    bench.values(bench.ready(seed=1))
    again = bench.values(columns)
    said = f"called again on the same batch {_two(again, first, 'before')}"
    require(torch.equal(first, again), bench.who, "loss-pure", said)
    with torch.no_grad():
        quiet = bench.values(columns)
    require(torch.equal(first, quiet), bench.who, "loss-pure", f"under torch.no_grad() {_two(quiet, first, 'else')}")


def _state(bench: Bench) -> None:
    """Several optimiser steps, after each of which it is told what was reported."""
    rule = "loss-state"
    if not watches(bench.loss):
        plain(bench.loss, bench.who, rule)
        return
    check_resume(bench.make, functools.partial(_step, bench), bench.who, rule, "the loss")
    if bench.kind == "examples":
        for desirable in (True, False):
            _one_kind(bench, desirable)


def _step(bench: Bench, loss: Loss, number: int) -> Tensor:
    """One step of training: the values, and then what the loss is told."""
    return _tell(bench, loss, bench.ready(seed=number), "observe")


def _one_kind(bench: Bench, desirable: bool) -> None:
    """A step whose examples are all of one kind: there is no mean of the other one's rewards."""
    loss, columns = bench.make(), bench.ready()
    only = f"a step with {'' if desirable else 'un'}desirable examples alone"
    try:
        _tell(bench, loss, columns.put(desirable=torch.full((len(columns),), desirable)), f"observe after {only}")
    except ContractError as error:
        if isinstance(error.__cause__, InputError):  # a refusal with a message is well
            return
        raise
    state = plain(loss, bench.who, "loss-state")
    fits = all(torch.tensor(value, dtype=torch.float64).isfinite().all() for value in state.values())
    require(fits, bench.who, "loss-state", f"after {only} the state is {state}")


def _tell(bench: Bench, loss: Loss, columns: Columns, doing: str) -> Tensor:
    """Values of a step, after which the loss is told the means, as training does."""
    output, means = replace(bench, loss=loss).call(columns), Means()
    means.update(output, len(columns), kind=bench.kind)
    with running(bench.who, doing, "loss-state"):
        loss.observe(means.tensors())
    return output.values.detach()


def _theory(bench: Bench) -> None:
    rule = "loss-theory"
    for number in ROUNDS:
        with running(bench.who, f"reference_weight({number})"):
            weight = bench.loss.reference_weight(number)
        if weight is not None:
            require(0.0 <= weight <= 1.0, bench.who, rule, f"reference_weight({number}) is {weight!r}")
            fits = bench.loss.mixes or not weight
            require(fits, bench.who, rule, f"reference_weight({number}) is {weight:g}, and mixes is not declared")
    with running(bench.who, "gap_bound or kl_bound"):
        bounds = {"gap_bound": bench.loss.gap_bound(4, 1.0), "kl_bound": bench.loss.kl_bound(4)}
    for name, bound in bounds.items():
        fits = bound is None or (isinstance(bound[0], str) and 0.0 < bound[1] < float("inf"))
        require(fits, bench.who, rule, f"{name} gave {bound!r}")


def _two(found: Tensor, wanted: Tensor, otherwise: str) -> str:
    """`row 3 is 1.5, and in the batch 1.2`: the place where two results differ most."""
    if found.shape != wanted.shape:
        return f"it gives {shown(found)}, and {otherwise} {shown(wanted)}"
    at = int((found - wanted).abs().argmax())
    return f"row {at} is {float(found[at]):.9g}, and {otherwise} {float(wanted[at]):.9g}"
