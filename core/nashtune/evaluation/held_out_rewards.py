"""Rewards of several policies' answers to the same held-out prompts.

Legend: N = prompts.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import Tensor

from nashtune.interfaces.oracle import Prompt, RewardOracle
from nashtune.oracles.checked import scored

if TYPE_CHECKING:
    from rich.table import Table


@dataclass(frozen=True)
class HeldOutRewards:
    """Of each policy.

    Args:
        policies: By name: `mean` reward, its standard error `se` over prompts (None for one prompt), and the mean
            `variance` of the reward (None where the oracle knows none).
        change: Last policy minus first: `mean`, and `se` of the differences on the same prompts.
        prompts: N.
    """

    policies: dict[str, dict[str, float | None]]
    change: dict[str, float | None]
    prompts: int

    def as_dict(self) -> dict[str, Any]:
        """For the report."""
        return {"policies": self.policies, "change": self.change, "prompts": self.prompts}

    def table(self) -> Table:
        """For people."""
        from rich.table import Table

        caption = f"{self.prompts} prompts, one answer each; ± is the standard error over prompts"
        table = Table("policy", "mean reward", title="rewards of held-out answers", caption=caption)
        known = any(one["variance"] is not None for one in self.policies.values())
        if known:
            table.add_column("mean variance", justify="right")
        first, *_, last = (*self.policies, *self.policies)
        for name, one in [*self.policies.items(), (f"{last} - {first}", self.change)]:
            error = "" if one["se"] is None else f" ± {one['se']:.3f}"
            variance = one.get("variance")
            table.add_row(
                name, f"{one['mean']:+.3f}{error}", *(["" if variance is None else f"{variance:.3g}"] * known)
            )
        return table


def held_out_rewards(
    oracle: RewardOracle, prompts: Sequence[Prompt], answers: Mapping[str, Sequence[str]]
) -> HeldOutRewards:
    """Score each policy's answers in a call of their own, so that its rewards depend on no other policy's answers.

    An oracle that compares the answers of a prompt with one another has one of each here. What it then says of their
    variance is 0 and means nothing, so that none is reported.

    Args:
        oracle: Gives the rewards.
        prompts: Held-out prompts (N), at least one.
        answers: For each policy its answers (N), the first policy first.

    Raises:
        InputError: the oracle's rewards are not finite numbers, one for each answer.
    """
    found = {name: scored(oracle, list(prompts), list(texts)) for name, texts in answers.items()}
    variances = [one.variance for one in found.values() if one.variance is not None]
    known = not oracle.counts_groups or any(bool(variance.any()) for variance in variances)
    policies = {
        name: {
            **_mean(one.mean.double().cpu()),
            "variance": float(one.variance.double().mean()) if one.variance is not None and known else None,
        }
        for name, one in found.items()
    }
    each = [one.mean.double().cpu() for one in found.values()]
    return HeldOutRewards(policies, _mean(each[-1] - each[0]), len(prompts))


def _mean(values_N: Tensor) -> dict[str, float | None]:
    count = len(values_N)
    return {
        "mean": float(values_N.mean()),
        "se": float(values_N.std(correction=1)) / math.sqrt(count) if count > 1 else None,
    }
