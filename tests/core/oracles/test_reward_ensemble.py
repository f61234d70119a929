"""An ensemble gives each member's own scores, whatever its shape, and knows how much they disagree."""

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


@pytest.fixture(scope="module")
def three(make_reward) -> list[Path]:
    return [make_reward(seed=seed) for seed in (1, 2, 3)]


@pytest.fixture(scope="module")
def heads(make_reward) -> Path:
    return make_reward(4, seed=5)


@pytest.fixture(scope="module")
def adapters(tiny, make_adapter) -> list[Path]:
    return [make_adapter(tiny, seed=seed) for seed in (1, 2, 3)]


def ensemble(*folders: Path, **options: object) -> RewardEnsembleOracle:
    return RewardEnsembleOracle(paths=[str(folder) for folder in folders], device="cpu", **options)


def close(found: torch.Tensor, expected: torch.Tensor, tolerance: float = 1e-6) -> None:
    torch.testing.assert_close(found, expected, rtol=0, atol=tolerance)


def test_independent_members_are_themselves(three, alone):
    found = ensemble(*three).score(PROMPTS, TEXTS)
    close(found.members, torch.cat([alone(folder, folder, PROMPTS, TEXTS) for folder in three], 1), 1e-6)
    for member, folder in enumerate(three):
        own = RewardModelOracle(path=str(folder), device="cpu").score(PROMPTS, TEXTS).mean
        assert torch.equal(found.members[:, member], own)
    assert found.members.std(1).min() > 0.01


def test_heads_are_the_outputs_of_one_model_in_one_pass(heads, alone):
    oracle = RewardEnsembleOracle(path=str(heads), members=4, device="cpu")
    oracle.prepare()
    assert oracle._reader._parts == []  # nothing is loaded before the first text
    oracle.score(["Hi"], ["x"])
    passes = []
    (part,) = oracle._reader._parts
    part.model.register_forward_hook(lambda *_: passes.append(1))
    found = oracle.score(PROMPTS, TEXTS)
    assert passes == [1]
    close(found.members, alone(heads, heads, PROMPTS, TEXTS), 1e-6)


def test_adapters_share_one_base_model(tiny, adapters, alone):
    oracle = ensemble(*adapters)
    found = oracle.score(PROMPTS, TEXTS)
    expected = [alone(folder, tiny, PROMPTS, TEXTS) for folder in adapters]
    close(found.members, torch.cat(expected, 1), 1e-6)
    assert (expected[0] - expected[1]).abs().max() > 0.01
    (part,) = oracle._reader._parts
    assert list(part.views.values()) == [[0], [1], [2]]
    weights = dict(part.model.named_parameters())
    assert sum("q_proj.base_layer" in name for name in weights) == 2  # one for each of the two layers
    assert sum(name.endswith("embed_tokens.weight") for name in weights) == 1
    assert not any(weight.requires_grad for weight in weights.values())


def test_adapters_on_a_trained_ensemble_s_trunk(heads, make_adapter, alone):
    """The second stage of a LoRA ensemble: the base has K outputs, and each adapter brings a head of one."""
    folders = [make_adapter(heads, seed=seed) for seed in (1, 2)]
    oracle = ensemble(*folders)
    found = oracle.score(PROMPTS, TEXTS)
    close(found.members, torch.cat([alone(folder, heads, PROMPTS, TEXTS) for folder in folders], 1), 1e-6)
    assert len(oracle._reader._parts) == 1


def test_members_of_all_kinds_keep_their_order(tiny, three, adapters, make_reward, make_adapter, alone):
    other_base = make_reward(seed=9)
    mixed = [adapters[0], three[0], make_adapter(other_base, seed=4), adapters[1]]
    oracle = ensemble(*mixed)
    found = oracle.score(PROMPTS, TEXTS).members
    close(found, torch.cat([alone(folder, tiny, PROMPTS, TEXTS) for folder in mixed], 1), 1e-6)
    assert len(oracle._reader._parts) == 3  # the model, and two bases


