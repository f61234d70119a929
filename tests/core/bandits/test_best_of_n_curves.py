from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from nashtune.bandits.best_of_n_curves import curve_of_arms, curve_of_samples, rank_weights, selection
from nashtune.bandits.frontier import Answers, example, frontier
from nashtune.bandits.overopt_fit import fit
from nashtune.errors import InputError
from nashtune.samplers.best_of_n_theory import pmf

GOLD = np.array([0.2, 0.0, -0.3, 0.9, 0.4])
PROXY = np.array([0.3, -0.1, 0.8, 0.5, 0.1])
TABLE = {
    1: (0.0, -0.1280255859, -0.1358123210, -0.1280255859, -0.1455977661, -0.1280255859, -0.1280255859, -0.1280255859),
    4: (0.6362941736, 0.6899547305, 1.4061956814, 0.8674561001, 1.0395948049, 0.8749160616, 0.8978401556, 0.8876254858),
    16: (
        1.8350860437,
        0.8821843688,
        2.7995754190,
        1.4675506427,
        1.8473675768,
        1.5844718693,
        1.6189766518,
        1.6075144262,
    ),
    64: (
        3.1744654070,
        0.3237529648,
        4.7787216544,
        1.7262843976,
        2.4829392173,
        2.1045025741,
        2.1425918280,
        2.1330769916,
    ),
    256: (
        *(4.5484012925, -0.0411698303, 7.3004447262, 1.9098183105, 2.9487491043),
        *(2.5056590557, 2.5357139829, 2.5343541461),
    ),
    1024: (
        *(5.9215965073, 0.4851686130, 9.2195025354, 2.0333799145, 3.2249683077),
        *(2.7904544438, 2.8146702164, 2.8166429141),
    ),
    2048: (
        *(6.5825289358, 0.8552602865, 9.8803608539, 2.0114860860, 3.3119683061),
        *(2.8341170766, 2.8785626139, 2.8613223880),
    ),
}
"""n: exact KL, then gold and proxy of `single` and `mean`, gold of WCO, UWO and LCB."""


def test_the_game_of_2000_arms():
    found = frontier("example", example())
    single, mean, wco, uwo, lcb = found.curves
    rows = zip(found.kl, single.gold, single.proxy, mean.gold, mean.proxy, wco.gold, uwo.gold, lcb.gold, strict=True)
    by_n = dict(zip(found.ns, rows, strict=True))
    for n, expected in TABLE.items():
        assert by_n[n] == pytest.approx(expected, abs=1e-9)
    bounds = dict(zip(found.ns, found.bound, strict=True))
    assert bounds[64] == pytest.approx(3.1745080834, abs=1e-10)
    assert bounds[2048] == pytest.approx(6.6251072674, abs=1e-10)
    assert (found.kl <= found.bound + 1e-12).all()
    for curve in found.curves:
        assert (np.diff(curve.proxy) > 0).all()
    assert found.ns[single.best] == 16 and found.ns[uwo.best] == 2048


def test_estimates_from_samples():
    gold, proxy, kl = curve_of_samples(GOLD, PROXY, [1, 2, 3, 5])
    assert gold == pytest.approx([0.24, 0.23, 0.11, -0.3], abs=1e-12)
    assert proxy == pytest.approx([0.32, 0.54, 0.66, 0.8], abs=1e-12)
    assert kl == pytest.approx([0.0, 0.1931471806, 0.4319456220, 0.8094379124], abs=1e-10)


def test_rank_weights_are_binomials():
    assert rank_weights(5, 2) == pytest.approx([0.0, 0.1, 0.2, 0.3, 0.4], abs=1e-15)
    rewards = np.sort([1.2, -0.3, 0.5, 2.0, -1.1])
    assert rank_weights(5, 2) @ rewards == pytest.approx(1.23, abs=1e-12)
    for n in (1, 7, 100, 12_600):
        weights = rank_weights(12_600, n)
        assert weights.sum() == pytest.approx(1.0, abs=1e-10)
    expected = [math.comb(i - 1, 6) / math.comb(20, 7) for i in range(1, 21)]
    assert rank_weights(20, 7) == pytest.approx(expected, abs=1e-15)
    with pytest.raises(ValueError, match="the best of 6 needs at least 6 answers, and there are 5"):
        rank_weights(5, 6)


def test_the_estimate_is_the_mean_over_all_subsets():
    for n in (2, 3):
        best = [max(chosen, key=lambda i: PROXY[i]) for chosen in itertools.combinations(range(5), n)]
        gold, proxy, _ = curve_of_samples(GOLD, PROXY, [n])
        assert gold[0] == pytest.approx(np.mean(GOLD[best]), abs=1e-14)
        assert proxy[0] == pytest.approx(np.mean(PROXY[best]), abs=1e-14)


def test_selection_is_the_known_distribution():
    reference = np.array([0.2, 0.3, 0.5])
    for n, expected, divergence in ((2, [0.04, 0.21, 0.75], 0.1648195764), (4, [0.0016, 0.0609, 0.9375], 0.4844872639)):
        assert selection(np.array([1.0, 2.0, 3.0]), reference, n) == pytest.approx(expected, abs=1e-12)
        assert selection(np.array([1.0, 2.0, 3.0]), reference, n) == pytest.approx(pmf(n, reference), abs=1e-14)
        kl = curve_of_arms(reference, np.arange(3.0), reference, [n])[2]
        assert kl[0] == pytest.approx(divergence, abs=1e-10)


