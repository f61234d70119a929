"""What the pairs browser of a page shows, as plain data: one item a pair, a judgement or a group of rollouts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from nashtune.html.prompts import shared_ends
from nashtune.html.room import MOST_BYTES, evenly
from nashtune.html.words import finite

MOST_ITEMS = 3000
LONGER, SHORTER, SAME = "longer answer", "shorter answer", "equal length"


@dataclass(frozen=True)
class Answer:
    """One answer of an item.

    Args:
        label: Above it: "chosen", "policy", a reward.
        text: What was said.
        tokens: Its length; None where nobody counted.
        detail: What else is known of it.
        side: "win", "loss" or "".
    """

    label: str
    text: str
    tokens: int | None = None
    detail: str = ""
    side: str = ""


@dataclass(frozen=True)
class Item:
    """One card of the browser.

    Args:
        round: From 1; 0 where there are none.
        prompt: Its text.
        answers: In the order in which they are shown.
        p: Probability of the winner, or another number to sort by; None where there is none.
        winner: What won, for the filter; "" where nothing did.
    """

    round: int
    prompt: str
    answers: Sequence[Answer]
    p: float | None = None
    winner: str = ""


@dataclass(frozen=True)
class Browser:
    """All items, or as many as a page can hold.

    Args:
        name: Of one item, in the plural: "pairs".
        about: What they are and where they come from.
        items: Shown ones, in order.
        total: How many there are.
        winner_name: Of the filter by winner.
        p_name: Of the number to sort by.
        notes: What a reader must know.
    """

    name: str
    about: str
    items: Sequence[Item]
    total: int
    winner_name: str = "winner"
    p_name: str = ""
    notes: Sequence[str] = field(default=())

    def as_data(self) -> dict[str, Any]:
        """For the page's script; each text once."""
        begin, end = shared_ends(sorted({item.prompt for item in self.items}))
        texts: dict[str, int] = {}

        def place(text: str) -> int:
            return texts.setdefault(text, len(texts))

        items = [
            {
                "r": item.round,
                "q": place(item.prompt[len(begin) : len(item.prompt) - len(end)]),
                "p": finite(item.p),
                "w": item.winner,
                "n": max((one.tokens or 0 for one in item.answers), default=0),
                "a": [
                    {"l": one.label, "t": place(one.text), "n": one.tokens, "d": one.detail, "s": one.side}
                    for one in item.answers
                ],
            }
            for item in self.items
        ]
        return {
            "name": self.name,
            "begin": begin,
            "end": end,
            "texts": list(texts),
            "items": items,
            "rounds": sorted({item.round for item in self.items} - {0}),
            "winners": sorted({item.winner for item in self.items} - {""}),
            "p": self.p_name,
            "counted": any(one.tokens is not None for item in self.items for one in item.answers),
        }


def that_fit(groups: Sequence[Sequence[Item]], *, pages: int = 1) -> list[list[Item]]:
    """Of each round as many items as a page, or so many pages, can hold."""
    return evenly(groups, texts_of, most=pages * MOST_ITEMS, size=pages * MOST_BYTES)


def texts_of(item: Item) -> list[str]:
    """All texts of an item."""
    return [item.prompt, *(one.text for one in item.answers)]


def by_length(winner: float, loser: float) -> str:
    """Whether the longer or the shorter answer won."""
    return SAME if winner == loser else LONGER if winner > loser else SHORTER
