"""The inputs of a conformance vector over log-probs: one number for each pair, or for each example.

    {"policy_chosen": [-20, -13], "policy_rejected": [-25, -14], "ref_chosen": [-22, -14], "ref_rejected": [-24, -13]}

Legend: B = pairs, E = examples.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from nashtune.errors import InputError, nearest
from nashtune.interfaces import Anchor, ExampleBatch, PairBatch

SHARES = ("p_chosen", "win_rate_chosen", "win_rate_rejected")
STANDARD = (
    *("policy_chosen", "policy_rejected", "len_chosen", "len_rejected"),
    *SHARES,
    *("ref_chosen", "ref_rejected"),
)
"""Inputs that every method over pairs accepts, whether it reads them or not."""
UNPAIRED = ("policy", "length", "desirable", "policy_mismatched")


def read_pairs(values: Mapping[str, Any], anchors: Sequence[str], where: str) -> tuple[PairBatch, dict[str, Tensor]]:
    """The batch, and its leaves by input name: the policy's log-probs (B,).

    Args:
        values: Columns by the names of `STANDARD` and of the anchors' sides, and statistics.
        anchors: Names of the method's references.
        where: The place of `inputs`, for messages.

    Raises:
        InputError: a missing name, a wrong shape or range.
    """
    leaves = {n: required(values, n, where).clone().requires_grad_() for n in ("policy_chosen", "policy_rejected")}
    sides = [f"{anchor}_{side}" for anchor in anchors for side in ("chosen", "rejected")]
    count = _same_count(values, [*STANDARD, *sides], where)
    unknown = torch.full((count,), math.nan, dtype=torch.float64)
    batch = PairBatch(
        policy_chosen=leaves["policy_chosen"],
        policy_rejected=leaves["policy_rejected"],
        len_chosen=values.get("len_chosen", unknown),
        len_rejected=values.get("len_rejected", unknown),
        anchors={
            anchor: Anchor(chosen=values[f"{anchor}_chosen"], rejected=required(values, f"{anchor}_rejected", where))
            for anchor in anchors
            if f"{anchor}_chosen" in values
        },
        **{name: values.get(name) for name in SHARES},
        statistics_chosen=values.get("statistics_chosen", {}),
        statistics_rejected=values.get("statistics_rejected", {}),
    )
    return batch, leaves


def read_examples(
    values: Mapping[str, Any], anchors: Sequence[str], where: str
) -> tuple[ExampleBatch, dict[str, Tensor]]:
    """As `read_pairs`, of unpaired inputs; or of pairs, read as B desirable (chosen), then B undesirable examples."""
    columns = dict(values)
    if "policy" in values:
        mixed = [name for name in STANDARD if name in values]
        if mixed:
            raise InputError(f"{where}: 'policy' and '{mixed[0]}' together; give unpaired or paired names, not both")
        required(values, "desirable", where)
        _same_count(values, ["policy", "length", "desirable", *anchors], where)
        leaves = {"policy": values["policy"].clone().requires_grad_()}
        columns["policy"] = leaves["policy"]
    else:
        pairs, leaves = read_pairs(values, anchors, where)
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
    return batch, leaves


def column(value: Any, where: str) -> Tensor:
    """A list of finite numbers (or booleans) as float64 (B,); a number alone as a scalar.

    Raises:
        InputError: something else; says which.
    """
    numbers = value if isinstance(value, list) else [value]
    for number in numbers:
        if not isinstance(number, int | float) or not math.isfinite(number):
            raise InputError(f"{where}: {number!r} is not a finite number; give a list with one number per pair")
    return torch.tensor(value, dtype=torch.float64)


def required(values: Mapping[str, Any], name: str, where: str) -> Tensor:
    """The input of a name.

    Raises:
        InputError: it was not given.
    """
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
