"""Best-of-n: the sampler against the exact distribution, and the theory of arXiv:2401.01879 against numbers."""

from __future__ import annotations

import math
import sys
from collections import Counter
from itertools import pairwise

import pytest

from live_models import Live, bigram_model
from nashtune.errors import InputError
from nashtune.samplers.best_of_n import BestOfNSampler
from nashtune.samplers.best_of_n_theory import kl_estimate, kl_upper, pmf, win_rate_bound
from nashtune.samplers.policy import PolicySampler

PROMPTS = [[10, 20, 30], [11], [5, 6, 7, 8, 9, 40, 41]]
ATOMS = (0.2, 0.3, 0.5)  # in increasing order of reward


def kl(p, q):
    return math.fsum(a * math.log(a / b) for a, b in zip(p, q, strict=True) if a > 0)


def expected_estimate(n, q):
    return math.fsum(p * kl_estimate(n, math.log(eps)) for p, eps in zip(pmf(n, q), q, strict=True))


def win(n, q, tie):
    """How often the best of n beats one draw."""
    best = pmf(n, q)
    below = [sum(q[:i]) for i in range(len(q))]
    return math.fsum(p * (low + tie * here) for p, low, here in zip(best, below, q, strict=True))


# ---------------------------------------------------------------- theory


@pytest.mark.parametrize(
    ("n", "bound", "rate"),
    [
        (1, 0.0, 0.5),
        (2, 0.1931471806, 0.6666666667),
        (4, 0.6362943611, 0.8),
        (8, 1.2044415417, 0.8888888889),
        (16, 1.8350887222, 0.9411764706),
        (64, 3.1745080834, 0.9846153846),
        (256, 4.5490836945, 0.9961089494),
    ],
)
def test_bounds(n, bound, rate):
    assert kl_upper(n) == pytest.approx(bound, abs=1e-10)
    assert win_rate_bound(n) == pytest.approx(rate, abs=1e-10)


@pytest.mark.parametrize(
    ("n", "eps", "expected"),
    [
        (4, 0.1, 0.6348702809),
        (4, 0.5, 0.4991239194),
        (16, 0.01, 1.8349481532),
        (16, 0.3, 1.1849723922),
        (64, 0.001, 3.1744978168),
    ],
)
def test_the_estimate(n, eps, expected):
    assert kl_estimate(n, math.log(eps)) == pytest.approx(expected, abs=1e-10)


@pytest.mark.parametrize(
    ("n", "best", "divergence", "estimate", "half", "strict"),
    [
        (2, (0.04, 0.21, 0.75), 0.1648195764, 0.1820236230, 0.64, 0.417),
        (4, (0.0016, 0.0609, 0.9375), 0.4844872639, 0.5055983608, 0.7246, 0.48093),
        (16, (0.0, 0.0000152588, 0.9999847412), 0.6929704910, 0.6929982048, 0.7499938965, 0.4999954224),
    ],
)
def test_three_atoms(n, best, divergence, estimate, half, strict):
    assert pmf(n, ATOMS) == pytest.approx(best, abs=1e-10)
    assert kl(pmf(n, ATOMS), ATOMS) == pytest.approx(divergence, abs=1e-10)
    assert expected_estimate(n, ATOMS) == pytest.approx(estimate, abs=1e-10)
    assert win(n, ATOMS, 0.5) == pytest.approx(half, abs=1e-10)
    assert win(n, ATOMS, 0.0) == pytest.approx(strict, abs=1e-10)


@pytest.mark.parametrize(
    ("n", "eps", "divergence", "estimate"),
    [
        (4, 0.01, 0.0250710442, 0.0347266541),
        (4, 0.1, 0.2173975506, 0.2869749340),
        (4, 0.5, 0.4593555219, 0.4991239194),
        (16, 0.01, 0.2724476000, 0.2811247252),
        (16, 0.1, 1.4160962628, 1.4502487832),
    ],
)
def test_two_atoms(n, eps, divergence, estimate):
    q = (1 - eps, eps)
    assert kl(pmf(n, q), q) == pytest.approx(divergence, abs=1e-10)
    assert expected_estimate(n, q) == pytest.approx(estimate, abs=1e-10)


def test_a_thousand_equal_atoms():
    q = [1e-3] * 1000
    assert kl(pmf(4, q), q) == pytest.approx(0.6362936111, abs=1e-10)
    assert kl(pmf(64, q), q) == pytest.approx(3.1743373901, abs=1e-10)
    assert expected_estimate(64, q) == pytest.approx(3.1744978168, abs=1e-10)


@pytest.mark.parametrize("n", [1, 2, 4, 16])
@pytest.mark.parametrize("q", [ATOMS, (0.9, 0.1), (1e-9, 0.4, 0.6 - 1e-9), (1.0,), (0.0, 1.0)])
def test_divergence_estimate_and_bound_are_in_this_order(n, q):
    positive = [p for p in q if p > 0]
    assert sum(pmf(n, q)) == pytest.approx(1.0, abs=1e-12)
    exact = kl(pmf(n, positive), positive)
    assert exact <= expected_estimate(n, positive) + 1e-12 <= kl_upper(n) + 2e-12
    assert win(n, q, 0.5) <= win_rate_bound(n) + 1e-12


