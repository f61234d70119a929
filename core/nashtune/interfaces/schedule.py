"""Schedule: rounds and phases, declared once and executed by the language-model runner and by the tabular one.

Snapshots are weights under a name: `start` is the policy before training, a schedule names the others (`main@1`,
`aux@2`). `None` where a snapshot could stand means the live weights.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Literal

START = "start"
"""The snapshot that every run begins with."""

Role = Literal["policy", "opponent"]


@dataclass(frozen=True, kw_only=True)
class Collect:
    """The sampler draws completions.

    Args:
        policy: Snapshot to draw from; None for the live weights.
        role: Whose completions these are: what is trained on, or what the policy is judged against.
        reference_weight: Weight w in [0, 1] of `start` in the geometric mixture policy^(1-w) start^w to draw from;
            None leaves it to the loss (`Loss.reference_weight`) and to the sampler's own settings.
    """

    policy: str | None
    role: Role = "policy"
    reference_weight: float | None = None


@dataclass(frozen=True, kw_only=True)
class Judge:
    """The oracle answers what the pairing asks about the round's completions."""


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Judgements become the round's training rows."""


@dataclass(frozen=True, kw_only=True)
class Anchor:
    """Log-probs of the round's rows under frozen snapshots, once.

    Of rollouts also those of the policy that drew them, and its critic's values: one pass under the live weights.

    Args:
        previous: What the reference `previous` is: log-probs of snapshots, weighted by numbers that sum to 1 (a
            geometric mixture up to a constant, which cancels between the completions of a prompt).
    """

    previous: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Update:
    """Gradient steps on the round's rows; in an offline method on the data set.

    Args:
        start: Snapshot that the weights are set to first; None goes on with the live weights.
        reset: Whether optimiser, learning-rate schedule and warm-up begin anew.
        step_scale: How many of the method's steps this update takes at once; the loss reads it as `Step.scale`.
        name: What the update makes, for people: "main", "aux".
    """

    start: str | None = None
    reset: bool = True
    step_scale: float = 1.0
    name: str = "main"


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """Keep weights under a name.

    Args:
        name: The new snapshot.
        average: None keeps the live weights. Otherwise the new weights are a weighted mean of weights, by snapshot
            (`live` for the live ones), with numbers that sum to 1: an exponential moving average.
    """

    name: str
    average: Mapping[str, float] | None = None


Phase = Collect | Judge | Pair | Anchor | Update | Snapshot


@dataclass(frozen=True, kw_only=True)
class Round:
    """One outer iteration of the game.

    Args:
        phases: What happens, in order. The live weights are lost when a phase sets others: an `Update` is followed by
            its `Snapshot` before the next phase that names a snapshot.
        policy: Snapshot that holds the round's result; None for the live weights.
    """

    phases: tuple[Phase, ...]
    policy: str | None = None


class Schedule(ABC):
    """Declares the rounds of a method.

    Attributes:
        reads: Sections of the spec that the schedule's phases use, among "oracle", "sampler" and "pairing".
        scores: Whether completions are judged one by one by a reward, and not in pairs or against an opponent's.
        gives_previous: Whether its anchor phases say what the reference `previous` is.
    """

    reads: ClassVar[tuple[str, ...]] = ()
    scores: ClassVar[bool] = False
    gives_previous: ClassVar[bool] = False

    @abstractmethod
    def rounds(self) -> tuple[Round, ...]:
        """Every round, in order; round t of the paper is `rounds()[t - 1]`."""
