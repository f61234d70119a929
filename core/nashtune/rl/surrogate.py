"""The clipped surrogate of PPO, on any unit: tokens or whole completions.

    max( -A rho , -A clip(rho, 1 - low, 1 + high) )

Source: J. Schulman et al., arXiv:1707.06347, equation 7.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def clipped_surrogate(log_ratio: Tensor, advantage: Tensor, clip: float) -> tuple[Tensor, dict[str, Tensor]]:
    """Loss of each unit, with the gradient of `log_ratio`, and what to log of it.

    Args:
        log_ratio: log pi/pi_old of each token or completion.
        advantage: Of each, without gradient.
        clip: Half-width of the interval around 1 in which the ratio has a gradient, > 0.

    Returns:
        The loss, and per unit, without gradient: `ratio`; `clip_fraction`, 1 where the clipped branch counts;
        `approx_kl`, half the squared log-ratio, an estimate of KL(pi_old || pi) for small steps.
    """
    ratio = log_ratio.exp()
    # 0 times a ratio that has left the range of floats is no number
    free = (-advantage * ratio).where(advantage != 0, ratio.new_zeros(ratio.shape))
    held = -advantage * ratio.clamp(1.0 - clip, 1.0 + clip)
    metrics = {
        "ratio": ratio.detach(),
        "clip_fraction": (held > free).detach().to(ratio.dtype),
        "approx_kl": 0.5 * log_ratio.detach() ** 2,
    }
    return free.maximum(held), metrics


def largest(values_M: Tensor, sequence: Tensor, count: int) -> Tensor:
    """The largest of each completion's tokens (S,)."""
    return values_M.new_zeros(count).scatter_reduce(0, sequence, values_M, "amax", include_self=False)
