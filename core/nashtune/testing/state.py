"""State of a component: plain in a checkpoint, and enough to go on from it as if nothing had happened."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor

from nashtune.testing.contract import require, running

STEPS = 6
STOPS = (1, 3)


class Stateful(Protocol):
    """What goes into a checkpoint."""

    def state_dict(self) -> dict[str, Any]:
        """Numbers."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """The inverse."""


S = TypeVar("S", bound=Stateful)


def plain(component: Stateful, who: str, rule: str) -> dict[str, Any]:
    """What a component saves.

    Raises:
        ContractError: it is not made of numbers.
    """
    with running(who, "state_dict", rule):
        state = dict(component.state_dict())
    for name, value in state.items():
        number = isinstance(value, int | float) or (
            isinstance(value, list) and all(isinstance(one, int | float) for one in value)
        )
        require(number, who, rule, f"state_dict gives {name} as a {type(value).__name__}, no number")
    return state


def check_resume(make: Callable[[], S], step: Callable[[S, int], Tensor], who: str, rule: str, what: str) -> None:
    """Stop after any of a few steps, and go on with a new object.

    Args:
        make: A new one.
        step: Takes a step, by its number, and gives what must be the same.
        who: How messages name it.
        rule: The rule.
        what: How messages name what must be the same.

    Raises:
        ContractError: it is not the same.
    """
    whole = make()
    wanted = [step(whole, number) for number in range(STEPS)]
    for stop in STOPS:
        first = make()
        for number in range(stop):
            step(first, number)
        saved = json.loads(json.dumps(plain(first, who, rule)))
        second = make()
        with running(who, "load_state_dict of what state_dict gave", rule):
            second.load_state_dict(saved)
        for number in range(stop, STEPS):
            found = step(second, number)
            stopped = f"stopped after {stop} steps and resumed, {what} of step {number + 1} is {numbers(found)}"
            said = f"{stopped}, and without a stop {numbers(wanted[number])} (state: {saved})"
            require(torch.equal(found, wanted[number]), who, rule, said)


def numbers(value: Tensor) -> str:
    """The first of them, for messages."""
    return str([round(number, 9) for number in value.double().flatten().tolist()[:4]])
