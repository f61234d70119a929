"""Newton's method on the log-probs of tabular policies, with the exact Hessian.

Legend: A = actions of all prompts, n = actions of one prompt, C = Hessian columns computed at once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from nashtune.errors import CheckFailed
from nashtune.games.equilibrium import normalise
from nashtune.games.matrices import Array

MOST_STEPS = 100
SETTLED = 1e-9
"""In nats, relative to the first step: the correction after which nothing is left but rounding, as the error of
Newton's method is squared."""
FLAT = 1e-10
"""Curvature below this share of the largest is none: constants, which the normaliser cancels, and unseen actions."""
COLUMN_BYTES = 2**28

Objective = Callable[[Tensor], Tensor]
"""Log-probs (A,) -> the objective, a scalar."""


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
        ends = np.cumsum(sizes)
        self._parts = [slice(int(end - size), int(end)) for size, end in zip(sizes, ends, strict=True)]
        self._widest = max(sizes)
        # Prompts do not interact, so that one product with the Hessian gives column k of all of them.
        columns = torch.zeros(self._widest, int(ends[-1]), dtype=torch.float64)
        for part in self._parts:
            size = part.stop - part.start
            columns[:size, part] = torch.eye(size, dtype=torch.float64)
        self._columns_CA = columns

    def __call__(self, objective: Objective, start_A: Array, rows: int) -> Array:
        """Log-probs of the minimiser (A,), from `start_A`.

        What the objective does not see stays as it was: where the pairs leave logits undetermined (an action that was
        never drawn), the step of least norm is taken.

        Args:
            objective: What is minimised.
            start_A: Log-probs to start from (A,).
            rows: Number of rows that the objective sums over: bounds the memory of the Hessian.

        Raises:
            CheckFailed: there is no finite minimiser, or Newton's method does not find it.
        """
        u_A = start_A
        look = self._look(objective, u_A, rows)
        for _ in range(MOST_STEPS):
            step_A = self._step(look.gradient_A, look.hessians)
            size = float(np.abs(step_A).max())
            if not np.isfinite(size):
                break
            slope = float(look.gradient_A @ step_A)
            share, rounding = 1.0, 1e-12 * abs(look.value)
            while True:
                trial_A = self._normalise(u_A + share * step_A)
                value, gradient_A = self._value_and_gradient(objective, trial_A)
                if value <= look.value + 1e-4 * share * slope + rounding or share < 1e-9:
                    break
                share /= 2.0
            u_A = trial_A
            correction_A = self._step(gradient_A, look.hessians)
            if share == 1.0 and float(np.abs(correction_A).max()) <= SETTLED * (1.0 + size):
                return self._normalise(u_A + correction_A)
            look = self._look(objective, u_A, rows)
        raise CheckFailed(self._why(u_A - start_A))

    def _why(self, moved_A: Array) -> str:
        spread = max(float(np.ptp(moved_A[part])) for part in self._parts)
        return (
            f"the loss has no finite minimiser, or Newton's method does not find it: in {MOST_STEPS} steps log-ratios "
            f"have moved {spread:.0f} nats apart and still move. A preference that is certain drives the logistic loss "
            "of such pairs to infinity"
        )

    def _normalise(self, u_A: Array) -> Array:
        if len(self._parts) == 1:
            return normalise(u_A)
        return np.concatenate([normalise(u_A[part]) for part in self._parts])

    def _value_and_gradient(self, objective: Objective, u_A: Array) -> tuple[float, Array]:
        leaf_A = torch.from_numpy(u_A).requires_grad_()
        value = objective(leaf_A)
        (free_A,) = torch.autograd.grad(value, leaf_A)
        return float(value.detach()), self._to_logits(u_A, free_A.numpy())

    def _look(self, objective: Objective, u_A: Array, rows: int) -> _Look:
        leaf_A = torch.from_numpy(u_A).requires_grad_()
        value = objective(leaf_A)
        (free_A,) = torch.autograd.grad(value, leaf_A, create_graph=True)
        gradient_A = free_A.detach().numpy()
        if free_A.requires_grad:
            at_once = max(1, COLUMN_BYTES // (8 * max(rows, len(u_A))))
            columns = [
                torch.autograd.grad(free_A, leaf_A, block, retain_graph=True, is_grads_batched=True)[0]
                for block in (self._columns_CA[i : i + at_once] for i in range(0, self._widest, at_once))
            ]
            second_CA = torch.cat(columns).numpy()
        else:  # a loss with kinks and straight pieces between them
            second_CA = np.zeros((self._widest, len(u_A)))
        hessians = []
        for part in self._parts:
            hessian = second_CA[: part.stop - part.start, part]
            if not self.differences_only:
                policy = np.exp(u_A[part])
                centre = np.eye(len(policy)) - policy[None, :]  # d log pi_i / d logit_j
                total = gradient_A[part].sum()
                hessian = centre.T @ hessian @ centre - total * (np.diag(policy) - np.outer(policy, policy))
            hessians.append(hessian)
        return _Look(float(value.detach()), self._to_logits(u_A, gradient_A), hessians)

    def _to_logits(self, u_A: Array, free_A: Array) -> Array:
        """Gradient with respect to logits from that with respect to free log-probs (A,)."""
        if self.differences_only:
            return free_A
        policy_A = np.exp(u_A)
        totals = [np.full(part.stop - part.start, free_A[part].sum()) for part in self._parts]
        return np.asarray(free_A - policy_A * np.concatenate(totals))

    def _step(self, gradient_A: Array, hessians: list[Array]) -> Array:
        """Newton's step (A,): of least norm where the Hessian is singular, downhill where it is not positive."""
        steps = []
        for part, hessian in zip(self._parts, hessians, strict=True):
            # Scaled by the diagonal, the curvature of rare actions counts as much as that of common ones.
            scale = np.sqrt(np.abs(np.diag(hessian)))
            scale[scale == 0] = 1.0
            values, vectors = np.linalg.eigh(hessian / np.outer(scale, scale))
            along = vectors.T @ (gradient_A[part] / scale)
            sizes = np.abs(values)
            seen = sizes > FLAT * max(float(sizes.max()), FLAT)
            if (np.abs(along[~seen]) > 1e-6 * (1.0 + np.abs(along).max())).any():
                raise CheckFailed(
                    "the loss falls in a direction in which it has no curvature, where Newton's method does not apply: "
                    "it has kinks (a hinge), or no finite minimiser"
                )
            steps.append(-(vectors[:, seen] @ (along[seen] / sizes[seen])) / scale)
        return steps[0] if len(steps) == 1 else np.concatenate(steps)
