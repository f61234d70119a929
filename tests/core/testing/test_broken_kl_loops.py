"""A KL controller is broken in its loop: what it reports, what it makes of what it is told, what it keeps."""

from __future__ import annotations

import math

import pytest
import torch

from good_kl import Good, PerPair
from nashtune.testing import check_component


class OddReport(Good):
    """Reports tokens."""

    def report(self, batch, beta):
        return {**super().report(batch, beta), "tokens": batch.old}


class LiveReport(PerPair):
    """Reports with a gradient."""

    def report(self, batch, beta):
        return {"likely": batch.policy_chosen}


class Forgets(Good):
    """Starts anew after a resume."""

    def state_dict(self):
        return {}

    def load_state_dict(self, state):
        pass


class SavesTensor(Good):
    """Saves what a checkpoint that executes nothing cannot hold."""

    def state_dict(self):
        return {"beta": torch.tensor(self.value)}


class WrongWay(Good):
    """Loosens where the KL is too large."""

    def change(self, means):
        return -super().change(means)


class Timid(Good):
    """Loosens where the KL is too large, and says of no set point."""

    def change(self, means):
        return -super().change(means)

    def setpoint(self):
        return None


class Unstable(Good):
    """Overdoes it."""

    def observe_round(self, means, completions):
        self.value = 0.1 * min(max(means["kl"] / 6.0, 0.5), 2.0) ** 41


class Pays(Good):
    """Pays for the KL divergence."""

    def reward(self, batch, beta):
        return batch.score + beta * self.report(batch, beta)["kl"]


class TurnedRound(Good):
    """Measures the divergence with the wrong sign."""

    def report(self, batch, beta):
        return {name: -value for name, value in super().report(batch, beta).items()}

    def change(self, means):
        return self.gain * min(max(means["kl"] / 6.0 - 1.0, -0.2), 0.2)

    def setpoint(self):
        return None


class TurnedRoundAndCut(TurnedRound):
    """And cuts off what is below 0."""

    def report(self, batch, beta):
        return {name: value.clamp(min=0.0) for name, value in super().report(batch, beta).items()}


class OnlyFalls(Good):
    """Never tightens."""

    def change(self, means):
        return min(super().change(means), 0.0)

    def setpoint(self):
        return None


class Falls(Good):
    """Falls with time, whatever the divergence, which it does not report."""

    anchors = ()

    def report(self, batch, beta):
        return {}

    def change(self, means):
        return -self.gain

    def setpoint(self):
        return None


class FallsAndShows(Falls):
    """The same, and the divergence goes to the log."""

    anchors = ("ref",)

    def report(self, batch, beta):
        return Good.report(self, batch, beta)

    def observe_round(self, means, completions):
        self.value *= math.exp(-self.gain)


class RisesAndShows(FallsAndShows):
    """Rises instead."""

    def observe_round(self, means, completions):
        self.value *= math.exp(self.gain)


class Misspells(FallsAndShows):
    """Looks for the divergence under another name than it is reported by, and so never finds that it is too large."""

    def observe_round(self, means, completions):
        self.value *= math.exp(self.gain * min(max(means.get("KL", 0.0) / 6.0 - 1.0, -1.0), 1.0))


class FallsAndKeeps(FallsAndShows):
    """Looks at the divergence, and falls whatever it is."""

    def observe_round(self, means, completions):
        self.last = means["kl"]
        super().observe_round(means, completions)


class FallsAndSteers(FallsAndShows):
    """Says that it steers, and does not listen."""

    def setpoint(self):
        return 6.0


@pytest.mark.parametrize("controller", [Falls, FallsAndShows, RisesAndShows])
def test_a_good_one_passes(controller):
    check_component(controller)


@pytest.mark.parametrize(
    ("rule", "controller", "said"),
    [
        ("kl-report", OddReport, "tokens is a tensor of shape"),
        ("kl-report", LiveReport, "likely carries a gradient"),
        ("kl-resume", Forgets, "stopped after 1 steps and resumed, beta of step 2 is [0.1], and without a stop"),
        ("kl-resume", SavesTensor, "gives beta as a Tensor, no number"),
        ("kl-stable", WrongWay, "after 200 rounds beta is 4.5"),
        ("kl-stable", Timid, "at a KL of 1000 nats, and"),
        ("kl-stable", TurnedRound, "it is told of ref, and moves the same way whatever it is told"),
        ("kl-stable", TurnedRoundAndCut, "it is told of ref, and moves the same way whatever it is told"),
        ("kl-stable", OnlyFalls, "and after 200 more rounds at 1000 nats it is 5.6"),
        ("kl-stable", Misspells, "it is told of ref, and moves the same way whatever it is told"),
        ("kl-stable", FallsAndKeeps, "it is told of ref, and moves the same way whatever it is told"),
        ("kl-stable", FallsAndSteers, "a small disturbance grows by the factor 1 a round"),
        ("kl-stable", Unstable, "a small disturbance grows by the factor"),
        ("kl-reward", Pays, "where the policy likes each token 1 nat more than 'ref' does"),
    ],
)
def test_a_broken_one_is_found(rule, controller, said, finds):
    assert said in finds(rule, controller)


def test_one_that_looks_and_moves_by_time_alone_may_say_so(monkeypatch):
    said: list[str] = []
    monkeypatch.setattr("nashtune.testing.contract.note", said.append)
    check_component(FallsAndKeeps, waive={"kl-stable": "the divergence is for the log"})
    [line] = said
    assert "FallsAndKeeps breaks `kl-stable`" in line and "Waived: the divergence is for the log" in line
