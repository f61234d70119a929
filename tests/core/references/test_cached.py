"""Log-probs that are computed once and found again by content."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from nashtune.errors import InputError
from nashtune.interfaces import TokenBatch
from nashtune.logprobs import get_engine
from nashtune.models.policy import HFPolicy, LoraSettings
from nashtune.references.base import BaseReference
from nashtune.references.cached import CachedReference
from nashtune.testing import token_batch

Load = Callable[..., HFPolicy]
ENGINE = get_engine("tiled")
TRAIN = [token_batch([(3, 5), (4, 6)], seed=1), token_batch([(2, 7), (5, 3)], seed=2)]
VALIDATION = [token_batch([(3, 5), (4, 6)], seed=3)]  # rows numbered as in TRAIN


def shake(policy: HFPolicy) -> None:
    with torch.no_grad():
        for weight in policy.trainable_state_dict().values():
            weight.add_(0.1 * torch.randn_like(weight))


def prepared(folder: Path, policy: HFPolicy, batches: list[TokenBatch] = TRAIN, key: str = "train") -> CachedReference:
    reference = CachedReference(folder=str(folder))
    reference.attach(policy)
    reference.prepare(batches, ENGINE, key)
    return reference


@pytest.mark.parametrize("lora", [None, LoraSettings(r=2, dropout=0.3)])
def test_equals_the_base_reference_while_the_policy_moves(
    tiny: Path, tmp_path: Path, load: Load, lora: LoraSettings | None
) -> None:
    policy = load(tiny, lora=lora)
    base = BaseReference()
    base.attach(policy)
    cached = prepared(tmp_path, policy)
    cached.prepare(VALIDATION, ENGINE, "validation")
    shake(policy)
    for batch in [*TRAIN, *VALIDATION]:
        found, expected = cached.logprobs(batch, ENGINE), base.logprobs(batch, ENGINE)
        torch.testing.assert_close(found.sums, expected.sums)
        assert found.lengths.tolist() == expected.lengths.tolist()
        assert not found.sums.requires_grad
    assert not CachedReference.gives_logits


def test_found_in_any_order_padding_and_batch(tiny: Path, tmp_path: Path, load: Load) -> None:
    cached = prepared(tmp_path, load(tiny))
    whole = cached.logprobs(TRAIN[0], ENGINE).sums
    swapped = replace(
        TRAIN[0],
        **{
            name: torch.nn.functional.pad(getattr(TRAIN[0], name).flip(0), (0, 4))
            for name in ("input_ids", "attention_mask", "completion_mask")
        },
    )
    assert torch.equal(cached.logprobs(swapped, ENGINE).sums, whole.flip(0))


def test_train_and_validation_rows_do_not_collide(tiny: Path, tmp_path: Path, load: Load) -> None:
    cached = prepared(tmp_path, load(tiny))
    with pytest.raises(InputError, match="no cached log-prob for row 0"):
        cached.logprobs(VALIDATION[0], ENGINE)
    cached.prepare(VALIDATION, ENGINE, "validation")
    assert TRAIN[0].rows.tolist() == VALIDATION[0].rows.tolist()
    assert not torch.allclose(cached.logprobs(TRAIN[0], ENGINE).sums, cached.logprobs(VALIDATION[0], ENGINE).sums)


def test_the_second_run_runs_no_model(tiny: Path, tmp_path: Path, load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    first = prepared(tmp_path, load(tiny)).logprobs(TRAIN[1], ENGINE).sums
    policy = load(tiny)
    monkeypatch.setattr(type(ENGINE), "forward", None)
    assert torch.equal(prepared(tmp_path, policy).logprobs(TRAIN[1], ENGINE).sums, first)
    assert len(list(tmp_path.glob("*.safetensors"))) == 1
    sums = load_file(next(tmp_path.glob("*.safetensors")))["sums"]
    assert sums.dtype == torch.float32 and len(sums) == 4


def test_a_resumed_run_whose_cache_is_gone_scores_the_starting_weights(tiny: Path, tmp_path: Path, load: Load) -> None:
    """A restored policy is not its own reference."""
    expected = prepared(tmp_path / "one", load(tiny)).logprobs(TRAIN[0], ENGINE).sums
    policy = load(tiny)
    reference = CachedReference(folder=str(tmp_path / "two"))
    reference.attach(policy)
    shake(policy)  # the checkpoint is restored between attach and prepare
    reference.prepare(TRAIN, ENGINE, "train")
    torch.testing.assert_close(reference.logprobs(TRAIN[0], ENGINE).sums, expected)


def test_the_key_holds_everything_the_numbers_depend_on(
    tiny: Path, sft_adapter: Path, tmp_path: Path, load: Load
) -> None:
    """The trap: a cache found by too little hands one model's numbers to another."""
    moved = Path(shutil.copytree(tiny, tmp_path / "moved"))
    policies = [
        load(tiny),
        load(tiny, precision="bf16"),
        load(tiny, attention="eager"),
        load(sft_adapter),
        load(sft_adapter, lora=LoraSettings(r=2)),
    ]
    cache = tmp_path / "cache"
    for count, policy in enumerate(policies, start=1):
        prepared(cache, policy)
        assert len(list(cache.glob("*.safetensors"))) == count
    prepared(cache, load(moved))  # the same files elsewhere
    assert len(list(cache.glob("*.safetensors"))) == len(policies)
    other = load(tiny)
    shake(other)
    other.save_pretrained(moved)  # the same folder, trained further
    prepared(cache, load(moved))
    prepared(cache, load(tiny), key="other data")
    reference = CachedReference(folder=str(cache))
    reference.attach(load(tiny))
    reference.prepare(TRAIN, get_engine("dense"), "train")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        prepared(cache, load(tiny))
    assert len(list(cache.glob("*.safetensors"))) == len(policies) + 4


def test_a_changed_completion_border_is_another_sequence(tiny: Path, tmp_path: Path, load: Load) -> None:
    cached = prepared(tmp_path, load(tiny))
    border = TRAIN[0].completion_mask.clone()
    border[0, 3] = False  # the first completion token now belongs to the prompt
    with pytest.raises(InputError, match="row 0"):
        cached.logprobs(replace(TRAIN[0], completion_mask=border), ENGINE)


def test_a_broken_file(tiny: Path, tmp_path: Path, load: Load) -> None:
    prepared(tmp_path, load(tiny))
    file = next(tmp_path.glob("*.safetensors"))
    file.write_bytes(file.read_bytes()[:-8])
    with pytest.raises(InputError, match=r"is broken .*delete it"):
        prepared(tmp_path, load(tiny))


def test_unpaired_data_are_refused(tiny: Path, tmp_path: Path, load: Load) -> None:
    with pytest.raises(InputError, match="unpaired"):
        prepared(tmp_path, load(tiny), [token_batch([(3, 4), (2, 5)], kind="examples")])


def test_a_full_disk_leaves_nothing_half_written(
    tiny: Path, tmp_path: Path, load: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: object, **kwargs: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("nashtune.references.store.save_file", full)
    with pytest.raises(InputError, match=r"cannot be written.*No space"):
        prepared(tmp_path / "cache", load(tiny))
    assert not list((tmp_path / "cache").iterdir())


def test_the_default_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NASHTUNE_CACHE", str(tmp_path))
    assert CachedReference().folder == tmp_path / "reference"
