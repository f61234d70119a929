"""The contract of a pairing: what it asks, what it makes of the answers, and where its randomness comes from."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from nashtune.interfaces import Paired, Pairing, Pairs
from nashtune.testing.contract import ContractError, require, running
from nashtune.testing.declared import check_class
from nashtune.testing.subject import Subject

LARGEST = 9
Answer = Callable[[int, int], float]


@dataclass(frozen=True)
class _Played:
    """One prompt's pairing: what was asked and answered, what came of it, and when random numbers were drawn."""

    asked: dict[tuple[int, int], float]
    count: int
    made: Pairs
    drew_late: bool


def check(subject: Subject, options: Mapping[str, Any]) -> None:
    """Check a pairing with each of its options.

    Raises:
        ContractError: it breaks a rule.
    """
    check_class(subject)
    for chosen, made in subject.swept(options):
        assert isinstance(made, Pairing)
        who = subject.named(chosen)
        taken = [n for n in range(1, LARGEST + 1) if _takes(made, n, who)]
        require(
            any(n > 1 for n in taken), who, "pairing-most", f"it takes no number of completions from 2 to {LARGEST}"
        )
        for n in taken:
            _check_n(made, n, who)


def _takes(pairing: Pairing, n: int, who: str) -> bool:
    try:
        most = pairing.most(n)
    except ValueError:
        return False
    except Exception as error:
        text = f"most({n}) raised {type(error).__name__}: {error}; a number it cannot take is a ValueError"
        raise ContractError(who, "pairing-most", text) from error
    fits = len(most) == 2 and all(isinstance(one, int) and one >= 0 for one in most)
    require(fits, who, "pairing-most", f"most({n}) is {most!r}; it is (comparisons, pairs)")
    return True


def _check_n(pairing: Pairing, n: int, who: str) -> None:
    noise = np.random.default_rng(5).random((n, n))

    def uneven(i: int, j: int) -> float:
        return float(noise[i, j] if i < j else 1.0 - noise[j, i])

    for what, answer in (("uneven answers", uneven), ("ties", lambda i, j: 0.5)):
        played = _play(pairing, n, answer, who)
        _check_pairs(pairing, n, played, f"{who}, {n} completions, {what}")
    sure = _play(pairing, n, lambda i, j: 1.0 if i < j else 0.0, who)
    for pair in sure.made.pairs:
        said = f"with {n} completions it chose {pair.chosen} over {pair.rejected}, which surely beats it"
        require(pair.chosen < pair.rejected, who, "pairing-prefers", said)
    _check_unanswered(pairing, n, uneven, who)
    _check_random(pairing, n, uneven, who)


def _check_pairs(pairing: Pairing, n: int, played: _Played, who: str) -> None:
    comparisons, pairs = pairing.most(n)
    asks = f"it asked for {played.count} comparisons, and most({n}) says {comparisons}"
    require(played.count <= comparisons, who, "pairing-asks", asks)
    made = played.made
    gave = f"it made {len(made.pairs)} pairs, and most({n}) says {pairs}"
    require(len(made.pairs) <= pairs, who, "pairing-pairs", gave)
    whole = len({frozenset(match) for match in played.asked}) == n * (n - 1) // 2
    for pair in made.pairs:
        both = {pair.chosen, pair.rejected}
        require(
            len(both) == 2 and both <= set(range(n)), who, "pairing-pairs", f"{_shown(pair)} names no two completions"
        )
        known = played.asked.get((pair.chosen, pair.rejected))
        if known is None and (turned := played.asked.get((pair.rejected, pair.chosen))) is not None:
            known = 1.0 - turned
        said = f"the oracle gave P = {known}" if known is not None else "the two were never compared"
        same = known is not None and math.isclose(pair.p_chosen, known, abs_tol=1e-12)
        require(same, who, "pairing-pairs", f"{_shown(pair)} has p_chosen {pair.p_chosen}, and {said}")
        rates = pair.win_rate_chosen, pair.win_rate_rejected
        given = [rate is not None for rate in rates]
        wanted = [pairing.gives_win_rates] * 2
        require(
            given == wanted,
            who,
            "pairing-rates",
            f"{_shown(pair)} has win rates {rates}, and gives_win_rates is {pairing.gives_win_rates}",
        )
        if pairing.gives_win_rates:
            require(whole, who, "pairing-rates", "not all completions were compared, so their win rates are not known")
            for index, rate in zip((pair.chosen, pair.rejected), rates, strict=True):
                right = _win_rate(index, n, played.asked)
                same = rate is not None and math.isclose(rate, right, abs_tol=1e-9)
                require(same, who, "pairing-rates", f"the win rate of completion {index} is {rate}; it is {right:.6g}")
    for why, count in made.dropped.items():
        fits = isinstance(why, str) and isinstance(count, int) and count > 0
        require(fits, who, "pairing-answers", f"dropped says {why!r}: {count!r}; give a reason and how many, > 0")


