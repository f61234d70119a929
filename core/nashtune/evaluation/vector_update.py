"""A conformance vector over rollouts, as an update runs: β, score, advantages, then the loss and its gradients.

Legend: S = completions, M = tokens of all of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from nashtune.apply_loss import apply_loss
from nashtune.errors import InputError
from nashtune.evaluation.vector_results import CaseResult, Output
from nashtune.evaluation.vector_rollouts import per_completion
from nashtune.evaluation.watched import watch
from nashtune.interfaces import KLController, Loss, LossOutput, RolloutBatch, Step
from nashtune.kl.asked import asked_beta, asked_report

if TYPE_CHECKING:
    from torch import Tensor

    from nashtune.evaluation.vector_inputs import VectorBatch


def evaluate_rollouts(
    made: VectorBatch, batch: RolloutBatch, loss: Loss, kl: KLController | None, step: Step, where: str, who: str
) -> CaseResult:
    """Run one update on the vector's completions.

    Args:
        made: The vector's inputs; its batch may have been changed by `read_vector`.
        batch: What the loss sees, before advantages are known.
        loss: The method's loss.
        kl: Its KL controller.
        step: Round and scale.
        where: The case's place, for messages.
        who: The loss's name, for messages.

    Raises:
        InputError: an input that the method reads is missing.
    """
    if loss.uses_values and batch.old_value is None:
        raise InputError(f"{where}.inputs: {who} needs old_value, one list of per-token numbers for each completion")
    read: set[str] = set()
    place = f"{where}.inputs: {who}"
    before = batch if batch.old is None else replace(batch, token_logp=batch.old, value=None, value_end=None)
    further: dict[str, Tensor] = {}
    with torch.no_grad():
        seen = watch(before, read, place, loss.vector_inputs)
        assert isinstance(seen, RolloutBatch)
        before = replace(before, score=loss.judged(seen))
        if kl is not None:
            seen = watch(before, read, place, loss.vector_inputs)
            assert isinstance(seen, RolloutBatch)
            beta = asked_beta(kl, seen)
            score = kl.reward(seen, beta)
            step = replace(step, beta=beta)
            further |= {"beta": beta, "score": score, **asked_report(kl, before, beta)}
            before = replace(before, score=score)
        seen = watch(before, read, place, loss.vector_inputs)
        assert isinstance(seen, RolloutBatch)
        advantages = loss.advantages(seen, step)
    if batch.variance is not None:
        further["variance"] = batch.variance
    if advantages is not None:
        batch = replace(
            batch,
            score=before.score,
            advantage=advantages.advantage,
            target=advantages.target,
            target_end=advantages.target_end,
        )
        parts = {"advantage": advantages.advantage, "target": advantages.target, "target_end": advantages.target_end}
        further |= {name: value for name, value in parts.items() if value is not None}
        further |= advantages.metrics
    output = apply_loss(loss, watch(batch, read, place, loss.vector_inputs), step)
    if output.values.shape != batch.score.shape:
        shape, expected = tuple(output.values.shape), tuple(batch.score.shape)
        raise InputError(f"{who} gave values of shape {shape}; expected {expected}")
    further |= {"score": before.score, **output.metrics}
    return CaseResult(
        _outputs(made, batch, kl, step, output),
        _further(made, batch, loss, output, further),
        [name for name in sorted(made.given) if _is_standard(name, kl) and name not in read],
    )


PER_TOKEN = ("advantage", "target")
"""One number per token even where every completion has one token and a list cannot show it."""


def objective(values_S: Tensor, lengths_S: Tensor, loss: Loss) -> Tensor:
    """What an optimiser step on these completions minimises: the mean of the values, or their sum per token."""
    return values_S.sum() / lengths_S.sum() if loss.mean_over == "tokens" else values_S.mean()


def _outputs(
    made: VectorBatch, batch: RolloutBatch, kl: KLController | None, step: Step, output: LossOutput
) -> dict[str, Output]:
    found: dict[str, Output] = {"loss": output.values.tolist()}
    found |= {f"grad_{name}": value for name, value in _gradients(made, batch, output.values.sum()).items()}
    if kl is not None and step.beta is not None:
        report = kl.report(batch, step.beta)
        means = {name: float(value.double().mean()) for name, value in report.items()}
        found |= {name: value.tolist() for name, value in kl.write_vector(batch, step.beta).items()}
        kl.observe_round(means, len(batch.score))
        found |= {f"{name}_next": value for name, value in kl.state_dict().items() if isinstance(value, float)}
    return found


def _further(
    made: VectorBatch, batch: RolloutBatch, loss: Loss, output: LossOutput, parts: Mapping[str, Tensor]
) -> dict[str, Output]:
    whole = objective(output.values, batch.lengths, loss)
    found: dict[str, Output] = {"objective": float(whole.detach())}
    found |= {f"grad_objective_{name}": value for name, value in _gradients(made, batch, whole).items()}
    for name, value in parts.items():
        of_tokens = name in PER_TOKEN or len(batch.lengths) < len(batch.sequence)
        found[name] = per_completion(value, batch.lengths) if of_tokens else value.tolist()
        if value.ndim == 1:
            found[f"mean_{name}"] = float(value.double().mean())
    return found


def _gradients(made: VectorBatch, batch: RolloutBatch, value: Tensor) -> dict[str, Output]:
    found: dict[str, Output] = {}
    grads = torch.autograd.grad(value, list(made.leaves.values()), allow_unused=True, retain_graph=True)
    for (name, leaf), grad in zip(made.leaves.items(), grads, strict=True):
        found[name] = per_completion(torch.zeros_like(leaf) if grad is None else grad, batch.lengths)
    return found


def _is_standard(name: str, kl: KLController | None) -> bool:
    return name not in ("policy", "score", "members", *(kl.vector_inputs if kl is not None else ()))
