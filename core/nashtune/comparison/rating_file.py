"""Ratings from what `comparison.json` holds of them, also from files of earlier versions, which told less."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from nashtune.comparison.judged import K1
from nashtune.comparison.ratings import Cycle, Cyclicity, Elo, Frontier, LengthControlled, NashAverage, Ratings
from nashtune.evaluation.estimate import Estimate
from nashtune.evaluation.plain import array

AS_THEY_ARE = ("anchor", "seeds", "prompts", "comparisons", "unanswered", "resamples", "level")


def ratings(found: Mapping[str, Any]) -> Ratings:
    """Inverse of `Ratings.as_dict`."""
    as_they_are = {name: found[name] for name in AS_THEY_ARE}
    controlled, elo, nash, cyclicity = (found[name] for name in ("length_controlled", "elo", "nash", "cyclicity"))
    return Ratings(
        **as_they_are,
        policies=tuple(found["policies"]),
        resampled=tuple(found["resampled"]),
        notes=tuple(found["notes"]),
        win_rate=Estimate.from_dict(found["win_rate"]),
        **_estimates(found, "mean_win_rate", "hard_win_rate"),
        above=array(found["above"]),
        length_controlled=LengthControlled(
            **_estimates(controlled, "win_rate", "mean", "effect", "tokens"),
            scale=_number(controlled["scale"]),
            overlap=array(controlled["overlap"]),
        ),
        elo=Elo(
            rating=Estimate.from_dict(elo["rating"]),
            imagined=elo["imagined"],
            imagined_share=_number(elo["imagined_share"]),
        ),
        nash=_nash(nash, found["policies"], found["level"]),
        cyclicity=Cyclicity(
            share=Estimate.from_dict(cyclicity["share"]),
            noise=_number(cyclicity["noise"]),
            chance=_number(cyclicity["chance"]),
            cycles=tuple(_cycle(one) for one in cyclicity["cycles"]),
            triples=cyclicity["triples"],
        ),
        frontier=None if found["frontier"] is None else _frontier(found["frontier"]),
    )


def _estimates(found: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {name: Estimate.from_dict(found[name]) for name in names}


def _number(value: float | None) -> float:
    return float("nan") if value is None else value


def _nash(found: Mapping[str, Any], policies: Sequence[str], level: float) -> NashAverage:
    weight, share = Estimate.from_dict(found["weight"]), array(found["share"])
    sure = (weight.value > 0) & (share >= level) & found["determined"]  # files from before it was told
    return NashAverage(
        weight=weight,
        value=Estimate.from_dict(found["value"]),
        share=share,
        determined=found["determined"],
        sure=tuple(found.get("sure", [name for name, one in zip(policies, sure, strict=True) if one])),
        failed=found.get("failed", 0),
    )


def _cycle(found: Mapping[str, Any]) -> Cycle:
    return Cycle(policies=tuple(found["policies"]), rates=tuple(found["rates"]), confidence=found["confidence"])


def _frontier(found: Mapping[str, Any]) -> Frontier:
    return Frontier(
        **_estimates(found, "kl", "gain"),
        axis=found["axis"],
        kl_by_seed=array(found["kl_by_seed"]),
        gain_by_seed=array(found["gain_by_seed"]),
        best=tuple(found["best"]),
        share=array(found["share"]),
        estimator=found.get("estimator", K1),  # files from before there was another
    )
