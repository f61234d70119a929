"""An oracle is broken in one way at a time, and the check says which."""

from __future__ import annotations

import pytest
import torch

from nashtune.errors import InputError
from nashtune.interfaces import PreferenceOracle, RewardOracle, Rewards
from nashtune.testing import ContractError, check_component


class Longer(PreferenceOracle):
    """The longer answer wins more often."""

    def gaps(self, first, second):
        return torch.tensor([len(a) - len(b) for a, b in zip(first, second, strict=True)], dtype=torch.float64)

    def compare(self, prompts, first, second):
        return torch.sigmoid(0.1 * self.gaps(first, second))


class LikesTheFirst(Longer):
    """Prefers what it reads first."""

    def compare(self, prompts, first, second):
        return torch.sigmoid(0.1 * self.gaps(first, second) + 0.1)


class Certain(Longer):
    """More than certain."""

    def compare(self, prompts, first, second):
        return 0.5 + self.gaps(first, second)


class Column(Longer):
    """A column for each comparison."""

    def compare(self, prompts, first, second):
        return super().compare(prompts, first, second)[:, None]


class OneSided(Longer):
    """Answers in one order alone."""

    def compare(self, prompts, first, second):
        found = super().compare(prompts, first, second)
        return found.where(self.gaps(first, second) >= 0, float("nan"))


class Relative(Longer):
    """Compares with the other questions."""

    def compare(self, prompts, first, second):
        gaps = self.gaps(first, second)
        return torch.sigmoid(gaps / gaps.abs().max())


class TextsOnly(Longer):
    """Takes prompts for texts."""

    def compare(self, prompts, first, second):
        assert all(prompt.lower() for prompt in prompts)
        return super().compare(prompts, first, second)


class CountsShares(Longer):
    """Counts in fractions."""

    def counts(self):
        return {"comparisons": 0.5}


class Length(RewardOracle):
    """The number of letters."""

    def score(self, prompts, completions):
        return Rewards(mean=torch.tensor([float(len(text)) for text in completions], dtype=torch.float64))


class Known(Length):
    """With a variance.

    Args:
        folder: Of nothing.
    """

    gives_variance = True
    placement = ("folder",)

    def __init__(self, *, folder: str = "") -> None:
        self.folder = folder

    def score(self, prompts, completions):
        mean = super().score(prompts, completions).mean
        return Rewards(mean=mean, variance=torch.ones_like(mean), members=mean[:, None].expand(-1, 3))


class Silent(Known):
    """A variance that it does not declare."""

    gives_variance = False


class Lost(Known):
    """A variance that it declares, and does not give."""

    def score(self, prompts, completions):
        return Rewards(mean=super().score(prompts, completions).mean)


class Imaginary(Known):
    """A variance below 0."""

    def score(self, prompts, completions):
        found = super().score(prompts, completions)
        return Rewards(mean=found.mean, variance=-found.variance)


class Placed(Known):
    """Names an argument that it does not have."""

    placement = ("device",)


class Standardised(Length):
    """Relative to the batch."""

    def score(self, prompts, completions):
        mean = super().score(prompts, completions).mean
        return Rewards(mean=mean - mean.mean())


class Centred(Standardised):
    """Relative to the batch, where it may be relative to the prompt."""

    counts_groups = True


class Noisy(Length):
    """Another reward each time."""

    def score(self, prompts, completions):
        mean = super().score(prompts, completions).mean
        return Rewards(mean=mean + torch.rand(len(mean)))


class Placeholder(Longer):
    """Says that the run chooses, and judges."""

    chosen_by_run = True


class Honest(Longer):
    """Says that the run chooses."""

    chosen_by_run = True

    def prepare(self):
        raise InputError("which oracle?")

    def compare(self, prompts, first, second):
        raise InputError("which oracle?")


class List(Longer):
    """A list of probabilities."""

    def compare(self, prompts, first, second):
        return [0.5 for _ in first]


class WithoutPrompts(Longer):
    """Leaves the prompts out."""

    def compare(self, first, second):
        return super().compare(first, first, second)


class Misnamed(Longer):
    """Counts what nobody asks for."""

    def count(self):
        return {}


class Live(Longer):
    """With a gradient."""

    def compare(self, prompts, first, second):
        return super().compare(prompts, first, second).requires_grad_()


@pytest.mark.parametrize("oracle", [Longer, Length, Known, Honest])
def test_a_good_one_passes(oracle):
    check_component(oracle)


@pytest.mark.parametrize(
    ("rule", "oracle", "said"),
    [
        ("oracle-antisymmetric", LikesTheFirst, "and the other way round"),
        ("oracle-antisymmetric", OneSided, "nan"),
        ("oracle-answers", Certain, "probabilities in [0, 1]"),
        ("oracle-answers", Column, "Tensor of shape"),
        (
            "oracle-answers",
            List,
            "compare() returns a tensor of 24 probabilities in [0, 1] (NaN: no verdict), and gave li",
        ),
        ("oracle-answers", Live, "its answers carry a gradient"),
        (
            "functions",
            WithoutPrompts,
            "compare(self, first, second) is called as compare(self, prompts, first, second)",
        ),
        ("functions", Misnamed, "Misnamed.count is called by nobody; did you mean 'counts'?"),
        ("oracle-answers", Imaginary, "variances >= 0"),
        ("oracle-batches", Relative, "alone it says"),
        ("oracle-batches", Standardised, "alone (its mean) it says"),
        ("oracle-batches", Centred, "one prompt's completions alone"),
        ("oracle-batches", Noisy, "asked once more"),
        ("oracle-prompts", TextsOnly, "compare of conversations raised AttributeError"),
        ("oracle-counts", CountsShares, "{'comparisons': 0.5}"),
        ("oracle-declares", Silent, "gives_variance is False, and score gave a variance"),
        ("oracle-declares", Lost, "gives_variance is True, and score gave no variance"),
        ("oracle-declares", Placed, "placement names 'device', and its arguments are folder"),
        ("oracle-placeholder", Placeholder, "prepare works"),
    ],
)
def test_a_broken_one_is_found(rule, oracle, said, finds):
    assert said in finds(rule, oracle)


def test_texts_that_it_can_judge_are_given():
    with pytest.raises(ContractError, match="give at least three"):
        check_component(Longer, texts=["a", "b"])
    check_component(Longer, texts=["a", "bb", "ccc"])
