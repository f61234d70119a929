"""Closed-form steps of the methods that play games, on one prompt: what the tabular runner must come to.

Policies are log-probs (n,); a path is the list pi_1 ... pi_T.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Rule = float | Callable[[int], float]


def normalised(u: Array) -> Array:
    return u - (u.max() + np.log(np.exp(u - u.max()).sum()))


def at(rule: Rule, t: int) -> float:
    return rule(t) if callable(rule) else rule


def onpo(P: Array, u: Array, T: int, eta: float) -> list[Array]:
    aux, path = u, [u]
    for _ in range(T - 1):
        win = P @ np.exp(path[-1])
        aux = normalised(aux + eta * win)
        path.append(normalised(aux + eta * win))
    return path


def onpo_single(P: Array, u: Array, T: int, eta: float) -> list[Array]:
    """Without the auxiliary policy: pi_{t+1} ~ pi_t exp(eta (2 r_t - r_{t-1}))."""
    path, before = [u], np.zeros(len(u))
    for _ in range(T - 1):
        win = P @ np.exp(path[-1])
        path.append(normalised(path[-1] + eta * (2 * win - before)))
        before = win
    return path


def mirror(P: Array, u: Array, T: int, step: Rule, tau: float = 0.0) -> list[Array]:
    """INPO with 1/eta for the step; SPPO with the exact normaliser where tau is 0."""
    path = [u]
    for t in range(1, T):
        a, last = at(step, t), path[-1]
        path.append(normalised((1 - a * tau) * last + a * tau * u + a * (P @ np.exp(last))))
    return path


def nash_md(P: Array, u: Array, T: int, eta: Rule, tau: float) -> list[Array]:
    path = [u]
    for t in range(1, T):
        e = at(eta, t)
        mixture = normalised((1 - e * tau) * path[-1] + e * tau * u)
        path.append(normalised(mixture + e * (P @ np.exp(mixture))))
    return path


def gap(P: Array, policy: Array) -> float:
    return float(2 * (P @ policy).max() - 1)


def averages(path: list[Array]) -> Array:
    return np.cumsum(np.exp(path), axis=0) / np.arange(1, len(path) + 1)[:, None]
