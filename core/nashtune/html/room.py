"""What fits on a page: so many items, and so many bytes, evenly over all groups."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

from nashtune.html.words import thinned

MOST_BYTES = 5_000_000
"""Of texts and verdicts on a page, as they are written there: what a telephone opens without a wait, and a mail
carries."""
BESIDE = 60
"""Bytes beside each text: its label, length and details."""
Item = TypeVar("Item")


def evenly(
    groups: Sequence[Sequence[Item]],
    texts: Callable[[Item], Iterable[str]],
    *,
    most: int,
    size: int | None = None,
    beside: Callable[[Item], int] | None = None,
) -> list[list[Item]]:
    """As many items as fit, of each group the same number; what a small group leaves over goes to the others.

    Args:
        groups: Items, such as those of each round.
        texts: Of an item; a text that several items have is written once.
        most: So many items at most.
        size: So many bytes at most; None for `MOST_BYTES`.
        beside: Bytes of what an item has beside its texts, such as verdicts; None where that is nothing.

    Returns:
        The groups, each with some of its items, evenly over it.
    """
    allowed = MOST_BYTES if size is None else size
    sizes: dict[str, int] = {}
    own: dict[int, list[str]] = {id(item): list(texts(item)) for group in groups for item in group}

    for every in own.values():
        sizes.update((text, written(text)) for text in every if text not in sizes)

    def chosen(units: int) -> list[list[Item]]:
        """Of each group so many items, and of some one more."""
        each, more = divmod(units, len(groups))
        favoured = set(thinned(range(len(groups)), more))
        return [thinned(group, each + (place in favoured)) for place, group in enumerate(groups)]

    def fits(units: int) -> bool:
        items = [item for group in chosen(units) for item in group]
        if len(items) > most:
            return False
        every = [text for item in items for text in own[id(item)]]
        more = sum(map(beside, items)) if beside else 0
        return BESIDE * len(every) + sum(sizes[text] for text in set(every)) + more <= allowed

    low, high = 0, len(groups) * max(map(len, groups), default=0)
    if not groups or fits(high):
        return [list(group) for group in groups]
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return chosen(low)


def written(text: str) -> int:
    """Bytes of a text in a page's JSON, where letters beyond ASCII and `<`, `>`, `&` and `'` stand as six bytes."""
    return len(json.dumps(text)) + 5 * sum(map(text.count, "<>&'"))
