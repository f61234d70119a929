"""What stops a run before numbers that are not finite reach its weights, without waiting for the device.

Legend: B = rows of a pass.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from nashtune.errors import InputError
from nashtune.interfaces import LossOutput, TokenBatch
from nashtune.ranks import everyone
from nashtune.sharding.tensors import full

WHAT_TO_DO = (
    "Nothing was updated by this step. Look at the rows, and start a new run with a lower learning rate "
    "(--spec.optimizer.lr), gradient clipping (--trainer.gradient_clip_val 1.0) or fp32 (--policy.precision fp32)"
)
BOUNDS = (
    "Nothing was updated by this step. Keep beta() within bounds, such as max(value, 1e-3); the contract `kl-bounds` "
    "tests them"
)
"""What to do about a β."""
NAMED = 5
"""Rows that a message names at most, of each rank."""


@dataclass(frozen=True)
class _Seen:
    step: int
    values: Tensor
    beta: Tensor | None
    rows: Tensor
    place: Callable[[int], str]


class FiniteGuard:
    """Watches losses and gradients on the device, and says on the host what was wrong when it is asked.

    From the first loss or gradient that is not finite, `flag` is 1 for good, and an optimiser that `hold` can hold back
    leaves the weights as they are from then on. So the host may look late and nothing is lost. A β that is 0, negative
    or not finite counts as such a loss: with it every loss may be finite, and nothing is learned or held.

    Args:
        controller: What messages call the KL controller; None where there is none.
    """

    def __init__(self, controller: str | None = None) -> None:
        self._controller = controller
        self._seen: list[_Seen] = []
        self._gradients: list[tuple[int, Tensor]] = []
        self._own: dict[int, Tensor] = {}  # step -> whether this rank's own gradient was at fault
        self.flag: Tensor | None = None

    def see_loss(self, output: LossOutput, batch: TokenBatch, step: int, place: Callable[[int], str]) -> None:
        """Take note of a pass.

        Args:
            output: Of the pass.
            batch: The pass.
            step: Optimiser steps done.
            place: Where a training row comes from, for the message; asked when the host looks.
        """
        values = output.values.detach()
        beta = output.metrics.get("beta") if self._controller is not None else None
        self._seen.append(_Seen(step, values, beta, batch.rows, place))
        self._raise_flag(~torch.isfinite(values).all())
        if beta is not None:
            self._raise_flag(_bad(beta).any())

    def see_own(self, norm: Tensor, step: int) -> None:
        """Take note of this rank's own gradient, before it is averaged with the other ranks'.

        Args:
            norm: Of the gradient, on the device.
            step: Optimiser steps done.
        """
        bad = ~torch.isfinite(norm)
        self._own[step] = torch.logical_or(self._own[step], bad) if step in self._own else bad

    def see_gradient(self, gradients: Sequence[Tensor], step: int) -> None:
        """Take note of the gradient that an optimiser step is about to use."""
        norm = full(torch.nn.utils.get_total_norm(gradients))
        self._gradients.append((step, norm))
        self._raise_flag(~torch.isfinite(norm))

    def _raise_flag(self, bad: Tensor) -> None:
        self.flag = bad.float() if self.flag is None else torch.maximum(self.flag, bad.float())

    def hold(self, optimizer: torch.optim.Optimizer, gradients: Sequence[Tensor]) -> bool:
        """Have an optimiser's next step change no weight if the flag is up, without asking the device.

        A fused optimiser skips a step by itself where `found_inf` is 1, as torch's GradScaler has it. RMSprop without
        momentum and weight decay moves nothing where the gradient is 0.

        Returns:
            False for any other: the host must look before each of its steps.
        """
        assert self.flag is not None, "a gradient was seen"
        if optimizer.defaults.get("fused"):
            optimizer.found_inf = self.flag  # type: ignore[attr-defined]
            return True
        if isinstance(optimizer, torch.optim.RMSprop) and not any(
            group["momentum"] or group["weight_decay"] for group in optimizer.param_groups
        ):
            for gradient in gradients:
                gradient.masked_fill_(self.flag.bool(), 0.0)
            return True
        return False

    def look(self, *, together: bool = False) -> None:
        """Wait for the device, once, and stop where something was not finite since the last look.

        Args:
            together: Whether every process looks now, so that all of them stop where one has to.

        Raises:
            InputError: names the step, and the rows where the loss was at fault.
        """
        if self.flag is None:
            return
        if together and torch.distributed.is_initialized():
            torch.distributed.all_reduce(self.flag, torch.distributed.ReduceOp.MAX)
        self.settle(bool(self.flag))

    def settle(self, bad: bool) -> None:
        """As `look`, by somebody who has read `flag` already.

        Args:
            bad: Whether it is up here, or on any process: then all of them say so, and tell each other what they saw.

        Raises:
            InputError: it is; names the rank where there are several.
        """
        seen, gradients, own = self._seen, self._gradients, self._own
        self._seen, self._gradients, self._own = [], [], {}
        if not bad:
            return
        everywhere = everyone(_found(seen, gradients, own, self._controller))
        faults = [(number, one) for number, one in enumerate(everywhere) if one is not None]
        for number, one in faults:
            if one.loss is not None:
                raise InputError(f"{_of_rank(number, len(everywhere))}{one.loss}. {one.what_to_do}")
        raise InputError(f"{_gradient(faults, len(everywhere))}. {WHAT_TO_DO}")


@dataclass(frozen=True)
class _Found:
    """What a rank saw first: where gradients are averaged, one rank's fault is in all of them.

    Args:
        loss: The words for a loss or a β that was at fault; None where it was the gradient alone.
        step: Of a gradient.
        rows: Of this rank in that step.
        own: Whether this rank's own gradient was at fault; None where nobody could see it.
        what_to_do: After the words.
    """

    loss: str | None
    step: int = 0
    rows: str = ""
    own: bool | None = None
    what_to_do: str = WHAT_TO_DO


def _gradient(faults: Sequence[tuple[int, _Found]], ranks: int) -> str:
    """Whose gradient it was, as far as it can be known."""
    if not faults:
        return "a loss or a gradient is not finite"
    _, first = faults[0]
    for number, one in faults:
        if one.own or ranks == 1:
            rows = f"; its rows: {one.rows}" if one.rows else ""
            return f"{_of_rank(number, ranks)}step {one.step}: the gradient is not finite, though the loss is{rows}"
    if all(one.own is False for _, one in faults):
        return (
            f"step {first.step}: the gradient is not finite, though every loss is and the gradient of each of the "
            f"{ranks} ranks is: their sum, or its norm, is too large a number"
        )
    rows = "; ".join(f"rank {number}: {one.rows}" for number, one in faults)
    return (
        f"step {first.step}: some rank's gradient is not finite, though every loss is; whose it was is not known, "
        f"since it is summed over the {ranks} ranks while it is made. Rows of that step: {rows}"
    )


def _of_rank(number: int, ranks: int) -> str:
    return f"rank {number} of {ranks}, " if ranks > 1 else ""


def _bad(beta: Tensor) -> Tensor:
    """Where a β is not > 0 and finite."""
    return ~((beta > 0) & torch.isfinite(beta))


def _of_beta(one: _Seen, controller: str | None) -> str:
    if one.beta is None or not len(bad := one.beta[_bad(one.beta)]):
        return ""
    return f"kl {controller}: beta gave {float(bad[0]):g} at step {one.step}; it must be > 0 and finite"


def _found(
    seen: Sequence[_Seen],
    gradients: Sequence[tuple[int, Tensor]],
    own: Mapping[int, Tensor],
    controller: str | None,
) -> _Found | None:
    """What this process saw first; None where it saw nothing wrong."""
    first = min((step for step, norm in gradients if not bool(torch.isfinite(norm))), default=None)
    for one in seen:
        if first is not None and one.step > first:
            break
        said = _of_beta(one, controller)
        wrong = ~torch.isfinite(one.values)
        if bool(wrong.any()):
            owners = one.rows.repeat(len(wrong) // len(one.rows))
            rows = [one.place(int(row)) for row in owners[wrong][:NAMED]]
            return _Found(
                f"step {one.step}: the loss is not finite on {int(wrong.sum())} of {len(one.rows)} rows: "
                f"{', '.join(rows)}{f'; {said}' if said else ''}"
            )
        if said:
            return _Found(said, what_to_do=BOUNDS)
    if first is None:
        return None
    rows = list(dict.fromkeys(one.place(int(row)) for one in seen if one.step == first for row in one.rows))
    more = f" and {len(rows) - NAMED} more" if len(rows) > NAMED else ""
    return _Found(None, first, ", ".join(rows[:NAMED]) + more, bool(own[first]) if first in own else None)
