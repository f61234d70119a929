"""The inputs of a conformance vector, from JSON to what a loss and a KL controller see, in float64."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from nashtune.errors import InputError, nearest
from nashtune.evaluation.vector_logits import LOGITS, read_logits
from nashtune.evaluation.vector_logprobs import STANDARD, UNPAIRED, column, read_examples, read_pairs
from nashtune.evaluation.vector_rollouts import REWARDED, read_rollouts
from nashtune.evaluation.vector_scores import read_scores, score_inputs
from nashtune.interfaces import KLController, Loss, LossBatch, RewardOracle


@dataclass(frozen=True)
class VectorBatch:
    """A batch made from a vector.

    Args:
        batch: What the loss and the controller see.
        leaves: Policy log-probs by input name, float64, the gradient is taken with respect to them.
        given: Names of the inputs that were given.
    """

    batch: LossBatch
    leaves: Mapping[str, Tensor]
    given: frozenset[str]


def known_inputs(loss: Loss, kl: KLController | None, anchors: Sequence[str], *, rewarded: bool) -> list[str]:
    """Every input name that a vector of this method may use."""
    if loss.reads == "scores":
        return score_inputs(loss)
    if loss.rows == "rollouts":
        further = [*loss.vector_inputs, *(kl.vector_inputs if kl is not None else ())]
        return ["policy", *anchors, "score", *(REWARDED if rewarded else ()), *further]
    names = [*STANDARD, *(f"{anchor}_{side}" for anchor in anchors for side in ("chosen", "rejected"))]
    if loss.rows == "examples":
        names += [*UNPAIRED, *anchors, *(f"{anchor}_mismatched" for anchor in anchors)]
    if kl is not None and kl.statistics:
        names += LOGITS
    return [*names, *loss.vector_inputs, *(kl.vector_inputs if kl is not None else ())]


def read_inputs(
    inputs: Mapping[str, Any],
    loss: Loss,
    kl: KLController | None,
    anchors: Sequence[str],
    where: str,
    oracle: RewardOracle | None = None,
) -> VectorBatch:
    """Build the batch.

    Args:
        inputs: The vector's `inputs`.
        loss: The method's loss.
        kl: Its KL controller.
        anchors: Names of its references.
        where: The place of `inputs`, for messages.
        oracle: Where completions are rewarded one by one: makes rewards of members.

    Raises:
        InputError: an unknown or missing name, a wrong type, shape or range.
    """
    known = known_inputs(loss, kl, anchors, rewarded=oracle is not None)
    for name in inputs:
        if name not in known:
            raise InputError(f"{where}.{name} is not an input of this method{nearest(name, known)}")
    if loss.reads == "scores":
        scores, leaves = read_scores(inputs, loss, where)
        return VectorBatch(scores, leaves, frozenset(inputs))
    if loss.rows == "rollouts":
        rollouts, leaves = read_rollouts(inputs, anchors, oracle, where)
        further = {*loss.vector_inputs, *(kl.vector_inputs if kl is not None else ())}
        values = {name: column(inputs[name], f"{where}.{name}") for name in further if name in inputs}
        return _read_further(VectorBatch(rollouts, leaves, frozenset(inputs)), values, loss, kl)
    values = {n: v if n in LOGITS else column(v, f"{where}.{n}") for n, v in inputs.items()}
    if kl is not None and set(LOGITS) & set(values):
        read_logits(values, kl, where)
    read = read_examples if loss.rows == "examples" else read_pairs
    batch, leaves = read(values, anchors, where)
    return _read_further(VectorBatch(batch, leaves, frozenset(inputs)), values, loss, kl)


def _read_further(made: VectorBatch, values: Mapping[str, Any], loss: Loss, kl: KLController | None) -> VectorBatch:
    """The batch with the inputs that only this loss and this controller know."""
    batch = made.batch
    for component in (loss, kl):
        if component is not None and any(name in values for name in component.vector_inputs):
            given = {name: values[name] for name in component.vector_inputs if name in values}
            batch = component.read_vector(batch, given)
    return replace(made, batch=batch)
