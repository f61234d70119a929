"""The sign of a loss at the start, where policy and references agree.

A descent step must make the better completion no less likely and the worse one no likelier: the commonest error of all
is to have it the other way round, and training then runs without a message.
"""

from __future__ import annotations

import torch
from torch import Tensor

from nashtune.testing.bench import Bench
from nashtune.testing.contract import require

SLACK = 1e-9
RULE = "loss-sign"


def check_sign(bench: Bench) -> None:
    """Check the gradient where nothing has moved yet and labels are certain.

    Raises:
        ContractError: a step would go the wrong way, or nowhere.
    """
    columns = bench.ready("start")
    if "p_chosen" in columns:
        columns = columns.without("p_chosen")
    _, gradients = bench.graded(columns)
    match bench.kind:
        case "pairs":
            better, worse = gradients["policy_chosen"], gradients["policy_rejected"]
            names = "log-prob of the chosen completion", "log-prob of the rejected completion"
        case "examples":
            good = columns["desirable"]
            better, worse = gradients["policy"][good], gradients["policy"][~good]
            names = "log-prob of a desirable completion", "log-prob of an undesirable completion"
        case "scores":
            assert columns.sizes is not None
            ends = columns.sizes.cumsum(0)
            summed = gradients["scores"].sum(-1)
            better, worse = summed[ends - columns.sizes], summed[ends - 1]
            names = "score of the best completion", "score of the worst completion"
        case _:
            _rollouts(bench, gradients["token_logp"])
            return
    up, down = float(better.max()), float(worse.min())
    require(up <= SLACK, bench.who, RULE, f"the gradient for the {names[0]} is {up:.6g}, above 0")
    require(down >= -SLACK, bench.who, RULE, f"the gradient for the {names[1]} is {down:.6g}, below 0")
    moves = float(better.abs().max()) > 0.0 or float(worse.abs().max()) > 0.0
    require(moves, bench.who, RULE, "nothing has a gradient, so that training would not begin")


def _rollouts(bench: Bench, gradient_M: Tensor) -> None:
    """Of two completions of a prompt the one with the higher score gains more; a baseline may move both alike."""
    columns = bench.columns("start")
    assert columns.sizes is not None
    sequence = torch.repeat_interleave(columns.sizes)
    gradient_S = gradient_M.new_zeros(len(columns)).index_add(0, sequence, gradient_M)
    better = columns["score"] > 0.5
    gap = float(gradient_S[better].max() - gradient_S[~better].min())
    found = (
        "the log-prob of a completion with the lower score gains as much as, or more than, one with the higher score"
    )
    require(gap < 0.0, bench.who, RULE, f"{found} (difference of the gradients {gap:.6g})")
