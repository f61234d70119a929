"""A batch that watches its readers: which inputs of a conformance vector a method reads, and which it lacks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

from nashtune.errors import InputError
from nashtune.interfaces import ExampleBatch, LossBatch, PairBatch, RolloutBatch, ScoreBatch


class _Watched:
    """Mixin: a batch that notes which of its fields are read, and refuses those that were not given."""

    _read: set[str]
    _absent: Mapping[str, str]
    _names: frozenset[str]

    def __getattribute__(self, name: str) -> Any:
        if name in object.__getattribute__(self, "_names"):
            self._read.add(name)
            if name in self._absent:
                raise InputError(self._absent[name])
        return super().__getattribute__(name)


class _WatchedPairs(_Watched, PairBatch):
    _names = frozenset(one.name for one in fields(PairBatch))


class _WatchedExamples(_Watched, ExampleBatch):
    _names = frozenset(one.name for one in fields(ExampleBatch))


class _WatchedRollouts(_Watched, RolloutBatch):
    _names = frozenset(one.name for one in fields(RolloutBatch))


_WATCHED: dict[type, type] = {
    PairBatch: _WatchedPairs,
    ExampleBatch: _WatchedExamples,
    RolloutBatch: _WatchedRollouts,
}


class _Anchors(dict[str, Any]):
    """Anchors that note which are read and say which inputs are missing."""

    def __init__(self, given: Mapping[str, Any], read: set[str], missing: str) -> None:
        super().__init__(given)
        self._read, self._missing = read, missing

    def __getitem__(self, name: str) -> Any:
        self._read.add(name)
        return super().__getitem__(name)

    def __missing__(self, name: str) -> Any:
        raise InputError(self._missing.format(name=name))


def watch(batch: LossBatch, read: set[str], who: str, extra: Sequence[str]) -> LossBatch:
    """A copy of the batch that adds to `read` what is read, and raises InputError for what was not given."""
    assert not isinstance(batch, ScoreBatch), "what a loss reads of scores is known from its attributes"
    parts = dict(vars(batch))
    absent: dict[str, str] = {}
    needs = f"{who} needs {{name}}_chosen and {{name}}_rejected"
    for name in ("len_chosen", "len_rejected", "length"):
        if name in parts and bool(parts[name].isnan().any()):
            absent[name] = f"{who} needs {'len_chosen and len_rejected' if name != 'length' else 'length'}"
    for name in ("win_rate_chosen", "win_rate_rejected"):
        if name in parts and parts[name] is None:
            absent[name] = f"{who} needs win_rate_chosen and win_rate_rejected"
    if isinstance(batch, RolloutBatch):
        needs = f"{who} needs {{name}}, one list of per-token log-probs for each completion"
    if isinstance(batch, ExampleBatch):
        needs = f"{who} needs {{name}} (or {{name}}_chosen and {{name}}_rejected)"
        if batch.policy_mismatched is None:
            ways = " or ".join(["policy_mismatched and ref_mismatched", *extra])
            absent["policy_mismatched"] = f"{who} needs {ways}"
        mismatched = f"{who} needs {{name}}_mismatched"
        parts["anchors_mismatched"] = _Anchors(batch.anchors_mismatched, read, mismatched)
    parts["anchors"] = _Anchors(batch.anchors, read, needs)
    watched: LossBatch = _WATCHED[type(batch)](**parts)
    object.__setattr__(watched, "_read", read)
    object.__setattr__(watched, "_absent", absent)
    return watched


def was_read(name: str, read: set[str]) -> bool:
    """Whether a standard input reached the loss or the controller."""
    if name.startswith("policy"):
        return True
    side = name.rsplit("_", 1)[0]
    return name in read or side in read or (side == "len" and "length" in read)
