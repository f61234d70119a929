from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from nashtune.spec.resolve import resolve
from nashtune.trust import granted

DPO = """\
    loss: dpo
    kl: {name: fixed, beta: 0.1}
    references: {ref: base}
"""


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Writes a file below the working directory and returns its name."""
    monkeypatch.chdir(tmp_path)

    def write(text: str = DPO, name: str = "mine.yaml") -> str:
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(textwrap.dedent(text), encoding="utf-8")
        return name if "/" in name else f"./{name}"

    return write


@pytest.fixture
def wrong(write: Callable[..., str]) -> Callable[..., list[str]]:
    """Resolves a text that must be refused, and returns the messages."""
    from nashtune.errors import InputError

    def wrong(text: str, *argv: str) -> list[str]:
        from nashtune.spec.overrides import take_overrides

        with pytest.raises(InputError) as caught:
            resolve(write(text), take_overrides(argv)[0])
        return str(caught.value).splitlines()

    return wrong


PARTS = '''\
from __future__ import annotations

from typing import ClassVar

import a_module_that_is_nowhere

from nashtune.interfaces import KLController, Loss, Pairing, PreferenceOracle, Reference, RewardOracle
from nashtune.interfaces import Sampler, Schedule


class Game(Schedule):
    """A schedule that samples."""

    reads: ClassVar[tuple[str, ...]] = ("oracle", "sampler", "pairing")

    def __init__(self, *, rounds: int = 3) -> None:
        self.count = rounds

    def rounds(self): ...


class Steps(Schedule):
    """A schedule that makes no pairs."""

    reads: ClassVar[tuple[str, ...]] = ("oracle", "sampler")

    def rounds(self): ...


class Rollouts(Loss):
    """Policy gradient."""

    rows = "rollouts"
    uses_beta = False

    def __call__(self, batch, step): ...


class WinRates(Loss):
    """Reads win rates."""

    uses_win_rates = True
    uses_beta = False

    def __call__(self, batch, step): ...


class Mixed(Loss):
    """Its pairs come from a mixture."""

    mixes = True
    uses_beta = False

    def __call__(self, batch, step): ...


class TwoAnchors(Loss):
    """Reads two references.

    Args:
        weight: Of the second.
    """

    anchors: ClassVar[tuple[str, ...]] = ("ref", "aux")

    def __init__(self, *, weight: float) -> None:
        self.weight = weight

    def __call__(self, batch, step): ...


class Examples(Loss):
    """Unpaired."""

    rows = "examples"

    def __call__(self, batch, step): ...


class Statistical(KLController):
    """Reads logits."""

    statistics: ClassVar[tuple[str, ...]] = ("delta",)

    def beta(self, batch): ...


class OfPairs(KLController):
    """Works on pairs."""

    rows: ClassVar[tuple[str, ...]] = ("pairs",)

    def beta(self, batch): ...


class OfPears(KLController):
    """Works on rows that nobody has."""

    rows: ClassVar[tuple[str, ...]] = ("pears",)

    def beta(self, batch): ...


class Moving(KLController):
    """Is told of updates."""

    def beta(self, batch): ...

    def observe_round(self, means, completions): ...


class MovingToo(Moving):
    """By inheritance."""


class MovingByAssignment(KLController):
    """Under another name."""

    def beta(self, batch): ...

    def told(self, means, completions): ...

    observe_round = told


class Still(KLController):
    """Does not move."""

    def beta(self, batch): ...


class Blind(Reference):
    """Gives no logits."""

    gives_logits = False

    def attach(self, policy): ...

    def logprobs(self, batch, engine): ...


class Mixture(Sampler):
    """A sampler that reads a reference of its own."""

    anchors = ("aux",)

    def attach(self, surroundings): ...

    def sample(self, prompts, n, *, seed, round=0, indices=None, reference_weight=None): ...


class Best(Sampler):
    """Chooses by scores."""

    selects = True

    def attach(self, surroundings): ...

    def sample(self, prompts, n, *, seed, round=0, indices=None, reference_weight=None): ...


class Tape(Sampler):
    """Replays."""

    replays = True

    def attach(self, surroundings): ...

    def sample(self, prompts, n, *, seed, round=0, indices=None, reference_weight=None): ...


class Mixer(Sampler):
    """Mixes."""

    mixes = True

    def attach(self, surroundings): ...

    def sample(self, prompts, n, *, seed, round=0, indices=None, reference_weight=None): ...


class Plain(Sampler):
    """Draws."""

    def attach(self, surroundings): ...

    def sample(self, prompts, n, *, seed, round=0, indices=None, reference_weight=None): ...


class Kept(Reference):
    """Keeps log-probs."""

    gives_logits = False
    snapshot = None

    def attach(self, policy): ...

    def logprobs(self, batch, engine): ...


class Judge(PreferenceOracle):
    """Compares."""

    def compare(self, prompts, first, second): ...


class Scorer(RewardOracle):
    """Scores."""

    def score(self, prompts, completions): ...


class Open(PreferenceOracle):
    """Left to the run."""

    chosen_by_run = True

    def compare(self, prompts, first, second): ...


class Few(Pairing):
    """Compares some."""

    def compare(self, n, random): ...

    def most(self, n): ...


class Every(Few):
    """Compares all."""

    gives_win_rates = True
'''


@pytest.fixture(autouse=True)
def own_modules() -> Iterator[None]:
    """Modules that these tests write may be named by class path, as with `--allow-import`."""
    names = (
        "spec_test_parts",
        "reward_rule_parts",
        "half_a_loss",
        "refusing_loss",
        "games_test_schedules",
        "score_loss",
        "reward_rule_schedule",
    )
    with granted(names):
        yield


@pytest.fixture
def parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module of components that cannot be imported, so that a test fails when anything tries."""
    folder = tmp_path / "site"
    folder.mkdir()
    name = "spec_test_parts"
    (folder / f"{name}.py").write_text(PARTS, encoding="utf-8")
    monkeypatch.syspath_prepend(folder)
    return name