def test_the_estimate_falls_with_eps_and_is_stable_at_both_ends():
    logs = [-1e5, -800.0, -745.0, -700.0, -40.0, -20.0, -5.0, -1.0, -0.5, -1e-3, -1e-12, -1e-300, 0.0]
    for n in (1, 2, 16, 1024):
        values = [kl_estimate(n, log_eps) for log_eps in logs]
        assert values[0] == values[1] == pytest.approx(kl_upper(n), abs=1e-15)  # exp(-800) is 0 in float64
        assert values[2] == pytest.approx(kl_upper(n), rel=0.02, abs=1e-15)  # and exp(-745) has one digit
        assert all(high >= low - 1e-9 for high, low in pairwise(values[3:]))
        assert values[-1] == 0.0 and values[-2] == pytest.approx(0.0, abs=1e-12)
        assert kl_estimate(n, math.log(sys.float_info.min)) == pytest.approx(kl_upper(n))


def test_small_atoms_keep_their_digits():
    (small, _) = pmf(3, (1e-12, 1 - 1e-12))
    assert small == pytest.approx(1e-36, rel=1e-12)
    assert pmf(3, (1 - 1e-12, 1e-12))[1] == pytest.approx(3e-12, rel=1e-9)  # 1 - (1 - 1e-12)^3 would lose four digits


@pytest.mark.parametrize(
    "call",
    [lambda: kl_upper(0), lambda: kl_estimate(2, 0.1), lambda: kl_estimate(2, math.nan), lambda: pmf(2, (0.5, 0.4))],
)
def test_what_is_no_probability_is_refused(call):
    with pytest.raises(ValueError, match=r"at least one draw|at most 0|sum to"):
        call()


# ---------------------------------------------------------------- sampler


def favourite(prompt, completions):
    """Prefers high token ids at the end."""
    return [float(tokens[-1]) for tokens in completions]


def best_of(live, score=favourite, **options):
    return live.attached(BestOfNSampler(**{"max_new_tokens": 8, **options}), score=score)


@pytest.mark.parametrize("n", [2, 4])
def test_winners_follow_the_exact_distribution(untied, n):
    live = Live(untied, bigram_model([[*ATOMS, 0.0, 0.0]] * 5))  # ids 0, 1, 2 are the atoms, 3 begins, 4 is EOS
    live.tokenizer.eos_token_id = live.tokenizer.pad_token_id = 4
    drawn = best_of(live, n=n, max_new_tokens=1).sample([[3]], 2000, seed=0)
    counts = Counter(c.token_ids[0] for c in drawn)
    for atom, p in enumerate(pmf(n, ATOMS)):
        assert abs(counts[atom] / 2000 - p) < 3 * (p * (1 - p) / 2000) ** 0.5
    estimate = sum(kl_estimate(n, sum(c.token_logp)) for c in drawn) / 2000
    assert estimate == pytest.approx(expected_estimate(n, ATOMS), abs=0.01)


def test_it_returns_the_best_of_the_draws_that_the_policy_sampler_makes(live):
    seen = []

    def score(prompt, completions):
        seen.append((list(prompt), len(completions)))
        return favourite(prompt, completions)

    draws = live.attached(PolicySampler(max_new_tokens=8)).sample(PROMPTS, 6, seed=3, round=2)
    found = best_of(live, score, n=3).sample(PROMPTS, 2, seed=3, round=2)
    assert [(c.prompt, c.k) for c in found] == [(i, k) for i in range(3) for k in range(2)]
    for c in found:
        group = [d for d in draws if d.prompt == c.prompt and d.k // 3 == c.k]
        assert c.token_ids == max(group, key=lambda d: d.token_ids[-1]).token_ids
    assert seen == [(prompt, 3) for prompt in PROMPTS for _ in range(2)]


def test_of_equal_scores_the_first_wins_and_n_1_is_the_policy(live):
    policy = live.attached(PolicySampler(max_new_tokens=8))
    assert best_of(live, n=1).sample(PROMPTS, 2, seed=3) == policy.sample(PROMPTS, 2, seed=3)
    tied = best_of(live, lambda prompt, completions: [1.0] * len(completions), n=4).sample(PROMPTS, 1, seed=3)
    assert [c.token_ids for c in tied] == [c.token_ids for c in policy.sample(PROMPTS, 1, seed=3)]


def test_a_split_over_ranks_and_batches_does_not_matter(live):
    whole = best_of(live, n=3).sample(PROMPTS, 2, seed=7)
    parts = [best_of(live, n=3, batch_tokens=30).sample([PROMPTS[i]], 2, seed=7, indices=[i]) for i in (2, 0, 1)]
    assert [c.token_ids for c in parts[1] + parts[2] + parts[0]] == [c.token_ids for c in whole]


def test_version_mixtures_and_useless_oracles(live):
    sampler = best_of(live, n=2)
    sampler.sync("main@1")
    assert sampler.sample(PROMPTS, 1, seed=0)[0].version == "main@1"
    with pytest.raises(InputError, match=r"set spec\.sampler\.name to mixture"):
        sampler.sample(PROMPTS, 1, seed=0, reference_weight=0.5)
    with pytest.raises(InputError, match="scored a completion of prompt 12 as nan"):
        best_of(live, lambda prompt, completions: [math.nan, 1.0], n=2).sample(PROMPTS[:1], 1, seed=0, indices=[12])
    with pytest.raises(ValueError, match="1 scores for 2 completions"):
        best_of(live, lambda prompt, completions: [1.0], n=2).sample(PROMPTS, 1, seed=0)
    with pytest.raises(RuntimeError, match="score"):
        live.attached(BestOfNSampler(n=2))
