"""Functions of a component take what the interface gives them."""

from __future__ import annotations

import pytest
from torch import no_grad

from nashtune.errors import InputError
from nashtune.interfaces import KLController, Loss, PreferenceOracle, RewardOracle
from nashtune.plugins.loading import load_class
from nashtune.plugins.registry import Registered
from nashtune.plugins.signatures import interface_functions, refuse_other_signatures, signature_problem
from nashtune.testing import components_of, label


class OtherNames(PreferenceOracle):
    def compare(self, questions, a, b, *, cached=True): ...


class Anything(RewardOracle):
    def score(self, *args, **kwargs): ...


class Asks(PreferenceOracle):
    def compare(self, first, second): ...


class Wants(KLController):
    def beta(self, batch, step): ...


class Decorated(KLController):
    @no_grad()
    def beta(self, batch, step): ...


class Deaf(KLController):
    def beta(self, batch): ...

    def observe(self): ...


class NoStep(Loss):
    def __call__(self, batch): ...


@pytest.mark.parametrize(("cls", "kind"), [(OtherNames, "oracle"), (Anything, "oracle")])
def test_what_can_be_called_is_fine(cls, kind):
    assert signature_problem(cls, kind) == ""


@pytest.mark.parametrize(
    ("cls", "kind", "said"),
    [
        (Asks, "oracle", "compare(self, first, second) is called as compare(self, prompts, first, second); give"),
        (Wants, "kl", "beta(self, batch, step) is called as beta(self, batch)"),
        (Decorated, "kl", "beta(self, batch, step) is called as beta(self, batch)"),  # torch's wrapper lies elsewhere
        (Deaf, "kl", "observe(self) is called as observe(self, means)"),
        (NoStep, "loss", "__call__(self, batch) is called as __call__(self, batch, step)"),
    ],
)
def test_what_cannot_be_called_is_shown_with_its_place(cls, kind, said):
    problem = signature_problem(cls, kind)
    assert said in problem and problem.startswith(f"{__file__}:")
    with pytest.raises(InputError, match=f"^{kind} 'mine': /"):
        refuse_other_signatures(cls, kind, f"{kind} 'mine'")


def test_a_class_that_is_registered_alone_lacks_what_a_subclass_would_have():
    @Loss.register
    class Registered:
        def __call__(self, batch, step): ...

    said = "Registered has no observe(self, means); a subclass of nashtune.interfaces.Loss has one"
    assert signature_problem(Registered, "loss") == said


def test_functions_of_an_interface_are_its_bases_too():
    assert interface_functions(PreferenceOracle).keys() == {"compare", "prepare", "counts"}


@pytest.mark.parametrize("one", components_of(), ids=label)
def test_everything_that_is_installed_can_be_called(one: Registered):
    component = one.component
    assert signature_problem(load_class(component.target, component.kind), component.kind) == ""
