"""What a KL controller was told before a conformance vector's batch: rounds of rollouts, one after another.

    "rounds": [{"kl": 5.5, "completions": 512}, {"kl": 12.0, "completions": 512}]

Each round gives the means of the controller's report, by name, and its completions. Beside the batch's own values a
case may then expect `beta_rounds`: what β would have been for the batch after each round.
"""

from __future__ import annotations

import math
from typing import Any

from nashtune.errors import InputError
from nashtune.evaluation.vector_results import Output
from nashtune.interfaces import KLController, LossBatch
from nashtune.kl.asked import asked_beta


def play_rounds(kl: KLController | None, batch: LossBatch, rounds: Any, where: str) -> dict[str, Output]:
    """Tell the controller of the rounds; its β after each of them.

    Args:
        kl: Its state changes.
        batch: What β is asked for.
        rounds: As in the case; None where it has none.
        where: Their place, for messages.

    Raises:
        InputError: malformed rounds, or a mean that the controller reads is missing.
    """
    if rounds is None:
        return {}
    if kl is None:
        raise InputError(f"{where}: the spec has no KL controller that could be told of rounds")
    if not isinstance(rounds, list) or not rounds:
        raise InputError(f"{where}: expected a list such as [{{'kl': 5.5, 'completions': 512}}], found {rounds!r}")
    betas: list[Any] = []
    for number, one in enumerate(rounds, start=1):
        place = f"{where}[{number - 1}]"
        means, completions = _round(one, place)
        try:
            kl.observe_round(means, completions)
        except KeyError as missing:
            raise InputError(f"{place}: {missing.args[0]!r} is missing; the controller reads it") from None
        betas.append(asked_beta(kl, batch).tolist())
    return {"beta_rounds": betas}


def _round(one: Any, where: str) -> tuple[dict[str, float], int]:
    if not isinstance(one, dict):
        raise InputError(f"{where}: expected means by name and completions, found {one!r}")
    completions = one.get("completions", 1)
    if not isinstance(completions, int) or isinstance(completions, bool) or completions < 1:
        raise InputError(f"{where}.completions: {completions!r}; give a whole number > 0")
    means = {name: value for name, value in one.items() if name != "completions"}
    for name, value in means.items():
        if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
            raise InputError(f"{where}.{name}: {value!r} is not a finite number")
    return {name: float(value) for name, value in means.items()}, completions
