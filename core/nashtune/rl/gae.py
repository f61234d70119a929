"""Generalised advantage estimation, and returns from a token on.

    delta_t = R_t + gamma V_{t+1} - V_t          A_t = delta_t + gamma lam A_{t+1}

Beyond the end of a completion V and A are 0, unless the reward comes after EOS: see `gae`.

Source: J. Schulman et al., arXiv:1506.02438.

Legend: S = completions, M = tokens of all of them, T = tokens of the longest.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from nashtune.rl.rewards import last_tokens

if TYPE_CHECKING:
    from torch import Tensor


def discounted_to_go(values_M: Tensor, lengths_S: Tensor, factor: float) -> Tensor:
    """G_t = x_t + factor G_{t+1} within each completion (M,).

    Completions do not touch: each one's numbers are the same, bit for bit, whichever others stand beside it.
    """
    import torch

    sequence_M = torch.repeat_interleave(lengths_S)
    place_M = torch.arange(len(values_M), device=values_M.device) - (lengths_S.cumsum(0) - lengths_S)[sequence_M]
    sums_TS = values_M.new_zeros(int(lengths_S.max()), len(lengths_S))
    sums_TS[place_M, sequence_M] = values_M
    for t in range(len(sums_TS) - 2, -1, -1):  # beyond a completion's end stand zeros
        sums_TS[t] += factor * sums_TS[t + 1]
    return sums_TS[place_M, sequence_M]


def gae(
    reward_M: Tensor,
    value_M: Tensor,
    lengths_S: Tensor,
    *,
    gamma: float,
    lam: float,
    end_value_S: Tensor | None = None,
    end_advantage_S: Tensor | None = None,
) -> Tensor:
    """Advantages (M,).

    Args:
        reward_M: Reward of each token.
        value_M: The critic's value before each token.
        lengths_S: Tokens of each completion.
        gamma: Discount of rewards, in [0, 1].
        lam: Weight of longer returns, in [0, 1].
        end_value_S: The critic's value after the last token, where something is rewarded after it; 0 where not.
        end_advantage_S: Advantage of that last state; 0 where there is none.
    """
    last_S = last_tokens(lengths_S)
    following_M = value_M.roll(-1)
    following_M[last_S] = 0.0 if end_value_S is None else end_value_S
    delta_M = reward_M + gamma * following_M - value_M
    if end_advantage_S is not None:
        delta_M = delta_M.index_add(0, last_S, gamma * lam * end_advantage_S)
    return discounted_to_go(delta_M, lengths_S, gamma * lam)
