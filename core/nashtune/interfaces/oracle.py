"""Oracle: judges completions, one by one (reward) or in pairs (preference)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from torch import Tensor

    from nashtune.interfaces.schedule import Role

Prompt = str | Sequence[Mapping[str, str]]
"""A text, or a conversation of messages {role, content}."""


@dataclass(frozen=True, kw_only=True)
class Rewards:
    """Scores of N completions.

    Args:
        mean: Reward (N,): of an ensemble the aggregate that is trained on.
        variance: Variance of the reward (N,), where the oracle knows it.
        members: Scores of the K members of an ensemble (N, K).
    """

    mean: Tensor
    variance: Tensor | None = None
    members: Tensor | None = None


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """One answer of a preference oracle.

    Args:
        prompt: Number of the prompt in the whole prompt set.
        first: Which of its completions (k) came first.
        second: Which came second; in a game with an opponent, which of the opponent's.
        p: P(first > second), in [0, 1]; NaN where the oracle gave no answer.
    """

    prompt: int
    first: int
    second: int
    p: float


@dataclass(frozen=True, kw_only=True)
class Scored:
    """One answer of a reward oracle.

    Args:
        prompt: Number of the prompt in the whole prompt set.
        role: Whose completion: "policy" or "opponent".
        k: Which of the prompt's completions.
        mean: Reward, in the oracle's units.
        variance: Of the reward, where the oracle knows it.
        members: Scores of an ensemble's members; empty where there is none.
    """

    prompt: int
    role: Role
    k: int
    mean: float
    variance: float | None = None
    members: tuple[float, ...] = ()


class Oracle:
    """What both kinds of oracle share. An oracle is frozen and sits outside of the trained module.

    Attributes:
        chosen_by_run: True for the placeholder of specs that leave the oracle to the run file.
        model_argument: Argument that names the folder of the one reward model whose scores these are, where a critic
            may start as its copy.
        placement: Arguments that say where it runs, how patiently, and what it does without an answer: a run that is
            taken up again may change them.
        gives_variance: Whether its rewards carry a variance.
        counts_groups: Whether it compares the completions of a prompt with one another, so that it needs at least two.
    """

    chosen_by_run: ClassVar[bool] = False
    model_argument: ClassVar[str | None] = None
    gives_variance: ClassVar[bool] = False
    counts_groups: ClassVar[bool] = False
    placement: ClassVar[tuple[str, ...]] = ()

    def prepare(self) -> None:
        """Called once before the policy's weights are loaded: look at files, packages and endpoints here.

        Raises:
            InputError: the oracle cannot work.
        """
        return None

    def counts(self) -> Mapping[str, int]:
        """What happened since the start, for the report: calls, cache hits, parse failures, ...

        Numbers that only grow: the run keeps what each part of its rounds has added, so that its report counts every
        attempt.
        """
        return {}


class RewardOracle(Oracle, ABC):
    """Scores completions one by one. As a preference, P(y > y') = sigmoid(r(y) - r(y')) (Bradley-Terry)."""

    @abstractmethod
    def score(self, prompts: Sequence[Prompt], completions: Sequence[str]) -> Rewards:
        """Rewards of `completions[i]` given `prompts[i]`.

        All completions of a prompt that are to be compared with one another come in one call.
        """

    def tabular(self, rewards: Rewards) -> Rewards:
        """What this oracle makes of known moments, in a game whose rewards are given: for ensembles, the aggregate.

        Raises:
            InputError: its rule needs members, and the game gives none.
        """
        return rewards


class PreferenceOracle(Oracle, ABC):
    """Compares completions in pairs."""

    @abstractmethod
    def compare(self, prompts: Sequence[Prompt], first: Sequence[str], second: Sequence[str]) -> Tensor:
        """P(first > second) in [0, 1] (N,), float64; swapping the two gives one minus it.

        NaN where the oracle was asked and gave no verdict: such a comparison makes no pair and is counted.
        """
