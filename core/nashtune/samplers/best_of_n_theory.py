"""Best-of-n: its distribution, how far it is from the policy it draws from, and how often it wins.

Beirami et al., Theoretical guarantees on the best-of-n alignment policy, arXiv:2401.01879.
"""

from __future__ import annotations

import math
from collections.abc import Sequence


def kl_upper(n: int) -> float:
    """The upper bound log n - (n-1)/n on KL(best of n || policy) in nats (eq. 4).

    It is attained where the reward has no ties and no completion much probability; it is loose where the policy has few
    likely completions.
    """
    _check(n)
    return math.log(n) - (n - 1) / n


def kl_estimate(n: int, log_eps: float) -> float:
    """Estimate of KL(best of n || policy) in nats from one winner (eq. 25); average it over winners and prompts.

    Args:
        n: Draws.
        log_eps: log-prob of the winning completion under the policy: the sum over its tokens, at most 0.
    """
    _check(n)
    if not log_eps <= 0:
        raise ValueError(f"log_eps is {log_eps}; the log of a probability is at most 0")
    if log_eps == 0 or n == 1:
        return 0.0
    eps = math.exp(log_eps)
    # log(1 - eps), by the form that loses no digits
    log_rest = math.log1p(-eps) if log_eps < -math.log(2) else math.log(-math.expm1(log_eps))
    below = math.exp(n * log_rest)  # probability that no draw is the winner's equal
    at_least = -math.expm1(n * log_rest)  # 1 - below
    # as eps falls below the smallest number, at_least / eps is n, and its term vanishes with at_least
    atom = at_least * (math.log(at_least) - log_eps) if at_least > 0 else 0.0
    return below * (kl_upper(n) + (n - 1) * log_rest) + atom


def win_rate_bound(n: int) -> float:
    """n/(n+1): the most often that the best of n beats one draw of the policy (theorem 5.3).

    Attained without ties; where completions repeat, ties count one half.
    """
    _check(n)
    return n / (n + 1)


def pmf(n: int, probabilities: Sequence[float]) -> list[float]:
    """Distribution of the best of n: F(y)^n - F(<y)^n, F the probability of a reward up to that of y.

    Args:
        n: Draws.
        probabilities: The policy's, in increasing order of reward, without ties.

    Raises:
        ValueError: they do not sum to 1 within 1e-6.
    """
    _check(n)
    total = math.fsum(probabilities)
    if any(p < 0 for p in probabilities) or abs(total - 1) > 1e-6:
        raise ValueError(f"probabilities sum to {total}, or one is negative")
    result, reached = [], 0.0
    for p in probabilities:
        reached += p
        if p == 0:
            result.append(0.0)
        else:  # F^n - (F - p)^n as F^n (1 - (1 - p/F)^n): no digits lost where p is small
            share = min(p / reached, 1.0)
            result.append(reached**n * (1.0 if share == 1 else -math.expm1(n * math.log1p(-share))))
    return result


def _check(n: int) -> None:
    if n < 1:
        raise ValueError(f"n is {n}; the best of n needs at least one draw")
