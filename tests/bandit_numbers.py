"""The bandit that tests agree on: six arms, noisy estimates, and its first draw."""

from __future__ import annotations

from typing import Any

import numpy as np

from nashtune.bandits.bandit import Arms, make_arms
from nashtune.spec.model import Spec
from nashtune.spec.overrides import Override
from nashtune.spec.resolve import resolve

GOLD = np.array([1.0, 0.6, 0.2, 0.0, -0.4, -0.9])
SIGMA = np.array([0.3, 0.3, 0.5, 1.0, 2.0, 2.5])
REFERENCE = np.array([0.10, 0.20, 0.25, 0.20, 0.15, 0.10])
ESTIMATE = GOLD + SIGMA * np.random.default_rng(0).standard_normal(6)
V = SIGMA**2 / (REFERENCE @ SIGMA**2)
DETACHED_FLOORED = [0.4713551941, 0.1396804085, 0.1486912049, 0.0875840651, 0.0671817936, 0.0855073338]
EXACT_FLOORED = [0.5514080061, 0.1634030907, 0.1739442395, 0.0499297172, 0.0275749183, 0.0337400282]
"""Closed forms on the first draw with v at least 0.25, β = 1."""


def arms(**changes: Any) -> Arms:
    """The bandit with its first draw as estimate."""
    given: dict[str, Any] = {"rewards": GOLD, "sigma": SIGMA, "reference": REFERENCE, "estimate": ESTIMATE}
    return make_arms("six", **{**given, **changes})


def spec(name: str, **sections: Any) -> Spec:
    """A spec with whole sections or, by `section__key`, single settings changed."""
    return resolve(name, [Override(tuple(key.split("__")), value, "test") for key, value in sections.items()])


def variance_weighted(**changes: Any) -> dict[str, Any]:
    """A `kl` section."""
    return {"name": "variance_weighted", "beta": 1.0, "v_min": 0.25, **changes}
