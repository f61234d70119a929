"""Schedule: rounds and phases, declared once and executed by the language-model and by the tabular runner."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Literal

Phase = Literal["collect", "judge", "pair", "anchor", "update", "snapshot"]


@dataclass(frozen=True, kw_only=True)
class Round:
    """One outer iteration.

    Args:
        phases: What happens, in order.
    """

    phases: tuple[Phase, ...]


class Schedule(ABC):
    """Declares the rounds of a method.

    Attributes:
        reads: Sections of the spec that the schedule's phases use, among "oracle", "sampler" and "pairing".
    """

    reads: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def rounds(self) -> tuple[Round, ...]:
        """Every round, in order."""
