"""How far a policy has moved from the start, by its own answers: log-probs under both, and the KL of each next token.

Both models are in memory, or one, where the policy is an adapter on the start's weights. Their logits over the whole
vocabulary exist for as many tokens at a time as the engine compares.

Legend: M = completion tokens, V = vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch

from nashtune.errors import InputError
from nashtune.kl.estimators import token_kl
from nashtune.models.mode import frozen_mode
from nashtune.models.policy import HFPolicy, PolicyConfig
from nashtune.pipeline.journalled import JournalledModel, Measured, Sequences

if TYPE_CHECKING:
    from torch import Tensor

NAMES = ("logp", "logp_start", "kl")


@dataclass(frozen=True, kw_only=True)
class Moved:
    """Of one answer, in nats, at temperature 1, summed over its tokens.

    Args:
        logp: Under the policy that gave it.
        logp_start: Under the policy that training started from.
        kl: KL(policy || start) of the next token behind each of its prefixes, exact over the vocabulary.
    """

    logp: float
    logp_start: float
    kl: float


class Start:
    """The model that training started from, read when it is first needed and kept for the policies after it.

    Args:
        config: Of the model.
    """

    def __init__(self, config: PolicyConfig) -> None:
        self._policy = HFPolicy(replace(config, lora=None))

    def beside(self, policy: HFPolicy) -> tuple[Any, Callable[[], AbstractContextManager[Any]]]:
        """The start's model on a policy's device, and a context to run it in.

        Args:
            policy: Loaded. It is the start's model itself where it has the same weights, or is an adapter on them.
        """
        start, own = self._policy.folder, policy.folder
        if own.path == start.path:
            return policy.loaded(), nullcontext
        if own.is_adapter and not start.is_adapter and own.base.resolve() == start.base.resolve():
            return policy.loaded(), policy.loaded().disable_adapter
        if not self._policy.is_loaded:
            self._policy.load()
            self._policy.to(policy.device)
        return self._policy.loaded(), nullcontext


class Mover(JournalledModel):
    """A policy that answers, and whose answers are compared with what the start makes of them."""

    def moved(self, sequences: Sequences, start: Start, where: Callable[[int], str]) -> list[Moved]:
        """Of every answer behind its prompt.

        Args:
            sequences: Tokens of prompt and answer, EOS included.
            start: Where training started from.
            where: What to call sequence i in a message.

        Raises:
            InputError: a log-prob or a divergence is not finite.
        """
        found: list[Moved] = []
        for first, _, kept in self.measured("divergence", sequences, lambda chunk: self._compared(chunk, start)):
            for i, values in enumerate(zip(*(kept[name] for name in NAMES), strict=True), start=first):
                one = Moved(**dict(zip(NAMES, values, strict=True)))
                if not all(map(math.isfinite, values)):
                    raise InputError(
                        f"{where(i)}: log-probs {one.logp} and {one.logp_start}, KL divergence {one.kl}: a model's "
                        "weights or its precision are broken (policy.precision: fp32)"
                    )
                found.append(one)
        return found

    def _compared(self, sequences: Sequences, start: Start) -> Measured:
        policy, engine = self.loaded(), self.engine
        model, as_start = start.beside(policy)
        found = {name: torch.zeros(len(sequences), dtype=torch.float64) for name in NAMES}
        with frozen_mode(policy.loaded()), frozen_mode(model):
            for places, on_host in self.batches(sequences):
                batch = replace(on_host, layout=engine.plan(on_host)).to(policy.device)
                own = policy.forward(batch, engine)
                with as_start():
                    its = engine.forward(model, batch)
                logp, logp_start, sums = engine.compared(own, its, batch, _statistics)
                for name, values in zip(NAMES, (logp.sums, logp_start.sums, sums["kl"]), strict=True):
                    found[name][places] = values.double().cpu()
        return found


def _statistics(policy_logits_MV: Tensor, start_logits_MV: Tensor, targets_M: Tensor) -> dict[str, Tensor]:
    return {"kl": token_kl(policy_logits_MV, start_logits_MV)}
