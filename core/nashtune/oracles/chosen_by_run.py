"""Placeholder of specs that work with any oracle: the run says which one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

from nashtune.errors import InputError
from nashtune.interfaces.oracle import PreferenceOracle, Prompt

if TYPE_CHECKING:
    from torch import Tensor

QUESTION = (
    "spec.oracle: which oracle? The spec leaves it to the run. Name one in the run file, or with --spec.oracle NAME, "
    "for example: --spec.oracle raters --spec.oracle.raters '[sentiment, brevity, distinct_2]'"
)


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
