"""What tensors of a round's rows must be, where the journal holds them; see `nashtune.rounds.shares`."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import torch
from torch import Tensor

ROWS = "rows"
END = "old_value_end"  # one number for each rollout, not for each token


def wrong_rows(tensors: Mapping[str, Tensor], count: int) -> str | None:
    """What keeps `rows` from being numbers of `count` rows, each once; None where nothing does."""
    rows = tensors.get(ROWS)
    if rows is None:
        return f"it has no tensor '{ROWS}'"
    if rows.dtype != torch.int32 or rows.dim() != 1:
        return f"'{ROWS}' is {_shown(rows)}, and it must be a list of int32"
    outside = rows[(rows < 0) | (rows >= count)]
    if len(outside):
        return f"'{ROWS}' names row {int(outside[0])}, and there are {count}"
    return f"'{ROWS}' names a row twice" if len(set(rows.tolist())) < len(rows) else None


def wrong_sums(tensors: Mapping[str, Tensor]) -> str | None:
    """What keeps tensors from being log-prob sums of sequences, as `references.anchored.to_tensors` gives them."""
    wanted = {"digests": (torch.uint8, 2), "sums": (torch.float64, 1), "lengths": (torch.int32, 1)}
    if missing := sorted(wanted.keys() - tensors.keys()):
        return f"it has no tensor '{missing[0]}'"
    count = len(tensors["sums"]) if tensors["sums"].dim() else -1
    for name, (dtype, dims) in wanted.items():
        found = tensors[name]
        if found.dtype != dtype or found.shape != (count, 16)[:dims]:
            return f"'{name}' is {_shown(found)}, and its neighbours are of {count} sequences"
    return _not_finite("sums", tensors["sums"])


def wrong_measured(tensors: Mapping[str, Tensor], names: Collection[str], lengths: Sequence[int]) -> str | None:
    """What keeps tensors from being numbers of each token of some rollouts.

    Args:
        tensors: What a file holds; its `rows` are looked at already.
        names: What must be among them.
        lengths: Completion tokens of all rollouts.
    """
    if missing := sorted(set(names) - tensors.keys()):
        return f"it has no tensor '{missing[0]}'"
    rows = tensors[ROWS].tolist()
    tokens = sum(lengths[row] for row in rows)
    for name, values in tensors.items():
        count = len(rows) if name == END else tokens
        if name != ROWS and (not values.is_floating_point() or values.shape != (count,)):
            return f"'{name}' is {_shown(values)}, and {count} numbers belong there"
        if name != ROWS and (why := _not_finite(name, values)):
            return why
    return None


def _not_finite(name: str, values: Tensor) -> str | None:
    bad = values[~torch.isfinite(values)]
    return f"'{name}' has {float(bad[0])}" if len(bad) else None


def _shown(values: Tensor) -> str:
    return f"{str(values.dtype).removeprefix('torch.')} of shape {tuple(values.shape)}"
