"""A round that draws far more than its steps can use is told of before it is drawn, with the number that fits."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from nashtune.spec.overdrawn import Rounds, overdrawn

# Three rounds of 560 prompts with a pair each, two updates a round, two pairs a step: 280 steps an update.
ROUNDS = Rounds(prompts=(560,) * 3, updates=(2,) * 3, completions=4, rows=1, kind="pairs", step_rows=2)


def test_the_line_says_what_is_drawn_and_what_fits() -> None:
    assert overdrawn(ROUNDS, 12) == (
        "round 1 of 3 draws 560 prompts x 4 completions, and trainer.max_steps 12 ends the run after 12 of that "
        "round's 560 steps, with 24 of its 560 pairs at most; with --data.prompts_per_round 4 all 3 rounds are played "
        "in these steps"
    )
    assert overdrawn(replace(ROUNDS, prompts=(4,) * 3), 12) is None


@pytest.mark.parametrize(
    ("max_steps", "said"),
    [
        (-1, None),
        (139, "round 1 of 3 .* 139 of that round's 560 steps, with 278 of its 560"),
        (140, None),  # half of its pairs
        (280, None),  # the first update has seen all of them
        (560, None),  # the second round does not begin
        (561, "round 2 of 3 .* 1 of that round's 560 steps, with 2 of its 560"),
        (1680, None),
    ],
)
def test_the_round_that_max_steps_ends_is_looked_at(max_steps, said) -> None:
    found = overdrawn(ROUNDS, max_steps)
    assert found is None if said is None else re.search(said, str(found))


def test_passes_and_rows_of_a_prompt_count() -> None:
    """8 rollouts a prompt, 2 passes, 16 rows a step: 4 steps a round are 2 windows twice, so 4 prompts."""
    one = Rounds(prompts=(100, 100), updates=(1, 1), completions=8, rows=8, kind="rollouts", step_rows=16, epochs=2)
    assert "with 128 of its 800 rollouts at most; with --data.prompts_per_round 4 all 2" in str(overdrawn(one, 8))
    assert overdrawn(one, 25) is None  # 400 of 800


def test_fewer_steps_than_updates_cannot_play_every_round() -> None:
    assert str(overdrawn(ROUNDS, 5)).endswith("give fewer prompts a round (--data.prompts_per_round), or more steps")
