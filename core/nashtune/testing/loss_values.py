"""What a loss gives: shapes, dtypes, detached outputs, and finite numbers at the ends of the range."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from nashtune.errors import InputError
from nashtune.interfaces import LossOutput
from nashtune.testing.bench import Bench, shown
from nashtune.testing.columns import Columns
from nashtune.testing.contract import ContractError, require

DTYPES = (torch.float32, torch.float64)


def check_values(bench: Bench) -> None:
    """Check shape and dtype of the values, and what comes with them.

    Raises:
        ContractError: they are others.
    """
    for dtype in DTYPES:
        columns = bench.ready().to(dtype)
        output, _ = bench.graded(columns)
        values, count = output.values, len(columns)
        require(values.shape == (count,), bench.who, "loss-values", f"it gave {shown(values)} for {count} rows")
        wanted = str(dtype).removeprefix("torch.")
        require(
            values.dtype == dtype, bench.who, "loss-values", f"it gave {shown(values)} where all inputs are {wanted}"
        )
        _output(bench, output, columns)


def _output(bench: Bench, output: LossOutput, columns: Columns) -> None:
    rule, count = "loss-output", len(columns)
    rewards = {"reward_chosen": output.reward_chosen, "reward_rejected": output.reward_rejected}
    given = {name: value for name, value in rewards.items() if value is not None}
    require(len(given) != 1, bench.who, rule, f"it gave {next(iter(given), '')} alone")
    if output.desirable is not None:
        fits = output.desirable.dtype == torch.bool and output.desirable.shape == (count,)
        require(fits, bench.who, rule, f"desirable is {shown(output.desirable)} for {count} rows")
    tokens = int(columns.sizes.sum()) if bench.kind == "rollouts" and columns.sizes is not None else count
    for name, value in {**given, **output.metrics}.items():
        what = f"{'the metric ' if name in output.metrics else ''}{name}"
        require(isinstance(value, Tensor), bench.who, rule, f"{what} is a {type(value).__name__}, no tensor")
        require(not value.requires_grad, bench.who, rule, f"{what} carries a gradient; detach it")
        shapes = [(count,)] if name in given else [(), (count,), (tokens,)]
        require(tuple(value.shape) in shapes, bench.who, rule, f"{what} is {shown(value)} for {count} rows")
        finite = not value.is_floating_point() or bool(value.isfinite().all())
        require(finite, bench.who, rule, f"{what} is not finite: {value.tolist()}")


def check_finite(bench: Bench) -> None:
    """Check that values and gradients are finite where policies are far apart, and where they are equal.

    Raises:
        ContractError: one is not.
    """
    tried: dict[str, Columns] = {
        "log-ratios up to 300 nats": bench.ready("wide"),
        "equal policies": bench.ready("start"),
    }
    if bench.kind == "scores":
        tried = {"scores up to several hundred": bench.ready("wide"), "equal scores": bench.ready("start")}
    if bench.kind == "rollouts":
        del tried["log-ratios up to 300 nats"]  # a ratio of 300 nats is no float; a token moves by a few
        tried["tokens that moved by up to 5 nats"] = bench.ready("wide")
        usual = bench.columns()
        equal = bench.prepare(usual.put(score=torch.full_like(usual["score"], 0.5)))
        tried["equal scores of all completions"] = equal
        if bench.loss.min_completions > 1:
            tried[f"{bench.loss.min_completions} completions a prompt"] = bench.ready(group=bench.loss.min_completions)
    for what, columns in tried.items():
        _finite(bench, what, columns)
    if bench.loss.compares_rows:  # of others a row alone is what it is among many
        for what, columns in _few(bench):
            try:
                _finite(bench, what, columns)
            except ContractError as error:
                if not isinstance(error.__cause__, InputError):  # a refusal with a message is well
                    raise


def _few(bench: Bench) -> Iterator[tuple[str, Columns]]:
    """Micro-batches as they come at the end of an epoch, or where labels are uneven."""
    ready = bench.ready()
    yield from ((f"row {i} alone", ready.pick([i])) for i in range(len(ready)))
    if bench.kind == "examples":
        labels = ready["desirable"].tolist()
        for label, what in ((True, "desirable examples alone"), (False, "undesirable examples alone")):
            yield what, ready.pick([i for i, one in enumerate(labels) if one is label])


def _finite(bench: Bench, what: str, columns: Columns) -> None:
    for dtype in DTYPES:
        output, gradients = bench.graded(columns.to(dtype))
        for name, value in {"loss": output.values, **{f"gradient of {n}": g for n, g in gradients.items()}}.items():
            flat = value.detach().flatten()
            wrong = torch.nonzero(~flat.isfinite()).flatten().tolist()
            for at in wrong[:1]:
                kind = str(dtype).removeprefix("torch.")
                said = f"the {name}[{at}] is {float(flat[at])}, in {kind}, with {what}"
                raise ContractError(bench.who, "loss-finite", said)
