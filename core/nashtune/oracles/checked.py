"""Asks an oracle and looks at what comes back: anybody's class may be behind it, and wrong numbers train in silence."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from nashtune.data.texts import text_of
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
        InputError: the oracle gave something else, or a reward, a member's score or a variance that is not finite.
    """
    found = oracle.score(prompts, completions)
    n, name = len(completions), type(oracle).__name__
    what = f"oracle {name}: score() returns Rewards(mean=a tensor of {n} finite numbers)"
    mean = found.mean if isinstance(found, Rewards) else None
    if not isinstance(mean, Tensor) or mean.shape != (n,):
        raise InputError(f"{what}, and gave {_shown(found)}")
    variance, members = found.variance, found.members
    if variance is not None and variance.shape != (n,):
        raise InputError(f"{what} and the variance of each, and gave a variance: {_shown(variance)}")
    if members is not None and (members.ndim != 2 or len(members) != n):
        raise InputError(f"{what} and the members' scores in rows, and gave members: {_shown(members)}")
    asked = prompts, completions
    if members is not None:
        _refuse(~torch.isfinite(members), members, f"{what} of finite members", asked)
    _refuse(~torch.isfinite(mean), mean, what, asked)
    if variance is not None:
        _refuse(~(torch.isfinite(variance) & (variance >= 0)), variance, f"{what} of variances >= 0", asked)
    return found


def _refuse(wrong: Tensor, given: Tensor, what: str, asked: tuple[Sequence[Prompt], Sequence[str]]) -> None:
    """Raise `InputError` that names the first wrong number: its answer, its prompt, and the member whose it is."""
    if not bool(wrong.any()):
        return
    row, *member = (int(place) for place in torch.nonzero(wrong)[0])
    prompts, completions = asked
    whose = f" of member {member[0]}" if member else ""
    raise InputError(
        f"{what}, and gave {float(given[row, *member])}{whose} for {completions[row][:60]!r} "
        f"(prompt {text_of(prompts[row])[:60]!r})"
    )


def _shown(value: object) -> str:
    shape = f" of shape {tuple(value.shape)}" if isinstance(value, Tensor) else ""
    return f"{type(value).__name__}{shape}"
