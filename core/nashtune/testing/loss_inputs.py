"""Whether a loss reads what its class attributes declare, no less and no more, and what absent inputs mean.

What is not declared is not there in training, so that a loss that reads it would do something else than in its tests.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from nashtune.testing.batches import ANCHORS, MEMBERS, Draw
from nashtune.testing.bench import Bench, close
from nashtune.testing.columns import Columns
from nashtune.testing.contract import ContractError, require
from nashtune.testing.loss_gradient import detaches


def check_inputs(bench: Bench) -> None:
    """Check inputs that are not declared, absent ones, and shares.

    Raises:
        ContractError: one of them does what it must not.
    """
    _undeclared(bench)
    _absent(bench)
    if bench.kind == "scores":
        _shares(bench)


def effective(bench: Bench) -> set[str]:
    """Which declared inputs change values or gradients, by class attribute, and anchors."""
    loss, draw = bench.loss, Draw(7)
    columns = bench.columns()
    base = _both(bench, bench.prepare(columns))
    found: set[str] = set()

    def try_(name: str, changed: Columns) -> None:
        if not _same(_both(bench, changed), base):
            found.add(name)

    def moved(columns: Columns, *names: str) -> Columns:
        parts = {name: columns[name] + draw.normal(*columns[name].shape) for name in names if name in columns}
        return columns.put(**parts)

    for anchor in loss.anchors:
        parts = [anchor, *(f"{anchor}_{of}" for of in ("chosen", "rejected", "mismatched"))]
        try_(f"the anchor '{anchor}'", bench.prepare(moved(columns, *parts)))
    for says, names in bench.optional.items():
        if getattr(loss, says):
            shares = {name: draw.uniform(*columns[name].shape) for name in names}
            try_(says, moved(bench.prepare(columns.put(**shares)), *(("value",) if says == "uses_values" else ())))
    if columns.beta is not None:
        try_("uses_beta", bench.prepare(replace(columns, beta=3.0 * columns.beta)))
        if loss.beta_per_side and bench.kind == "pairs":
            sides = torch.stack([columns.beta, 3.0 * columns.beta]).expand(len(columns), 2)
            try_("beta_per_side", replace(columns, beta=sides))
    if loss.uses_old and bench.kind == "rollouts":
        try_("uses_old", moved(bench.prepare(columns), "old"))
    if loss.detaches and detaches(bench):
        found.add("detaches")
    if loss.compares_rows and _others_matter(bench):
        found.add("compares_rows")
    return found


def _undeclared(bench: Bench) -> None:
    loss, columns, everything = bench.loss, bench.columns(), bench.everything()
    ready = bench.prepare(columns)
    base = _both(bench, ready)
    for says, names in bench.optional.items():
        if getattr(loss, says):
            continue
        rows = {name: everything.rows[name] for name in names if name in everything.rows}
        items = {name: everything.items[name] for name in names if name in everything.items}
        found = _both(bench, bench.prepare(columns.add(rows=rows, items=items)))
        _unmoved(bench, found, base, f"{' and '.join(names)}, and {says} is not declared")
    extra = [name for name in ANCHORS if name not in loss.anchors]
    if bench.kind != "scores" and extra:
        names = (*loss.anchors, *extra)
        further = bench.prepare(columns, names)
        with torch.no_grad():
            given = bench.call(further, names).values
        same = close(given, base[0])
        require(same, bench.who, "loss-declares", f"it reads an anchor besides {', '.join(loss.anchors) or 'none'}")
    if bench.kind == "rollouts" and not loss.uses_old:
        drawn = ready.put(old=ready["old"] + Draw(3).normal(*ready["old"].shape))
        what = "`old` in its values, and uses_old is not declared: several steps would be refused"
        _unmoved(bench, _both(bench, drawn), base, what)


def _absent(bench: Bench) -> None:
    """Absent inputs stand for certain labels, no margin, and no ties."""
    columns = bench.ready()
    for name, value in (("p_chosen", 1.0), ("margin", 0.0)):
        if name in columns:
            said = bench.values(columns.put(**{name: torch.full_like(columns[name], value)}))
            absent = bench.values(columns.without(name))
            require(close(said, absent), bench.who, "loss-labels", f"{name} absent is not {name} = {value:g}")
    if bench.loss.rows == "ranked":
        assert columns.sizes is not None
        places = torch.cat([torch.arange(int(size)) for size in columns.sizes])
        given = bench.values(columns.add(items={"levels": places}))
        same = close(given, bench.values(columns))
        require(same, bench.who, "loss-labels", "levels that all differ give other values than none")
        tied = columns.add(items={"levels": (places - 1).clamp_min(0).where(_long(columns), places)})
        values, gradients = _both(bench, tied)
        finite = bool(values.isfinite().all()) and all(bool(one.isfinite().all()) for one in gradients.values())
        require(finite, bench.who, "loss-finite", "with two equal levels at the top of a list it is not finite")


def _long(columns: Columns) -> Tensor:
    """Whether each completion is of a list of three or more, of which two may tie (N,)."""
    assert columns.sizes is not None
    return torch.repeat_interleave(columns.sizes > 2, columns.sizes)


def _shares(bench: Bench) -> None:
    """Of an ensemble a list's share is the weight of each member's own loss."""
    columns = bench.columns()
    ones = torch.ones(len(columns), MEMBERS, dtype=torch.float64)
    whole = bench.values(columns.without("share"))
    rule, half = "loss-share", bench.values(columns.put(share=0.5 * ones))
    require(close(bench.values(columns.put(share=ones)), whole), bench.who, rule, "a share of 1 gives other values")
    require(close(half, 0.5 * whole), bench.who, rule, "a share of 1/2 does not halve the values")
    one = torch.zeros_like(ones)
    one[:, 0] = 1.0
    _, gradients = bench.graded(columns.put(share=one))
    leaks = float(gradients["scores"][:, 1:].abs().max())
    require(leaks == 0.0, bench.who, rule, f"a member with a share of 0 has a gradient of {leaks:.3g}")


def _others_matter(bench: Bench) -> bool:
    """Whether a row's value changes with the rows beside it."""
    columns, other = bench.ready(), bench.ready(seed=1)
    first = bench.values(columns)
    mixed = Columns(
        {name: torch.cat([value[:1], other.rows[name][1:]]) for name, value in columns.rows.items()},
        dict(columns.items),
        columns.sizes,
        columns.beta,
    )
    if columns.sizes is not None:  # items of the other rows: noise on those behind the first row's
        start = int(columns.sizes[0])
        noise = {n: v + Draw(5).normal(*v.shape) for n, v in columns.items.items() if v.is_floating_point()}
        mixed = mixed.put(**{n: torch.cat([columns.items[n][:start], v[start:]]) for n, v in noise.items()})
    return not close(bench.values(mixed)[:1], first[:1])


def _both(bench: Bench, columns: Columns) -> tuple[Tensor, dict[str, Tensor]]:
    output, gradients = bench.graded(columns)
    return output.values.detach(), gradients


def _same(first: tuple[Tensor, dict[str, Tensor]], second: tuple[Tensor, dict[str, Tensor]]) -> bool:
    shared = first[1].keys() & second[1].keys()
    return close(first[0], second[0]) and all(close(first[1][name], second[1][name]) for name in shared)


def _unmoved(
    bench: Bench, found: tuple[Tensor, dict[str, Tensor]], base: tuple[Tensor, dict[str, Tensor]], what: str
) -> None:
    if not _same(found, base):
        raise ContractError(bench.who, "loss-declares", f"it reads {what}")
