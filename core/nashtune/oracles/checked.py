"""Asks an oracle and looks at what comes back: anybody's class may be behind it, and wrong numbers train in silence."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from nashtune.errors import InputError
from nashtune.interfaces.oracle import PreferenceOracle, Prompt, RewardOracle, Rewards


def compared(
    oracle: PreferenceOracle, prompts: Sequence[Prompt], first: Sequence[str], second: Sequence[str]
) -> Tensor:
    """P(first > second), float64 (N,); NaN where there is no verdict.

    Raises:
        InputError: the oracle gave something else, or a number that is no probability.
    """
    found = oracle.compare(prompts, first, second)
    what = f"oracle {type(oracle).__name__}: compare() returns a tensor of {len(first)} probabilities in [0, 1]"
    if not isinstance(found, Tensor) or found.shape != (len(first),):
        raise InputError(f"{what} (NaN: no verdict), and gave {_shown(found)}")
    wrong = torch.nonzero((found < 0) | (found > 1)).flatten()
    if len(wrong):
        at = int(wrong[0])
        raise InputError(f"{what} (NaN: no verdict), and gave {float(found[at])} for {first[at][:60]!r}")
    return found.double().cpu()


def scored(oracle: RewardOracle, prompts: Sequence[Prompt], completions: Sequence[str]) -> Rewards:
    """Rewards (N,).

    Raises:
        InputError: the oracle gave something else, or a reward that is not finite.
    """
    found = oracle.score(prompts, completions)
    what = (
        f"oracle {type(oracle).__name__}: score() returns Rewards(mean=a tensor of {len(completions)} finite numbers)"
    )
    mean = found.mean if isinstance(found, Rewards) else None
    if not isinstance(mean, Tensor) or mean.shape != (len(completions),):
        raise InputError(f"{what}, and gave {_shown(found)}")
    wrong = torch.nonzero(~torch.isfinite(mean)).flatten()
    if len(wrong):
        at = int(wrong[0])
        raise InputError(f"{what}, and gave {float(mean[at])} for {completions[at][:60]!r}")
    return found


def _shown(value: object) -> str:
    shape = f" of shape {tuple(value.shape)}" if isinstance(value, Tensor) else ""
    return f"{type(value).__name__}{shape}"
