"""Lines of a bandit's report: what a policy gains and risks, of the spec and of the theory's closed forms.

Legend: X = prompts, n = arms of the largest prompt, D = draws of the noise.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from nashtune.bandits.bandit import Arms
from nashtune.bandits.report import Line
from nashtune.bandits.risk import Risk, from_gains
from nashtune.bandits.table import Table
from nashtune.bandits.theory import Form, detached_form, kl_of, matched_beta, mean_kl, vanilla_form
from nashtune.games.matrices import Array

if TYPE_CHECKING:
    from nashtune.spec.model import Spec


def base_beta(spec: Spec, beta: Array | None, table: Table) -> float | None:
    """β of the theory's lines: the controller's own where it has one, else the mean over what the reference draws."""
    if beta is None or spec.kl is None:
        return None
    stated = spec.kl.args.get("beta")
    if isinstance(stated, int | float):
        return float(stated)
    weight = np.where(table.held, np.exp(table.log_reference), 0.0)
    return float((weight * beta).sum() / len(table.held))


def theory_lines(
    base: float | None, kl: float, table: Table, drawn: Table, prompts: Sequence[Arms], notes: list[str]
) -> list[Line]:
    """Lines of the closed forms, for comparison.

    Args:
        base: β of the spec; None where it has none.
        kl: Mean KL of the spec's own policies, in nats.
        table: The bandit.
        drawn: Draws of its noise.
        prompts: The bandit as it was read.
        notes: Gets a sentence for each line that cannot be drawn.
    """
    if base is None:
        notes.append("the spec has no β, so that no closed form is beside it")
        return []
    forms: list[tuple[str, float, Form]] = [("vanilla KL, π₀ exp(R/β)", base, vanilla_form(base))]
    noisy = all((arms.sigma > 0).all() for arms in prompts)
    if noisy and all((arms.variance > 0).all() for arms in prompts):
        forms.append(("variance-weighted KL, detached, v not clipped", base, detached_form(base)))
    else:
        notes.append(
            "an arm of which all members say the same: no line for the variance-weighted closed form"
            if noisy
            else "an arm without noise: the variance-weighted closed form and the exact risk of small aware steps need "
            "σ > 0"
        )
    if kl > 0:
        matched = matched_beta(drawn, kl)
        if matched is None:
            notes.append(f"no vanilla policy has the spec's mean KL of {kl:.6g} nats at any β: no line at equal KL")
        else:
            forms.append(("vanilla KL at the spec's mean KL", matched, vanilla_form(matched)))
    lines = []
    for name, beta, form in forms:
        policy, level = form(table)
        lines.append(line_of(name, beta, policy, form(drawn)[0], table, drawn, prompts, level))
    return lines


def line_of(
    name: str,
    beta: float | None,
    policy: Array,
    policies: Array,
    table: Table,
    drawn: Table,
    prompts: Sequence[Arms],
    level: Array | None = None,
) -> Line:
    """What a policy gains, risks and costs.

    Args:
        name: Of the line.
        beta: Its β, where it has one.
        policy: Without noise (X, n).
        policies: Of the draws (D X, n).
        table: The bandit.
        drawn: The draws.
        prompts: The bandit as it was read.
        level: Of the closed form, where it has one.
    """
    gold = np.zeros(table.held.shape)
    reference = np.where(table.held, np.exp(table.log_reference), 0.0)
    for number, arms in enumerate(prompts):
        gold[number, : arms.size] = arms.gold
    moved_DXn = (policies.reshape(-1, *gold.shape)) - reference
    gains_D = (moved_DXn * gold).sum((1, 2)) / len(prompts)
    risk: Risk = from_gains(gains_D, float(np.abs(gold).max()))
    return Line(
        name=name,
        beta=beta,
        level=level,
        policy=[policy[number, : arms.size] for number, arms in enumerate(prompts)],
        kl=kl_of(policy, table),
        gold=(policy * gold).sum(-1),
        gold_reference=(reference * gold).sum(-1),
        mean_kl=mean_kl(policies, drawn),
        gains=gains_D,
        risk=risk,
    )
