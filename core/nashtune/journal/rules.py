"""What values the columns of a journal's tables can have.

A file whose sha256 is that of its manifest may still have been altered, and wrong numbers train in silence. What is
merely unusual is let through: a recorded file or a plugin may have written it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from nashtune.interfaces.schedule import Role

SLACK = 1e-3  # by which log-probs and masses that were summed in float32 or less may pass 0 and 1
ROLES: tuple[Role, ...] = ("policy", "opponent")


def _whole(value: Any) -> bool:
    return value is not None and value >= 0


def _text(value: Any) -> bool:
    return value is not None


def _probability(value: Any) -> bool:
    return value is not None and -SLACK <= value <= 1 + SLACK


def _score(value: Any) -> bool:
    return value is not None and not math.isnan(value)


def _or_none(rule: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: value is None or rule(value)


def _each(rule: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda values: values is not None and all(map(rule, values))


def _within(low: float, high: float) -> Callable[[Any], bool]:
    """Whether all numbers of a list lie in [low, high]; by `min`, `max` and `sum`, for there are millions of tokens."""

    def rule(values: Any) -> bool:
        if values is None or None in values:
            return False
        return not values or (low <= min(values) and max(values) <= high and not math.isnan(sum(values)))

    return rule


INDEX = (_whole, "a whole number from 0")
SHARE = (_or_none(_probability), "a number in [0, 1]")
TEXT = (_text, "a text")
RULES: dict[str, tuple[Callable[[Any], bool], str]] = {
    **dict.fromkeys(("prompt", "k", "first", "second", "chosen", "rejected", "count"), INDEX),
    **dict.fromkeys(("version", "text", "reason"), TEXT),
    **dict.fromkeys(("win_rate_chosen", "win_rate_rejected"), SHARE),
    "token_ids": (_within(0, math.inf), "a list of whole numbers from 0"),
    "token_logp": (_within(-math.inf, SLACK), "a list of log-probs, none above 0"),
    "kept_mass": (_within(-SLACK, 1 + SLACK), "a list of numbers in [0, 1]"),
    "finish": (lambda value: value in ("stop", "length"), "'stop' or 'length'"),
    "p": (lambda value: value is not None and (math.isnan(value) or _probability(value)), "a number in [0, 1], or NaN"),
    "p_chosen": (_probability, "a number in [0, 1]"),
    "role": (lambda value: value in ROLES, "'policy' or 'opponent'"),
    "mean": (_score, "a number"),
    "variance": (_or_none(lambda value: value >= 0), "a number from 0"),
    "members": (_each(_score), "a list of numbers"),
}
"""By column: what a value must satisfy, and how that is said."""


def broken(columns: Mapping[str, Sequence[Any]], once: Sequence[str] = ()) -> str | None:
    """What is wrong with the rows of a table; None where nothing is.

    Args:
        columns: Of one length, each of its own type.
        once: Columns whose values together name a row, so that no two rows have the same.
    """
    for name, values in columns.items():
        rule, wanted = RULES[name]
        for row, value in enumerate(values):
            if not rule(value):
                return f"row {row} has {name} {str(value)[:60]}, and it must be {wanted}"
    for name in ("token_logp", "kept_mass"):
        for row, (ids, values) in enumerate(zip(columns.get("token_ids", ()), columns.get(name, ()), strict=False)):
            if len(values) not in (0, len(ids)):
                return f"row {row} has {len(values)} numbers in {name} for {len(ids)} token_ids"
    seen = set()
    for key in zip(*(columns[name] for name in once), strict=True):
        if key in seen:
            return f"{', '.join(f'{name} {value}' for name, value in zip(once, key, strict=True))} is there twice"
        seen.add(key)
    return None
