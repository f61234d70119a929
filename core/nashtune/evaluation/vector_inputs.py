"""The inputs of a conformance vector, from JSON to what a loss and a KL controller see, in float64.

Legend: B = pairs, E = examples, T = completion tokens of one sequence, V = vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from nashtune.errors import InputError, nearest
from nashtune.evaluation.vector_rollouts import REWARDED, read_rollouts
from nashtune.evaluation.vector_scores import read_scores, score_inputs
from nashtune.interfaces import Anchor, ExampleBatch, KLController, Loss, LossBatch, PairBatch, RewardOracle

SHARES = ("p_chosen", "win_rate_chosen", "win_rate_rejected")
PAIRED = ("policy_chosen", "policy_rejected", "len_chosen", "len_rejected", *SHARES)
STANDARD = (*PAIRED, "ref_chosen", "ref_rejected")
"""Inputs that every method over pairs accepts, whether it reads them or not."""
LOGITS = (
    "policy_logits_chosen",
    "policy_logits_rejected",
    "ref_logits_chosen",
    "ref_logits_rejected",
    "chosen_tokens",
    "rejected_tokens",
)
UNPAIRED = ("policy", "length", "desirable", "policy_mismatched")


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
        values = {name: _column(inputs[name], f"{where}.{name}") for name in further if name in inputs}
        return _read_further(VectorBatch(rollouts, leaves, frozenset(inputs)), values, loss, kl)
    values = {n: v if n in LOGITS else _column(v, f"{where}.{n}") for n, v in inputs.items()}
    if set(LOGITS) & set(values):
        _read_logits(values, kl, where)
    if loss.rows == "examples":
        made = _examples(values, anchors, where)
    else:
        made = _pairs(values, anchors, where)
    return _read_further(replace(made, given=frozenset(inputs)), values, loss, kl)


def _read_further(made: VectorBatch, values: Mapping[str, Any], loss: Loss, kl: KLController | None) -> VectorBatch:
    """The batch with the inputs that only this loss and this controller know."""
    batch = made.batch
    for component in (loss, kl):
        if component is not None and any(name in values for name in component.vector_inputs):
            given = {name: values[name] for name in component.vector_inputs if name in values}
            batch = component.read_vector(batch, given)
    return replace(made, batch=batch)


def _column(value: Any, where: str) -> Tensor:
    """A list of finite numbers (or booleans) as float64 (B,); a number alone as a scalar."""
    numbers = value if isinstance(value, list) else [value]
    for number in numbers:
        if not isinstance(number, int | float) or not math.isfinite(number):
            raise InputError(f"{where}: {number!r} is not a finite number; give a list with one number per pair")
    return torch.tensor(value, dtype=torch.float64)


def _required(values: Mapping[str, Any], name: str, where: str) -> Tensor:
    if name not in values:
        raise InputError(f"{where}: '{name}' is missing{nearest(name, values)}")
    found: Tensor = values[name]
    return found


def _same_count(values: Mapping[str, Any], names: Sequence[str], where: str) -> int:
    counts = {name: values[name].shape for name in names if name in values}
    first, shape = next(iter(counts.items()))
    if len(shape) != 1 or shape[0] == 0:
        raise InputError(f"{where}.{first}: expected a list with one number per pair, got {values[first].tolist()}")
    for name, other in counts.items():
        if other != shape:
            sizes = f"shape {tuple(other)}, but {first} has {tuple(shape)}"
            raise InputError(f"{where}.{name}: {sizes}; give one number per pair")
    for name in names:
        if name in values and name.startswith("len") and bool((values[name] <= 0).any()):
            raise InputError(f"{where}.{name}: a completion has at least one token (EOS)")
    for name in SHARES:
        if name in values and bool(((values[name] < 0) | (values[name] > 1)).any()):
            raise InputError(f"{where}.{name}: {values[name].tolist()}; a probability is in [0, 1]")
    return int(shape[0])


def _pairs(values: Mapping[str, Any], anchors: Sequence[str], where: str) -> VectorBatch:
    leaves = {n: _required(values, n, where).clone().requires_grad_() for n in ("policy_chosen", "policy_rejected")}
    sides = [f"{anchor}_{side}" for anchor in anchors for side in ("chosen", "rejected")]
    count = _same_count(values, [*STANDARD, *sides], where)
    unknown = torch.full((count,), math.nan, dtype=torch.float64)
    batch = PairBatch(
        policy_chosen=leaves["policy_chosen"],
        policy_rejected=leaves["policy_rejected"],
        len_chosen=values.get("len_chosen", unknown),
        len_rejected=values.get("len_rejected", unknown),
        anchors={
            anchor: Anchor(chosen=values[f"{anchor}_chosen"], rejected=_required(values, f"{anchor}_rejected", where))
            for anchor in anchors
            if f"{anchor}_chosen" in values
        },
        **{name: values.get(name) for name in SHARES},
        statistics_chosen=values.get("statistics_chosen", {}),
        statistics_rejected=values.get("statistics_rejected", {}),
    )
    return VectorBatch(batch, leaves, frozenset())


def _examples(values: Mapping[str, Any], anchors: Sequence[str], where: str) -> VectorBatch:
    """Unpaired inputs, or paired ones read as B desirable (chosen) followed by B undesirable (rejected) examples."""
    columns = dict(values)
    if "policy" in values:
        names = [*UNPAIRED, *anchors, *(f"{anchor}_mismatched" for anchor in anchors)]
        mixed = [name for name in STANDARD if name in values]
        if mixed:
            raise InputError(f"{where}: 'policy' and '{mixed[0]}' together; give unpaired or paired names, not both")
        _required(values, "desirable", where)
        _same_count(values, names[:3] + list(anchors), where)
        leaves = {"policy": values["policy"].clone().requires_grad_()}
        columns["policy"] = leaves["policy"]
    else:
        made = _pairs(values, anchors, where)
        leaves = dict(made.leaves)
        pairs = made.batch
        assert isinstance(pairs, PairBatch)
        columns["policy"] = torch.cat(list(leaves.values()))
        columns["length"] = torch.cat([pairs.len_chosen, pairs.len_rejected])
        columns["desirable"] = torch.cat([torch.ones_like(pairs.len_chosen), torch.zeros_like(pairs.len_rejected)])
        columns |= {name: torch.cat([anchor.chosen, anchor.rejected]) for name, anchor in pairs.anchors.items()}
    count = columns["policy"].shape[0]
    batch = ExampleBatch(
        policy=columns["policy"],
        length=columns.get("length", torch.full((count,), math.nan, dtype=torch.float64)),
        desirable=columns["desirable"].bool(),
        anchors={anchor: columns[anchor] for anchor in anchors if anchor in columns},
        policy_mismatched=columns.get("policy_mismatched"),
        anchors_mismatched={a: columns[f"{a}_mismatched"] for a in anchors if f"{a}_mismatched" in columns},
    )
    return VectorBatch(batch, leaves, frozenset())


def _read_logits(values: dict[str, Any], kl: KLController | None, where: str) -> None:
    """Replace logits by what an engine makes of them: log-probs, lengths and the controller's statistics."""
    assert kl is not None, "logits are known inputs only where a controller has statistics"
    for side in ("chosen", "rejected"):
        names = (f"policy_logits_{side}", f"ref_logits_{side}", f"{side}_tokens")
        policy, ref, tokens = (_required(values, name, where) for name in names)
        parts = (policy, ref, tokens)
        if not all(isinstance(part, list) for part in parts) or len({len(part) for part in parts}) != 1:
            raise InputError(f"{where}: {', '.join(names)} must be lists with one entry per pair")
        rows: dict[str, list[Tensor]] = {}
        for i in range(len(policy)):
            sequence = _one_sequence(policy[i], ref[i], tokens[i], kl, f"{where}, {side} of pair {i + 1}")
            for name, value in sequence.items():
                rows.setdefault(name, []).append(value)
        columns = {name: torch.stack(column) for name, column in rows.items()}
        for name in (f"policy_{side}", f"ref_{side}", f"len_{side}"):
            derived = columns.pop(name.removesuffix(f"_{side}"))
            if name in values and not torch.allclose(values[name], derived, rtol=0, atol=1e-6):
                raise InputError(f"{where}.{name}: {values[name].tolist()}, but the logits give {derived.tolist()}")
            values.setdefault(name, derived)
        values[f"statistics_{side}"] = columns


