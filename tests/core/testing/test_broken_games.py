"""Pairings and schedules are broken in one way at a time, and the check says which."""

from __future__ import annotations

import itertools
import random as python_random
from dataclasses import replace

import numpy as np
import pytest

from nashtune.interfaces import Paired, Pairing, Pairs, Round, Schedule
from nashtune.interfaces.schedule import START, Anchor, Collect, Judge, Pair, Snapshot, Update
from nashtune.testing import check_component


class Good(Pairing):
    """Every completion against the first one."""

    def compare(self, n, random):
        answers = yield [(0, i) for i in range(1, n)]
        pairs, dropped = [], {}
        for i, p in enumerate(answers, start=1):
            if p > 0.5:
                pairs.append(Paired(chosen=0, rejected=i, p_chosen=p))
            elif p < 0.5:
                pairs.append(Paired(chosen=i, rejected=0, p_chosen=1 - p))
            else:
                why = "tie" if p == 0.5 else "unparsed"
                dropped[why] = dropped.get(why, 0) + 1
        return self.made(pairs, dropped)

    def made(self, pairs, dropped):
        return Pairs(pairs=tuple(pairs), dropped=dropped)

    def most(self, n):
        if n < 2:
            raise ValueError(f"sampler.completions: {n} completion makes no pair; give at least 2")
        return n - 1, n - 1


class Itself(Good):
    """Asks of a completion against itself."""

    def compare(self, n, random):
        yield [(0, 0)]
        return (yield from super().compare(n, random))


class AsksMore(Good):
    """Asks for more than it says."""

    def most(self, n):
        return super().most(n)[0] - 1, n - 1


class Swapped(Good):
    """Chooses the loser."""

    def made(self, pairs, dropped):
        turned = [Paired(chosen=one.rejected, rejected=one.chosen, p_chosen=1 - one.p_chosen) for one in pairs]
        return super().made(turned, dropped)


class OtherP(Good):
    """Certain of every label."""

    def made(self, pairs, dropped):
        return super().made([replace(one, p_chosen=1.0) for one in pairs], dropped)


class Uncounted(Good):
    """Leaves out without a word."""

    def made(self, pairs, dropped):
        return super().made(pairs, {})


class GuessesMissing(Good):
    """Takes no answer for a loss."""

    def compare(self, n, random):
        answers = yield [(0, i) for i in range(1, n)]
        pairs = [
            Paired(chosen=0, rejected=i, p_chosen=p) if p > 0.5 else Paired(chosen=i, rejected=0, p_chosen=1 - p)
            for i, p in enumerate(answers, start=1)
        ]
        return Pairs(pairs=tuple(pairs), dropped={})


class ClaimsRates(Good):
    """Promises win rates that it does not give."""

    gives_win_rates = True


class FirstRates(Good):
    """Win rates of comparisons with one alone."""

    gives_win_rates = True

    def made(self, pairs, dropped):
        return super().made([replace(one, win_rate_chosen=0.6, win_rate_rejected=0.4) for one in pairs], dropped)


class DrawsLate(Good):
    """Draws once it has seen the answers."""

    def compare(self, n, random):
        made = yield from super().compare(n, random)
        random.random()
        return made


class OwnDice(Good):
    """Draws from a stream that a resumed run does not have."""

    def compare(self, n, random):
        first = np.random.randint(n)
        order = [first, *(i for i in range(n) if i != first)]
        answers = yield [(order[0], i) for i in order[1:]]
        pairs = [
            Paired(chosen=order[0], rejected=i, p_chosen=p)
            if p > 0.5
            else Paired(chosen=i, rejected=order[0], p_chosen=1 - p)
            for i, p in zip(order[1:], answers, strict=True)
            if p > 0.5 or p < 0.5
        ]
        missing = sum(p != p for p in answers)
        return Pairs(pairs=tuple(pairs), dropped={"unparsed": missing} if missing else {})


class MostOfNothing(Good):
    """Raises another error where it cannot."""

    def most(self, n):
        return [(1, 1), (2, 2)][n]


class NothingTaken(Good):
    """Takes no number of completions."""

    def most(self, n):
        raise ValueError("never")


