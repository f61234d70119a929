"""What references that hold a model share: they run it frozen and keep it out of the trained module."""

from __future__ import annotations

from contextlib import AbstractContextManager, ExitStack, nullcontext
from typing import Any

import torch
from torch import nn

from nashtune.interfaces.batch import LogProbs, TokenBatch
from nashtune.interfaces.policy import LogProbEngine, Policy
from nashtune.interfaces.reference import Reference
from nashtune.models.mode import frozen_mode
from nashtune.models.policy import HFPolicy


class LiveReference(Reference):
    """Runs a frozen causal LM: a model of its own, or the policy's with the adapter switched off.

    A reference is no nn.Module, so a model it holds is in no checkpoint and no optimiser; it moves to the policy's
    device at its next use.
    """

    def __init__(self) -> None:
        self._policy: HFPolicy | None = None
        self._model: nn.Module | None = None  # None: the policy's own, adapter off

    def forward(self, batch: TokenBatch, engine: LogProbEngine) -> Any:
        """Features of the batch, without gradient and without dropout."""
        model, adapter_off = self._frozen()
        with ExitStack() as stack:
            stack.enter_context(frozen_mode(model))
            stack.enter_context(adapter_off)
            return engine.forward(model, batch)

    def logprobs(self, batch: TokenBatch, engine: LogProbEngine) -> LogProbs:
        """Log-probs of the batch's completions, without gradient."""
        features = self.forward(batch, engine)
        with torch.no_grad():
            return engine.logprobs(features, batch)

    def own_model(self) -> nn.Module | None:
        """Its model; None where it is the policy's with the adapter off."""
        return self._model

    def _frozen(self) -> tuple[nn.Module, AbstractContextManager[Any]]:
        if self._policy is None:
            raise RuntimeError(f"{type(self).__name__} is not attached to a policy")
        if self._model is None:
            model = self._policy.loaded()
            return model, model.disable_adapter()
        if next(self._model.parameters()).device != self._policy.device:
            self._model.to(self._policy.device)
        return self._model, nullcontext()


def hf_policy(policy: Policy, reference: str) -> HFPolicy:
    """The policy, which must be a language model that is loaded.

    Raises:
        TypeError: it is something else.
    """
    if not isinstance(policy, HFPolicy):
        raise TypeError(f"reference {reference!r} needs a language model as policy, not {type(policy).__name__}")
    policy.loaded()
    return policy


def freeze(model: nn.Module) -> nn.Module:
    """The model in evaluation mode with no trainable weight."""
    return model.eval().requires_grad_(False)
