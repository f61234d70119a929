"""The critic: where it starts, what it reads, and that it is kept with the policy."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from nashtune.data.collate import completion_batch
from nashtune.interfaces import TokenBatch
from nashtune.logprobs import EngineName, get_engine
from nashtune.models.critic import ValueHead, make_critic
from nashtune.models.policy import HFPolicy
from nashtune.models.reward_policy import RewardPolicy


def with_head(policy: HFPolicy) -> ValueHead:
    head = make_critic("zero", policy, None)
    assert isinstance(head, ValueHead)
    policy.critic = head
    return head


@pytest.fixture
def batch() -> TokenBatch:
    return completion_batch([((5, 6, 7), (8, 9)), ((5,), (10, 11, 12, 2))])


@pytest.mark.parametrize("name", ["tiled", "dense"])
def test_a_new_head_says_zero_and_its_gradient_reaches_the_head(
    tiny: Path, load: Callable[..., HFPolicy], batch: TokenBatch, name: EngineName
) -> None:
    policy, engine = load(tiny), get_engine(name)
    head = with_head(policy)
    values_M, end_N = policy.values(policy.forward(batch, engine), batch, engine)
    assert values_M.tolist() == [0.0] * 6 and end_N.tolist() == [0.0] * 2
    torch.autograd.backward(values_M.sum())
    gradient = head.linear.weight.grad
    assert gradient is not None and bool(gradient.abs().sum() > 0)


def test_both_engines_give_the_same_hidden_states(tiny: Path, load: Callable[..., HFPolicy], batch: TokenBatch) -> None:
    policy = load(tiny)
    found = []
    for name in ("tiled", "dense"):
        engine = get_engine(name)
        features = policy.forward(batch, engine)
        found.append(torch.cat([engine.states(features).hidden, engine.states(features).last]).detach())
    torch.testing.assert_close(found[0], found[1], rtol=1e-6, atol=1e-6)


def test_a_value_is_read_before_its_token(tiny: Path, load: Callable[..., HFPolicy], batch: TokenBatch) -> None:
    """Changing the last token changes no value: the last one is read one position before it."""
    policy, engine = load(tiny), get_engine("tiled")
    torch.nn.init.normal_(with_head(policy).linear.weight, generator=torch.Generator().manual_seed(0))
    other = completion_batch([((5, 6, 7), (8, 13)), ((5,), (10, 11, 12, 14))])
    found = [policy.values(policy.forward(one, engine), one, engine) for one in (batch, other)]
    values, ends = [one[0].detach() for one in found], [one[1].detach() for one in found]
    assert torch.equal(values[0], values[1])
    assert len(set(values[0].tolist())) == 6
    assert bool((ends[0] != ends[1]).all()), "the value after the last token has seen it"


def test_the_critic_is_trained_and_kept_with_the_policy(tiny: Path, load: Callable[..., HFPolicy]) -> None:
    policy = load(tiny)
    before = set(policy.trainable_state_dict())
    head = with_head(policy)
    state = {name: weight.clone() for name, weight in policy.trainable_state_dict().items()}
    assert set(state) - before == {"critic.linear.weight", "critic.linear.bias"}
    torch.nn.init.ones_(head.linear.weight)
    policy.load_trainable_state_dict(state)
    assert bool((head.linear.weight == 0).all())


def test_a_run_folder_stands_for_its_export(
    tiny: Path, tmp_path: Path, load: Callable[..., HFPolicy], load_reward: Callable[..., RewardPolicy]
) -> None:
    (tmp_path / "run").mkdir()
    load_reward(tiny, members=2).save_pretrained(tmp_path / "run" / "export")
    (tmp_path / "run" / "config.yaml").write_text("spec: reward_bt\n")
    policy = load(tiny)
    found = [make_critic("reward_model", policy, str(tmp_path / name)) for name in ("run", "run/export")]
    for name, weight in found[0].state_dict().items():
        assert torch.equal(weight, found[1].state_dict()[name]), name
