"""A loss is broken in what it declares of itself, and in what it keeps from step to step."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import logsigmoid

from good_losses import Good, Hard, Running
from nashtune.errors import InputError
from nashtune.testing import ContractError, check_component, check_loss


class NoStop(Good):
    """Declares a stop-gradient that it does not have."""

    detaches = True


class Forgets(Running):
    """Starts anew after a resume."""

    def state_dict(self):
        return {}

    def load_state_dict(self, state):
        pass


class SavesTensor(Running):
    """Saves what a checkpoint that executes nothing cannot hold."""

    def state_dict(self):
        return {"mean": torch.tensor(self.mean)}


class OtherAnchor(Hard):
    """Reads an anchor that it does not declare."""

    def delta(self, batch):
        chosen, rejected = batch.log_ratios("previous")
        return chosen - rejected


class SecretAnchor(Hard):
    """Reads an anchor if it is there."""

    def delta(self, batch):
        other = batch.anchors.get("aux")
        return super().delta(batch) - (0.0 if other is None else other.chosen - other.rejected)


class SecretLabels(Good):
    """Reads labels that it does not declare."""

    uses_p_chosen = False


class UnreadAnchor(Hard):
    """Declares an anchor that it never reads."""

    anchors = ("ref", "aux")


class UnreadRates(Hard):
    """Declares win rates that it never reads."""

    uses_win_rates = True


class UnreadRows(Hard):
    """Says that rows are compared, and they are not."""

    compares_rows = True


class FreeWeight(Good):
    """Draws from a mixture without saying so."""

    def reference_weight(self, round):
        return 0.5


class NoBound(Good):
    """States a bound below 0."""

    def gap_bound(self, rounds, divergence):
        return "-1/T", -1.0 / rounds


class Undocumented(Good):
    """An argument that nobody explains."""

    def __init__(self, *, scale: float = 1.0, mystery: float = 0.0) -> None:
        super().__init__(scale=scale)


class Untyped(Good):
    """An argument of any type.

    Args:
        other: Something.
    """

    def __init__(self, *, scale: float = 1.0, other=None) -> None:
        super().__init__(scale=scale)


class Misspelt(Good):
    """An attribute under another name."""

    use_beta = False


class WrongRows(Good):
    """Rows that do not exist."""

    rows = "pair"


class OneAnchor(Good):
    """A name where names are wanted."""

    anchors = "ref"


class Refuses(Good):
    """A constructor that raises with its own defaults."""

    def __init__(self, *, scale: float = 1.0) -> None:
        raise ValueError("scale is never right")


class Needs(Good):
    """An option without a default, and no spec that gives it.

    Args:
        target: Of the margin.
    """

    def __init__(self, *, target: float) -> None:
        super().__init__(scale=target)


class Sided(Hard):
    """Right with its default alone.

    Args:
        turned: Whether it goes the wrong way.
    """

    def __init__(self, *, turned: bool = False) -> None:
        super().__init__()
        self.turned = turned

    def margin(self, batch, step):
        return super().margin(batch, step) * (-1.0 if self.turned else 1.0)


class SoftOrHard(Good):
    """Reads soft labels with one of its options.

    Args:
        soft: Whether it does.
    """

    def __init__(self, *, soft: bool = True) -> None:
        super().__init__()
        self.soft = soft

    def values(self, batch, step):
        return super().values(batch, step) if self.soft else -logsigmoid(self.margin(batch, step))


class SoftOrHardUnread(SoftOrHard):
    """Declares an anchor that is read with neither."""

    anchors = ("ref", "aux")


class NeedsGiven(Needs):
    """As the one above."""


@pytest.mark.parametrize("loss", [Running])
def test_a_good_one_passes(loss):
    check_component(loss)


@pytest.mark.parametrize(
    ("rule", "loss", "said"),
    [
        ("loss-state", Forgets, "stopped after 1 steps and resumed, the loss of step 2 is"),
        ("loss-state", SavesTensor, "gives mean as a Tensor, no number"),
        ("loss-declares", OtherAnchor, "it reads the anchor 'previous', and `anchors` declares ref"),
        ("loss-declares", SecretAnchor, "it reads an anchor besides ref"),
        ("loss-declares", SecretLabels, "it reads p_chosen, and uses_p_chosen is not declared"),
        ("loss-declares", UnreadAnchor, "it declares the anchor 'aux', which changes nothing"),
        ("loss-declares", UnreadRates, "it declares uses_win_rates"),
        ("loss-declares", UnreadRows, "it declares compares_rows"),
        ("loss-declares", NoStop, "it declares detaches, which changes nothing"),
        ("loss-theory", FreeWeight, "mixes is not declared"),
        ("loss-theory", NoBound, "gap_bound gave ('-1/T', -0.25)"),
        ("documented", Undocumented, "'mystery' has no line under `Args:`"),
        ("typed", Untyped, "'other' is annotated with nothing"),
        ("attributes", Misspelt, "use_beta is read by nobody; did you mean 'uses_beta'?"),
        ("attributes", WrongRows, "rows is 'pair'; it may be 'pairs' or"),
        ("attributes", OneAnchor, "anchors is 'ref'; it is a tuple of names"),
        ("constructs", Refuses, "raised ValueError: scale is never right"),
        ("options", Needs, "no spec uses it; give target: check_component(..., target=...)"),
    ],
)
def test_a_broken_one_is_found(rule, loss, said, finds):
    assert said in finds(rule, loss)


def test_every_value_of_an_option_is_tried(breaks):
    with breaks("loss-sign") as found:
        check_loss(Sided)
    assert "with turned=True" in str(found.value)
    check_loss(NeedsGiven, target=2.0)


def test_what_the_caller_fixes_stays_and_other_options_are_not_missed():
    """Soft labels are declared for the class and read with one option: also where the caller takes the other."""
    check_component(SoftOrHard)
    check_component(SoftOrHard, soft=False)
    with pytest.raises(ContractError, match="it declares the anchor 'aux', which changes nothing"):
        check_component(SoftOrHardUnread, soft=False)


def test_what_is_no_component_is_said():
    with pytest.raises(InputError, match="implements no interface"):
        check_component(int)
    with pytest.raises(InputError, match="is no loss; use check_component"):
        from nashtune.kl.fixed import FixedKL

        check_loss(FixedKL)
