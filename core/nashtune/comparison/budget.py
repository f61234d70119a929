"""What every policy of a comparison may spend: so many optimiser steps, trained tokens or generations, or what runs do.

Imports no torch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from nashtune.errors import InputError

Kind = Literal["steps", "tokens", "generations", "run"]
KINDS: tuple[str, ...] = tuple(kind for kind in get_args(Kind) if kind != "run")
"""What a budget can be counted in."""


@dataclass(frozen=True)
class Budget:
    """The same for every policy.

    Args:
        kind: What is counted: optimiser steps; tokens of the sequences that carry a gradient, without padding, a prompt
            as often as it stands in them; completions that are drawn; or "run": each trains as long as its run says.
        amount: How many; 0 for "run".
    """

    kind: Kind = "run"
    amount: int = 0

    @classmethod
    def asked(cls, values: Mapping[str, Any]) -> Budget:
        """From `--steps`, `--tokens` and `--generations`, of which at most one is not None.

        Raises:
            InputError: two kinds, or no whole number above 0.
        """
        given = {kind: values[kind] for kind in KINDS if values.get(kind) is not None}
        if len(given) > 1:
            options = " and ".join(f"--{kind}" for kind in given)
            raise InputError(f"{options}: a comparison has one budget, counted in one way; give one of them")
        for kind, text in given.items():
            if not str(text).isdecimal() or int(text) < 1:
                raise InputError(f"--{kind}: expected a whole number of 1 or more, found '{text}'")
            return cls(kind, int(text))  # type: ignore[arg-type]  # one of KINDS
        return cls()

    def words(self) -> str:
        """For people: "20 steps", or that there is none."""
        return "as long as the run says" if self.kind == "run" else f"{self.amount} {self.kind}"


def with_length(
    config: Mapping[str, Any], *, steps: int | None, game: bool, limit: int | None = None
) -> dict[str, Any]:
    """A run's sections that train for so long, and count what they spend.

    Args:
        config: Sections as plain data.
        steps: Optimiser steps; None leaves what the run says.
        game: Whether rows come from rounds: then `trainer.max_epochs` is the passes over them, and stays.
        limit: Tokens after which it stops.
    """
    trainer = dict(config.get("trainer", {}))
    if steps is not None:
        trainer["max_steps"] = steps
        if not game:
            trainer["max_epochs"] = -1  # as many as the steps need
    key = "callbacks+" if "callbacks+" in trainer else "callbacks"
    own = {"class_path": "nashtune.comparison.spent.Spent", "init_args": {"tokens": limit}}
    users = trainer.get(key) or []
    trainer[key] = [*(users if isinstance(users, list) else [users]), own]
    return {**config, "trainer": trainer}


def prompts_per_round(asked: int, of_one: int, prompts: int) -> int:
    """Prompts of each round of a game that draws at most so many completions.

    Args:
        asked: Completions that may be drawn.
        of_one: Completions that the game draws with one prompt in each round.
        prompts: Of the training data.

    Raises:
        InputError: not even one prompt a round.
    """
    if asked < of_one:
        raise InputError(
            f"--generations {asked}: with one prompt in each round the method draws {of_one}; give at least as many"
        )
    return min(asked // of_one, prompts)


def steps_of_tokens(tokens: int, per_epoch: int, steps_per_epoch: int) -> int:
    """Optimiser steps after which so many tokens were trained on, by the mean of an epoch; at least 1.

    Args:
        tokens: To be trained on.
        per_epoch: Tokens of an epoch.
        steps_per_epoch: Optimiser steps of an epoch.
    """
    return max(1, math.ceil(tokens * steps_per_epoch / per_epoch))


def lengths_given(trainer: Mapping[str, Any], *, game: bool) -> Sequence[str]:
    """Settings of the trainer that a budget in steps or tokens takes the place of."""
    return [name for name in ("max_steps", *(() if game else ("max_epochs",))) if name in trainer]
