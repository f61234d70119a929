"""Best-of-n against a proxy reward: what the proxy and the true reward ("gold") become as n grows.

Two settings. Arms: the completions are all that the policy can say, with known probabilities; n draws with replacement,
and every number is exact. Samples: they are N answers that the policy gave; n of them without replacement, which makes
an unbiased estimate for the policy (Nakano et al., arXiv:2112.09332; Coste et al., arXiv:2310.02743, appendix B).
Legend: N = arms or answers, K = members of an ensemble, Q = values of n.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from nashtune.games.matrices import Array
from nashtune.samplers.best_of_n_theory import kl_upper


def selection(proxy_N: Array, reference_N: Array, n: int) -> Array:
    """Probability that each arm is the best of n draws by the proxy: F(y)^n - F(<y)^n (N,).

    Arms of equal proxy share what their tie wins in proportion to their probability: one of the tied draws is taken at
    random.
    """
    _, group_N = np.unique(proxy_N, return_inverse=True)
    mass = np.bincount(group_N, weights=reference_N)
    # n in the thousands multiplies the rounding of a sum of thousands
    total = np.cumsum(mass, dtype=np.longdouble)
    reached = (total / total[-1]).astype(np.float64)
    # F^n - (F - m)^n as F^n (1 - (1 - m/F)^n): no digits are lost where m is small
    share = np.minimum((mass / total).astype(np.float64), 1.0)
    with np.errstate(divide="ignore"):
        won = reached**n * -np.expm1(n * np.log1p(-share))
    chosen: Array = won[group_N] * reference_N / mass[group_N]
    return chosen


def curve_of_arms(gold_N: Array, proxy_N: Array, reference_N: Array, ns: Sequence[int]) -> tuple[Array, Array, Array]:
    """(gold, proxy, KL(best of n || policy) in nats), each (Q,) and exact."""
    rows = []
    for n in ns:
        p_N = selection(proxy_N, reference_N, n)
        held = p_N > 0
        kl = float((p_N[held] * np.log(p_N[held] / reference_N[held])).sum())
        rows.append((p_N @ gold_N, p_N @ proxy_N, kl))
    gold_Q, proxy_Q, kl_Q = np.array(rows).T
    return gold_Q, proxy_Q, np.maximum(kl_Q, 0.0)  # rounding at n = 1


def curve_of_samples(gold_N: Array, proxy_N: Array, ns: Sequence[int]) -> tuple[Array, Array, Array]:
    """(gold, proxy, KL), each (Q,): unbiased estimates from N answers; KL is the bound log n - (n-1)/n.

    value(n) = Σ_{i=n}^{N} C(i-1, n-1) / C(N, n) value of the answer of proxy rank i. Answers of equal proxy count with
    the mean of their values.
    """
    gold_by_rank, proxy_by_rank = _by_rank(gold_N, proxy_N)
    gold, proxy = [], []
    for n in ns:
        weight = rank_weights(len(gold_N), n)
        gold.append(weight @ gold_by_rank)
        proxy.append(weight @ proxy_by_rank)
    return np.array(gold), np.array(proxy), np.array([kl_upper(n) for n in ns])


def rank_weights(N: int, n: int) -> Array:
    """C(i-1, n-1) / C(N, n) for proxy ranks i = 1 ... N, from the lowest up (N,): how often rank i is the best of n.

    Raises:
        ValueError: n is not 1 ... N.
    """
    if not 1 <= n <= N:
        raise ValueError(f"the best of {n} needs at least {n} answers, and there are {N}")
    weight = np.zeros(N)
    weight[-1] = n / N
    for i in range(N - 1, n - 1, -1):  # C(i-1, n-1) = C(i, n-1) (i - n + 1) / i
        weight[i - 1] = weight[i] * (i - n + 1) / i
    return weight


def _by_rank(gold_N: Array, proxy_N: Array) -> tuple[Array, Array]:
    order: NDArray[np.int64] = np.argsort(proxy_N, kind="stable")
    _, group = np.unique(proxy_N[order], return_inverse=True)
    means = np.bincount(group, weights=gold_N[order]) / np.bincount(group)
    return means[group], proxy_N[order]