def test_an_adapter_without_a_head_uses_its_base_s(three, make_adapter, alone):
    adapter = make_adapter(three[0], head=False)
    found = RewardModelOracle(path=str(adapter), device="cpu").score(PROMPTS, TEXTS).mean
    from peft import PeftModel
    from transformers import AutoModelForSequenceClassification

    base = AutoModelForSequenceClassification.from_pretrained(three[0])
    merged = adapter.parent / f"{adapter.name}-merged"
    PeftModel.from_pretrained(base, adapter).merge_and_unload().save_pretrained(merged)
    close(found, alone(merged, three[0], PROMPTS, TEXTS)[:, 0], 1e-5)
    assert (found - RewardModelOracle(path=str(three[0]), device="cpu").score(PROMPTS, TEXTS).mean).abs().max() > 0.01


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
    assert oracle.counts() == {"scored": 2, "shortened": 1}
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


@pytest.mark.parametrize("kind", ["independent", "heads", "lora"])
def test_batch_mates_and_padding_change_no_score(kind, three, heads, adapters):
    def make(**options):
        if kind == "heads":
            return RewardEnsembleOracle(path=str(heads), members=4, device="cpu", **options)
        return ensemble(*(three if kind == "independent" else adapters), **options)

    together = make().score(PROMPTS, TEXTS)
    close(make(batch_tokens=1).score(PROMPTS, TEXTS).members, together.members, 1e-6)
    back = make().score(PROMPTS[::-1], TEXTS[::-1])
    close(back.members.flip(0), together.members, 1e-6)
    close(back.variance.flip(0), together.variance, 1e-5)


def test_a_folder_of_folders_is_read_in_the_order_of_their_numbers(make_reward, three, tmp_path):
    for name, seed in (("seed-10", 3), ("seed-2", 2), ("seed-1", 1)):
        make_reward(seed=seed, folder=tmp_path / name / ("export" if name == "seed-2" else ""))
    (tmp_path / "stage.json").write_text("{}")
    found = RewardEnsembleOracle(path=str(tmp_path), device="cpu").score(PROMPTS, TEXTS)
    assert torch.equal(found.members, ensemble(*three).score(PROMPTS, TEXTS).members)


def test_one_member_estimates_and_the_others_give_the_variance(heads):
    def make(**options):
        return RewardEnsembleOracle(path=str(heads), members=4, device="cpu", **options).score(PROMPTS, TEXTS)

    found, all_of_them = make(estimate=1), make()
    assert torch.equal(found.mean, all_of_them.members[:, 1])
    close(found.variance, spread(all_of_them.members[:, [0, 2, 3]], ddof=1, group_N=GROUP), 1e-12)


def test_bf16_does_not_round_the_members_apart(heads, adapters):
    for make in (
        lambda **options: RewardEnsembleOracle(path=str(heads), members=4, device="cpu", **options),
        lambda **options: ensemble(*adapters, **options),
    ):
        exact = make().score(PROMPTS, TEXTS).members
        oracle = make(precision="bf16")
        rounded = oracle.score(PROMPTS, TEXTS).members
        assert 0 < (exact - rounded).abs().max() < 0.1 * exact.abs().max()
        (part,) = oracle._reader._parts
        kinds = {name: weight.dtype for name, weight in part.model.named_parameters() if "original_module" not in name}
        assert {dtype for name, dtype in kinds.items() if "score" in name} == {torch.float32}
        assert {dtype for name, dtype in kinds.items() if "score" not in name} == {torch.bfloat16}
        assert (rounded.bfloat16().double() != rounded).any()  # the outputs themselves are no bfloat16 numbers


def test_loading_draws_no_random_numbers_of_the_run(adapters):
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    ensemble(*adapters).score(["Hi"], ["Hello."])
    assert torch.equal(torch.rand(4), expected)


def test_nothing_asked_loads_nothing():
    found = RewardEnsembleOracle(path="missing").score([], [])
    assert found.mean.shape == found.variance.shape == (0,)
