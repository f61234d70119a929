from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from nashtune.models.config import PolicyConfig
from nashtune.models.normaliser import ROWS, Normaliser, chosen, measure, normalise
from nashtune.models.reward_policy import RewardPolicy
from nashtune.spec.model import HeadSpec
from nashtune.testing import token_batch

SCORES = torch.tensor([2.1, 0.4, -1, 3.3, 0.7, 1.9], dtype=torch.float64)


def test_gain_and_bias_as_ziegler_computes_them() -> None:
    found = Normaliser.of(SCORES[:, None], "gain_bias")
    assert found.gain == pytest.approx([0.724417932624], abs=1e-11)
    assert found.bias == pytest.approx([-0.893448783570], abs=1e-11)
    rewards = (found.gain[0] * SCORES + found.bias[0]).tolist()
    expected = [0.627828874941, -0.603681610520, -1.617866716195, 1.497130394091, -0.386356230733, 0.482945288416]
    assert rewards == pytest.approx(expected, abs=1e-11)


def test_bias_alone_makes_the_mean_zero_and_keeps_the_scale() -> None:
    found = Normaliser.of(torch.stack([SCORES, 3 * SCORES + 1], dim=1), "bias")
    assert found.gain == [1.0, 1.0]
    assert found.bias == pytest.approx([-7.4 / 6, -3 * 7.4 / 6 - 1])


def test_members_whose_scores_are_all_equal_keep_their_scale() -> None:
    found = Normaliser.of(torch.full((4, 1), 2.5, dtype=torch.float64), "gain_bias")
    assert (found.gain, found.bias) == ([1.0], [-2.5])


def test_the_best_of_pairs_and_lists_are_measured() -> None:
    pairs = token_batch([(3, 2), (3, 4), (3, 1), (3, 3)])
    assert torch.equal(chosen(pairs).input_ids, pairs.input_ids[:2])
    lists = token_batch([(2, 2)] * 5, kind="ranked")
    lists.sizes = torch.tensor([3, 2])
    assert torch.equal(chosen(lists).input_ids, lists.input_ids[[0, 3]])


def test_after_measuring_the_chosen_answers_have_mean_0_and_deviation_1(tiny: Path) -> None:
    policy = RewardPolicy(PolicyConfig(path=str(tiny)), HeadSpec(members=3, normalise="gain_bias"))
    policy.load()
    batches = [token_batch([(3, 4)] * 8, seed=seed) for seed in range(3)]
    found = measure(policy, batches)
    scores = torch.cat([policy.scores(batch)[:4] for batch in batches]).double()
    rewards = torch.tensor(found.gain) * scores + torch.tensor(found.bias)
    torch.testing.assert_close(rewards.mean(0), torch.zeros(3).double(), atol=1e-6, rtol=0)
    torch.testing.assert_close(rewards.std(0, correction=0), torch.ones(3).double(), atol=1e-5, rtol=0)
    assert policy.model.training


def test_a_frozen_trunks_features_are_made_anew(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is remembered was read under the steps' autocast, which readers of the folder have none of."""
    policy = RewardPolicy(PolicyConfig(path=str(tiny)), HeadSpec(trunk="frozen", normalise="gain_bias"))
    policy.load()
    batches = [token_batch([(3, 4)] * 8)]
    with torch.autocast("cpu", torch.bfloat16):
        policy.remember(batches)
    rounded = measure(policy, batches)
    monkeypatch.setattr("nashtune.models.normaliser._some", lambda data: iter(batches))
    data: Any = SimpleNamespace(template="chat", limits=SimpleNamespace(whole=9))
    normalise(policy, data)
    assert policy.normaliser != rounded
    scores = policy.scores(chosen(batches[0])).double()
    rewards = policy.normaliser.gain[0] * scores + policy.normaliser.bias[0]
    torch.testing.assert_close(rewards.mean(), torch.tensor(0.0).double(), atol=1e-6, rtol=0)
    torch.testing.assert_close(rewards.std(correction=0), torch.tensor(1.0).double(), atol=1e-5, rtol=0)


def test_rows_are_spread_over_the_data(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    loader = SimpleNamespace(rows=list(range(1000)), collate=lambda rows: asked.extend(i for i, _ in rows))
    data: Any = SimpleNamespace(
        every_row=lambda split: loader, eval_batch_size=7, template="plain", limits=SimpleNamespace(whole=99)
    )
    monkeypatch.setattr(
        "nashtune.models.normaliser.measure",
        lambda policy, batches, kind: (list(batches), Normaliser(gain=[2.0], bias=[1.0]))[1],
    )
    policy = RewardPolicy(PolicyConfig(path="unread"), HeadSpec(normalise="bias"))
    normalise(policy, data)
    assert asked == list(range(0, 1000, 4)) and len(asked) <= ROWS
    assert policy.normaliser.gain == [2.0] and (policy.template, policy.max_length) == ("plain", 99)
    policy.head = HeadSpec()
    normalise(policy, data)
    assert policy.normaliser == Normaliser.identity(1) and len(asked) == 250
