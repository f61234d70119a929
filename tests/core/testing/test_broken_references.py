"""References and stages are broken in one way at a time, and the check says which."""

from __future__ import annotations

import copy

import pytest
import torch

import nashtune.interfaces.stage as stage
from nashtune.errors import InputError
from nashtune.interfaces import Reference, Stage
from nashtune.testing import check_component


class Good(Reference):
    """A frozen copy of the policy."""

    snapshot = "start"

    def attach(self, policy):
        self.policy = policy
        self.model = copy.deepcopy(policy.loaded()).eval().requires_grad_(False)

    def forward(self, batch, engine):
        with torch.no_grad():
            return engine.forward(self.model, batch)

    def logprobs(self, batch, engine):
        with torch.no_grad():
            return engine.logprobs(self.forward(batch, engine), batch)


class Live(Good):
    """The policy itself, whose gradient goes through the reference."""

    def forward(self, batch, engine):
        return engine.forward(self.policy.loaded(), batch)

    def logprobs(self, batch, engine):
        return engine.logprobs(self.forward(batch, engine), batch)


class Moves(Good):
    """The policy itself, without its gradient."""

    gives_logits = False

    def forward(self, batch, engine):
        raise TypeError("log-probs alone")

    def logprobs(self, batch, engine):
        with torch.no_grad():
            return self.policy.logprobs(batch, engine)


class Shaken(Good):
    """Another model, which it calls the start."""

    def attach(self, policy):
        super().attach(policy)
        for weight in self.model.parameters():
            weight.mul_(1.1)


class SwitchesOff(Good):
    """Leaves the policy in evaluation mode."""

    def logprobs(self, batch, engine):
        self.policy.loaded().eval()
        return super().logprobs(batch, engine)


class SaysNoLogits(Good):
    """Gives logits, and says it does not."""

    gives_logits = False


class LiveLogits(Good):
    """Its logits carry a gradient to the policy."""

    def forward(self, batch, engine):
        return engine.forward(self.policy.loaded(), batch)


class OtherLogits(Good):
    """Its logits are another model's than its log-probs."""

    def attach(self, policy):
        super().attach(policy)
        self.other = copy.deepcopy(self.model)
        for weight in self.other.parameters():
            weight.mul_(1.1)

    def logprobs(self, batch, engine):
        with torch.no_grad():
            return engine.logprobs(super().forward(batch, engine), batch)

    def forward(self, batch, engine):
        with torch.no_grad():
            return engine.forward(self.other, batch)


class Yesterday(Good):
    """A snapshot that there is not."""

    snapshot = "yesterday"


class Picky(Good):
    """Takes no policy."""

    def attach(self, policy):
        raise InputError("references: not this policy")


class GoodStage(Stage):
    """Makes a file.

    Args:
        number: To write.
        speed: How fast.
    """

    outputs = ("train",)
    placement = ("speed",)

    def __init__(self, *, number: int = 1, speed: int = 1) -> None:
        self.number = number

    def check(self, runs):
        return stage.Planned(settings={"number": self.number})

    def run(self, runs, work):
        raise AssertionError("nobody runs it here")


class NoOutputs(GoodStage):
    """Makes nothing."""

    outputs = ()


class Placed(GoodStage):
    """Names an argument that it does not have."""

    decides = ("threshold",)


@pytest.mark.parametrize("component", [Good])
def test_a_good_reference_passes(component):
    check_component(component)


@pytest.mark.parametrize(
    ("rule", "component", "said"),
    [
        ("reference-gradient", Live, "its log-probs carry a gradient"),
        ("reference-gradient", SwitchesOff, "training mode has changed"),
        ("reference-gradient", LiveLogits, "the features of forward carry a gradient"),
        ("reference-frozen", Moves, "after the policy was trained"),
        ("reference-start", Shaken, "at the start"),
        ("reference-logits", SaysNoLogits, "gives_logits is False, and forward works"),
        ("reference-logits", OtherLogits, "its logits give other log-probs"),
        ("attributes", Yesterday, "snapshot is 'yesterday'; it may be None or 'start' or 'previous'"),
        ("runs", Picky, "attach refuses a policy: references: not this policy"),
        ("stage-declares", NoOutputs, "outputs is ()"),
        ("stage-declares", Placed, "decides names 'threshold', and its arguments are number, speed"),
    ],
)
def test_a_broken_one_is_found(rule, component, said, finds):
    assert said in finds(rule, component)


STAGES = '''
from nashtune.errors import InputError
from nashtune.interfaces.stage import Planned, Stage
{top}

class {name}(Stage):
    """Makes a file."""

    outputs = ("train",)

    def check(self, runs):
        {check}

    def run(self, runs, work):
        raise AssertionError("nobody runs it here")
'''


@pytest.mark.parametrize(
    ("rule", "name", "top", "check", "said"),
    [
        ("", "Fine", "", "raise InputError('data.train is missing')", ""),
        ("", "Plans", "", "return Planned(settings={})", ""),
        ("stage-thin", "Heavy", "import torch", "return Planned(settings={})", "making it imports torch"),
        ("stage-checks", "Crashes", "", "return Planned(settings=runs.data['data'])", "raised KeyError: 'data'"),
        ("stage-checks", "Objects", "", "return Planned(settings={'itself': self})", "no plain data"),
    ],
)
def test_stages_of_a_module(tmp_path, monkeypatch, breaks, rule, name, top, check, said):
    """In a module of its own: a stage is made in a new process, where this test cannot be imported."""
    module = f"stage_{name.lower()}"
    (tmp_path / f"{module}.py").write_text(STAGES.format(top=top, name=name, check=check))
    monkeypatch.syspath_prepend(str(tmp_path))
    component = getattr(__import__(module), name)
    if not rule:
        check_component(component)
        return
    with breaks(rule) as found:
        check_component(component)
    assert said in str(found.value)
