"""What the trainings of a comparison have cost, on the terminal. Imports no torch."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from nashtune.comparison.costs import Cost, by_policy

if TYPE_CHECKING:
    from rich.table import Table


def cost_table(costs: Sequence[Cost], order: Sequence[str], parts: Mapping[str, float]) -> Table:
    """For the terminal: means over the seeds of each policy, and the smallest `peak lr`.

    Args:
        costs: Of all trainings.
        order: Policies, as in the table of ratings.
        parts: From `phases`.
    """
    from rich.table import Table

    columns = ["policy", "steps", "peak lr", "tokens", "generations", "judgements", "wall time, s", "training time, s"]
    table = Table(*columns, "tokens/s", "peak GiB", title="cost of a training", caption_justify="left")
    told = ", ".join(
        f"{name.removesuffix('_s')} {seconds:.0f} s" for name, seconds in parts.items() if name != "total_s"
    )
    table.caption = f"all in all: {told}"
    found = by_policy(costs)
    for policy in (name for name in order if name in found):
        own = found[policy]
        shares = [one.lr_share for one in own if one.lr_share is not None]
        seconds = _mean(own, "seconds")
        table.add_row(
            with_untrained(policy, own),
            f"{_mean(own, 'steps'):.0f}",
            f"{100 * min(shares):.0f} %" if shares else "not known",
            *(f"{_mean(own, name):.0f}" for name in ("tokens", "generations", "judgements")),
            *(_seconds(one) for one in (_mean(own, "wall_seconds"), seconds)),
            f"{_mean(own, 'tokens') / max(seconds, 1e-9):.0f}",
            f"{_mean(own, 'peak_memory_gib'):.2f}",
        )
    return table


def with_untrained(policy: str, own: Sequence[Cost]) -> str:
    """A policy's name, with the seeds with which nothing was trained."""
    seeds = ", ".join(str(one.seed) for one in own if one.untrained is not None)
    return f"{policy} (nothing was trained with seed {seeds})" if seeds else policy


def _seconds(value: float) -> str:
    return "not known" if math.isnan(value) else f"{value:.0f}" if value >= 10 else f"{value:.2g}"


def _mean(own: Sequence[Cost], name: str) -> float:
    found = [getattr(one, name) for one in own]
    return math.nan if None in found else sum(found) / len(found)
