"""What an ensemble makes of its members' scores: reward, variance, gain and bias."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from nashtune.oracles.aggregation import aggregate, spread
from nashtune.oracles.reward_ensemble import RewardEnsembleOracle
from nashtune.oracles.reward_model import RewardModelOracle

CHAT = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "How are you?"}]
PROMPTS = ["Hi", CHAT, "Say something long, please", "Hi", CHAT]
TEXTS = ["Hello.", "Fine, thank you for asking.", "Something", "", "Well"]
GROUP = torch.tensor([0, 1, 2, 0, 1])
RULES = [("mean", None), ("wco", None), ("uwo", 0.3), ("lcb", 0.7)]


def ensemble(*folders: Path, **options: object) -> RewardEnsembleOracle:
    return RewardEnsembleOracle(paths=[str(folder) for folder in folders], device="cpu", **options)


def close(found: torch.Tensor, expected: torch.Tensor, tolerance: float = 1e-6) -> None:
    torch.testing.assert_close(found, expected, rtol=0, atol=tolerance)


@pytest.mark.parametrize("kind", ["independent", "heads", "lora"])
@pytest.mark.parametrize(("rule", "penalty"), RULES)
def test_one_member_is_its_reward_model_bit_for_bit(kind, rule, penalty, three, adapters):
    folder = adapters[0] if kind == "lora" else three[0]
    where = {"path": str(folder)} if kind == "heads" else {"paths": [str(folder)]}
    oracle = RewardEnsembleOracle(**where, aggregate=rule, penalty=penalty, device="cpu")
    found = oracle.score(PROMPTS, TEXTS)
    assert torch.equal(found.mean, RewardModelOracle(path=str(folder), device="cpu").score(PROMPTS, TEXTS).mean)
    assert found.variance is None and found.members.shape == (5, 1)


@pytest.mark.parametrize("centre", ["prompt", "none"])
@pytest.mark.parametrize(("rule", "penalty"), RULES)
def test_the_reward_is_the_aggregate_and_the_variance_unbiased(rule, penalty, centre, heads):
    group = GROUP if centre == "prompt" else None
    options = {"aggregate": rule, "penalty": penalty, "centre": centre, "ddof": 1, "members": 4, "device": "cpu"}
    found = RewardEnsembleOracle(path=str(heads), **options).score(PROMPTS, TEXTS)
    assert torch.equal(found.mean, aggregate(found.members, rule, penalty or 0.0, ddof=1, group_N=group))
    assert torch.equal(found.variance, spread(found.members, ddof=1, group_N=group))
    alone_N = GROUP == 2
    assert (found.variance[alone_N] == 0).all() == (centre == "prompt") and (found.variance[~alone_N] > 1e-4).all()


def test_offsets_of_members_do_not_change_the_variance(heads, tmp_path):
    """Bradley-Terry training does not see what a head adds to every answer; here a bias adds it."""
    before = RewardEnsembleOracle(path=str(heads), members=4, device="cpu").score(PROMPTS, TEXTS)
    moved = exported(heads, tmp_path / "moved", gain=[1.0] * 4, bias=[5.0, -3.0, 0.5, 20.0])
    after = RewardEnsembleOracle(path=str(moved), device="cpu").score(PROMPTS, TEXTS)
    close(after.members - before.members, torch.tensor([5.0, -3.0, 0.5, 20.0]).double().expand(5, 4), 1e-12)
    close(after.variance, before.variance, 1e-12)
    raw = RewardEnsembleOracle(path=str(moved), centre="none", device="cpu").score(PROMPTS, TEXTS)
    assert raw.variance.min() > 50


def exported(source: Path, target: Path, **facts: object) -> Path:
    shutil.copytree(source, target)
    members = len(facts["gain"])
    said = {"members": members, "template": "chat", "max_length": None, **facts}
    (target / "nashtune_reward.json").write_text(json.dumps(said))
    return target


def test_gain_and_bias_template_and_length_of_an_export_are_kept_to(three, tmp_path):
    folder = exported(three[0], tmp_path / "one", gain=[2.0], bias=[-1.0], template="plain", max_length=10)
    raw = RewardModelOracle(path=str(three[0]), template="plain", max_length=10, device="cpu")
    oracle = RewardModelOracle(path=str(folder), device="cpu")
    texts = ["one", "a text of more than ten tokens"]
    assert torch.equal(oracle.score(["p"] * 2, texts).mean, raw.score(["p"] * 2, texts).mean * 2 - 1)
    assert oracle.counts() == {"scored": 2, "shortened": 1, "answers_cut": 1}
    assert ensemble(folder, folder).score(["p"], ["one"]).members.tolist() == [
        [pytest.approx(float(oracle.score(["p"], ["one"]).mean))] * 2
    ]
    given = RewardModelOracle(path=str(folder), template="chat", max_length=100, device="cpu")
    assert not torch.equal(given.score(["p"], ["one"]).mean, oracle.score(["p"], ["one"]).mean)


def test_the_order_of_the_members_is_no_matter(three):
    one = ensemble(*three, aggregate="lcb").score(PROMPTS, TEXTS)
    two = ensemble(*three[::-1], aggregate="lcb").score(PROMPTS, TEXTS)
    close(two.mean, one.mean, 1e-12)
    close(two.variance, one.variance, 1e-12)
    assert torch.equal(two.members.flip(1), one.members)


def test_one_member_estimates_and_the_others_give_the_variance(heads):
    def make(**options):
        return RewardEnsembleOracle(path=str(heads), members=4, device="cpu", **options).score(PROMPTS, TEXTS)

    found, all_of_them = make(estimate=1), make()
    assert torch.equal(found.mean, all_of_them.members[:, 1])
    close(found.variance, spread(all_of_them.members[:, [0, 2, 3]], ddof=1, group_N=GROUP), 1e-12)
