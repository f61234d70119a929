"""Many prompts side by side."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from nashtune.interfaces.pairing import Pairs
from nashtune.pairing.drive import drive
from nashtune.pairing.iid import IID
from nashtune.pairing.tournament import Tournament


def better_is_higher(calls):
    def ask(comparisons):
        calls.append(list(comparisons))
        return [float(i > j) for _, i, j in comparisons]

    return ask


def test_prompts_move_in_step_and_leave_when_they_are_done():
    calls = []
    random = np.random.default_rng(0)
    found = drive(
        [Tournament().compare(4, random), IID(label="likely").compare(4, random), Tournament().compare(2, random)],
        better_is_higher(calls),
    )
    assert calls == [
        [(0, 0, 1), (0, 2, 3), (1, 0, 1), (1, 2, 3), (2, 0, 1)],
        [(0, 1, 3), (0, 0, 2), (2, 1, 0)],
        [(0, 3, 0)],
    ]
    made = [[(pair.chosen, pair.rejected) for pair in pairs.pairs] for pairs in found]
    assert made == [[(3, 0)], [(1, 0), (3, 2)], [(1, 0)]]


def test_each_prompt_gets_its_own_answers():
    random = np.random.default_rng(0)
    answers = [0.6, 0.7, 0.8, 0.9]
    found = drive([IID(label="likely").compare(4, random) for _ in range(2)], lambda asked: answers)
    assert [[pair.p_chosen for pair in pairs.pairs] for pairs in found] == [[0.6, 0.7], [0.8, 0.9]]


def test_the_oracle_is_never_asked_nothing():
    def idle():
        assert (yield []) == []
        return Pairs(pairs=(), dropped={"degenerate": 1})

    def silent():
        return Pairs(pairs=(), dropped={})
        yield []

    found = drive([idle(), silent()], lambda asked: pytest.fail("asked"))
    assert [pairs.dropped for pairs in found] == [{"degenerate": 1}, {}]
    assert drive([], lambda asked: pytest.fail("asked")) == []


@pytest.mark.parametrize("answers", [[0.5], [0.5, 0.5, 0.5]])
def test_too_few_or_too_many_answers_are_refused(answers):
    with pytest.raises(ValueError, match=f"{len(answers)} answers to 2 comparisons"):
        drive([IID().compare(4, np.random.default_rng(0))], lambda asked: answers)


def test_pairings_are_built_and_counted_without_torch_and_numpy():
    code = (
        "import sys\n"
        "from nashtune.pairing.iid import IID\n"
        "from nashtune.pairing.ranked import Adjacent, AllPairs, BestWorst\n"
        "from nashtune.pairing.tournament import Tournament\n"
        "import nashtune.pairing.drive\n"
        "assert [kind().most(8) for kind in (IID, Tournament, BestWorst, AllPairs, Adjacent)]"
        " == [(4, 4), (11, 1), (28, 1), (28, 28), (28, 7)]\n"
        "assert not {'torch', 'numpy'} & set(sys.modules), 'heavy'\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
