"""Newton's method on the log-probs of tabular policies, with the exact Hessian.

Legend: A = actions of all prompts, n = actions of one prompt, C = Hessian columns computed at once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nashtune.errors import CheckFailed
from nashtune.games.equilibrium import normalise
from nashtune.games.matrices import Array

MOST_STEPS = 100
SETTLED = 1e-9
"""In nats, relative to the first step: the correction after which nothing is left but rounding, as the error of
Newton's method is squared."""
ROUNDING = 1e-14
"""A step below this share of the log-probs is none: the start is the minimiser."""
FLAT = 1e-10
"""Curvature below this share of the largest is none: adding a constant to all logits changes no policy."""
FAR = 20.0
"""Nats that log-ratios move apart on the way to infinity, before rounding ends the search."""
COLUMN_BYTES = 2**28

Objective = Callable[[Tensor], Tensor]
"""Log-probs (A,) -> the objective, a scalar."""


@dataclass(frozen=True)
class _Part:
    """The actions of one prompt that the objective sees.

    Args:
        held: Their numbers (n,).
        log_mass: Log-probability of all of them together, which stays as it is; 0 where none is missing.
    """

    held: NDArray[np.int64]
    log_mass: float


@dataclass(frozen=True)
class _Look:
    """Objective, gradient (A,) and one Hessian per prompt (n, n), with respect to the logits."""

    value: float
    gradient_A: Array
    hessians: list[Array]