def _one_sequence(policy: Any, ref: Any, tokens: Any, kl: KLController, where: str) -> dict[str, Tensor]:
    try:
        policy_TV, ref_TV = (torch.tensor(part, dtype=torch.float64) for part in (policy, ref))
        targets_T = torch.tensor(tokens, dtype=torch.long)
    except (TypeError, ValueError) as error:
        raise InputError(f"{where}: logits are [token][vocabulary] numbers and tokens integers ({error})") from error
    if policy_TV.ndim != 2 or policy_TV.shape != ref_TV.shape or targets_T.shape != policy_TV.shape[:1]:
        shapes = f"{tuple(policy_TV.shape)}, {tuple(ref_TV.shape)} and {tuple(targets_T.shape)}"
        raise InputError(
            f"{where}: policy logits, reference logits and tokens have shapes {shapes}; expected (T, V), (T, V), (T,)"
        )
    if not bool(((targets_T >= 0) & (targets_T < policy_TV.shape[1])).all()):
        raise InputError(f"{where}: tokens {tokens} are not all in 0..{policy_TV.shape[1] - 1}")
    found = {name: value.sum() for name, value in kl.token_statistics(policy_TV, ref_TV, targets_T).items()}
    for name, logits_TV in (("policy", policy_TV), ("ref", ref_TV)):
        found[name] = logits_TV.log_softmax(-1).gather(-1, targets_T.unsqueeze(-1)).sum()
    return {**found, "len": torch.tensor(float(len(targets_T)), dtype=torch.float64)}
