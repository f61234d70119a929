"""Placeholders of specs that work with any oracle of a kind: the run says which one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

from nashtune.errors import InputError
from nashtune.interfaces.oracle import PreferenceOracle, Prompt, RewardOracle, Rewards

if TYPE_CHECKING:
    from torch import Tensor

QUESTION = (
    "spec.oracle: which oracle? The spec leaves it to the run. Name one in the run file, or with --spec.oracle NAME, "
    "for example: --spec.oracle raters --spec.oracle.raters '[sentiment, brevity, distinct_2]'"
)
REWARD_QUESTION = (
    "spec.oracle: which reward? The spec leaves it to the run. Name one in the run file, or with --spec.oracle NAME, "
    "for example: --spec.oracle reward_model --spec.oracle.path FOLDER"
)


def question(placeholder: str) -> str:
    """What to ask of a run whose oracle is still the placeholder of that name."""
    return REWARD_QUESTION if placeholder == "reward" else QUESTION


class ChosenByRun(PreferenceOracle):
    """Stands in a spec for "any preference oracle"; a run must put a real one in its place."""

    chosen_by_run: ClassVar[bool] = True

    def prepare(self) -> None:
        """Nothing can be prepared.

        Raises:
            InputError: always; it says how to name an oracle.
        """
        raise InputError(QUESTION)

    def compare(self, prompts: Sequence[Prompt], first: Sequence[str], second: Sequence[str]) -> Tensor:
        """Nothing can be compared.

        Raises:
            InputError: always; it says how to name an oracle.
        """
        raise InputError(QUESTION)


class RewardChosenByRun(RewardOracle):
    """Stands in a spec for "any reward oracle"; a run must put a real one in its place.

    In a game whose rewards are given it leaves them as they are.
    """

    chosen_by_run: ClassVar[bool] = True

    def prepare(self) -> None:
        """Nothing can be prepared.

        Raises:
            InputError: always; it says how to name an oracle.
        """
        raise InputError(REWARD_QUESTION)

    def score(self, prompts: Sequence[Prompt], completions: Sequence[str]) -> Rewards:
        """Nothing can be scored.

        Raises:
            InputError: always; it says how to name an oracle.
        """
        raise InputError(REWARD_QUESTION)
