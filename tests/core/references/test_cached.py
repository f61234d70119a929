"""Log-probs that are computed once and found again by content."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from nashtune.errors import InputError
from nashtune.interfaces import TokenBatch
from nashtune.logprobs import get_engine
from nashtune.models.policy import HFPolicy, LoraSettings
from nashtune.references import cache_key
from nashtune.references.base import BaseReference
from nashtune.references.cached import CachedReference
from nashtune.references.scoring import score_new, windows
from nashtune.references.store import Sums
from nashtune.testing import tiny_model, token_batch
from two_ranks import prepared_on_two_ranks

Load = Callable[..., HFPolicy]
ENGINE = get_engine("tiled")
TRAIN = [token_batch([(3, 5), (4, 6)], seed=1), token_batch([(2, 7), (5, 3)], seed=2)]
VALIDATION = [token_batch([(3, 5), (4, 6)], seed=3)]  # rows numbered as in TRAIN


def shake(policy: HFPolicy) -> None:
    draw = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in policy.trainable_state_dict().values():
            weight.add_(0.1 * torch.randn(weight.shape, generator=draw))


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
    monkeypatch.setattr("nashtune.references.cached.sample", lambda batches, sums: {})  # but to check the file
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
    tiny: Path, sft_adapter: Path, tmp_path: Path, load: Load, monkeypatch: pytest.MonkeyPatch
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
    for engine in (
        *(get_engine(name) for name in ("dense", "packed", "shared")),
        get_engine("packed", attention_backend="segments"),
    ):
        reference = CachedReference(folder=str(cache))
        reference.attach(load(tiny))
        reference.prepare(TRAIN, engine, "train")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        prepared(cache, load(tiny))
    for name, value in (("NUMERICS", 0), ("__version__", "0.0.0")):
        with monkeypatch.context() as patch:
            patch.setattr(cache_key, name, value)
            prepared(cache, load(tiny))
    assert len(list(cache.glob("*.safetensors"))) == len(policies) + 9


def test_a_changed_completion_border_is_another_sequence(tiny: Path, tmp_path: Path, load: Load) -> None:
    cached = prepared(tmp_path, load(tiny))
    border = TRAIN[0].completion_mask.clone()
    border[0, 3] = False  # the first completion token now belongs to the prompt
    with pytest.raises(InputError, match="row 0"):
        cached.logprobs(replace(TRAIN[0], completion_mask=border), ENGINE)


@pytest.mark.usefixtures("lightning_log")  # a note is printed by its logger
def test_a_run_that_is_stopped_while_it_scores_goes_on_there(
    tiny: Path, tmp_path: Path, load: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped in its third window: the sums of two are on disk, and all comes out as without a stop."""
    rows = [token_batch([(3, 5), (4, 6), (7, 2), (5, 5)], seed=seed) for seed in range(12)]
    monkeypatch.setattr("nashtune.references.cached.windows", partial(windows, tokens=100))
    expected = prepared(tmp_path / "whole", load(tiny), rows)
    counts: list[int] = []

    def stop(*args: Any, **kwargs: Any) -> Sums:
        if len(counts) == 3:
            raise KeyboardInterrupt
        found = score_new(*args, **kwargs)
        counts.append(len(found))
        return found

    monkeypatch.setattr("nashtune.references.cached.score_new", stop)
    with pytest.raises(KeyboardInterrupt):
        prepared(tmp_path / "cache", load(tiny), rows)
    assert counts == [12, 12, 12] and len(list((tmp_path / "cache").glob("*.part"))) == 3
    counts[:] = [0] * 4
    found = prepared(tmp_path / "cache", load(tiny), rows)
    assert counts[4:] == [0, 0, 0, 12]
    assert not list((tmp_path / "cache").glob("*.part"))
    for batch in rows:
        assert torch.equal(found.recall(batch), expected.recall(batch))


