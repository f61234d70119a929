"""Rules that make one reward of K: the papers' numbers, and what must hold for any members."""

from __future__ import annotations

import pytest
import torch

from nashtune.oracles.aggregation import aggregate, centred, deviations, moments, spread

# 3 members x 4 answers, written here as answers x members
SCORES = torch.tensor([[1.0, 0.2, -0.5, 2.0], [1.2, 0.9, -0.4, -1.0], [0.7, 0.1, -0.9, 3.5]], dtype=torch.float64).T
RULES = [("mean", 0.0), ("wco", 0.0), ("uwo", 0.5), ("lcb", 1.0)]


def random_members(rows: int = 12, members: int = 5, seed: int = 0) -> torch.Tensor:
    return torch.randn(rows, members, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    ("rule", "penalty", "ddof", "expected"),
    [
        ("mean", 0.0, 0, [0.9666666667, 0.4, -0.6, 1.5]),
        ("wco", 0.0, 0, [0.7, 0.1, -0.9, -1.0]),
        ("uwo", 0.5, 0, [0.9455555556, 0.3366666667, -0.6233333333, -0.25]),
        ("uwo", 0.5, 1, [0.935, 0.305, -0.635, -1.125]),
        ("uwo", 0.1, 0, [0.9624444444, 0.3873333333, -0.6046666667, 1.15]),
        ("lcb", 1.0, 0, [0.7611861999, 0.0440973916, -0.8160246899, -0.3708286934]),
        ("lcb", 1.0, 1, [0.7150055188, -0.0358898944, -0.8645751311, -0.7912878475]),
    ],
)
def test_the_papers_rules(rule, penalty, ddof, expected):
    found = aggregate(SCORES, rule, penalty, ddof=ddof)
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64), rtol=0, atol=1e-10)


@pytest.mark.parametrize("ddof", [0, 1])
def test_the_variance_is_that_of_either_count(ddof):
    torch.testing.assert_close(spread(SCORES, ddof=ddof), SCORES.var(1, correction=ddof), rtol=0, atol=1e-12)


def test_the_variance_of_the_uncertainty_paper_s_example():
    heads = torch.tensor([[0.8, -0.2, 1.5], [1.0, 0.1, -0.5], [0.9, -0.1, 2.5], [0.7, 0.2, 0.9]], dtype=torch.float64).T
    expected = torch.tensor([0.0166666667, 0.0333333333, 1.5733333333], dtype=torch.float64)
    torch.testing.assert_close(spread(heads, ddof=1), expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize(("rule", "penalty"), RULES)
def test_one_member_is_itself_bit_for_bit(rule, penalty):
    one = random_members(members=1)
    for group in (None, torch.arange(12) % 3):
        for ddof in (0, 1):
            assert torch.equal(aggregate(one, rule, penalty, ddof=ddof, group_N=group), one[:, 0])


@pytest.mark.parametrize(("rule", "penalty"), RULES)
def test_identical_members_are_one_of_them(rule, penalty):
    found = aggregate(random_members(members=1).expand(-1, 4), rule, penalty)
    torch.testing.assert_close(found, random_members(members=1)[:, 0], rtol=0, atol=1e-12)


@pytest.mark.parametrize("group", [None, torch.arange(12) // 4])
def test_no_rule_is_above_the_mean(group):
    members = random_members()
    for rule, penalty in RULES:
        assert (aggregate(members, rule, penalty, group_N=group) <= members.mean(1) + 1e-12).all()


@pytest.mark.parametrize("group", [None, torch.arange(12) // 4])
@pytest.mark.parametrize(("rule", "penalty"), RULES)
def test_the_members_have_no_order(rule, penalty, group):
    members = random_members()
    found = aggregate(members[:, [3, 0, 4, 1, 2]], rule, penalty, group_N=group)
    torch.testing.assert_close(found, aggregate(members, rule, penalty, group_N=group), rtol=0, atol=1e-12)


@pytest.mark.parametrize(("rule", "penalty"), RULES)
def test_a_constant_shifts_every_rule(rule, penalty):
    members = random_members()
    shifted = aggregate(members + 2.5, rule, penalty)
    torch.testing.assert_close(shifted, aggregate(members, rule, penalty) + 2.5, rtol=0, atol=1e-12)


def test_scale_enters_uwo_s_penalty_twice_and_the_others_once():
    members = random_members()
    for rule, penalty in (("mean", 0.0), ("wco", 0.0), ("lcb", 1.0)):
        torch.testing.assert_close(
            aggregate(3 * members, rule, penalty), 3 * aggregate(members, rule, penalty), rtol=0, atol=1e-12
        )
    cost = members.mean(1) - aggregate(members, "uwo", 0.5)
    torch.testing.assert_close(3 * members.mean(1) - aggregate(3 * members, "uwo", 0.5), 9 * cost, rtol=0, atol=1e-12)


def test_a_penalty_of_zero_is_zero():
    members = random_members()
    for rule in ("uwo", "lcb"):
        assert torch.equal(aggregate(members, rule, 0.0), members.mean(1))


def test_what_a_member_adds_to_all_answers_of_a_prompt_is_no_disagreement():
    group = torch.tensor([0, 1, 0, 2, 1, 0, 2, 1])
    members = random_members(rows=8, members=4)
    offsets_GK = 10 * random_members(rows=3, members=4, seed=1)
    shifted = members + offsets_GK[group]
    torch.testing.assert_close(deviations(shifted, group), deviations(members, group), rtol=0, atol=1e-12)
    assert (spread(shifted, ddof=1) - spread(members, ddof=1)).abs().max() > 1
    for rule, penalty in RULES:  # the level of the mean moves, what is subtracted from it does not
        cost = shifted.mean(1) - aggregate(shifted, rule, penalty, group_N=group)
        torch.testing.assert_close(
            cost, members.mean(1) - aggregate(members, rule, penalty, group_N=group), rtol=0, atol=1e-12
        )


def test_centring_by_hand():
    members = torch.tensor([[1.0, 4.0], [3.0, 2.0], [5.0, 5.0]], dtype=torch.float64)
    group = torch.tensor([7, 7, 2])
    assert centred(members, group).tolist() == [[-1.0, 1.0], [1.0, -1.0], [0.0, 0.0]]
    assert spread(members, ddof=1, group_N=group).tolist() == [2.0, 2.0, 0.0]
    assert aggregate(members, "wco", group_N=group).tolist() == [1.5, 1.5, 5.0]


def test_moments_are_the_rules_of_a_known_variance():
    mean, variance = SCORES.mean(1), spread(SCORES, ddof=0)
    for rule, penalty in (("mean", 0.0), ("uwo", 0.5), ("lcb", 1.0)):
        torch.testing.assert_close(
            moments(mean, variance, rule, penalty), aggregate(SCORES, rule, penalty), rtol=0, atol=1e-12
        )
    with pytest.raises(ValueError, match="wco needs the members' scores"):
        moments(mean, variance, "wco")


def test_uwo_is_the_second_order_of_the_entropic_risk():
    """-(1/2l) log mean exp(-2 l R) = mean - l var + O(l^2)."""
    members, small = random_members(), 1e-4
    risk = -torch.logsumexp(-2 * small * members, 1).sub(torch.tensor(5.0).double().log()) / (2 * small)
    torch.testing.assert_close(aggregate(members, "uwo", small), risk, rtol=0, atol=1e-6)
