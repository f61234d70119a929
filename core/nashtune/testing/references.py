"""The contract of a reference: frozen, without gradient, and where it says so the policy at its start."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from nashtune.errors import InputError
from nashtune.interfaces import LogProbs, Reference
from nashtune.logprobs import get_engine
from nashtune.testing.bench import close
from nashtune.testing.contract import ContractError, require, running
from nashtune.testing.declared import check_class
from nashtune.testing.models import token_batch
from nashtune.testing.policies import own_cache, tiny_policy
from nashtune.testing.subject import Subject

if TYPE_CHECKING:
    from nashtune.models.policy import HFPolicy

CLOSE = 1e-4
"""Nats: what float32 makes of a completion."""


def check(subject: Subject, options: Mapping[str, Any]) -> None:
    """Check a reference on the tiny model, or on an adapter on it where it asks for one.

    Raises:
        ContractError: it breaks a rule.
    """
    check_class(subject)
    for chosen in subject.given(options):
        with tempfile.TemporaryDirectory() as folder, own_cache(Path(folder)):
            reference, who = subject.make(chosen), subject.named(chosen)
            assert isinstance(reference, Reference)
            policy = _attached(reference, who)
            if reference.snapshot == "previous":
                continue  # the anchor phases of a schedule score it
            _check(reference, policy, who)


def _attached(reference: Reference, who: str) -> HFPolicy:
    """A policy that it takes: all weights trained, or an adapter."""
    refusals = []
    for lora in (False, True):
        policy = tiny_policy(lora=lora)
        try:
            with running(who, "attach"):
                reference.attach(policy)
        except ContractError as error:
            if not isinstance(error.__cause__, InputError):
                raise
            refusals.append(str(error.__cause__))
        else:
            return policy
    raise ContractError(who, "runs", f"attach refuses a policy: {'; '.join(refusals)}")


def _check(reference: Reference, policy: HFPolicy, who: str) -> None:
    batch, engine = token_batch([(3, 5), (4, 6), (2, 3), (5, 1)]), get_engine("tiled")
    model, rule = policy.loaded(), "reference-gradient"
    with torch.no_grad():
        at_start = policy.logprobs(batch, engine).sums
    kept = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    training = model.training
    with running(who, "prepare or logprobs"):
        reference.prepare([batch], engine, "probe")
        found = _sums(reference.logprobs(batch, engine), who)
    require(model.training == training, who, rule, "the policy's training mode has changed")
    for name, weight in model.named_parameters():
        require(torch.equal(weight, kept[name]), who, rule, f"the policy's weight {name} has changed")
        require(weight.grad is None, who, rule, f"the policy's weight {name} has a gradient")
    if reference.snapshot == "start":
        gap = float((found - at_start).abs().max())
        require(gap <= CLOSE, who, "reference-start", f"it is off by up to {gap:.3g} nats a completion at the start")
    recalled = reference.recall(batch)
    if recalled is not None:
        require(close(recalled, found, CLOSE), who, "runs", "recall gives other numbers than logprobs")
    if reference.gives_logits:
        with running(who, "forward"):
            features = reference.forward(batch, engine)
        again = engine.logprobs(features, batch).sums
        require(not again.requires_grad, who, rule, "the features of forward carry a gradient")
        require(close(again, found, CLOSE), who, "reference-logits", "its logits give other log-probs than logprobs")
    else:
        try:
            reference.forward(batch, engine)
        except TypeError:
            pass
        else:
            raise ContractError(who, "reference-logits", "gives_logits is False, and forward works")
    with torch.no_grad():
        for weight in policy.trainable_state_dict().values():
            weight.add_(0.1 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(1)))
    with running(who, "logprobs after training"):
        after = _sums(reference.logprobs(batch, engine), who)
    gap = float((after - found).abs().max())
    require(gap == 0.0, who, "reference-frozen", f"after the policy was trained it is off by up to {gap:.3g} nats")


def _sums(found: LogProbs, who: str) -> Tensor:
    sums = found.sums
    require(sums.shape == (4,) and bool(sums.isfinite().all()), who, "runs", f"logprobs gave {sums} for 4 completions")
    require(not sums.requires_grad, who, "reference-gradient", "its log-probs carry a gradient")
    lengths = found.lengths.tolist()
    require(lengths == [5, 6, 3, 1], who, "runs", f"logprobs counts {lengths} tokens; they are 5, 6, 3 and 1")
    return sums.detach()
