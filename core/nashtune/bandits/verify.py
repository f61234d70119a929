"""From a spec and a bandit to a report: what `nashtune verify` does with a file of rewards, for Python.

Legend: X = prompts, n = arms of the largest prompt, D = draws of the noise.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

import numpy as np

from nashtune.bandits.bandit import Arms
from nashtune.bandits.closed_forms import log_weighted
from nashtune.bandits.coefficients import Coefficients, Components, components_of, refuse_unheld
from nashtune.bandits.optimum import optimum, weakly_held
from nashtune.bandits.pairs import pair_optimum
from nashtune.bandits.report import BanditReport, Line
from nashtune.bandits.risk import Risk, from_gains
from nashtune.bandits.table import Table, drawn_table, table_of
from nashtune.bandits.theory import (
    LINEAR,
    Form,
    OwnForm,
    by_size,
    detached_form,
    kl_of,
    matched_beta,
    mean_kl,
    own_form,
    quadratic_risks,
    vanilla_form,
)
from nashtune.errors import CheckFailed, InputError
from nashtune.games.matrices import Array
from nashtune.interfaces import Schedule
from nashtune.plugins.static import class_info
from nashtune.spec.resolve import build

if TYPE_CHECKING:
    from nashtune.spec.model import Spec

DRAWS = {"rollouts": 20_000, "pairs": 1_000}
"""Draws of the noise, by what the loss reads: an update on pairs solves a linear system for each draw."""
MOST_ROWS, FEWEST_DRAWS = 4_000_000, 100
"""Arms times draws, where nobody says how many draws; a bandit of very many arms still gets some."""
ROWS_AT_ONCE = 400_000
PAIR_PROMPTS_AT_ONCE = 50
"""One line search serves all prompts of an update, and stalls where there are a thousand of them."""
COUPLED = 1e-6
"""A difference between the policy alone and among the draws above which the loss is said to compare prompts."""


def verify_bandit(spec: Spec, prompts: Sequence[Arms], *, draws: int | None = None, seed: int = 0) -> BanditReport:
    """Where a spec's own loss and KL controller come to rest, and how risky that is.

    Args:
        spec: The resolved spec.
        prompts: The bandit.
        draws: Of the noise, for the risk; None for 20000, or 1000 for a loss of pairs, fewer where arms are very many.
        seed: Of the draws.

    Raises:
        InputError: the spec does not learn from rewards or pairs.
        CheckFailed: there is no finite optimum.
    """
    _refuse_other_specs(spec)
    components = components_of(spec)
    table = table_of(prompts)
    count = draws or min(DRAWS[components.loss.rows], max(FEWEST_DRAWS, MOST_ROWS // table.held.size))
    if not any((arms.sigma > 0).any() for arms in prompts):
        count = 1
    drawn = drawn_table(prompts, count, np.random.default_rng(seed))
    solve = _rollouts if components.loss.rows == "rollouts" else _pairs
    names = [arms.name for arms in prompts]
    policy, policies, own, beta, notes = solve(spec, components, table, drawn, names)
    if count == 1 and prompts[0].members is not None:
        notes.append(
            "no arm is noisy (σ = 0), so that a drawn ensemble's members all say the true rewards: risk, mean gain and "
            "mean KL are of those, and KL, gold and gain of the file's members"
        )
    base = _base_beta(spec, beta, table)
    return BanditReport(
        spec=spec.name,
        prompts=prompts,
        beta=beta,
        spec_line=_line(spec.name, base, policy, policies, table, drawn, prompts),
        own=own,
        theory=_theory(base, mean_kl(policies, drawn), table, drawn, prompts, notes),
        quadratic=quadratic_risks(prompts),
        seed=seed,
        notes=notes,
    )


Solved = tuple[Array, Array, OwnForm | None, Array | None, list[str]]
"""Policy (X, n), policies of the draws (D X, n), the closed form, β of each arm (X, n), notes."""


def _rollouts(spec: Spec, components: Components, table: Table, drawn: Table, names: Sequence[str]) -> Solved:
    coefficients, log_policy, apart_from_form = _at_rest(components, table, names)
    policy = np.exp(log_policy)
    notes = [f"the policy is at rest under {spec.loss.name}: all arms of a prompt are pushed alike"]
    if not apart_from_form:
        notes.append("rounding blurs the slope of some arm's push: the search started from the closed form")
    prompts = len(table.held)
    chunk = prompts * max(1, ROWS_AT_ONCE // table.held.size)
    found, apart = [], 0.0
    for start in range(0, len(drawn.held), chunk):
        part = table.before(drawn.without(start).first(chunk))
        solved = np.exp(_at_rest(components, part, names)[1])
        apart = max(apart, float(np.abs(solved[:prompts] - policy).max()))
        found.append(solved[prompts:])
    if apart > COUPLED:
        notes.append(
            f"the loss compares prompts with one another: among the draws' prompts the policy differs by {apart:.1e}; "
            "the risk is that of a batch that holds all draws"
        )
    beta = None if coefficients.beta_S is None else table.padded(coefficients.beta_S)
    return policy, np.concatenate(found), own_form(coefficients), beta, notes


def _at_rest(components: Components, table: Table, names: Sequence[str]) -> tuple[Coefficients, Array, bool]:
    """The loss's coefficients, log-probs at which it is at rest (X, n), and whether they were found from the reference.

    What is found from there agrees with a closed form because that is right. Where an arm is held so
    weakly that rounding blurs its slope the closed form, if the loss has one, is where the search starts.
    """
    coefficients = Coefficients(components, table)
    refuse_unheld(coefficients.beta, table, names)
    coefficients.steady()
    own = own_form(coefficients) if weakly_held(coefficients, table) else None
    return coefficients, optimum(coefficients, table, None if own is None else own.log_policy), own is None


def _pairs(spec: Spec, components: Components, table: Table, drawn: Table, names: Sequence[str]) -> Solved:
    solved = pair_optimum(spec, components, table, names)
    rounds = f"{solved.rounds} update" + ("s" if solved.rounds != 1 else "")
    notes = [f"pairs: both answers from the policy, labels P(y ≻ y') = σ(R − R'), {rounds}, each to its minimiser"]
    notes += solved.notes
    prompts = len(table.held)
    chunk = prompts * max(1, PAIR_PROMPTS_AT_ONCE // prompts)
    parts = [drawn.without(start).first(chunk) for start in range(0, len(drawn.held), chunk)]
    policies = np.concatenate([_pair_policies(spec, components, part, names) for part in parts])
    own = None
    if solved.beta is not None:
        beta = np.where(table.held, solved.beta, 1.0)
        form, level = by_size(log_weighted, table, solved.score, beta, outside=-np.inf)
        own = OwnForm(name=LINEAR, log_policy=form, level=level)
    return np.exp(solved.log_policy), policies, own, solved.beta, notes


def _pair_policies(spec: Spec, components: Components, part: Table, names: Sequence[str]) -> Array:
    """Policies of several draws; those of fewer where the minimiser, which searches for all of them at once, fails."""
    try:
        return np.exp(pair_optimum(spec, components, part, names).log_policy)
    except CheckFailed:
        prompts = len(names)
        draws = len(part.held) // prompts
        if draws == 1:
            raise
        middle = prompts * (draws // 2)
        halves = (part.first(middle), part.without(middle))
        return np.concatenate([_pair_policies(spec, components, half, names) for half in halves])


def _refuse_other_specs(spec: Spec) -> None:
    reads = class_info(spec.loss.target).attributes
    rows = reads["rows"]
    if reads["reads"] == "scores":
        raise InputError(
            f"verify {spec.name}: it trains a reward model, but a bandit gives rewards; verify a spec that learns "
            "from rewards, such as rloo"
        )
    if rows == "rollouts" and not cast(Schedule, build(spec.schedule)).scores:
        raise InputError(
            f"verify {spec.name}: its completions are judged against an opponent's, and a bandit gives rewards; play "
            "it on a preference matrix, or verify a spec of reinforcement learning such as rloo"
        )
    if rows not in DRAWS:
        raise InputError(
            f"verify {spec.name}: the loss '{spec.loss.name}' reads {rows}, and a bandit has rollouts or pairs to give"
        )


def _base_beta(spec: Spec, beta: Array | None, table: Table) -> float | None:
    """β of the theory's lines: the controller's own where it has one, else the mean over what the reference draws."""
    if beta is None or spec.kl is None:
        return None
    stated = spec.kl.args.get("beta")
    if isinstance(stated, int | float):
        return float(stated)
    weight = np.where(table.held, np.exp(table.log_reference), 0.0)
    return float((weight * beta).sum() / len(table.held))


def _theory(
    base: float | None, kl: float, table: Table, drawn: Table, prompts: Sequence[Arms], notes: list[str]
) -> list[Line]:
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
        lines.append(_line(name, beta, policy, form(drawn)[0], table, drawn, prompts, level))
    return lines


def _line(
    name: str,
    beta: float | None,
    policy: Array,
    policies: Array,
    table: Table,
    drawn: Table,
    prompts: Sequence[Arms],
    level: Array | None = None,
) -> Line:
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
