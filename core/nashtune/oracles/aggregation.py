"""K rewards of one answer as one reward and its variance.

Coste et al., "Reward Model Ensembles Help Mitigate Overoptimization", arXiv:2310.02743 (mean, WCO, UWO: equations 3 to
5); Zhang et al., "Improving RLHF with Efficient Reward Model Ensemble", arXiv:2401.16635 (LCB).

A Bradley-Terry reward is blind to what a member adds to all answers of a prompt, so members differ by offsets c_m(x)
that mean nothing. Centring takes each member's mean over the answers of a prompt away before their spread is measured.
The level of the members' mean is left as it is: every rule here is that mean plus a function of the deviations from it,
and one member alone deviates by exactly nothing.

Legend: N = answers, K = members, G = prompts.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

Rule = Literal["mean", "wco", "uwo", "lcb"]


def centred(members_NK: Tensor, group_N: Tensor) -> Tensor:
    """Each member's scores minus its own mean over the answers of the same prompt (N, K).

    Args:
        members_NK: Scores.
        group_N: Number of each answer's prompt, int64 >= 0.
    """
    groups = int(group_N.max()) + 1 if len(group_N) else 0
    size_G = torch.bincount(group_N, minlength=groups).clamp_min(1)
    sum_GK = members_NK.new_zeros(groups, members_NK.shape[1]).index_add(0, group_N, members_NK)
    return members_NK - (sum_GK / size_G[:, None])[group_N]


def deviations(members_NK: Tensor, group_N: Tensor | None = None) -> Tensor:
    """What each member says beyond the mean of all members (N, K), with `group_N` after centring."""
    level_NK = members_NK if group_N is None else centred(members_NK, group_N)
    return level_NK - level_NK.mean(1, keepdim=True)


def spread(members_NK: Tensor, *, ddof: int, group_N: Tensor | None = None) -> Tensor:
    """Variance over the members (N,): sum of squared deviations / (K - ddof); 0 for one member.

    Args:
        members_NK: Scores.
        ddof: 0 for the mean square of the members at hand, 1 for an unbiased estimate.
        group_N: Number of each answer's prompt, for scores that are to be centred; an answer that is its prompt's only
            one then has variance 0.
    """
    return deviations(members_NK, group_N).square().sum(1) / max(members_NK.shape[1] - ddof, 1)


def aggregate(
    members_NK: Tensor, rule: Rule, penalty: float = 0.0, *, ddof: int = 0, group_N: Tensor | None = None
) -> Tensor:
    """One reward of K (N,).

    mean: the mean. wco: the smallest, as mean + smallest deviation. uwo: mean - penalty * variance. lcb: mean -
    penalty * standard deviation.

    Args:
        members_NK: Scores.
        rule: Of the four.
        penalty: lambda >= 0 of uwo (in 1/reward), beta >= 0 of lcb (no unit); mean and wco do not read it.
        ddof: Of variance and standard deviation.
        group_N: Number of each answer's prompt, for deviations of centred scores.
    """
    mean_N = members_NK.mean(1)
    if rule == "wco":
        return mean_N + deviations(members_NK, group_N).amin(1)
    return moments(mean_N, spread(members_NK, ddof=ddof, group_N=group_N), rule, penalty)


def moments(mean_N: Tensor, variance_N: Tensor, rule: Rule, penalty: float = 0.0) -> Tensor:
    """As `aggregate`, of a mean and a variance that are known without members (N,).

    Raises:
        ValueError: the smallest of K rewards is no function of their moments.
    """
    match rule:
        case "mean":
            return mean_N
        case "uwo":
            return mean_N - penalty * variance_N
        case "lcb":
            return mean_N - penalty * variance_N.sqrt()
    raise ValueError(f"{rule} needs the members' scores; mean and variance do not say it")
