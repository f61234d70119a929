"""An ensemble gives each member's own scores, whatever its kind."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from nashtune.errors import InputError
from nashtune.oracles.reward_ensemble import RewardEnsembleOracle
from nashtune.oracles.reward_model import RewardModelOracle

CHAT = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "How are you?"}]
PROMPTS = ["Hi", CHAT, "Say something long, please", "Hi", CHAT]
TEXTS = ["Hello.", "Fine, thank you for asking.", "Something", "", "Well"]


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


def test_a_run_folder_stands_for_its_export(heads, three, tmp_path):
    for name, model in (("heads", heads), ("a", three[0]), ("b", three[1])):
        shutil.copytree(model, tmp_path / name / "export")
        (tmp_path / name / "config.yaml").write_text("spec: reward_bt\n")
        (tmp_path / name / "checkpoints").mkdir()
    found = RewardEnsembleOracle(path=str(tmp_path / "heads"), members=4, device="cpu").score(["Hi"], ["Hello."])
    expected = RewardEnsembleOracle(path=str(heads), members=4, device="cpu").score(["Hi"], ["Hello."])
    assert torch.equal(found.members, expected.members)
    members = [str(tmp_path / name) for name in ("a", "b")]
    found = RewardEnsembleOracle(paths=members, device="cpu").score(["Hi"], ["Hello."])
    expected = RewardEnsembleOracle(paths=[str(path) for path in three[:2]], device="cpu").score(["Hi"], ["Hello."])
    assert torch.equal(found.members, expected.members)
    shutil.rmtree(tmp_path / "b" / "export")
    with pytest.raises(InputError, match=r"oracle\.paths\[1\]: .*b is the folder of a run that has"):
        RewardEnsembleOracle(paths=members, device="cpu").prepare()
    with pytest.raises(InputError, match=r"exported no model yet; let it end, or .*: nashtune export .*/b$"):
        RewardEnsembleOracle(path=members[1], device="cpu").prepare()
