"""What references and beta do to a loss away from the start, where policy and references differ.

At the start everything agrees: a reference that is added where it is to be subtracted shows only when training has gone
some way, and then as a policy that runs away.

Legend: B = pairs, S = rollouts, M = completion tokens.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from nashtune.testing.bench import BETA, Bench
from nashtune.testing.columns import Columns
from nashtune.testing.contract import require
from nashtune.testing.frozen import Frozen, OtherPath
from nashtune.testing.loss_gradient import slopes, summed

SLACK = 1e-9
LEAST = 1e-5
"""Slopes smaller than this are no slopes: they are measured by differences."""
SURE = 0.75
"""P(chosen wins) where a soft label is tried: with it many losses come to rest at some distance."""
APART = torch.logspace(-3, 3, 61, dtype=torch.float64)
"""Distances from the anchors, in nats, at which a loss is asked whether it still pulls."""
NAT = 1.0
NEAR = 0.02
"""Change of a token's log-prob since it was drawn, in nats: inside any clip."""


def check_reference(bench: Bench) -> None:
    """Check how anchors, beta and the policy that drew act.

    Raises:
        ContractError: one acts the wrong way.
    """
    match bench.kind:
        case "pairs":
            _anchors(bench, {"policy_chosen": "{}_chosen", "policy_rejected": "{}_rejected"})
            _rest(bench)
        case "examples":
            _anchors(bench, {"policy": "{}"})
        case "rollouts":
            _penalty(bench)
            _ratio(bench)


def _anchors(bench: Bench, alike: dict[str, str]) -> None:
    """An anchor's log-prob is never pushed the way the policy's is."""
    columns, hold = bench.ready().without("p_chosen"), Frozen().held
    _, gradients = bench.graded(columns)
    try:
        summed(bench, columns, hold)
        for anchor in bench.loss.anchors:
            for mine, frozen in alike.items():
                column = frozen.format(anchor)
                for at, slope in enumerate(slopes(bench, columns, column, hold)):
                    own = float(gradients[mine][at])
                    same = slope * own > 0.0 and min(abs(slope), abs(own)) > LEAST
                    said = f"{column}[{at}] has the slope {slope:.6g} and {mine}[{at}] {own:.6g}, of the same sign"
                    require(not same, bench.who, "loss-reference", said)
    except OtherPath as error:
        require(False, bench.who, "loss-reference", f"it cannot be looked at: {error}")


def _rest(bench: Bench) -> None:
    """Where a loss stops pulling a pair apart, it stops no later with twice the beta."""
    loss = bench.loss
    if not (loss.uses_beta and loss.anchors) or loss.compares_rows:
        return
    first = bench.ready("start").pick([0] * len(APART))
    if "p_chosen" in first:
        first = first.put(p_chosen=torch.full_like(first["p_chosen"], SURE))
    apart = first.put(policy_rejected=first["policy_rejected"] - APART)
    found = []
    for beta in (BETA, 2.0 * BETA):
        _, gradients = bench.graded(replace(apart, beta=torch.tensor(beta, dtype=torch.float64)))
        still = gradients["policy_chosen"] - gradients["policy_rejected"] >= 0.0
        found.append(float(APART[still][0]) if bool(still.any()) else float("inf"))
    said = f"a pair is pulled apart up to {found[0]:.3g} nats from its anchors with beta {BETA:g}, and up to "
    said += f"{found[1]:.3g} with {2 * BETA:g}"
    require(found[1] <= found[0], bench.who, "loss-penalty", said)


def _penalty(bench: Bench) -> None:
    """Of completions with equal scores, those that the policy likes more than an anchor does are not made likelier."""
    columns = bench.columns("start")
    columns = columns.put(score=torch.full_like(columns["score"], 0.5))
    over_S = torch.arange(len(columns)) % 2 == 0
    for anchor in bench.loss.anchors:
        moved = columns.put(**{anchor: columns["old"] - NAT * over_S[_sequence(columns)]})
        gradient_S = _by_completion(moved, bench.graded(bench.prepare(moved))[1]["token_logp"])
        gap = float(gradient_S[over_S].mean() - gradient_S[~over_S].mean())
        said = (
            f"a completion that the policy likes {NAT:g} nat a token more than '{anchor}' does is made likelier than "
        )
        said += f"one on which they agree (difference of the gradients {gap:.6g})"
        require(gap >= -SLACK, bench.who, "loss-penalty", said)


def _ratio(bench: Bench) -> None:
    """The ratio to the policy that drew is the right way up."""
    if not bench.loss.uses_old:
        return
    columns = bench.columns("start")
    if columns.beta is not None:
        columns = replace(columns, beta=1e-9 * columns.beta)  # a penalty has a slope of its own
    ready = bench.prepare(columns)
    sizes = []
    for shift in (NEAR, -NEAR):
        _, gradients = bench.graded(ready.put(token_logp=ready["old"] + shift))
        sizes.append(float(gradients["token_logp"].abs().sum()))
    said = (
        f"where tokens became {NEAR:g} nats likelier the gradient's size is {sizes[0]:.6g}, and {sizes[1]:.6g} where "
    )
    said += "they became as much less likely"
    require(sizes[0] >= sizes[1] * (1.0 - SLACK), bench.who, "loss-ratio", said)


def _sequence(columns: Columns) -> Tensor:
    assert columns.sizes is not None, "rollouts have tokens"
    return torch.repeat_interleave(columns.sizes)


def _by_completion(columns: Columns, value_M: Tensor) -> Tensor:
    return value_M.new_zeros(len(columns)).index_add(0, _sequence(columns), value_M)
