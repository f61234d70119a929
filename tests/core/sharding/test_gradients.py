"""The gradient of a model that is cut up over two ranks is that of the whole model on one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from nashtune.logprobs import get_engine
from nashtune.models.critic import make_critic
from nashtune.models.policy import HFPolicy, LoraSettings, PolicyConfig
from nashtune.models.reward_policy import RewardPolicy
from nashtune.references.base import BaseReference
from nashtune.references.checkpoint import CheckpointReference
from nashtune.sharding.placing import Sharding
from nashtune.sharding.tensors import DTensor, full, is_sharded, local
from nashtune.spec.model import HeadSpec
from nashtune.testing import tiny_model, token_batch
from nashtune.training.stochastic import StochasticAdamW
from ranks import call_on_ranks

SIZES = [[(3, 5), (4, 6), (3, 2), (4, 9)], [(6, 2), (6, 8)]]  # of the passes of rank 0 and of rank 1
LORA = LoraSettings(r=2)
HEAD_LORA = LoraSettings(r=2, target_modules=["q_proj", "lm_head"])

CASES: list[tuple[str, str, dict[str, Any]]] = [
    ("tied", "auto", {}),
    ("tied", "dense", {}),
    ("tied", "auto", {"gradient_checkpointing": True}),
    ("tied", "auto", {"lora": LORA}),
    ("untied", "auto", {"lora": HEAD_LORA}),
    ("untied", "tiled", {"gradient_checkpointing": True}),
]


def policy_of(path: str, sharding: Sharding | None, **settings: Any) -> HFPolicy:
    torch.manual_seed(0)
    policy = HFPolicy(PolicyConfig(path=path, **settings))
    policy.sharding = sharding
    policy.load()
    if sharding is not None and not sharding.reads:  # one process reads, the others wait for what it sends
        assert all(p.is_meta for name, p in policy.named_parameters() if "lora" not in name)
    policy.shard()
    return policy


def gradients(policy: HFPolicy, engine_name: str, other: str, passes: list[int], rate: float) -> dict[str, Any]:
    """Of the squared distance to two references, in one backward for each pass; two steps of it."""
    engine = get_engine(engine_name)
    engine.attach(policy.loaded())
    base, checkpoint = BaseReference(), CheckpointReference(path=other)
    for reference in (base, checkpoint):
        reference.attach(policy)
    sums = []
    for step in range(2):
        for number in passes:
            batch = token_batch(SIZES[number], seed=number)
            policy_N = policy.logprobs(batch, engine).sums
            gap_N = policy_N - 0.5 * base.logprobs(batch, engine).sums - 0.3 * checkpoint.logprobs(batch, engine).sums
            gap_N.square().sum().backward()
            sums.append(gap_N.detach())
        if step == 0:
            found = {name: p.grad.clone() for name, p in policy.loaded().named_parameters() if p.grad is not None}
            with torch.no_grad():
                for p in policy.parameters():
                    if p.grad is not None:
                        local(p).sub_(local(p.grad), alpha=rate)
    after = {f"{name} after": p.grad for name, p in policy.loaded().named_parameters() if p.grad is not None}
    return {**found, **after, "sums": sums}


def compare(found: dict[str, Any], expected: dict[str, Any]) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        if name != "sums":
            whole = full(found[name]) * 2  # FSDP2 means over the ranks
            assert float((whole - value).norm()) <= 3e-6 * float(value.norm()) + 1e-12, name


def check_gradients(rank: int, tied: str, untied: str, other: str) -> None:
    mesh = torch.distributed.init_device_mesh("cpu", (2,), mesh_dim_names=("data_parallel",))
    sharding = Sharding(mesh=mesh, device=torch.device("cpu"))
    for path, engine, settings in CASES:
        folder = {"tied": tied, "untied": untied}[path]
        expected = gradients(policy_of(folder, None, **settings), engine, other, [0, 1], 1e-6)
        policy = policy_of(folder, sharding, **settings)
        assert is_sharded(policy) and all(isinstance(p, DTensor) for p in policy.parameters())
        held = sum(local(p).numel() for p in policy.parameters())
        assert held < 0.6 * sum(p.numel() for p in policy.parameters())
        found = gradients(policy, engine, other, [rank], 2e-6)
        compare(found, expected)
        with policy.inference_model() as model:  # each rank at its own pace
            assert not is_sharded(policy)
            for _ in range(1 + rank):
                plain = policy.logprobs(token_batch(SIZES[0]), get_engine(engine)).sums.detach()
            assert all(type(p) is torch.nn.Parameter for p in model.parameters())
        together = policy.logprobs(token_batch(SIZES[0]), get_engine(engine)).sums.detach()
        torch.testing.assert_close(plain, together, rtol=1e-6, atol=1e-6)


def check_heads(rank: int, tied: str, reward: str) -> None:
    """What has a head of its own: critics, reward models, and a trunk whose states are remembered."""
    mesh = torch.distributed.init_device_mesh("cpu", (2,), mesh_dim_names=("data_parallel",))
    sharding, engine = Sharding(mesh=mesh, device=torch.device("cpu")), get_engine("auto")
    engine.pads = False
    batches = [token_batch(sizes, seed=number) for number, sizes in enumerate(SIZES)]

    def critic_gradient(init: str, where: Sharding | None, picked: list[int]) -> dict[str, Any]:
        torch.manual_seed(0)
        policy = HFPolicy(PolicyConfig(path=tied))
        policy.sharding = where
        policy.load()
        policy.critic = make_critic(init, policy, reward)
        policy.shard()
        for number in picked:
            features = policy.forward(batches[number], engine)
            before_M, last_N = policy.values(features, batches[number], engine)
            logp = engine.logprobs(features, batches[number]).sums
            ((before_M - 1).square().sum() + (last_N + logp).square().sum()).backward()
        if where is not None:
            with policy.inference_model():
                policy.values(policy.forward(batches[0], engine), batches[0], engine)
        return {name: p.grad for name, p in policy.named_parameters() if p.grad is not None} | {"sums": None}

    for init in ("zero", "reward_model"):
        compare(critic_gradient(init, sharding, [rank]), critic_gradient(init, None, [0, 1]))

    def score_gradient(trunk: Any, where: Sharding | None, picked: list[int], **settings: Any) -> dict[str, Any]:
        torch.manual_seed(0)
        policy = RewardPolicy(PolicyConfig(path=tied, **settings), HeadSpec(members=3, trunk=trunk))
        policy.sharding = where
        policy.load()
        policy.shard()
        if trunk == "frozen":
            policy.remember(batches)
        for number in picked:
            policy.scores(batches[number]).square().sum().backward()
        return {name: p.grad for name, p in policy.named_parameters() if p.grad is not None} | {"sums": None}

    for trunk, settings in (("trained", {}), ("trained", {"lora": LORA}), ("frozen", {})):
        found = score_gradient(trunk, sharding, [rank], **settings)
        compare(found, score_gradient(trunk, None, [0, 1], **settings))


def check_stochastic(rank: int, tied: str) -> None:
    """Weights in bfloat16, with moments in float32 that are cut up as they are."""
    mesh = torch.distributed.init_device_mesh("cpu", (2,), mesh_dim_names=("data_parallel",))
    policy = policy_of(tied, Sharding(mesh=mesh, device=torch.device("cpu")), precision="bf16")
    optimizer = StochasticAdamW(policy.parameters(), lr=1e-3)
    before = {name: full(p).clone() for name, p in policy.trained().items()}
    policy.logprobs(token_batch(SIZES[rank], seed=rank), get_engine("auto")).sums.sum().backward()
    optimizer.step()
    moved = [bool((full(p) != before[name]).any()) for name, p in policy.trained().items()]
    assert all(moved)
    state = next(iter(optimizer.state.values()))
    assert isinstance(state["exp_avg"], DTensor) and state["exp_avg"].dtype == torch.float32
    whole = policy.trainable_state_dict()
    assert bool(whole) == (rank == 0)


def check_all(rank: int, tied: str, untied: str, other: str, reward: str) -> None:
    check_gradients(rank, tied, untied, other)
    check_heads(rank, tied, reward)
    check_stochastic(rank, tied)


def test_gradients_are_those_of_the_whole_model(tmp_path: Path, heads: Path) -> None:
    tied, untied = tiny_model(tmp_path / "tied"), tiny_model(tmp_path / "untied", tie=False)
    other = tiny_model(tmp_path / "other", seed=1)
    call_on_ranks(check_all, tmp_path, str(tied), str(untied), str(other), str(heads), seconds=150)
