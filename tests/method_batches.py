"""Batches and checks shared by the tests of losses: known pairs, random pairs, what every pairwise loss must hold."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from game_numbers import LAST, RATED
from method_numbers import P4
from nashtune.interfaces import Anchor, Loss, LossOutput, PairBatch, Step

ANCHORS = ("ref", "previous", "aux")
WIN_RATES = ("win_rate_chosen", "win_rate_rejected")
# Besides the reference, what losses of games read.
FOUR = {**RATED, **P4, "aux_chosen": LAST[0], "aux_rejected": LAST[1]}


def column(values: Sequence[float], dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.tensor(values, dtype=dtype)


def pairs(data: dict[str, list[float]], dtype: torch.dtype = torch.float64, **more: Tensor) -> PairBatch:
    """A batch with gradient from lists by vector name; a missing reference leaves the anchors empty."""
    anchors = {
        name: Anchor(chosen=column(data[f"{name}_chosen"], dtype), rejected=column(data[f"{name}_rejected"], dtype))
        for name in ANCHORS
        if f"{name}_chosen" in data
    }
    more |= {name: column(data[name]) for name in WIN_RATES if name in data}
    return PairBatch(
        policy_chosen=column(data["policy_chosen"], dtype).requires_grad_(),
        policy_rejected=column(data["policy_rejected"], dtype).requires_grad_(),
        len_chosen=column(data.get("len_chosen", [1] * len(data["policy_chosen"]))).long(),
        len_rejected=column(data.get("len_rejected", [1] * len(data["policy_chosen"]))).long(),
        anchors=anchors,
        **more,
    )


def four(dtype: torch.dtype = torch.float64, **more: Tensor) -> PairBatch:
    return pairs(FOUR, dtype, **more)


def random_data(count: int = 7, seed: int = 0) -> dict[str, list[float]]:
    noise = torch.Generator().manual_seed(seed)
    data: dict[str, list[float]] = {}
    for side in ("chosen", "rejected"):
        lengths = torch.randint(1, 30, (count,), generator=noise)
        policy = -lengths * (0.2 + 2.0 * torch.rand(count, generator=noise, dtype=torch.float64))
        data[f"len_{side}"] = lengths.tolist()
        data[f"policy_{side}"] = policy.tolist()
        data[f"ref_{side}"] = (policy + 3.0 * torch.randn(count, generator=noise, dtype=torch.float64)).tolist()
    for name in ("previous", "aux"):
        for side in ("chosen", "rejected"):
            shift = 3.0 * torch.randn(count, generator=noise, dtype=torch.float64)
            data[f"{name}_{side}"] = (column(data[f"policy_{side}"]) + shift).tolist()
    for name in WIN_RATES:
        data[name] = torch.rand(count, generator=noise, dtype=torch.float64).tolist()
    return data


def call(loss: Loss, batch: PairBatch, beta: float | Tensor | None = None, **step: Any) -> LossOutput:
    scalar = None if beta is None else torch.as_tensor(beta, dtype=batch.policy_chosen.dtype)
    return loss(batch, Step(beta=scalar, **step))


def gradients(output: LossOutput, batch: PairBatch) -> tuple[Tensor, Tensor]:
    chosen, rejected = torch.autograd.grad(
        output.values.sum(), (batch.policy_chosen, batch.policy_rejected), allow_unused=True, materialize_grads=True
    )
    return chosen, rejected


def assert_digits(found: Tensor, sheet: Sequence[float]) -> None:
    """Equal to numbers printed with 10 decimals."""
    torch.testing.assert_close(found.detach(), column(sheet), rtol=0, atol=1e-10)


def assert_gradcheck(loss: Loss, beta: float | None = None) -> None:
    """Analytic gradients equal numerical ones, on random pairs."""
    data = random_data()

    def values(chosen: Tensor, rejected: Tensor) -> Tensor:
        batch = pairs(data)
        moved = PairBatch(**{**vars(batch), "policy_chosen": chosen, "policy_rejected": rejected})
        return call(loss, moved, beta).values

    batch = pairs(data)
    assert torch.autograd.gradcheck(values, (batch.policy_chosen, batch.policy_rejected))


def assert_pairs_are_independent(loss: Loss, beta: float | None = None) -> None:
    """A pair's value does not depend on its place in the batch nor on its batch-mates."""
    data = random_data()
    together = call(loss, pairs(data), beta).values
    for i in range(len(together)):
        alone = {name: [values[i]] for name, values in data.items()}
        assert torch.equal(call(loss, pairs(alone), beta).values, together[i : i + 1])
    backwards = {name: values[::-1] for name, values in data.items()}
    assert torch.equal(call(loss, pairs(backwards), beta).values.flip(0), together)


def assert_output_is_well_formed(loss: Loss, beta: float | None = None) -> None:
    """Shape (B,), the dtype of the log-probs, gradient on the values alone."""
    for dtype in (torch.float32, torch.float64):
        output = call(loss, four(dtype), beta)
        assert output.values.shape == (4,) and output.values.dtype == dtype and output.values.requires_grad
        for value in (output.reward_chosen, output.reward_rejected, *output.metrics.values()):
            assert not value.requires_grad and value.dtype == dtype


class Game:
    """A random preference matrix over n answers, and the population of pairs that a policy `mu` draws."""

    def __init__(self, n: int, seed: int = 0) -> None:
        self.noise = torch.Generator().manual_seed(seed)
        draw = torch.rand(n, n, generator=self.noise, dtype=torch.float64)
        self.prefer = 0.5 + (draw - draw.T) / 2
        self.mu = self.policy()

    @property
    def wins(self) -> Tensor:
        """Win rate of each answer against mu."""
        return self.prefer @ self.mu.exp()

    def policy(self) -> Tensor:
        """Log-probs of a random policy."""
        return torch.randn(len(self.prefer), generator=self.noise, dtype=torch.float64).log_softmax(0)

    def slope(self, loss: Loss, at: Tensor, round: int = 1, **anchors: Tensor) -> Tensor:
        """Gradient of the population loss: both answers from mu, the label drawn from the preference."""
        n = len(at)
        won, lost = (index.flatten() for index in torch.meshgrid(torch.arange(n), torch.arange(n), indexing="ij"))
        leaf = at.clone().requires_grad_()
        batch = PairBatch(
            policy_chosen=leaf[won],
            policy_rejected=leaf[lost],
            len_chosen=torch.ones(n * n),
            len_rejected=torch.ones(n * n),
            anchors={name: Anchor(chosen=logp[won], rejected=logp[lost]) for name, logp in anchors.items()},
            p_chosen=self.prefer[won, lost],
            win_rate_chosen=self.wins[won],
            win_rate_rejected=self.wins[lost],
        )
        weights = 2.0 * self.mu.exp()[won] * self.mu.exp()[lost] * self.prefer[won, lost]
        (grad,) = torch.autograd.grad((weights * loss(batch, Step(round=round)).values).sum(), leaf)
        return grad