def test_ties_are_broken_at_random():
    reference = np.array([0.2, 0.3, 0.5])
    tied = selection(np.array([1.0, 1.0, 0.0]), reference, 3)
    assert tied == pytest.approx([0.4 * (1 - 0.5**3), 0.6 * (1 - 0.5**3), 0.5**3], abs=1e-14)
    assert selection(np.zeros(3), reference, 9) == pytest.approx(reference, abs=1e-15)
    gold, _, _ = curve_of_samples(np.array([1.0, 3.0, 0.0]), np.array([1.0, 1.0, 0.0]), [3])
    assert gold[0] == pytest.approx(2.0)


def test_one_draw_is_the_policy_and_a_perfect_proxy_is_never_overoptimised():
    reference = np.array([0.1, 0.2, 0.3, 0.25, 0.15])
    gold, _, kl = curve_of_arms(GOLD, PROXY, reference, [1])
    assert gold[0] == pytest.approx(reference @ GOLD, abs=1e-15) and kl[0] == pytest.approx(0.0, abs=1e-15)
    gold, proxy, _ = curve_of_arms(GOLD, GOLD, reference, [1, 2, 4, 8, 64])
    assert (np.diff(gold) > 0).all() and gold == pytest.approx(proxy)


def test_means_over_prompts_and_equal_members():
    one = Answers(gold=GOLD, proxies=np.tile(PROXY, (3, 1)), reference=None)
    other = Answers(gold=GOLD[::-1].copy(), proxies=np.tile(PROXY, (3, 1)), reference=None)
    both = frontier("both", [one, other], [1, 2, 3, 5])
    alone = [frontier("one", [part], [1, 2, 3, 5]).curves[0].gold for part in (one, other)]
    for curve in both.curves:
        assert curve.gold == pytest.approx(np.mean(alone, axis=0), abs=1e-14)


def test_each_rule_has_its_own_divergence_where_the_reference_is_not_uniform():
    reference, gold = np.array([0.6, 0.2, 0.1, 0.06, 0.04]), np.array([0.1, 0.5, -0.2, 0.9, 0.3])
    proxies = np.array([[0.1, 0.7, 0.3, 0.5, 0.9], [0.9, 0.2, 0.4, -0.6, 0.1]])
    ns = [1, 2, 3, 4]
    found = frontier("five", [Answers(gold=gold, proxies=proxies, reference=reference)], ns)
    aggregates = {"single": proxies[0], "mean": proxies.mean(0), "WCO": proxies.min(0)}
    aggregates["UWO 0.5"] = proxies.mean(0) - 0.5 * proxies.var(0)
    aggregates["LCB 1"] = proxies.mean(0) - proxies.std(0, ddof=1)
    for curve in found.curves:
        proxy = aggregates[curve.name]
        for q, n in enumerate(ns):
            p = np.zeros(5)
            for drawn in itertools.product(range(5), repeat=n):
                p[max(drawn, key=lambda i: proxy[i])] += np.prod(reference[list(drawn)])
            held = p > 0
            assert curve.kl[q] == pytest.approx(p[held] @ np.log(p[held] / reference[held]), abs=1e-12)
            assert curve.gold[q] == pytest.approx(p @ gold, abs=1e-12)
        own = fit("best_of_n", np.sqrt(curve.kl), curve.gold - reference @ gold)
        assert (curve.law.alpha, curve.law.beta) == (pytest.approx(own.alpha), pytest.approx(own.beta))
    single, mean = found.curves[0].kl, found.curves[1].kl
    assert np.abs(single - mean).max() > 0.1 and found.kl is None
    shown = found.to_dict()
    assert shown["kl"] is None and shown["curves"]["mean"]["kl"] == mean.tolist()


def test_constant_gold_and_ties_have_no_law():
    proxies = np.array([PROXY, PROXY[::-1]])
    found = frontier("flat", [Answers(gold=np.full(5, 0.3), proxies=proxies, reference=np.full(5, 0.2))], [1, 2, 4, 8])
    assert all(curve.law is None for curve in found.curves)
    assert found.notes == ["gold is the same for all answers of a prompt: no law to fit"]
    tied = np.array([PROXY, -PROXY])
    found = frontier("tied", [Answers(gold=GOLD, proxies=tied, reference=np.full(5, 0.2))], [1, 2, 4, 8])
    assert [curve.name for curve in found.curves if curve.law is None] == ["mean"]
    assert found.notes == ["no fit of mean: it takes three values of n above 1, with different KL"]


def test_rewards_too_large_for_float64_are_refused():
    proxies = 1e300 * np.array([PROXY, PROXY[::-1]])
    with pytest.raises(InputError, match=r"large: UWO 0\.5: gold or the aggregate of the proxies is too large"):
        frontier("large", [Answers(gold=GOLD, proxies=proxies, reference=np.full(5, 0.2))])
    large, plain = (
        frontier("one", [Answers(gold=gold, proxies=PROXY[None], reference=np.full(5, 0.2))], [1, 2, 4, 8])
        .curves[0]
        .law
        for gold in (1e300 * GOLD, GOLD)
    )
    for name in ("alpha", "beta", "alpha_error", "rmse"):
        assert getattr(large, name) == pytest.approx(1e300 * getattr(plain, name))
    assert large.r2 == pytest.approx(plain.r2) and large.peak[1] == pytest.approx(1e300 * plain.peak[1])
