"""References that hold or share a model."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from nashtune.errors import InputError
from nashtune.interfaces import Reference
from nashtune.logprobs import get_engine
from nashtune.models.policy import HFPolicy, LoraSettings, PolicyConfig
from nashtune.references.adapter_off import AdapterOffReference
from nashtune.references.base import BaseReference
from nashtune.references.checkpoint import CheckpointReference
from nashtune.testing import tiny_model, token_batch

Load = Callable[..., HFPolicy]
BATCH = token_batch([(3, 5), (4, 6)])
ENGINE = get_engine("tiled")


def attached(reference: Reference, policy: HFPolicy) -> Reference:
    reference.attach(policy)
    return reference


def shake(policy: HFPolicy) -> None:
    with torch.no_grad():
        for weight in policy.trainable_state_dict().values():
            weight.add_(0.1 * torch.randn_like(weight))


def sums(source: Reference | HFPolicy) -> torch.Tensor:
    return source.logprobs(BATCH, ENGINE).sums.detach()


@pytest.mark.parametrize("start", ["full", "lora", "sft", "sft+lora"])
@pytest.mark.parametrize("engine", ["tiled", "dense"])
def test_base_is_the_policy_at_the_start_bit_for_bit_and_stays_there(
    tiny: Path, sft_adapter: Path, load: Load, start: str, engine: str
) -> None:
    policy = load(
        sft_adapter if "sft" in start else tiny, lora=LoraSettings(r=2, dropout=0.5) if "lora" in start else None
    )
    used = get_engine(engine)  # type: ignore[arg-type]
    reference = attached(BaseReference(), policy)
    with torch.no_grad():
        at_start = policy.logprobs(BATCH, used).sums
    assert torch.equal(reference.logprobs(BATCH, used).sums, at_start)
    shake(policy)
    assert torch.equal(reference.logprobs(BATCH, used).sums, at_start)
    assert not torch.equal(policy.logprobs(BATCH, used).sums, at_start)


def test_one_model_in_memory_with_a_fresh_adapter(tiny: Path, sft_adapter: Path, load: Load) -> None:
    def models(policy: HFPolicy) -> int:
        reference = attached(BaseReference(), policy)
        return 1 + sum(isinstance(value, torch.nn.Module) and value is not policy for value in vars(reference).values())

    assert models(load(tiny, lora=LoraSettings(r=2))) == 1
    assert models(load(sft_adapter, lora=LoraSettings(r=2))) == 1
    assert models(load(tiny)) == 2
    assert models(load(sft_adapter)) == 2


@pytest.mark.parametrize("lora", [None, LoraSettings(r=2)])
def test_a_reference_has_no_gradient_and_is_in_no_checkpoint(tiny: Path, load: Load, lora: LoraSettings | None) -> None:
    policy = load(tiny, lora=lora)
    names = set(policy.state_dict())
    holder = torch.nn.Module()
    holder.references = {"ref": attached(BaseReference(), policy)}  # as the training module holds them
    assert not holder.state_dict() and set(policy.state_dict()) == names
    result = holder.references["ref"].logprobs(BATCH, ENGINE)
    assert not result.sums.requires_grad
    policy.logprobs(BATCH, ENGINE).sums.sum().backward()
    trained = [p for p in policy.parameters() if p.requires_grad]
    assert trained and all(p.grad is not None for p in trained)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_the_adapter_is_on_again_after_the_reference(tiny: Path, load: Load, checkpointing: bool) -> None:
    """Also in backward, where gradient checkpointing runs the policy once more."""
    policy = load(tiny, lora=LoraSettings(r=2), gradient_checkpointing=checkpointing)
    shake(policy)
    reference = attached(BaseReference(), policy)
    before = sums(policy)
    policy.logprobs(BATCH, ENGINE).sums.sum().backward()
    expected = {n: p.grad.clone() for n, p in policy.named_parameters() if p.grad is not None}
    policy.zero_grad()
    features = policy.forward(BATCH, ENGINE)
    sums(reference)
    ENGINE.logprobs(features, BATCH).sums.sum().backward()
    found = {n: p.grad for n, p in policy.named_parameters() if p.grad is not None}
    assert expected.keys() == found.keys() and all(torch.equal(expected[n], found[n]) for n in expected)
    assert torch.equal(sums(policy), before)
    assert policy.model.training


def test_equal_logits_at_the_start(tiny: Path, load: Load) -> None:
    """Sums of |policy - reference| logits are exactly 0, so that no rounding decides a sign."""
    for lora in (None, LoraSettings(r=2, dropout=0.3)):
        policy = load(tiny, lora=lora)
        policy.eval()
        reference = attached(BaseReference(), policy)
        delta = ENGINE.compared(
            policy.forward(BATCH, ENGINE),
            reference.forward(BATCH, ENGINE),
            BATCH,
            lambda a, b, target: {"delta": (a - b).abs().sum(-1)},
        )[2]["delta"]
        assert delta.tolist() == [0.0, 0.0]


def test_adapter_off_equals_base_with_a_fresh_adapter(sft_adapter: Path, load: Load) -> None:
    policy = load(sft_adapter, lora=LoraSettings(r=2))
    shake(policy)
    assert torch.equal(sums(attached(AdapterOffReference(), policy)), sums(attached(BaseReference(), policy)))


def test_adapter_off_after_an_sft_adapter(tiny: Path, sft_adapter: Path, load: Load) -> None:
    """The trap: the reference would silently be the base model, and the first loss would not be log 2."""
    policy = load(sft_adapter)
    with pytest.raises(InputError, match="base model and not the SFT model"):
        AdapterOffReference().attach(policy)
    with policy.model.disable_adapter():  # what it would have been
        wrong = sums(policy)
    assert not torch.allclose(wrong, sums(policy), atol=1e-2)
    with pytest.raises(InputError, match="no adapter to switch off"):
        AdapterOffReference().attach(load(tiny))


def test_checkpoint(tiny: Path, tmp_path: Path, sft_adapter: Path, load: Load) -> None:
    other = tiny_model(tmp_path / "other", seed=9)
    policy = load(tiny)
    reference = attached(CheckpointReference(path=str(other)), policy)
    assert torch.equal(sums(reference), sums(load(other)))
    adapter = attached(CheckpointReference(path=str(sft_adapter)), policy)
    torch.testing.assert_close(sums(adapter), sums(load(sft_adapter)), rtol=1e-4, atol=1e-4)


def test_a_checkpoint_with_other_tokens(tiny: Path, tmp_path: Path, load: Load) -> None:
    other = Path(shutil.copytree(tiny, tmp_path / "other"))
    data = json.loads((other / "tokenizer.json").read_text())
    vocabulary = data["model"]["vocab"]
    vocabulary["a"], vocabulary["b"] = vocabulary["b"], vocabulary["a"]
    (other / "tokenizer.json").write_text(json.dumps(data))
    with pytest.raises(InputError, match="is not that of the policy"):
        CheckpointReference(path=str(other)).attach(load(tiny))


def test_a_reference_without_a_policy() -> None:
    with pytest.raises(RuntimeError, match="not attached"):
        BaseReference().logprobs(BATCH, ENGINE)
    with pytest.raises(RuntimeError, match="load"):
        BaseReference().attach(HFPolicy(PolicyConfig(path="x")))
