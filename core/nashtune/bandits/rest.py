"""The policy at which a spec's loss and KL controller come to rest on a bandit, and on each draw of its noise.

Legend: X = prompts, n = arms of the largest prompt, D = draws of the noise.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from nashtune.bandits.closed_forms import log_weighted
from nashtune.bandits.coefficients import Coefficients, Components, refuse_unheld
from nashtune.bandits.optimum import optimum, weakly_held
from nashtune.bandits.pairs import pair_optimum
from nashtune.bandits.table import Table
from nashtune.bandits.theory import LINEAR, OwnForm, by_size, own_form
from nashtune.errors import CheckFailed
from nashtune.games.matrices import Array

if TYPE_CHECKING:
    from nashtune.spec.model import Spec

ROWS_AT_ONCE = 400_000
PAIR_PROMPTS_AT_ONCE = 50
"""One line search serves all prompts of an update, and stalls where there are a thousand of them."""
COUPLED = 1e-6
"""A difference between the policy alone and among the draws above which the loss is said to compare prompts."""

Solved = tuple[Array, Array, OwnForm | None, Array | None, list[str]]
"""Policy (X, n), policies of the draws (D X, n), the closed form, β of each arm (X, n), notes."""


def from_rollouts(spec: Spec, components: Components, table: Table, drawn: Table, names: Sequence[str]) -> Solved:
    """Where a loss of rollouts is at rest.

    Args:
        spec: The resolved spec.
        components: Its loss and KL controller.
        table: The bandit.
        drawn: Draws of its noise.
        names: Of the prompts.

    Raises:
        CheckFailed: there is no finite optimum.
    """
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

    What is found from there agrees with a closed form because that is right. Where an arm is held so weakly that
    rounding blurs its slope the closed form, if the loss has one, is where the search starts.
    """
    coefficients = Coefficients(components, table)
    refuse_unheld(coefficients.beta, table, names)
    coefficients.steady()
    own = own_form(coefficients) if weakly_held(coefficients, table) else None
    return coefficients, optimum(coefficients, table, None if own is None else own.log_policy), own is None


def from_pairs(spec: Spec, components: Components, table: Table, drawn: Table, names: Sequence[str]) -> Solved:
    """Where a loss of pairs comes to rest; as `from_rollouts`."""
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
