"""How true reward and proxy move apart when best-of-n is pushed: for one reward model and for ensembles of several.

Legend: P = prompts, N = arms or answers of a prompt, K = members of an ensemble, Q = values of n.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from nashtune.bandits.best_of_n_curves import curve_of_arms, curve_of_samples
from nashtune.bandits.overopt_fit import Fit, fit
from nashtune.errors import InputError
from nashtune.games.matrices import Array
from nashtune.samplers.best_of_n_theory import kl_upper

MOST_N = 2048
"""Largest n where nobody says which."""

Rule = Literal["mean", "wco", "uwo", "lcb"]
ENSEMBLES: tuple[tuple[str, Rule, float, int], ...] = (
    ("mean", "mean", 0.0, 0),
    ("WCO", "wco", 0.0, 0),
    ("UWO 0.5", "uwo", 0.5, 0),
    ("LCB 1", "lcb", 1.0, 1),
)
"""Label, rule, penalty and ddof: UWO as in arXiv:2310.02743; arXiv:2401.16635 does not state LCB's."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Answers:
    """One prompt's answers and what is said of them.

    Args:
        gold: True reward (N,).
        proxies: Scores of each reward model (K, N).
        reference: Probability of each answer under the policy, where they are all it can say (N,); None where they are
            a sample of what it says.
    """

    gold: Array
    proxies: Array
    reference: Array | None


@dataclass(frozen=True, kw_only=True)
class Curve:
    """Best-of-n by one rule; means over prompts.

    Args:
        name: The rule.
        gold: True reward at each n (Q,).
        proxy: What the rule itself says (Q,).
        kl: KL(best of n by this rule || policy) in nats (Q,). Rules differ in it where a reference is not uniform, as
            they choose other arms, or where answers tie.
        law: The fitted law of gold minus its value at n = 1; None for too few points or constant gold.
    """

    name: str
    gold: Array
    proxy: Array
    kl: Array
    law: Fit | None

    @property
    def best(self) -> int:
        """Place of the largest gold."""
        return int(np.argmax(self.gold))


@dataclass(frozen=True, kw_only=True)
class Frontier:
    """All curves.

    Args:
        name: Of the data.
        ns: Values of n (Q,).
        bound: log n - (n-1)/n (Q,).
        curves: One per rule.
        exact: Whether the answers are all that the policy can say.
        notes: What a reader must know.
    """

    name: str
    ns: Sequence[int]
    bound: Array
    curves: Sequence[Curve]
    exact: bool
    notes: Sequence[str]

    @property
    def kl(self) -> Array | None:
        """KL(best of n || policy) in nats, where it is the same by every rule (Q,); else None."""
        first = self.curves[0].kl
        same = all(np.allclose(curve.kl, first, rtol=1e-9, atol=1e-12) for curve in self.curves)
        return first if same else None

    def to_dict(self) -> dict[str, Any]:
        """As `nashtune frontier --json` prints it."""
        return {
            "name": self.name,
            "n": list(self.ns),
            "kl": None if self.kl is None else self.kl.tolist(),
            "kl_bound": self.bound.tolist(),
            "exact": self.exact,
            "curves": {
                curve.name: {
                    "gold": curve.gold.tolist(),
                    "proxy": curve.proxy.tolist(),
                    "kl": curve.kl.tolist(),
                    "best_n": self.ns[curve.best],
                    "fit": None if curve.law is None else _law(curve.law),
                }
                for curve in self.curves
            },
            "notes": list(self.notes),
        }


def _law(law: Fit) -> dict[str, Any]:
    d, gold = law.peak
    finite = np.isfinite(d)
    return {
        "form": "d (alpha - beta d), d = sqrt(KL)",
        "alpha": law.alpha,
        "beta": law.beta,
        "alpha_standard_error": law.alpha_error,
        "beta_standard_error": law.beta_error,
        "r2": law.r2,
        "rmse": law.rmse,
        "peak_d": d if finite else None,
        "peak_gold_gain": gold if finite else None,
        "peak_in_data": law.peak_seen,
    }


