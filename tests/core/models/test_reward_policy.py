from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from nashtune.data.collate import completion_batch
from nashtune.interfaces.batch import TokenBatch
from nashtune.logprobs.layout import last_positions, padded_layout
from nashtune.models.config import LoraSettings
from nashtune.models.reward_head import active_head
from nashtune.models.reward_policy import RewardPolicy
from nashtune.testing import tiny_model, token_batch

Load = Callable[..., RewardPolicy]
BATCH = token_batch([(3, 5), (4, 9), (2, 2), (5, 1)])
EOS = 2


def weight(policy: RewardPolicy) -> torch.Tensor:
    return active_head(policy.model).weight.detach()


def part(batch: TokenBatch, *sequences: int, width: int | None = None) -> TokenBatch:
    rows = torch.tensor(sequences)
    cut = slice(0, width)
    return replace(
        batch,
        input_ids=batch.input_ids[rows, cut],
        attention_mask=batch.attention_mask[rows, cut],
        completion_mask=batch.completion_mask[rows, cut],
    )


def test_the_score_is_linear_in_the_last_hidden_state_of_the_language_model(tiny: Path, load_reward: Load) -> None:
    policy = load_reward(tiny, members=3)
    trunk = AutoModelForCausalLM.from_pretrained(tiny).model
    found = policy.scores(BATCH)
    assert found.shape == (4, 3) and found.dtype == torch.float32 and found.requires_grad
    for i, length in enumerate(BATCH.attention_mask.sum(1).tolist()):
        last = trunk(input_ids=BATCH.input_ids[i : i + 1, :length]).last_hidden_state[0, -1]
        torch.testing.assert_close(found[i], weight(policy) @ last, atol=1e-6, rtol=1e-5)


def test_a_new_head_has_the_recipes_deviation(tmp_path: Path, load_reward: Load) -> None:
    wide = tiny_model(tmp_path / "wide", hidden=256, layers=1)
    scaled, config = load_reward(wide, members=32), load_reward(wide, members=32, init="config")
    assert float(weight(scaled).std()) == pytest.approx(257**-0.5, rel=0.03)
    assert float(weight(config).std()) == pytest.approx(0.02, rel=0.03)
    assert abs(float(weight(scaled).mean())) < 3 * 257**-0.5 / (32 * 256) ** 0.5


def test_a_member_depends_on_the_seed_and_its_number_alone(tiny: Path, load_reward: Load) -> None:
    ten = load_reward(tiny, members=10)
    one = load_reward(tiny)
    torch.rand(17)  # what was drawn before does not matter
    again = load_reward(tiny, members=10)
    assert torch.equal(weight(one)[0], weight(ten)[0]) and torch.equal(weight(again), weight(ten))
    assert torch.equal(one.scores(BATCH)[:, 0], load_reward(tiny, members=1).scores(BATCH)[:, 0])
    torch.testing.assert_close(one.scores(BATCH)[:, 0], ten.scores(BATCH)[:, 0], atol=1e-6, rtol=0)
    assert not torch.equal(weight(load_reward(tiny, seed=6)), weight(one))
    assert len({tuple(row.tolist()) for row in weight(ten)}) == 10


def test_a_wider_head_draws_no_more_of_the_runs_random_numbers(tiny: Path, load_reward: Load) -> None:
    one, ten = (load_reward(tiny, members=members, lora=LoraSettings(r=2)) for members in (1, 10))
    drawn = [policy.trainable_state_dict() for policy in (one, ten)]
    assert all(torch.equal(drawn[0][name], drawn[1][name]) for name in drawn[0] if "lora_" in name)


def test_the_last_token_is_found_by_the_mask_where_padding_is_eos(tiny: Path, load_reward: Load) -> None:
    """transformers#35352: a search for the padding token's id steps over the EOS that ends the text."""
    policy = load_reward(tiny)
    tokenizer = policy.tokenizer()
    assert tokenizer.pad_token_id == tokenizer.eos_token_id == EOS
    batch = token_batch([(3, 4), (3, 4)])
    same = batch.input_ids[:1, :6]  # two texts that differ in nothing but the EOS at the end of one
    ids = torch.cat([same, same]).index_fill(1, torch.tensor([5]), EOS)
    ids[1, 5] = 77
    texts = replace(
        batch, input_ids=ids, attention_mask=torch.ones_like(ids), completion_mask=torch.ones_like(ids).bool()
    )
    ended, other = policy.scores(texts).detach()
    assert abs(float(ended - other)) > 1e-3
    padded = torch.nn.functional.pad(ids, (0, 3), value=EOS)
    mask = torch.nn.functional.pad(torch.ones_like(ids), (0, 3))
    found = policy.scores(replace(texts, input_ids=padded, attention_mask=mask, completion_mask=mask.bool()))
    torch.testing.assert_close(found, torch.stack([ended, other]), atol=1e-6, rtol=0)


def test_neither_padding_nor_company_changes_a_score(tiny: Path, load_reward: Load) -> None:
    policy = load_reward(tiny, members=2)
    found = policy.scores(BATCH)
    wide = token_batch([(3, 5), (4, 9), (2, 2), (5, 1)], pad=7)
    left = replace(
        wide,
        **{
            name: torch.stack(
                [row.roll(int(shift)) for row, shift in zip(value, 20 - wide.attention_mask.sum(1), strict=True)]
            )
            for name, value in (
                ("input_ids", wide.input_ids),
                ("attention_mask", wide.attention_mask),
                ("completion_mask", wide.completion_mask),
            )
        },
    )
    assert wide.input_ids.shape[1] == 20 and int(left.attention_mask[0, 0]) == 0
    for other in (wide, left):
        torch.testing.assert_close(policy.scores(other), found, atol=1e-6, rtol=0)
    backwards = policy.scores(part(BATCH, 3, 2, 1, 0)).flip(0)
    torch.testing.assert_close(backwards, found, atol=1e-6, rtol=0)
    alone = torch.cat([policy.scores(part(BATCH, i, width=int(BATCH.attention_mask[i].sum()))) for i in range(4)])
    torch.testing.assert_close(alone, found, atol=1e-6, rtol=0)


