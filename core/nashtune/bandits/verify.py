"""From a spec and a bandit to a report: what `nashtune verify` does with a file of rewards, for Python.

Legend: X = prompts, n = arms of the largest prompt, D = draws of the noise.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

import numpy as np

from nashtune.bandits.bandit import Arms
from nashtune.bandits.coefficients import components_of
from nashtune.bandits.lines import base_beta, line_of, theory_lines
from nashtune.bandits.report import BanditReport
from nashtune.bandits.rest import from_pairs, from_rollouts
from nashtune.bandits.table import drawn_table, table_of
from nashtune.bandits.theory import mean_kl, quadratic_risks
from nashtune.errors import InputError
from nashtune.interfaces import Schedule
from nashtune.kl.plant import reacts
from nashtune.plugins.static import class_info
from nashtune.spec.resolve import build

if TYPE_CHECKING:
    from nashtune.spec.model import Spec

DRAWS = {"rollouts": 20_000, "pairs": 1_000}
"""Draws of the noise, by what the loss reads: an update on pairs solves a linear system for each draw."""
AT_FIRST_BETA = (
    "kl {kl} is asked at its first β, and training moves it after each update: all of this is of the first β"
)
MOST_ROWS, FEWEST_DRAWS = 4_000_000, 100
"""Arms times draws, where nobody says how many draws; a bandit of very many arms still gets some."""


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
    solve = from_rollouts if components.loss.rows == "rollouts" else from_pairs
    names = [arms.name for arms in prompts]
    policy, policies, own, beta, notes = solve(spec, components, table, drawn, names)
    if count == 1 and prompts[0].members is not None:
        notes.append(
            "no arm is noisy (σ = 0), so that a drawn ensemble's members all say the true rewards: risk, mean gain and "
            "mean KL are of those, and KL, gold and gain of the file's members"
        )
    kl = components.kl
    if components.loss.rows == "rollouts" and kl is not None and reacts(kl) and not kl.uses_variance:
        notes.append(AT_FIRST_BETA.format(kl=spec.kl.name if spec.kl else ""))
    base = base_beta(spec, beta, table)
    return BanditReport(
        spec=spec.name,
        prompts=prompts,
        beta=beta,
        spec_line=line_of(spec.name, base, policy, policies, table, drawn, prompts),
        own=own,
        theory=theory_lines(base, mean_kl(policies, drawn), table, drawn, prompts, notes),
        quadratic=quadratic_risks(prompts),
        seed=seed,
        notes=notes,
    )


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