def example() -> list[Answers]:
    """2000 arms, five reward models; one arm in ten looks good to them by accident.

    Gold is standard normal, and 1 lower on the exploitable arms; proxies are gold plus noise of standard deviation 0.5,
    there 4. The policy is uniform.
    """
    random = np.random.default_rng(0)
    arms, members = 2000, 5
    gold = random.standard_normal(arms)
    exploitable = np.zeros(arms, dtype=bool)
    exploitable[random.permutation(arms)[: arms // 10]] = True
    gold[exploitable] -= 1.0
    proxies = gold + np.where(exploitable, 4.0, 0.5) * random.standard_normal((members, arms))
    return [Answers(gold=gold, proxies=proxies, reference=np.full(arms, 1.0 / arms))]


def frontier(name: str, prompts: Sequence[Answers], ns: Sequence[int] | None = None) -> Frontier:
    """Best-of-n curves, exact or estimated, and their fits.

    Args:
        name: Of the data.
        prompts: Each with the same number of reward models.
        ns: Values of n, >= 1; None for powers of two up to the number of answers, 2048 at most.

    Raises:
        InputError: n is larger than the number of answers of a sample, or rewards are too large for float64.
    """
    fewest, members = min(len(one.gold) for one in prompts), len(prompts[0].proxies)
    exact = prompts[0].reference is not None
    if ns is None:
        ns = [2**k for k in range(12) if 2**k <= (MOST_N if exact and fewest >= 1000 else fewest)]
    if not exact and max(ns) > fewest:
        raise InputError(
            f"--n {max(ns)}: a prompt has {fewest} answers, and the best of n is drawn without replacement"
        )
    notes = []
    rules: list[tuple[str, Rule | None, float, int]] = [("single", None, 0.0, 0)]
    if members > 1:
        rules += ENSEMBLES
    else:
        notes.append("one reward model: no ensemble to compare it with")
    with np.errstate(over="ignore", invalid="ignore"):  # what is not finite is refused below
        found = [_curve(prompts, rule, penalty, ddof, ns) for _, rule, penalty, ddof in rules]
    constant = all(np.ptp(one.gold) == 0.0 for one in prompts)
    if constant:
        notes.append("gold is the same for all answers of a prompt: no law to fit")
    base = float(np.mean([one.gold.mean() if one.reference is None else one.reference @ one.gold for one in prompts]))
    curves = []
    for (label, *_), (gold_Q, proxy_Q, kl_Q) in zip(rules, found, strict=True):
        if not (np.isfinite(gold_Q) & np.isfinite(proxy_Q) & np.isfinite(gold_Q - base)).all():
            raise InputError(
                f"{name}: {label}: gold or the aggregate of the proxies is too large for float64 (UWO squares scores); "
                "give rewards in a larger unit"
            )
        enough = len({float(kl) for kl in kl_Q if kl > 0}) >= 3
        law = fit("best_of_n", np.sqrt(kl_Q), gold_Q - base) if enough and not constant else None
        curves.append(Curve(name=label, gold=gold_Q, proxy=proxy_Q, kl=kl_Q, law=law))
    without = [curve.name for curve in curves if curve.law is None]
    if without and not constant:
        which = "" if len(without) == len(curves) else f" of {', '.join(without)}"
        notes.append(f"no fit{which}: it takes three values of n above 1, with different KL")
    bound_Q = np.array([kl_upper(n) for n in ns])
    return Frontier(name=name, ns=ns, bound=bound_Q, curves=curves, exact=exact, notes=notes)


def _curve(
    prompts: Sequence[Answers], rule: Rule | None, penalty: float, ddof: int, ns: Sequence[int]
) -> tuple[Array, Array, Array]:
    """(gold, proxy, KL), means over prompts (Q,)."""
    parts = []
    for one in prompts:
        proxy_N = one.proxies[0] if rule is None else _aggregate(one.proxies, rule, penalty, ddof)
        if one.reference is None:
            parts.append(curve_of_samples(one.gold, proxy_N, ns))
        else:
            parts.append(curve_of_arms(one.gold, proxy_N, one.reference, ns))
    gold_Q, proxy_Q, kl_Q = (np.mean([part[i] for part in parts], axis=0) for i in range(3))
    return gold_Q, proxy_Q, kl_Q


def _aggregate(proxies_KN: Array, rule: Rule, penalty: float, ddof: int) -> Array:
    import torch

    from nashtune.oracles.aggregation import aggregate

    aggregated: Array = aggregate(torch.from_numpy(proxies_KN.T.copy()), rule, penalty, ddof=ddof).numpy()
    return aggregated
