from __future__ import annotations

import pytest

from nashtune.html.browser import Answer, Item, that_fit
from nashtune.html.room import MOST_BYTES, evenly, written


def counts(groups: list[list[str]], **limits: int) -> list[int]:
    return [len(group) for group in evenly(groups, lambda item: [item], **{"most": 10**6, **limits})]


def group(name: str, size: int, letters: int = 1) -> list[str]:
    return [f"{name}{i:05}{'x' * letters}" for i in range(size)]


def test_what_fits_is_all_there():
    groups = [group("a", 5), group("b", 3)]
    assert evenly(groups, lambda item: [item], most=8) == groups
    assert evenly([], lambda item: [item], most=8) == []


def test_room_that_a_round_does_not_need_goes_to_the_others():
    assert counts([group("a", 2), group("b", 50), group("c", 50)], most=32) == [2, 15, 15]


def test_more_rounds_than_items_leave_some_rounds_out_evenly():
    found = counts([group(str(i), 2) for i in range(9)], most=5)
    assert found == [1, 0, 1, 0, 1, 0, 1, 0, 1]


def test_bytes_are_counted_as_they_are_written():
    assert written("ab") == 4 and written("<é") == 2 + 6 + 6
    long = [group("a", 100, letters=1000), group("b", 100, letters=1000)]
    found = evenly(long, lambda item: [item], most=10**6, size=50_000)
    every = [item for part in found for item in part]
    assert 45_000 < sum(written(item) + 60 for item in every) <= 50_000
    assert abs(len(found[0]) - len(found[1])) <= 1 and found[0][0] == long[0][0]


def test_a_text_that_many_items_share_is_counted_once():
    prompt = "p" * 10_000
    items = [(prompt, f"{i}") for i in range(100)]
    assert len(evenly([items], list, most=1000, size=40_000)[0]) == 100


def test_three_thousand_long_pairs_stay_below_the_budget():
    items = [
        Item(1, f"prompt {i}", (Answer("chosen", f"{i} " + "word " * 700), Answer("rejected", f"{i} " + "text " * 700)))
        for i in range(3000)
    ]
    (found,) = that_fit([items])
    assert len(found) * 7000 == pytest.approx(MOST_BYTES, rel=0.05)
