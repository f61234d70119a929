"""Weights under names."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save

from nashtune.errors import InputError
from nashtune.files import sha256_of
from nashtune.logprobs import get_engine
from nashtune.models.policy import HFPolicy, LoraSettings
from nashtune.models.snapshots import SnapshotBank
from nashtune.testing import tiny_model, token_batch

Load = Callable[..., HFPolicy]
BATCH = token_batch([(3, 5), (4, 6)])
LORA = LoraSettings(r=2)


@pytest.fixture
def bank(tmp_path: Path) -> SnapshotBank:
    return SnapshotBank(tmp_path / "run" / "snapshots")


def sums(policy: HFPolicy) -> torch.Tensor:
    return policy.logprobs(BATCH, get_engine("tiled")).sums.detach()


def weights(policy: HFPolicy) -> dict[str, torch.Tensor]:
    return {name: weight.clone() for name, weight in policy.trainable_state_dict().items()}


def shake(policy: HFPolicy, seed: int) -> dict[str, torch.Tensor]:
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in policy.trainable_state_dict().values():
            weight.add_(0.1 * torch.randn(weight.shape, generator=draw).to(weight.dtype))
    return weights(policy)


@pytest.mark.parametrize("lora", [None, LORA])
@pytest.mark.parametrize("tie", [True, False])
def test_a_snapshot_brings_the_policy_back(
    tmp_path: Path, load: Load, bank: SnapshotBank, lora: LoraSettings | None, tie: bool
) -> None:
    policy = load(tiny_model(tmp_path / "model", tie=tie), lora=lora)
    first, said = shake(policy, 1), sums(policy)
    bank.save("main@1", policy)
    second = shake(policy, 2)
    bank.save("aux@1", policy)
    assert not torch.equal(sums(policy), said)
    bank.load("main@1", policy)
    assert torch.equal(sums(policy), said)
    assert all(torch.equal(weight, first[name]) for name, weight in weights(policy).items())
    bank.load("aux@1", policy)
    assert all(torch.equal(weight, second[name]) for name, weight in weights(policy).items())
    assert bank.names() == ["main@1", "aux@1"] and bank.has("aux@1") and not bank.has("main@2")
    assert sorted(path.name for path in bank.folder.iterdir()) == [
        "aux@1.safetensors",
        "main@1.safetensors",
        "snapshots.json",
    ]


def test_a_snapshot_of_an_adapter_is_the_adapter(tiny: Path, load: Load, bank: SnapshotBank) -> None:
    full, adapter = load(tiny), load(tiny, lora=LORA)
    bank.save("full", full)
    bank.save("adapter", adapter)
    kept = load_file(bank.folder / "adapter.safetensors")
    assert kept and all("lora_" in name for name in kept)
    numbers = sum(weight.numel() for weight in kept.values())
    assert numbers == sum(p.numel() for p in adapter.parameters() if p.requires_grad)
    sizes = {name: (bank.folder / f"{name}.safetensors").stat().st_size for name in ("full", "adapter")}
    assert 4 * numbers < sizes["adapter"] < 4 * numbers + 5000 < sizes["full"] / 2


def test_tied_weights_are_kept_once_and_stay_tied(tiny: Path, load: Load, bank: SnapshotBank) -> None:
    policy = load(tiny)
    shake(policy, 1)
    bank.save("main@1", policy)
    assert "lm_head.weight" not in load_file(bank.folder / "main@1.safetensors")
    shake(policy, 2)
    bank.load("main@1", policy)
    head, embedding = policy.model.get_output_embeddings().weight, policy.model.get_input_embeddings().weight
    assert head.data_ptr() == embedding.data_ptr()


@pytest.mark.parametrize("harm", ["torn", "altered", "missing", "no weights", "integers"])
def test_a_file_that_is_not_what_was_written_is_named_and_changes_nothing(
    tiny: Path, load: Load, bank: SnapshotBank, harm: str
) -> None:
    policy = load(tiny, lora=LORA)
    shake(policy, 1)
    bank.save("main@1", policy)
    file = bank.folder / "main@1.safetensors"
    data = bytearray(file.read_bytes())
    if harm == "missing":
        file.unlink()
    elif harm == "torn":
        file.write_bytes(data[: len(data) // 2])
    elif harm in ("no weights", "integers"):  # and its sha256 agrees
        file.write_bytes(b"nothing" if harm == "no weights" else save({"a": torch.ones(1, dtype=torch.int32)}))
        index = {"main@1": {"file": file.name, "sha256": sha256_of(file)}}
        (bank.folder / "snapshots.json").write_text(json.dumps(index))
    else:
        data[-3] ^= 1
        file.write_bytes(data)
    before = shake(policy, 2)
    other = {"missing": "is missing", "no weights": "was altered: it holds no", "integers": "was altered: a is"}
    said = other.get(harm, "is torn or was altered")
    with pytest.raises(InputError, match=rf"main@1\.safetensors {said}.*another --run_dir"):
        bank.load("main@1", policy)
    assert all(torch.equal(weight, before[name]) for name, weight in weights(policy).items())
    assert bank.names() == ["main@1"]


def test_a_snapshot_of_another_policy_is_named(tiny: Path, load: Load, bank: SnapshotBank) -> None:
    bank.save("main@1", load(tiny, lora=LORA))
    for other in (load(tiny), load(tiny, lora=LoraSettings(r=4))):
        with pytest.raises(InputError, match=r"main@1\.safetensors.* does not belong to this policy"):
            bank.load("main@1", other)


def test_an_unknown_snapshot_says_which_there_are(tiny: Path, load: Load, bank: SnapshotBank) -> None:
    policy = load(tiny, lora=LORA)
    bank.save("main@1", policy)
    with pytest.raises(InputError, match=r"no snapshot 'main@2'; did you mean 'main@1'\? \(known: main@1\)"):
        bank.load("main@2", policy)


@pytest.mark.parametrize("name", ["", "live", "../main", "a/b", ".hidden"])
def test_names_that_are_no_file_names_are_refused(tiny: Path, load: Load, bank: SnapshotBank, name: str) -> None:
    with pytest.raises(ValueError, match="is no name of a snapshot"):
        bank.save(name, load(tiny, lora=LORA))


def test_a_kill_between_file_and_index_leaves_no_snapshot(
    tiny: Path, load: Load, bank: SnapshotBank, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = load(tiny, lora=LORA)
    bank.save("main@1", policy)
    expected = shake(policy, 1)

    def killed(*args: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(SnapshotBank, "_write_index", killed)
    with pytest.raises(KeyboardInterrupt):
        bank.save("main@2", policy)
    assert (bank.folder / "main@2.safetensors").exists() and bank.names() == ["main@1"]
    monkeypatch.undo()
    bank.save("main@2", policy)
    shake(policy, 2)
    bank.load("main@2", policy)
    assert all(torch.equal(weight, expected[name]) for name, weight in weights(policy).items())


def test_a_kill_while_a_snapshot_is_replaced_leaves_none_and_no_false_alarm(
    tiny: Path, load: Load, bank: SnapshotBank, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = load(tiny, lora=LORA)
    bank.save("main@1", policy)
    shake(policy, 1)
    written = SnapshotBank._write_index
    calls: list[int] = []

    def second_is_killed(self: SnapshotBank, index: dict[str, object]) -> None:
        if calls:
            raise KeyboardInterrupt
        calls.append(1)
        written(self, index)

    monkeypatch.setattr(SnapshotBank, "_write_index", second_is_killed)
    with pytest.raises(KeyboardInterrupt):
        bank.save("main@1", policy)
    monkeypatch.undo()
    assert not bank.has("main@1")


def test_a_full_disk_keeps_the_others(
    tiny: Path, load: Load, bank: SnapshotBank, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = load(tiny, lora=LORA)
    bank.save("main@1", policy)

    def full(*args: object, **kwargs: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("nashtune.models.snapshots.save_file", full)
    with pytest.raises(InputError, match=r"main@2\.safetensors cannot be written.*No space.*--run_dir .*run$"):
        bank.save("main@2", policy)
    bank.load("main@1", policy)
    assert sorted(path.name for path in bank.folder.iterdir()) == ["main@1.safetensors", "snapshots.json"]


@pytest.mark.parametrize("content", ["", '{"main@1": ', "[]", '{"main@1": 3}', json.dumps({"main@1": {}})])
def test_an_index_that_is_torn_is_named(tiny: Path, load: Load, bank: SnapshotBank, content: str) -> None:
    bank.save("main@1", load(tiny, lora=LORA))
    (bank.folder / "snapshots.json").write_text(content)
    with pytest.raises(InputError, match=r"snapshots\.json is torn or was altered"):
        bank.has("main@1")