class GoodSchedule(Schedule):
    """Rounds that draw from the last policy and each train the first one anew.

    Args:
        count: Rounds.
    """

    reads = ("oracle", "sampler", "pairing")
    gives_previous = True

    def __init__(self, *, count: int = 3) -> None:
        self.count = count

    def phases(self, before, after):
        return (
            Collect(policy=before),
            Judge(),
            Pair(),
            Anchor(previous={before: 1.0}),
            Update(start=START),
            Snapshot(name=after),
        )

    def rounds(self):
        names = [START, *(f"main@{t}" for t in range(1, self.count + 1))]
        pairs = itertools.pairwise(names)
        return tuple(Round(phases=self.phases(before, after), policy=after) for before, after in pairs)


class FromNowhere(GoodSchedule):
    """Draws from a policy that is made later."""

    def phases(self, before, after):
        return (Collect(policy=after), *super().phases(before, after)[1:])


class AList(GoodSchedule):
    """A list where rounds are a tuple."""

    def rounds(self):
        return list(super().rounds())


class AnotherEachTime(GoodSchedule):
    """Declares another number of rounds each time."""

    calls = 0

    def rounds(self):
        self.calls += 1
        return super().rounds()[: 1 + self.calls % 2]


class ReadsLess(GoodSchedule):
    """Judges, and does not say so."""

    reads = ("sampler", "pairing")


class ReadsNoPairing(GoodSchedule):
    """Makes pairs, and does not say so."""

    reads = ("oracle", "sampler")


class SaysNothing(GoodSchedule):
    """Says what `previous` is, and does not declare it."""

    gives_previous = False


class ReadsTheWrongThing(GoodSchedule):
    """Reads a section that there is not."""

    reads = ("oracle", "sampler", "pairings")


class NeverTrains(GoodSchedule):
    """Hands out the start policy as its result."""

    def rounds(self):
        return tuple(replace(one, policy=START) for one in super().rounds())


@pytest.mark.parametrize("component", [Good, GoodSchedule])
def test_a_good_one_passes(component):
    check_component(component)


@pytest.mark.parametrize(
    ("rule", "component", "said"),
    [
        ("pairing-asks", Itself, "it asks for (0, 0)"),
        ("pairing-asks", AsksMore, "it asked for 1 comparisons, and most(2) says 0"),
        ("pairing-prefers", Swapped, "it chose 1 over 0, which surely beats it"),
        ("pairing-pairs", OtherP, "the pair of 0 over 1 has p_chosen 1.0, and the oracle gave P ="),
        ("pairing-answers", Uncounted, "1 comparisons had no answer, and dropped counts {}"),
        ("pairing-answers", GuessesMissing, "without any answer it made 1 pairs of 2"),
        ("pairing-rates", ClaimsRates, "has win rates (None, None), and gives_win_rates is True"),
        ("pairing-rates", FirstRates, "the win rate of completion"),
        ("pairing-random", DrawsLate, "it draws after an answer"),
        ("pairing-random", OwnDice, "asked again with the same stream"),
        ("pairing-most", MostOfNothing, "most(2) raised IndexError"),
        ("pairing-most", NothingTaken, "it takes no number of completions from 2 to 9"),
        ("schedule-rounds", FromNowhere, "there is no snapshot 'main@1' at that point"),
        ("schedule-rounds", AList, "rounds() gave a list"),
        ("schedule-same", AnotherEachTime, "others when it was asked again"),
        ("schedule-declares", ReadsLess, "and its phases use the oracle"),
        ("schedule-declares", ReadsNoPairing, "and pairs are made"),
        ("schedule-declares", SaysNothing, "gives_previous is False, and an Anchor says"),
        ("attributes", ReadsTheWrongThing, "it names some of oracle, sampler, pairing"),
        ("schedule-plays", NeverTrains, "every policy is still the start"),
    ],
)
def test_a_broken_one_is_found(rule, component, said, finds):
    assert said in finds(rule, component)


def test_the_global_streams_are_left_alone():
    np.random.seed(7)
    python_random.seed(7)
    before = str(np.random.get_state()), python_random.getstate()
    check_component(Good)
    assert (str(np.random.get_state()), python_random.getstate()) == before
