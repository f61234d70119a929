"""What stops a run before numbers that are not finite reach its weights, without waiting for the device.

Legend: B = rows of a pass.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from nashtune.errors import InputError
from nashtune.interfaces import LossOutput, TokenBatch

WHAT_TO_DO = (
    "Nothing was updated by this step. Look at the rows, and start a new run with a lower learning rate "
    "(--spec.optimizer.lr), gradient clipping (--trainer.gradient_clip_val 1.0) or fp32 (--policy.precision fp32)"
)


@dataclass(frozen=True)
class _Seen:
    step: int
    values: Tensor
    rows: Tensor
    place: Callable[[int], str]


class FiniteGuard:
    """Watches losses and gradients on the device, and says on the host what was wrong when it is asked.

    From the first loss or gradient that is not finite, `flag` is 1 for good, and an optimiser that `hold` can hold back
    leaves the weights as they are from then on. So the host may look late and nothing is lost.
    """

    def __init__(self) -> None:
        self._seen: list[_Seen] = []
        self._gradients: list[tuple[int, Tensor]] = []
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
        self._seen.append(_Seen(step, values, batch.rows, place))
        self._raise_flag(~torch.isfinite(values).all())

    def see_gradient(self, gradients: Sequence[Tensor], step: int) -> None:
        """Take note of the gradient that an optimiser step is about to use."""
        norm = torch.nn.utils.get_total_norm(gradients)
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
        seen, gradients = self._seen, self._gradients
        self._seen, self._gradients = [], []
        if self.flag is None:
            return
        if together and torch.distributed.is_initialized():
            torch.distributed.all_reduce(self.flag, torch.distributed.ReduceOp.MAX)
        if not bool(self.flag):
            return
        first = min((step for step, norm in gradients if not bool(torch.isfinite(norm))), default=None)
        for one in seen:
            bad = ~torch.isfinite(one.values)
            if bool(bad.any()) and (first is None or one.step <= first):
                owners = one.rows.repeat(len(bad) // len(one.rows))
                rows = [one.place(int(row)) for row in owners[bad][:5]]
                raise InputError(
                    f"step {one.step}: the loss is not finite on {int(bad.sum())} of {len(one.rows)} rows: "
                    f"{', '.join(rows)}. {WHAT_TO_DO}"
                )
        if first is not None:
            raise InputError(f"step {first}: the gradient is not finite, though the loss is. {WHAT_TO_DO}")
        raise InputError(f"a loss or a gradient was not finite on another process, which says where. {WHAT_TO_DO}")