def test_last_positions() -> None:
    mask = torch.tensor([[1, 1, 0, 0], [0, 0, 1, 1], [0, 1, 1, 0], [1, 1, 1, 1]])
    assert last_positions(mask).tolist() == [1, 3, 2, 3]
    with pytest.raises(ValueError, match="without any token"):
        padded_layout(
            replace(
                BATCH,
                attention_mask=torch.zeros_like(BATCH.attention_mask),
                completion_mask=torch.zeros_like(BATCH.completion_mask),
            )
        )


def test_ten_heads_take_one_pass_of_the_trunk(tiny: Path, load_reward: Load) -> None:
    policy = load_reward(tiny, members=10)
    passes: list[int] = []
    policy.model.model.register_forward_hook(lambda *_: passes.append(1))
    assert policy.scores(BATCH).shape == (4, 10) and len(passes) == 1


def test_a_frozen_trunk_trains_the_head_alone(tiny: Path, load_reward: Load) -> None:
    policy = load_reward(tiny, members=2, trunk="frozen", gradient_checkpointing=True)
    assert list(policy.trainable_state_dict()) == ["score.weight"]
    policy.scores(BATCH).sum().backward()
    assert {name for name, value in policy.named_parameters() if value.grad is not None} == {"model.score.weight"}


def test_all_weights_or_the_adapter_with_the_head_are_trained(tiny: Path, load_reward: Load) -> None:
    full = load_reward(tiny)
    assert all(value.requires_grad for value in full.parameters()) and "score.weight" in full.trainable_state_dict()
    lora = load_reward(tiny, lora=LoraSettings(r=2))
    names = list(lora.trainable_state_dict())
    assert [name for name in names if "lora_" not in name] == ["base_model.model.score.modules_to_save.default.weight"]
    lora.scores(BATCH).sum().backward()
    assert all(value.grad is not None for value in lora.parameters() if value.requires_grad)
    with lora.model.disable_adapter():  # switched off, it is the model that training started from
        torch.testing.assert_close(lora.scores(BATCH), full.scores(BATCH))


@pytest.mark.parametrize("lora", [None, LoraSettings(r=2)])
def test_gradient_checkpointing_changes_no_gradient(tiny: Path, load_reward: Load, lora: LoraSettings | None) -> None:
    grads = []
    for checkpointing in (False, True):
        policy = load_reward(tiny, lora=lora, gradient_checkpointing=checkpointing)
        with torch.no_grad():
            for name, value in policy.named_parameters():
                if "lora_B" in name:
                    value.fill_(0.05)
        policy.scores(BATCH).square().sum().backward()
        grads.append({name: value.grad for name, value in policy.named_parameters() if value.grad is not None})
    assert grads[0].keys() == grads[1].keys() and grads[0]
    for name in grads[0]:
        torch.testing.assert_close(grads[1][name], grads[0][name], msg=name)


def test_the_head_is_float32_on_a_bfloat16_trunk_and_under_autocast(tiny: Path, load_reward: Load) -> None:
    for settings in ({"trunk": "frozen"}, {"lora": LoraSettings(r=2)}):
        policy = load_reward(tiny, precision="bf16", **settings)
        assert weight(policy).dtype == torch.float32
        assert policy.model.get_input_embeddings().weight.dtype == torch.bfloat16
        assert policy.scores(BATCH).dtype == torch.float32
    full = load_reward(tiny)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = full.scores(BATCH)
    assert mixed.dtype == torch.float32
    torch.testing.assert_close(mixed, full.scores(BATCH), atol=0.05, rtol=0.05)


def test_an_sft_adapter_is_trained_further_with_a_new_head(tiny: Path, sft_adapter: Path, load_reward: Load) -> None:
    policy = load_reward(sft_adapter, members=2)
    assert policy.adapter == "continued"
    names = policy.trainable_state_dict()
    assert any("lora_A" in name for name in names) and any("score" in name for name in names)
    assert torch.equal(weight(policy), weight(load_reward(tiny, members=2)))
    difference = policy.scores(BATCH) - load_reward(tiny, members=2).scores(BATCH)
    assert float(difference.detach().abs().max()) > 0.01
    merged = load_reward(sft_adapter, members=2, lora=LoraSettings(r=4))
    assert merged.adapter == "fresh" and merged.merged_in_memory
    torch.testing.assert_close(merged.scores(BATCH), policy.scores(BATCH), rtol=1e-4, atol=1e-5)


def test_a_frozen_trunk_reads_every_row_once(tiny: Path, load_reward: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it remembers is what it would compute, whatever the batch; gradients reach the head as before."""
    policy = load_reward(tiny, members=3, trunk="frozen")
    rows: list[tuple[tuple[int, ...], tuple[int, ...]]] = [((), (5, 6, 7, 2)), ((), (8, 9, 2)), ((), (10, 2))]
    together = completion_batch(rows)
    live = policy.scores(together).detach()
    policy.remember([completion_batch(rows[:2]), completion_batch(rows[2:])])
    monkeypatch.setattr(RewardPolicy, "_last_hidden", lambda *_: pytest.fail("the trunk ran again"))
    again = policy.scores(completion_batch([rows[2], rows[0]]))
    torch.testing.assert_close(again, live[[2, 0]], rtol=1e-6, atol=1e-6)
    torch.autograd.backward(again.sum())
    assert active_head(policy.model).weight.grad is not None
