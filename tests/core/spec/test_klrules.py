"""A KL controller that moves is refused where nobody would tell it anything."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from nashtune.errors import InputError
from nashtune.spec.resolve import resolve


def spec(kl: object, **sections: object) -> dict[str, Any]:
    """A policy gradient whose rollouts are judged against an opponent's."""
    return {
        "loss": "rloo",
        "kl": kl,
        "references": {"ref": "base"},
        "oracle": "preference",
        "sampler": {"name": "mixture", "completions": 2},
        "schedule": "nash_pg",
        **sections,
    }


def test_a_controller_that_follows_updates_is_not_told_of_games_against_an_opponent(parts: str) -> None:
    for kl in (
        {"name": "adaptive", "beta": 0.1},
        f"{parts}.Moving",
        f"{parts}.MovingToo",
        f"{parts}.MovingByAssignment",
    ):
        with pytest.raises(InputError) as caught:
            resolve(spec(kl))
        (line,) = str(caught.value).splitlines()
        name = kl if isinstance(kl, str) else kl["name"]
        assert f"kl '{name}' moves with what each update's rollouts show, and the schedule 'nash_pg'" in line
        assert "a controller that does not move (fixed)" in line and "trains on rewards (on_policy" in line
    assert parts not in sys.modules  # their functions were read


def test_one_that_stays_is_taken(parts: str) -> None:
    for kl in ({"name": "fixed", "beta": 0.1}, f"{parts}.Still"):
        assert resolve(spec(kl)).kl is not None


def test_where_rollouts_have_rewards_and_where_rows_are_pairs_it_is_told(parts: str) -> None:
    assert (
        resolve(
            spec(
                f"{parts}.MovingToo",
                oracle="reward",
                sampler={"name": "policy", "completions": 2},
                schedule="on_policy",
            )
        ).kl
        is not None
    )
    assert resolve({"loss": "dpo", "kl": f"{parts}.MovingToo", "references": {"ref": "base"}}).kl is not None
