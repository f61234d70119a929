"""How a round is divided among ranks: every prompt once, evenly, and as it was written down."""

from __future__ import annotations

import pytest

from nashtune.rounds.parts import PART, divide


@pytest.mark.parametrize("prompts", [0, 1, 2, 7, 32, 33, 100, 1000])
@pytest.mark.parametrize("ranks", [1, 2, 3, 8])
def test_every_prompt_is_in_one_part_and_no_rank_has_much_more_than_another(prompts: int, ranks: int) -> None:
    numbers = list(range(100, 100 + prompts))
    parts = divide(numbers, ranks)
    assert [number for part in parts for number in part] == numbers
    assert all(1 <= len(part) <= PART for part in parts)
    load = [sum(len(part) for part in parts[rank::ranks]) for rank in range(ranks)]
    if ranks > 1:  # one rank takes full parts and a rest
        assert len(parts) % ranks == 0 or len(parts) == prompts
        assert max(load) - min(load) <= max(1, len(parts) // ranks)
        assert prompts < ranks or min(load) > 0


def test_one_rank_fills_its_parts() -> None:
    assert [len(part) for part in divide(range(70), 1)] == [32, 32, 6]
