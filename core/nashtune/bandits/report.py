"""What a spec came to on a bandit, and theory beside it.

Legend: X = prompts, n = arms of a prompt, D = draws of the noise. Means over prompts, unless it says otherwise.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from nashtune.bandits.bandit import Arms
from nashtune.bandits.risk import Risk
from nashtune.bandits.theory import OwnForm
from nashtune.games.matrices import Array


@dataclass(frozen=True, kw_only=True)
class Line:
    """A way of making a policy from estimated rewards.

    Args:
        name: For people.
        beta: Its β; None without one.
        level: λ of each prompt (X,); None where it is not known.
        policy: On the bandit's estimate: probabilities of each prompt, (n,) each.
        kl: KL(policy || reference) of each prompt, in nats (X,).
        gold: E_π[r*] of each prompt (X,).
        gold_reference: The same of the reference (X,).
        mean_kl: Mean KL over the draws, in nats.
        gains: Gain of each draw (D,).
        risk: Of the gains.
    """

    name: str
    beta: float | None
    level: Array | None
    policy: Sequence[Array]
    kl: Array
    gold: Array
    gold_reference: Array
    mean_kl: float
    gains: Array
    risk: Risk

    @property
    def gain(self) -> float:
        """E_π[r*] - E_π₀[r*] on the bandit's estimate."""
        return float((self.gold - self.gold_reference).mean())

    def to_dict(self) -> dict[str, Any]:
        """Without the gains of single draws; of a single prompt, policy and λ are not wrapped in a list of prompts."""
        one = len(self.policy) == 1
        level = None if self.level is None else self.level.tolist()
        policies = [policy.tolist() for policy in self.policy]
        return {
            "name": self.name,
            "beta": self.beta,
            "lambda": level[0] if level is not None and one else level,
            "policy": policies[0] if one else policies,
            "kl": float(self.kl.mean()),
            "gold": float(self.gold.mean()),
            "gain": self.gain,
            "risk": self.risk.value,
            "risk_method": self.risk.method,
            "risk_standard_error": self.risk.standard_error,
            "mean_gain": self.risk.mean_gain,
            "mean_gain_standard_error": self.risk.mean_gain_error,
            "quantile_5": self.risk.quantile_5,
            "mean_kl": self.mean_kl,
        }


@dataclass(frozen=True, kw_only=True)
class BanditReport:
    """A spec on a bandit.

    Args:
        spec: Its name.
        prompts: The bandit.
        beta: β of each arm (X, n), 0 outside; None without one.
        spec_line: What the spec's own loss and KL controller come to.
        own: Their closed form; None where none is known.
        theory: Closed forms beside it, on the same draws.
        quadratic: Exact risk of small steps, `vanilla` and `aware`; None where σ = 0 forbids it.
        seed: Of the draws.
        notes: What a reader must know.
    """

    spec: str
    prompts: Sequence[Arms]
    beta: Array | None
    spec_line: Line
    own: OwnForm | None
    theory: Sequence[Line]
    quadratic: dict[str, float | None]
    seed: int
    notes: Sequence[str]

    @property
    def distance(self) -> float | None:
        """Largest |π - closed form| over all arms; None where no closed form is known."""
        if self.own is None:
            return None
        return max(
            float(np.abs(policy - form[: len(policy)]).max())
            for policy, form in zip(self.spec_line.policy, self.own.policy, strict=True)
        )

    def to_dict(self) -> dict[str, Any]:
        """As `nashtune verify --json` prints it: of a single prompt, lists by arm are not wrapped in another."""

        def per_prompt(values: Sequence[Array]) -> Any:
            lists = [value.tolist() for value in values]
            return lists[0] if len(lists) == 1 else lists

        beta, own = None, None
        if self.beta is not None:
            beta = per_prompt([row[: arms.size] for row, arms in zip(self.beta, self.prompts, strict=True)])
        if self.own is not None:
            own = {
                "formula": self.own.name,
                "policy": per_prompt(
                    [row[: arms.size] for row, arms in zip(self.own.policy, self.prompts, strict=True)]
                ),
                "lambda": self.own.level.tolist()[0] if len(self.prompts) == 1 else self.own.level.tolist(),
                "distance": self.distance,
            }
        line = self.spec_line.to_dict()
        names = [arms.name for arms in self.prompts]
        return {
            "spec": self.spec,
            "game": names[0] if len(names) == 1 else names,
            "reference": per_prompt([arms.reference for arms in self.prompts]),
            "estimate": per_prompt([arms.estimate for arms in self.prompts]),
            "beta": beta,
            **{key: line[key] for key in line if key not in ("name", "beta", "lambda")},
            "gold_reference": float(self.spec_line.gold_reference.mean()),
            "draws": self.spec_line.risk.draws,
            "seed": self.seed,
            "closed_form": own,
            "theory": [one.to_dict() for one in self.theory],
            "small_step_risk": {**self.quadratic, "method": "exact"},
            "notes": list(self.notes),
        }
