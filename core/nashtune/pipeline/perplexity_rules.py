"""Which answers a perplexity filter keeps: pure functions of numbers, without torch.

For an answer y of |y| tokens, EOS included, to a prompt x:

    nll(y|x) = -(1/|y|) sum_t log pi(y_t | x, y_<t)        nats per token
    ppl(y|x) = exp(nll)

"Own" numbers are those of answers that the model itself has drawn.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Literal

from nashtune.errors import InputError

RuleName = Literal["absolute", "own_quantile", "zscore", "band", "topk"]
READS: dict[str, tuple[str, ...]] = {
    "absolute": ("tau",),
    "own_quantile": ("q",),
    "zscore": ("z",),
    "band": ("lo", "hi"),
    "topk": ("n",),
}
"""Rule -> the numbers that it reads."""
NEEDS_OWN = ("own_quantile", "zscore")
LEAST_OWN = {"own_quantile": 1, "zscore": 2}
"""Own samples without which a rule has no limit."""


@dataclass(frozen=True, kw_only=True)
class Rule:
    """A rule and its numbers.

    Args:
        name: absolute: ppl <= tau. own_quantile: ppl <= the q-quantile of own ppl. zscore: (nll - mean of own nll) /
            their sample standard deviation <= z. band: lo <= ppl <= hi. topk: among the n lowest of a prompt's answers.
        tau: Perplexity.
        q: In [0, 1].
        z: Standard deviations.
        lo: Perplexity.
        hi: Perplexity.
        n: Answers.
    """

    name: RuleName
    tau: float | None = None
    q: float | None = None
    z: float | None = None
    lo: float | None = None
    hi: float | None = None
    n: int | None = None


@dataclass(frozen=True, kw_only=True)
class Limit:
    """What a rule comes to in one bucket of lengths.

    Args:
        bucket: Which, from 0.
        own: Own samples of these lengths.
        pooled: Whether they were too few, so that those of all lengths were taken.
        low: Lowest perplexity that is kept.
        high: Highest perplexity that is kept; None for topk, whose limit is each prompt's own.
    """

    bucket: int
    own: int = 0
    pooled: bool = False
    low: float = 0.0
    high: float | None = None


def perplexity(nll: float) -> float:
    """exp(nll); infinite where that is too large for a float."""
    return math.exp(nll) if nll < 709.0 else math.inf


def quantile(values: Sequence[float], q: float) -> float:
    """The q-quantile, linear between neighbours: position q (n - 1) in the sorted values."""
    ordered = sorted(values)
    place = q * (len(ordered) - 1)
    below = math.floor(place)
    if below == place:
        return ordered[below]
    low, high = ordered[below], ordered[below + 1]
    return min(high, low + (high - low) * (place - below))


def moments(own_nll: Sequence[float]) -> tuple[float, float]:
    """Mean and sample standard deviation (divided by n - 1) of at least two numbers."""
    mean = math.fsum(own_nll) / len(own_nll)
    return mean, math.sqrt(math.fsum((value - mean) ** 2 for value in own_nll) / (len(own_nll) - 1))


def bucket_of(tokens: int, borders: Sequence[int]) -> int:
    """Bucket of a length: 0 up to the first border, which belongs to it, 1 up to the second, and so on."""
    return bisect_left(borders, tokens)


def bucket_name(bucket: int, borders: Sequence[int]) -> str:
    """Lengths of a bucket in words: "1-16", "17-64", "65 and more"; "all" without borders."""
    if not borders:
        return "all"
    first = 1 if bucket == 0 else borders[bucket - 1] + 1
    return f"{first} and more" if bucket == len(borders) else f"{first}-{borders[bucket]}"


def limits(rule: Rule, own: Sequence[tuple[float, int]], borders: Sequence[int]) -> list[Limit]:
    """The rule's limit in every bucket.

    Args:
        rule: The rule.
        own: (nll, tokens) of the model's own samples.
        borders: Of the buckets; none for one bucket.

    Raises:
        InputError: there are fewer own samples in all than the rule takes.
    """
    least = LEAST_OWN.get(rule.name, 0)
    if len(own) < least:
        raise InputError(
            f"rule: {rule.name} takes at least {least} own samples, and there are {len(own)} in all; use a rule that "
            "takes fewer, such as own_quantile, or begin anew with more samples or own_prompts"
        )
    found = []
    for bucket in range(len(borders) + 1):
        here = [nll for nll, tokens in own if bucket_of(tokens, borders) == bucket]
        pooled = len(here) < least
        used = [nll for nll, _ in own] if pooled else here
        low, high = 0.0, None
        match rule:
            case Rule(name="absolute", tau=float(tau)):
                high = tau
            case Rule(name="own_quantile", q=float(q)):
                high = quantile([perplexity(nll) for nll in used], q)
            case Rule(name="zscore", z=float(z)):
                mean, std = moments(used)
                high = perplexity(mean + z * std)
            case Rule(name="band", lo=float(lo), hi=float(hi)):
                low, high = lo, hi
        found.append(Limit(bucket=bucket, own=len(here), pooled=pooled, low=low, high=high))
    return found


def kept(
    rule: Rule,
    answers: Sequence[tuple[float, int]],
    prompts: Sequence[Hashable],
    found: Sequence[Limit],
    borders: Sequence[int],
) -> list[bool]:
    """Which answers the rule keeps.

    Args:
        rule: The rule.
        answers: (nll, tokens) of each.
        prompts: Which prompt each answers; only topk looks at it.
        found: From `limits`.
        borders: Of the buckets.
    """
    buckets = [bucket_of(tokens, borders) for _, tokens in answers]
    if rule.name != "topk":
        kept_ones = []
        for (nll, _), bucket in zip(answers, buckets, strict=True):
            high = found[bucket].high
            assert high is not None, "only topk has no limit"
            kept_ones.append(found[bucket].low <= perplexity(nll) <= high)
        return kept_ones
    assert rule.n is not None
    groups: dict[Hashable, list[int]] = defaultdict(list)
    for i, (prompt, bucket) in enumerate(zip(prompts, buckets, strict=True)):
        groups[prompt, bucket].append(i)
    lowest = {i for group in groups.values() for i in sorted(group, key=lambda i: (answers[i][0], i))[: rule.n]}
    return [i in lowest for i in range(len(answers))]