class Minimiser:
    """Minimises an objective over policies that are softmax of free logits, prompt by prompt independent.

    Args:
        sizes: Number of actions of each prompt.
        differences_only: Whether the objective sees only differences of a prompt's log-probs. The normaliser then
            cancels and is left out, so that its rounding cannot drown actions of tiny probability.
    """

    def __init__(self, sizes: Sequence[int], *, differences_only: bool) -> None:
        self.differences_only = differences_only
        self._prompts = np.split(np.arange(sum(sizes)), np.cumsum(sizes)[:-1])
        # Prompts do not interact, so that one product with the Hessian gives column k of all of them.
        self._columns_CA = torch.zeros(max(sizes), sum(sizes), dtype=torch.float64)
        for numbers in self._prompts:
            self._columns_CA[np.arange(len(numbers)), numbers] = 1.0

    def __call__(self, objective: Objective, start_A: Array, seen_A: NDArray[np.bool_], rows: int) -> Array:
        """Log-probs of the minimiser (A,), from `start_A`.

        What the objective does not see stays as it was: an action that no row holds keeps its log-prob, and where the
        rows leave logits of others undetermined, the step of least norm is taken.

        Args:
            objective: What is minimised.
            start_A: Log-probs to start from (A,).
            seen_A: Which actions the objective depends on (A,).
            rows: Number of rows that the objective sums over: bounds the memory of the Hessian.

        Raises:
            CheckFailed: there is no finite minimiser, or Newton's method does not find it.
        """
        parts = [self._part(start_A, numbers[seen_A[numbers]], numbers) for numbers in self._prompts]
        u_A, look = start_A, self._look(objective, start_A, parts, rows)
        for _ in range(MOST_STEPS):
            step_A = self._step(look.gradient_A, look.hessians, parts)
            if step_A is None:
                raise self._failure(u_A - start_A, "it falls in a direction without curvature, as a hinge does")
            size = float(np.abs(step_A).max())
            if size <= ROUNDING * (1.0 + float(np.abs(u_A).max())):
                return u_A
            slope = float(look.gradient_A @ step_A)
            share, rounding = 1.0, 1e-12 * abs(look.value)
            while True:
                trial_A = self._normalise(u_A + share * step_A, parts)
                value, gradient_A = self._value_and_gradient(objective, trial_A, parts)
                if value <= look.value + 1e-4 * share * slope + rounding or share < 1e-9:
                    break
                share /= 2.0
            u_A = trial_A
            correction_A = self._step(gradient_A, look.hessians, parts)
            settled = SETTLED * (1.0 + size)
            if share == 1.0 and correction_A is not None and float(np.abs(correction_A).max()) <= settled:
                return self._normalise(u_A + correction_A, parts)
            look = self._look(objective, u_A, parts, rows)
        raise self._failure(u_A - start_A, f"after {MOST_STEPS} steps they still move")

    def _part(self, start_A: Array, held: NDArray[np.int64], prompt: NDArray[np.int64]) -> _Part:
        if len(held) in (0, len(prompt)):
            return _Part(held, 0.0)
        top = start_A[held].max()
        return _Part(held, float(top + np.log(np.exp(start_A[held] - top).sum())))

    def _failure(self, moved_A: Array, what: str) -> CheckFailed:
        spread = max(float(np.ptp(moved_A[numbers])) for numbers in self._prompts)
        if spread < FAR:
            return CheckFailed(f"Newton's method does not find the minimiser: {what}")
        return CheckFailed(
            f"the loss has no finite minimiser: log-ratios have moved {spread:.0f} nats apart and still move. A "
            "preference that is certain drives the logistic loss of its pairs to infinity"
        )

    def _normalise(self, u_A: Array, parts: Sequence[_Part]) -> Array:
        for part in parts:
            if len(part.held):
                u_A[part.held] = normalise(u_A[part.held]) + part.log_mass
        return u_A

    def _value_and_gradient(self, objective: Objective, u_A: Array, parts: Sequence[_Part]) -> tuple[float, Array]:
        leaf_A = torch.from_numpy(u_A).requires_grad_()
        value = objective(leaf_A)
        (free_A,) = torch.autograd.grad(value, leaf_A)
        return float(value.detach()), self._to_logits(u_A, free_A.numpy(), parts)

    def _look(self, objective: Objective, u_A: Array, parts: Sequence[_Part], rows: int) -> _Look:
        leaf_A = torch.from_numpy(u_A).requires_grad_()
        value = objective(leaf_A)
        (free_A,) = torch.autograd.grad(value, leaf_A, create_graph=True)
        gradient_A = free_A.detach().numpy()
        if free_A.requires_grad:
            at_once = max(1, COLUMN_BYTES // (8 * max(rows, len(u_A))))
            columns = [
                torch.autograd.grad(free_A, leaf_A, block, retain_graph=True, is_grads_batched=True)[0]
                for block in (self._columns_CA[i : i + at_once] for i in range(0, len(self._columns_CA), at_once))
            ]
            second_CA = torch.cat(columns).numpy()
        else:  # a loss with kinks and straight pieces between them
            second_CA = np.zeros(self._columns_CA.shape)
        hessians = []
        for part, numbers in zip(parts, self._prompts, strict=True):
            hessian = second_CA[np.ix_(part.held - numbers[0], part.held)]
            if not self.differences_only:
                policy = np.exp(u_A[part.held] - part.log_mass)
                centre = np.eye(len(policy)) - policy[None, :]  # d log pi_i / d logit_j
                total = gradient_A[part.held].sum()
                hessian = centre.T @ hessian @ centre - total * (np.diag(policy) - np.outer(policy, policy))
            hessians.append(hessian)
        return _Look(float(value.detach()), self._to_logits(u_A, gradient_A, parts), hessians)

    def _to_logits(self, u_A: Array, free_A: Array, parts: Sequence[_Part]) -> Array:
        """Gradient with respect to logits from that with respect to free log-probs (A,)."""
        if self.differences_only:
            return free_A
        gradient_A = free_A.copy()
        for part in parts:
            gradient_A[part.held] -= np.exp(u_A[part.held] - part.log_mass) * free_A[part.held].sum()
        return gradient_A

    def _step(self, gradient_A: Array, hessians: Sequence[Array], parts: Sequence[_Part]) -> Array | None:
        """Newton's step (A,): of least norm where the Hessian is singular, downhill where it is not positive.

        None where the objective has a slope and no curvature.
        """
        step_A = np.zeros_like(gradient_A)
        for part, hessian in zip(parts, hessians, strict=True):
            if len(part.held):
                gradient = gradient_A[part.held]
                step = _solve(hessian, gradient)
                if step is None:
                    return None
                step_A[part.held] = step if gradient @ step <= 0 else _downhill(hessian, gradient)
        return step_A


def _solve(hessian: Array, gradient: Array) -> Array | None:
    """The step of least norm with hessian step = -gradient (n,); None where there is none."""
    # Divided by its diagonal, each row speaks of its own action in nats, however rare that action is.
    scale = np.abs(np.diag(hessian))
    if (scale == 0).any():
        if (np.abs(gradient[scale == 0]) > FLAT * np.abs(gradient).max()).any():
            return None
        scale[scale == 0] = 1.0
    matrix, target = hessian / scale[:, None], -gradient / scale
    step = np.asarray(np.linalg.lstsq(matrix, target, rcond=FLAT)[0], dtype=np.float64)
    if np.abs(matrix @ step - target).max() > 1e-6 * (1.0 + np.abs(target).max()):
        return None
    return step


def _downhill(hessian: Array, gradient: Array) -> Array:
    """A step in which directions of negative curvature are taken the other way round (n,)."""
    values, vectors = np.linalg.eigh(hessian)
    sizes = np.abs(values)
    curved = sizes > FLAT * sizes.max()
    return np.asarray(-(vectors[:, curved] @ ((vectors.T @ gradient)[curved] / sizes[curved])))
