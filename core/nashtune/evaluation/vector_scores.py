"""Conformance vectors of reward losses: scores in, loss and gradients with respect to them out, in float64.

Over pairs, one number per pair and, of an ensemble, a list of one number per member:

    {"score_chosen": [1.2, 0.3], "score_rejected": [0.7, 0.9], "margin": [0, 0.5]}

Over ranked lists, one list per prompt, best first:

    {"scores": [[1.0, 0.2, -0.3], [0.5, 0.9]]}

and, where some have the same rank, the ranks: "levels": [[0, 1, 1], [0, 1]].

Legend: L = lists (a pair is one of two), N = completions of all of them, K = members.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import chain, pairwise
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from nashtune.apply_loss import apply_loss
from nashtune.errors import InputError, nearest
from nashtune.evaluation.vector_results import CaseResult, Output
from nashtune.interfaces import Loss, ScoreBatch, Step

if TYPE_CHECKING:
    from nashtune.evaluation.vector_inputs import VectorBatch

SIDES = ("score_chosen", "score_rejected")
LISTS = ("scores",)
COLUMNS = {"margin": "uses_margin", "p_chosen": "uses_p_chosen"}
"""Input over pairs -> what a loss says where it reads it."""


def score_inputs(loss: Loss) -> list[str]:
    """Every input name that a vector of this loss may use."""
    return [*((*LISTS, "levels") if loss.rows == "ranked" else (*SIDES, *COLUMNS)), "share"]


def read_scores(inputs: Mapping[str, Any], loss: Loss, where: str) -> tuple[ScoreBatch, dict[str, Tensor]]:
    """The batch in float64, and its leaves by input name: scores (L,), (L, K), (N,) or (N, K).

    Args:
        inputs: Names as in `score_inputs`.
        loss: The method's loss.
        where: The place of `inputs`, for messages.

    Raises:
        InputError: a missing name, a wrong type, shape or range.
    """
    names = LISTS if loss.rows == "ranked" else SIDES
    for name in names:
        if name not in inputs:
            raise InputError(f"{where}: '{name}' is missing{nearest(name, inputs)}")
    if loss.rows == "ranked":
        lists = inputs["scores"]
        if not isinstance(lists, list) or not all(isinstance(one, list) and len(one) > 1 for one in lists) or not lists:
            raise InputError(f"{where}.scores: expected lists of two scores or more, best first, such as [[1.5, -0.2]]")
        sizes = torch.tensor([len(one) for one in lists])
        leaves = {"scores": _numbers(list(chain.from_iterable(lists)), f"{where}.scores")}
        scores = leaves["scores"]
    else:
        leaves = {name: _numbers(inputs[name], f"{where}.{name}") for name in SIDES}
        chosen, rejected = leaves.values()
        if chosen.shape != rejected.shape:
            shapes = f"shape {tuple(rejected.shape)}, but score_chosen has {tuple(chosen.shape)}"
            raise InputError(f"{where}.score_rejected: {shapes}; give one score per pair, or one per pair and member")
        sizes = torch.full((len(chosen),), 2)
        scores = torch.stack((chosen, rejected), dim=1).flatten(0, 1)
    columns: dict[str, Any] = {
        name: _column(inputs[name], (len(sizes),), f"{where}.{name}") for name in COLUMNS if name in inputs
    }
    scores_NK = scores if scores.ndim == 2 else scores.unsqueeze(-1)
    if "levels" in inputs:
        columns["levels"] = _levels(inputs["levels"], sizes.tolist(), f"{where}.levels")
    if "share" in inputs:
        columns["share"] = _column(inputs["share"], (len(sizes), scores_NK.shape[1]), f"{where}.share")
    if "p_chosen" in columns and bool((columns["p_chosen"] > 1).any()):
        raise InputError(f"{where}.p_chosen: {inputs['p_chosen']}; a probability is in [0, 1]")
    return ScoreBatch(scores=scores_NK, sizes=sizes, **columns), leaves


def evaluate_scores(made: VectorBatch, batch: ScoreBatch, loss: Loss, step: Step, who: str) -> CaseResult:
    """Run a case.

    Args:
        made: What `read_inputs` made.
        batch: Its batch.
        loss: The method's loss.
        step: Without beta.
        who: The loss's name, for messages.

    Raises:
        InputError: values of another shape than one per list.
    """
    output = apply_loss(loss, batch, step)
    if output.values.shape != batch.sizes.shape:
        shape = tuple(output.values.shape)
        raise InputError(f"{who} gave values of shape {shape}; expected ({len(batch.sizes)},)")
    grads = torch.autograd.grad(output.values.sum(), list(made.leaves.values()))
    outputs: dict[str, Output] = {"loss": output.values.tolist()}
    for name, grad in zip(made.leaves, grads, strict=True):
        parts = torch.split(grad, batch.sizes.tolist()) if name in LISTS else None
        outputs[f"grad_{name}"] = grad.tolist() if parts is None else [part.tolist() for part in parts]
    further: dict[str, Output] = {name: value.tolist() for name, value in output.metrics.items()}
    unread = [name for name, reads in COLUMNS.items() if name in made.given and not getattr(loss, reads)]
    return CaseResult(outputs, further, unread)


def _numbers(value: Any, where: str) -> Tensor:
    """Finite scores (n,) or, of members, (n, K), as a leaf."""
    rows = value if isinstance(value, list) and value else [None]
    members = {len(row) if isinstance(row, list) else 0 for row in rows}
    flat = list(chain.from_iterable(row if isinstance(row, list) else [row] for row in rows))
    if len(members) > 1 or not flat or not all(_is_finite(number) for number in flat):
        raise InputError(
            f"{where}: {value!r}; give one finite score per completion, or for each a list with one per member"
        )
    return torch.tensor(rows, dtype=torch.float64).requires_grad_()


def _levels(value: Any, sizes: Sequence[int], where: str) -> Tensor:
    """Rank of every completion (N,)."""
    fits = isinstance(value, list) and [len(one) if isinstance(one, list) else 0 for one in value] == list(sizes)
    if not fits or not all(map(_are_ranks, value)):
        raise InputError(
            f"{where}: {value!r}; give a list for each list of scores, with ranks from 0 that rise by 0 or 1 and are "
            f"not all equal, such as {list(range(sizes[0]))}"
        )
    return torch.tensor(list(chain.from_iterable(value)))


def _are_ranks(one: Sequence[Any]) -> bool:
    whole = all(isinstance(rank, int) and not isinstance(rank, bool) for rank in one)
    return whole and one[0] == 0 < one[-1] and all(after - before in (0, 1) for before, after in pairwise(one))


def _column(value: Any, shape: Sequence[int], where: str) -> Tensor:
    try:
        found = torch.tensor(value, dtype=torch.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"{where}: {value!r} is not a list of numbers ({error})") from error
    if found.shape != torch.Size(shape) or not bool((found.isfinite() & (found >= 0)).all()):
        raise InputError(f"{where}: {value!r}; give finite numbers >= 0 of shape {tuple(shape)}")
    return found


def _is_finite(number: Any) -> bool:
    return isinstance(number, int | float) and not isinstance(number, bool) and math.isfinite(number)
