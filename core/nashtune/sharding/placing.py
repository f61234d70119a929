"""A model in memory of rank 0 becomes a model cut up over all ranks, one decoder layer at a time.

Rank 0 reads the weights; the others have the model without them, on torch's `meta` device. Layer by layer the weights
are sent to every rank's device, cut up there, and let go: a device holds one whole layer at most, or the embedding and
the LM head, which are the last. These two stay gathered from a forward pass to its backward: the engines read the
head's weight after the backbone has run.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard, register_fsdp_forward_method

from nashtune.errors import InputError
from nashtune.logprobs.head import base_model
from nashtune.logprobs.packable import trunk_of
from nashtune.models.reward_head import NAME
from nashtune.ranks import everyone, rank

USE_DDP = "; use trainer.strategy: ddp"


@dataclass(frozen=True, kw_only=True)
class Sharding:
    """Over which processes.

    Weights are gathered in their own dtype, so that a run computes what it computes on one device: autocast rounds a
    weight of float32 where it is used, and held-out rows are measured without. Gradients are summed over ranks in
    float32.

    Args:
        mesh: One dimension: the data-parallel processes.
        device: Of this rank.
    """

    mesh: DeviceMesh
    device: torch.device

    @property
    def reads(self) -> bool:
        """Whether this rank is the one that reads weights."""
        return rank() == 0

    def place(self, model: nn.Module) -> nn.Module:
        """Cut a causal LM or a sequence classifier up, in place. Collective.

        Args:
            model: With its weights on rank 0; on the others perhaps without. What is trained is marked already.

        Raises:
            InputError: the model has no list of decoder layers, shares weights between them, or trains weights of two
                dtypes in one.
        """
        base = base_model(model)
        self._agree(model)
        for layer in decoder_layers(base):
            self._cut(layer)
        for head in _score_heads(base):  # float32 in a model of any dtype, and a group has one
            self._cut(head, reshard_after_forward=False)
            head.read = functools.partial(_read, head)
            register_fsdp_forward_method(head, "read")
        self._cut(base, reshard_after_forward=False)
        _run_through(base, trunk_of(model))
        return model

    def place_critic(self, critic: nn.Module) -> None:
        """Cut up a critic: a reward model with something around it, or a linear layer. Collective."""
        model = getattr(critic, "model", None)
        if model is None:
            self._cut(critic)
        else:
            self.place(model)
            self._fill(critic)

    def _agree(self, model: nn.Module) -> None:
        """The dtypes of rank 0 for what the others have no weights of: reading may choose others than building."""
        facts = [(name, tuple(one.shape), one.dtype) for name, one in _tensors(model)]
        theirs = everyone(facts)[0]
        if [fact[:2] for fact in facts] != [fact[:2] for fact in theirs]:
            raise InputError(
                "policy.path: the weights on this rank are not those on rank 0; do all see the same folder?"
            )
        dtypes = {name: dtype for name, _, dtype in theirs}
        for name, one in _tensors(model):
            if one.is_meta and one.dtype != dtypes[name]:
                one.data = one.data.to(dtypes[name])

    def _cut(self, module: nn.Module, **options: Any) -> None:
        trained = {p.dtype for m in _own(module) for p in m.parameters(recurse=False) if p.requires_grad}
        if len(trained) > 1:
            raise InputError(
                f"trainer.strategy fsdp2: {type(module).__name__} trains weights of {sorted(map(str, trained))}, and a "
                f"layer that is cut up has one dtype{USE_DDP}, or --policy.precision fp32"
            )
        self._fill(module)
        precision = MixedPrecisionPolicy(reduce_dtype=torch.float32, cast_forward_inputs=False)
        fully_shard(module, mesh=self.mesh, mp_policy=precision, **options)

    def _fill(self, module: nn.Module) -> None:
        """The weights of rank 0, on the device of every rank; weights that are tied stay one."""
        sent: dict[int, Any] = {}
        for owner in _own(module):
            for table, wrap in ((owner._parameters, True), (owner._buffers, False)):
                for name, old in table.items():
                    if old is None:
                        continue
                    if id(old) not in sent:
                        data = (
                            torch.empty_like(old, device=self.device) if old.is_meta else old.detach().to(self.device)
                        )
                        data = data.contiguous()
                        torch.distributed.broadcast(data, 0, group=self.mesh.get_group())
                        sent[id(old)] = (nn.Parameter(data, requires_grad=old.requires_grad) if wrap else data, old)
                    table[name] = sent[id(old)][0]  # the old one is kept beside it: its id must not be given away


def decoder_layers(base: nn.Module) -> list[nn.Module]:
    """The layers of a decoder, which are cut up and gathered one at a time.

    Raises:
        InputError: there is no list of them.
    """
    count = base.config.get_text_config().num_hidden_layers  # type: ignore[operator, union-attr]
    for module in base.modules():
        if isinstance(module, nn.ModuleList) and len(module) == count:
            return list(module)
    raise InputError(f"trainer.strategy fsdp2: {type(base).__name__} has no list of {count} decoder layers{USE_DDP}")


def _own(module: nn.Module) -> Iterator[nn.Module]:
    """A module and what is in it, but for what was cut up before."""
    yield module
    for child in module.children():
        if not isinstance(child, FSDPModule):
            yield from _own(child)


def _tensors(model: nn.Module) -> list[tuple[str, Tensor]]:
    return [*model.named_parameters(), *model.named_buffers()]


def _score_heads(base: nn.Module) -> list[Any]:
    """With LoRA two, of which one is trained."""
    head = getattr(base, NAME, None)
    return [] if head is None else [one for one in head.modules() if isinstance(one, nn.Linear)]


def _read(head: nn.Linear) -> tuple[Tensor, Tensor | None]:
    # copies: FSDP hangs a hook on what a forward method returns, for each call one, and a weight would keep them all
    return head.weight.clone(), None if head.bias is None else head.bias.clone()


def _run_through(base: Any, trunk: Any) -> None:
    """Engines call the backbone and not the model around it, which owns the embedding and is what FSDP begins with."""
    if trunk is base:
        return
    inner = trunk.forward
    base.run_trunk = inner
    register_fsdp_forward_method(base, "run_trunk")

    @functools.wraps(inner)
    def forward(*args: Any, **kwargs: Any) -> Any:
        return base.run_trunk(*args, **kwargs)

    trunk.forward = forward
