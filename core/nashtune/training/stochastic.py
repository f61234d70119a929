"""AdamW for weights that are kept in bfloat16: computed in float32, rounded up or down by chance.

A weight of bfloat16 has eight bits. At the learning rates of preference methods an update is mostly smaller than half
of its last bit: rounded to the nearest, it is lost at every step. Rounded up with the probability of what would be cut
off, its mean is exact, and a thousand small updates move the weight as far as they should.

Own code: torchao's AdamW does the same through `torch.compile`, which needs a C++ compiler on the machine that trains;
its noise comes from the global generator, which data-parallel ranks do not share; and it keeps the moments in bfloat16,
where a second moment that decays by a thousandth stands still.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any
from weakref import ref

import torch
from torch import Tensor
from torch.optim.adamw import adamw

from nashtune.ranks import rank
from nashtune.sharding.tensors import DTensor, local

CHUNK = 2**22
"""Numbers that are computed in float32 at a time: the step needs no copy of a whole embedding."""

MOMENTS = ("exp_avg", "exp_avg_sq")


class StochasticAdamW(torch.optim.Optimizer):
    """AdamW with moments in float32 and stochastic rounding of weights in bfloat16; others are updated as they are.

    The noise follows from a seed, the number of updates and the order of the parameters, so it is the same on every
    data-parallel rank and in a resumed run. Where the attribute `found_inf` is a tensor of 1, a step changes nothing.

    Gradients are bfloat16, as torch makes them, while a step has one forward and backward pass. From the second pass on
    they are summed in float32, and take four bytes for each weight: sixty-four passes summed in bfloat16 are wrong by
    almost a hundredth. Among several processes they are summed in bfloat16: data-parallel buckets have one dtype.

    Args:
        params: Parameters.
        lr: Learning rate.
        betas: Decay rates of the moments.
        eps: Added to the root of the second moment.
        weight_decay: Decoupled.
    """

    found_inf: Tensor | None = None

    def __init__(
        self,
        params: Iterable[Tensor],
        lr: float,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        # `fused` makes torch keep `step` on the device when a state is loaded
        defaults = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "fused": True}
        super().__init__(params, {**defaults, "seed": torch.initial_seed(), "updates": 0})
        for param in (param for group in self.param_groups for param in group["params"]):
            if param.dtype == torch.bfloat16 and param.requires_grad:
                param.register_hook(partial(_widen_sum, ref(param)))

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One update."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            group["updates"] += 1
            noise: dict[torch.device, torch.Generator] = {}
            for param in group["params"]:
                if param.grad is not None:
                    if param.device not in noise:
                        # pieces of a weight that is cut up draw noise of their own
                        own = (rank(),) if isinstance(param, DTensor) else ()
                        seed = hash((group["seed"], group["updates"], *own)) % 2**63
                        noise[param.device] = torch.Generator(param.device).manual_seed(seed)
                    self._update(param, group, noise[param.device])
        return loss

    def _update(self, param: Tensor, group: dict[str, Any], noise: torch.Generator) -> None:
        state = self.state[param]
        if not state:
            state["step"] = torch.zeros((), dtype=torch.float32, device=param.device)
            state.update({name: _moment(param) for name in MOMENTS})
        assert param.grad is not None
        tensors = map(local, (param.detach(), param.grad, *(state[name] for name in MOMENTS)))
        for weight, grad, first, second in zip(*map(_chunks, tensors), strict=True):
            wide = weight.float().contiguous()  # the kernel goes by the order in memory
            adamw(
                [wide],
                [grad.float().contiguous()],
                [first],
                [second],
                [],
                [state["step"].clone()],
                fused=True,
                found_inf=self.found_inf,
                amsgrad=False,
                beta1=group["betas"][0],
                beta2=group["betas"][1],
                lr=group["lr"],
                weight_decay=group["weight_decay"],
                eps=group["eps"],
                maximize=False,
            )
            if weight.dtype == torch.bfloat16:
                weight.copy_(round_stochastically(wide, noise))
            elif wide.data_ptr() != weight.data_ptr():
                weight.copy_(wide)
        state["step"] += 1 if self.found_inf is None else 1 - self.found_inf.to(param.device)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """As every optimiser, but the moments stay in float32: torch casts them to the dtype of the weights."""
        super().load_state_dict(state_dict)
        saved = [index for group in state_dict["param_groups"] for index in group["params"]]
        params = [param for group in self.param_groups for param in group["params"]]
        for index, param in zip(saved, params, strict=True):
            for name in MOMENTS:
                if index in state_dict["state"]:
                    self.state[param][name] = state_dict["state"][index][name].to(param.device, copy=True)


def round_stochastically(wide: Tensor, noise: torch.Generator) -> Tensor:
    """Float32 numbers as bfloat16, each one of its two neighbours, with the number itself as the mean.

    What is not finite stays what it is.

    Args:
        wide: Numbers.
        noise: On their device.
    """
    bits = wide.view(torch.int32)  # the upper 16 bits of a float32 are a bfloat16
    drawn = torch.empty_like(bits).random_(0, 2**16, generator=noise).add_(bits).bitwise_and_(-(2**16))
    # the sum can carry a NaN over into a zero
    return torch.where(wide.isfinite(), drawn.view(torch.float32), wide).to(torch.bfloat16)


def _moment(param: Tensor) -> Tensor:
    """Zeros in float32 in the order of rows, however the weight lies in memory: the kernel goes by it."""
    return torch.zeros_like(param, dtype=torch.float32, memory_format=torch.contiguous_format)


def _chunks(tensor: Tensor) -> Iterator[Tensor]:
    """Along the first dimension, which every tensor can be cut along, however it lies in memory."""
    rows = tensor if tensor.dim() else tensor.reshape(1)
    return iter(torch.split(rows, max(1, CHUNK * len(rows) // max(1, rows.numel()))))


def _widen_sum(weak: ref[Tensor], _: Tensor) -> None:
    """Before a gradient is added to one that is there: make that one float32, and the sum is in float32."""
    param = weak()
    alone = not (torch.distributed.is_available() and torch.distributed.is_initialized())
    if param is not None and param.grad is not None and param.grad.dtype == torch.bfloat16 and alone:
        param.grad.data = param.grad.float()  # torch lets no other dtype be assigned to `grad` itself
