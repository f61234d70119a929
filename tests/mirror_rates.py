"""How fast mirror descent converges near an equilibrium, by its linearisation: what runs are measured against.

Legend: n = actions. Policies are probabilities (n,); P is the preference matrix (n, n); A = P - 1/2.
"""

from __future__ import annotations

from typing import cast

import numpy as np

from nashtune.games.matrices import Array


def modes(P: Array, policy: Array) -> Array:
    """Frequencies w >= 0 of A diag(pi), whose eigenvalues are +-i w: how fast win rates turn around pi (n,)."""
    return cast(Array, np.abs(np.linalg.eigvals((P - 0.5) * policy[None, :]).imag))


def mirror_radius(P: Array, star: Array, step: float, tau: float) -> float:
    """Spectral radius at pi*_tau of u <- (1 - step tau) u + step tau log ref + step P e^u (INPO; step = 1/eta).

    Below 1 the policy converges, and KL(pi*_tau || pi_t) shrinks by its square per round.
    """
    n = len(star)
    jacobian = (1.0 - step * tau) * np.eye(n) + step * (P - 0.5) * star[None, :]
    gauge = np.eye(n) - np.outer(np.ones(n), star)  # log-probs up to a constant
    return float(np.abs(np.linalg.eigvals(gauge @ jacobian @ gauge)).max())


def mirror_critical_step(P: Array, star: Array, tau: float) -> float:
    """The step beyond which the same iteration leaves pi*_tau: min over modes of 2 tau/(tau^2 + w^2)."""
    return float(2.0 * tau / (tau**2 + modes(P, star).max() ** 2))


def optimistic_factor(P: Array, star: Array, step: float) -> float:
    """Factor per round of sqrt KL(Nash || pi_t) under optimistic mirror descent near a Nash policy of full support.

    The largest modulus among the roots of z^2 - (1 + 2i step w) z + i step w, over the modes w > 0.
    """
    turning = [w for w in modes(P, star) if w > 1e-12]
    return float(max(np.abs(np.roots([1.0, -(1.0 + 2j * step * w), 1j * step * w])).max() for w in turning))