@pytest.mark.usefixtures("lightning_log")
def test_stopped_again_with_another_batch_size_nothing_is_lost(
    tiny: Path, tmp_path: Path, load: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The windows are others then, and parts of the second run must not replace those of the first."""
    rows = [token_batch([(3, 5), (4, 6), (7, 2), (5, 5)], seed=seed) for seed in range(12)]
    new: list[int] = []

    def stop(*args: Any, **kwargs: Any) -> Sums:
        if sum(map(bool, new)) == 2:
            raise KeyboardInterrupt
        found = score_new(*args, **kwargs)
        new.append(len(found))
        return found

    monkeypatch.setattr("nashtune.references.cached.score_new", stop)
    for tokens, kept in ((100, 24), (60, 40), (100, 0)):
        monkeypatch.setattr("nashtune.references.cached.windows", partial(windows, tokens=tokens))
        new[:] = []
        if kept:
            with pytest.raises(KeyboardInterrupt):
                prepared(tmp_path, load(tiny), rows)
            assert sum(len(load_file(part)["sums"]) for part in tmp_path.glob("*.part")) == kept
    prepared(tmp_path, load(tiny), rows)
    assert sum(new) == 48 - 40


def altered(file: Path, change: float) -> None:
    with safe_open(str(file), framework="pt") as opened:
        metadata = opened.metadata()
    tensors = load_file(file)
    save_file({**tensors, "sums": tensors["sums"] + change}, file, metadata=metadata)


@pytest.mark.usefixtures("lightning_log")
@pytest.mark.parametrize("change", [-0.01, float("nan")])
@pytest.mark.parametrize("part", [False, True])
def test_numbers_that_the_weights_do_not_give_are_refused(
    tiny: Path, tmp_path: Path, load: Load, change: float, part: bool
) -> None:
    prepared(tmp_path, load(tiny))
    file = next(tmp_path.glob("*.safetensors"))
    altered(file, change)
    if part:
        file = file.rename(file.with_suffix(".0of1-000000.part"))
    with pytest.raises(InputError, match=r"4 of 4 log-probs that were computed again differ: kept .* delete .*again"):
        prepared(tmp_path, load(tiny))


def test_numbers_of_another_model_are_refused_whatever_the_file_is_called(
    tiny: Path, tmp_path: Path, load: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nashtune.references.cached.everything", lambda *args: {"all": "the same"})
    prepared(tmp_path / "cache", load(tiny))
    with pytest.raises(InputError, match="computed again differ"):
        prepared(tmp_path / "cache", load(tiny_model(tmp_path / "other", seed=9)))


@pytest.mark.parametrize("autocast", [False, True])
def test_rounding_is_no_difference(
    tiny: Path, tmp_path: Path, load: Load, monkeypatch: pytest.MonkeyPatch, autocast: bool
) -> None:
    """Another engine, another order and other batch-mates, in float32 and with bfloat16 autocast."""
    monkeypatch.setattr("nashtune.references.cached.everything", lambda *args: {"all": "the same"})
    rows = [token_batch([(30, 50), (4, 60), (7, 20), (50, 5)], seed=seed) for seed in range(8)]
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        first = prepared(tmp_path, load(tiny), rows)
        second = CachedReference(folder=str(tmp_path))
        second.attach(load(tiny))
        second.prepare(rows[::-1], get_engine("dense"), "train")
    assert torch.equal(first.recall(rows[0]), second.recall(rows[0]))


def test_the_adapter_is_off_while_a_file_is_checked(tiny: Path, tmp_path: Path, load: Load) -> None:
    """A resumed run has a trained adapter in memory; the file is of the model without it."""
    expected = prepared(tmp_path, load(tiny, lora=LoraSettings(r=2))).recall(TRAIN[0])
    policy = load(tiny, lora=LoraSettings(r=2))
    shake(policy)
    before = policy.logprobs(TRAIN[0], ENGINE).sums
    assert torch.equal(prepared(tmp_path, policy).recall(TRAIN[0]), expected)
    assert torch.equal(policy.logprobs(TRAIN[0], ENGINE).sums, before)
    assert not torch.allclose(before.detach(), expected, atol=0.1)


def test_recall_is_on_the_host_and_equals_logprobs(tiny: Path, tmp_path: Path, load: Load) -> None:
    policy = load(tiny)
    reference = prepared(tmp_path, policy)
    for batch in TRAIN:
        sums = reference.recall(batch)
        assert sums.shape == (len(batch.input_ids),) and sums.dtype == torch.float32
        assert torch.equal(sums, reference.logprobs(batch, ENGINE).sums)
        torch.testing.assert_close(sums, policy.logprobs(batch, ENGINE).sums.detach())


def test_a_broken_file(tiny: Path, tmp_path: Path, load: Load) -> None:
    prepared(tmp_path, load(tiny))
    file = next(tmp_path.glob("*.safetensors"))
    file.write_bytes(file.read_bytes()[:-8])
    with pytest.raises(InputError, match=r"is broken .*delete it"):
        prepared(tmp_path, load(tiny))


def test_two_ranks_score_half_each_and_know_all(tiny: Path, tmp_path: Path, load: Load) -> None:
    seeds = [0, 1, 2]
    batches = [token_batch([(3, 5), (4, 6)], seed=seed) for seed in seeds]
    whole = prepared(tmp_path / "whole", load(tiny), batches)
    assert prepared_on_two_ranks(tiny, tmp_path, seeds) == [0, 0]
    for rank in (0, 1):
        for batch, found in zip(batches, torch.load(tmp_path / f"rank-{rank}.pt"), strict=True):
            torch.testing.assert_close(found, whole.recall(batch))
    (file,) = [one for one in (tmp_path / "cache").iterdir() if one.is_file()]
    altered(file, 1.0)
    assert prepared_on_two_ranks(tiny, tmp_path, seeds) == [3, 3]  # neither waits for the other


def test_unpaired_data_are_refused(tiny: Path, tmp_path: Path, load: Load) -> None:
    with pytest.raises(InputError, match="unpaired"):
        prepared(tmp_path, load(tiny), [token_batch([(3, 4), (2, 5)], kind="examples")])


def test_a_full_disk_leaves_nothing_half_written(
    tiny: Path, tmp_path: Path, load: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: object, **kwargs: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("nashtune.references.cache_files.save_file", full)
    with pytest.raises(InputError, match=r"cannot be written.*No space"):
        prepared(tmp_path / "cache", load(tiny))
    assert not [file for file in (tmp_path / "cache").iterdir() if file.is_file()]


def test_the_default_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NASHTUNE_CACHE", str(tmp_path))
    assert CachedReference().folder == tmp_path / "reference"