def _shown(pair: Paired) -> str:
    return f"the pair of {pair.chosen} over {pair.rejected}"


def _win_rate(i: int, n: int, asked: Mapping[tuple[int, int], float]) -> float:
    others = (asked.get((i, j), 1.0 - asked.get((j, i), math.nan)) for j in range(n) if j != i)
    return math.fsum([0.5, *others]) / n


def _check_unanswered(pairing: Pairing, n: int, answer: Answer, who: str) -> None:
    rule = "pairing-answers"
    silent = _play(pairing, n, lambda i, j: math.nan, who)
    require(not silent.made.pairs, who, rule, f"without any answer it made {len(silent.made.pairs)} pairs of {n}")
    counted = silent.made.dropped.get("unparsed", 0)
    said = f"{silent.count} comparisons had no answer, and dropped counts {silent.made.dropped}"
    require(counted == silent.count, who, rule, f"{said}; they are counted as 'unparsed'")
    for gap in itertools.combinations(range(n), 2):
        missing = frozenset(gap)
        played = _play(pairing, n, _without(answer, missing), who)
        bad = [pair for pair in played.made.pairs if {pair.chosen, pair.rejected} == missing]
        require(
            not bad,
            who,
            rule,
            f"{_shown(bad[0]) if bad else ''} was made of two completions whose comparison had no answer",
        )
        for pair in played.made.pairs:
            require(not math.isnan(pair.p_chosen), who, rule, f"{_shown(pair)} has no probability")


def _without(answer: Answer, missing: frozenset[int]) -> Answer:
    """Answers to all but one comparison."""
    return lambda i, j: math.nan if {i, j} == missing else answer(i, j)


def _check_random(pairing: Pairing, n: int, answer: Answer, who: str) -> None:
    kept = np.random.get_state()
    try:  # the global stream, which a resumed run does not have
        np.random.seed(1)
        first = _play(pairing, n, answer, who)
        np.random.seed(2)
        again = _play(pairing, n, answer, who)
    finally:
        np.random.set_state(kept)
    same = first.made == again.made and first.asked == again.asked
    said = "asked again with the same stream it gave other pairs; draw from the stream that compare is given"
    require(same, who, "pairing-random", said)
    require(not first.drew_late, who, "pairing-random", "it draws after an answer: a missing one would move the others")


def _play(pairing: Pairing, n: int, answer: Answer, who: str) -> _Played:
    """One prompt, from the first question to the pairs."""
    random = np.random.default_rng(3)
    asked: dict[tuple[int, int], float] = {}
    count, early = 0, ""
    with running(who, f"compare with {n} completions"):
        generator = pairing.compare(n, random)
        answers: Any = None
        while True:
            try:
                matches = generator.send(answers)
            except StopIteration as stop:
                made = stop.value
                break
            early = early or str(random.bit_generator.state)
            count += len(matches)
            for match in matches:
                apart = len(match) == 2 and match[0] != match[1] and set(match) <= set(range(n))
                require(apart, who, "pairing-asks", f"it asks for {match}, of {n} completions")
            answers = [answer(i, j) for i, j in matches]
            asked |= dict(zip([(i, j) for i, j in matches], answers, strict=True))
    require(isinstance(made, Pairs), who, "pairing-pairs", f"it returned {made!r}; it returns Pairs")
    return _Played(asked, count, made, bool(early) and str(random.bit_generator.state) != early)
