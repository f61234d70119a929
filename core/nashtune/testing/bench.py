"""Runs a loss on columns: gives it what its class attributes declare and nothing else, as training does."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from nashtune.interfaces import Loss, LossBatch, LossOutput, RolloutBatch, Step
from nashtune.testing import batches
from nashtune.testing.batches import ANCHORS, At
from nashtune.testing.columns import Columns
from nashtune.testing.contract import ContractError, require, running

BETA = 0.1
OPTIONAL: dict[str, dict[str, tuple[str, ...]]] = {
    "pairs": {
        "uses_p_chosen": ("p_chosen",),
        "uses_win_rates": ("win_rate_chosen", "win_rate_rejected"),
        "uses_variance": ("variance_chosen", "variance_rejected"),
    },
    "examples": {},
    "scores": {"uses_margin": ("margin",), "uses_p_chosen": ("p_chosen",)},
    "rollouts": {
        "uses_variance": ("variance",),
        "uses_values": ("old_value", "value", "old_value_end", "value_end"),
    },
}
"""Kind of a batch -> class attribute -> columns that are there only where it is true."""
LEAVES = {
    "pairs": ("policy_chosen", "policy_rejected"),
    "examples": ("policy",),
    "scores": ("scores",),
    "rollouts": ("token_logp", "value", "value_end"),
}
"""Kind of a batch -> columns with a gradient."""


class _Declared(dict[str, Any]):
    """Anchors or statistics of a batch: those that the loss may read."""

    def __init__(self, given: Mapping[str, Any], who: str, said: str) -> None:
        super().__init__(given)
        self._who, self._said = who, said

    def __missing__(self, name: str) -> Any:
        known = ", ".join(self) or "none"
        raise ContractError(self._who, "loss-declares", self._said.format(name=name, known=known))


READS_ANCHOR = "it reads the anchor '{name}', and `anchors` declares {known}"
READS_STATISTIC = (
    "it reads the statistic '{name}', and the KL controllers of the specs that use it give {known}; "
    "without such a spec: check_component(..., statistics=['{name}'])"
)


@dataclass(frozen=True)
class Bench:
    """A loss under test.

    Args:
        loss: The object.
        who: How messages name it, with its options.
        make: A new one with the same options.
        statistics: Names of the per-token statistics that its KL controller gives; of pairs.
    """

    loss: Loss
    who: str
    make: Callable[[], Loss]
    statistics: tuple[str, ...] = ()

    @property
    def kind(self) -> str:
        """Kind of its batches."""
        if self.loss.reads == "scores":
            return "scores"
        return "pairs" if self.loss.rows == "comparisons" else self.loss.rows

    @property
    def optional(self) -> dict[str, tuple[str, ...]]:
        """Class attributes that say whether columns are there, with these; of ranked lists there are none."""
        return {} if self.loss.rows == "ranked" else OPTIONAL[self.kind]

    def everything(self, at: At = "usual", seed: int = 0, group: int | None = None) -> Columns:
        """A batch in float64 with what any loss of its kind may declare."""
        names = tuple(dict.fromkeys((*self.loss.anchors, *ANCHORS)))
        made: Columns
        match self.kind:
            case "pairs":
                made = batches.pairs(names, at, seed, self.statistics)
            case "examples":
                made = batches.examples(names, at, seed)
            case "scores":
                made = batches.lists(self.loss.rows == "ranked", at, seed)
            case "rollouts":
                made = batches.rollouts(names, at, seed, group or max(2, self.loss.min_completions))
            case kind:
                raise ContractError(self.who, "attributes", f"rows is {kind!r}, which only a loss with scores reads")
        return replace(made, beta=torch.tensor(BETA, dtype=torch.float64) if self.loss.uses_beta else None)

    def columns(self, at: At = "usual", seed: int = 0, group: int | None = None) -> Columns:
        """A batch in float64 with what the loss declares; of rollouts not yet prepared."""
        found = self.everything(at, seed, group)
        absent = [name for says, names in self.optional.items() if not getattr(self.loss, says) for name in names]
        if self.loss.rows == "ranked":
            absent = ["margin", "p_chosen"]
        return found.without(*absent)

    def ready(self, at: At = "usual", seed: int = 0, group: int | None = None) -> Columns:
        """As `columns`, prepared."""
        return self.prepare(self.columns(at, seed, group))

    def prepare(self, columns: Columns, anchors: Sequence[str] | None = None) -> Columns:
        """Rollouts as they are before an update: scores, then advantages, of all completions at once."""
        if self.kind != "rollouts":
            return columns
        before = columns.put(token_logp=columns["old"]).without("value", "value_end")
        batch = self._batch(before, anchors)
        assert isinstance(batch, RolloutBatch)
        with torch.no_grad(), running(self.who, "judged or advantages"):
            judged = self.loss.judged(batch)
            fits = isinstance(judged, Tensor) and judged.shape == batch.score.shape
            require(fits, self.who, "loss-advantages", f"judged gave {shown(judged)} for {len(columns)} completions")
            made = self.loss.advantages(replace(batch, score=judged), Step(beta=columns.beta))
        columns = columns.put(score=judged)
        if made is None:
            return columns
        parts = {"advantage": made.advantage, "target": made.target}
        items = {name: value for name, value in parts.items() if value is not None}
        tokens, rows = batch.token_logp.shape, batch.score.shape
        for name, value in items.items():
            fits = isinstance(value, Tensor) and value.shape == tokens
            require(fits, self.who, "loss-advantages", f"{name} is {shown(value)} for {tokens[0]} tokens")
        for name, value in made.metrics.items():
            fits = value.ndim == 0 or value.shape == rows
            require(fits, self.who, "loss-advantages", f"the metric {name} is {shown(value)}")
        return columns.add(items=items, rows={} if made.target_end is None else {"target_end": made.target_end})

    def call(self, columns: Columns, anchors: Sequence[str] | None = None) -> LossOutput:
        """The loss of a batch that is ready."""
        with running(self.who, f"a call on {len(columns)} rows"):
            return self.loss(self._batch(columns, anchors), Step(beta=columns.beta))

    def values(self, columns: Columns) -> Tensor:
        """Its values alone, without gradient."""
        return self.call(columns).values.detach()

    def graded(self, columns: Columns) -> tuple[LossOutput, dict[str, Tensor]]:
        """The loss, and the gradient of the sum of its values for each leaf."""
        names = [name for name in LEAVES[self.kind] if name in columns]
        leaves = {name: columns[name].detach().clone().requires_grad_() for name in names}
        output = self.call(columns.put(**leaves))
        if not output.values.requires_grad:
            raise ContractError(self.who, "loss-values", "its values carry no gradient")
        found = torch.autograd.grad(
            output.values.sum(), list(leaves.values()), allow_unused=True, materialize_grads=True
        )
        return output, dict(zip(names, found, strict=True))

    def _batch(self, columns: Columns, anchors: Sequence[str] | None) -> LossBatch:
        names = tuple(self.loss.anchors) if anchors is None else anchors
        made: Any
        match self.kind:
            case "pairs":
                made = batches.pair_batch(columns, names, self.statistics)
                given = {side: getattr(made, f"statistics_{side}") for side in batches.SIDES}
                told = {f"statistics_{s}": _Declared(one, self.who, READS_STATISTIC) for s, one in given.items()}
                made = replace(made, **told)
            case "examples":
                made = batches.example_batch(columns, names)
            case "scores":
                return batches.score_batch(columns)
            case _:
                made = batches.rollout_batch(columns, names)
        found: LossBatch = replace(made, anchors=_Declared(made.anchors, self.who, READS_ANCHOR))
        return found


def shown(value: object) -> str:
    """`Tensor of shape (5,), float32`, for messages."""
    if isinstance(value, Tensor):
        return f"a tensor of shape {tuple(value.shape)}, {str(value.dtype).removeprefix('torch.')}"
    return f"a {type(value).__name__}"


def close(first: Tensor, second: Tensor, size: float = 1e-9) -> bool:
    """Whether two float64 tensors are the same up to rounding."""
    if first.shape != second.shape:
        return False
    return bool(torch.allclose(first.double(), second.double(), rtol=size, atol=size, equal_nan=False))
