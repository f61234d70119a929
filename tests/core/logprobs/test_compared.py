"""Both distributions in one pass: equal to `dense` in values, gradients and statistics, with one product of each."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import AutoModelForCausalLM

from nashtune.logprobs import get_engine
from nashtune.testing import tiny_model, token_batch

BATCH = token_batch([(3, 9), (5, 4), (2, 12), (7, 1)])
SMALL = {"tile_mib": 0.004, "tokens": 7, "kept_mib": 0}  # several blocks, and several rows in a block
Models = tuple[Any, Any]


@pytest.fixture
def models(tmp_path: Path) -> Models:
    """Policy and reference, in float64."""
    first, second = (tiny_model(tmp_path / str(seed), tie=False, seed=seed) for seed in (1, 5))
    policy, ref = (AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64) for folder in (first, second))
    return policy, ref.requires_grad_(False)


def statistics(policy: torch.Tensor, ref: torch.Tensor, target: torch.Tensor) -> dict[str, torch.Tensor]:
    assert not torch.is_grad_enabled() and policy.shape == ref.shape
    p, q = policy.log_softmax(-1), ref.log_softmax(-1)
    return {"kl": (p.exp() * (p - q)).sum(-1), "of_target": q.gather(1, target[:, None])[:, 0]}


def run(engine: Any, models: Models, *, itself: bool = False) -> dict[str, torch.Tensor]:
    policy, ref = models
    policy.zero_grad()
    features = engine.forward(policy, BATCH)
    with torch.no_grad():
        frozen = features if itself else engine.forward(ref, BATCH)
    own, other, sums = engine.compared(features, frozen, BATCH, statistics)
    assert own.sums.requires_grad and not other.sums.requires_grad
    (own.sums * torch.linspace(-1, 2, len(own.sums), dtype=own.sums.dtype)).sum().backward()
    found = {"policy": own.token_logp.detach(), "ref": other.token_logp, **sums}
    return found | {f"grad {name}": p.grad.clone() for name, p in policy.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("options", [{}, SMALL, {**SMALL, "kept_mib": 1}])
@pytest.mark.parametrize("frozen_head", [False, True])
@pytest.mark.parametrize("itself", [False, True])
def test_equals_dense(models: Models, options: dict[str, Any], frozen_head: bool, itself: bool) -> None:
    models[0].lm_head.weight.requires_grad_(not frozen_head)
    dense = run(get_engine("dense"), models, itself=itself)
    tiled = run(get_engine("tiled", **options), models, itself=itself)
    assert tiled.keys() == dense.keys() and ("grad lm_head.weight" in dense) != frozen_head
    for name, value in dense.items():
        torch.testing.assert_close(tiled[name], value, rtol=0, atol=1e-10, msg=name)
    assert bool((tiled["kl"] == 0).all()) == itself


@pytest.mark.parametrize("frozen_head", [False, True])
def test_a_cap_a_bias_and_a_scale(models: Models, frozen_head: bool) -> None:
    """Of the policy's head alone, so that the two sides must not be mixed up."""
    from nashtune.logprobs.head import Head
    from nashtune.logprobs.tiles import tiled_comparison
    from nashtune.logprobs.tiling import Tiling

    draw = torch.Generator().manual_seed(0)
    hidden, other = (torch.randn(11, 8, generator=draw, dtype=torch.float64).requires_grad_() for _ in range(2))
    weight, weight_ref = (torch.randn(70, 8, generator=draw, dtype=torch.float64) for _ in range(2))
    bias = torch.randn(70, generator=draw, dtype=torch.float64)
    for part in (weight, bias):
        part.requires_grad_(not frozen_head)
    target = torch.randint(70, (11,), generator=draw)
    plain = {"bias": None, "scale": 1.0, "softcap": None, "compute_dtype": torch.float64}
    head = Head(**{**plain, "weight": weight, "bias": bias, "scale": 0.5, "softcap": 1.5})
    tiling = Tiling(tokens=4, tile_bytes=70 * 32, kept_bytes=10**6)
    logp, frozen, values = tiled_comparison(
        (hidden, head), (other, Head(**{**plain, "weight": weight_ref})), target, statistics, tiling
    )
    logits = 1.5 * torch.tanh(0.5 * (hidden @ weight.t() + bias) / 1.5)
    expected = logits.log_softmax(-1).gather(1, target[:, None])[:, 0]
    logits_ref = (other @ weight_ref.t()).detach()
    torch.testing.assert_close(logp, expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(frozen, logits_ref.log_softmax(-1).gather(1, target[:, None])[:, 0], rtol=0, atol=1e-12)
    with torch.no_grad():
        for name, value in statistics(logits, logits_ref, target).items():
            torch.testing.assert_close(values[name], value, rtol=0, atol=1e-12)
    wanted = [hidden] if frozen_head else [hidden, weight, bias]
    up = torch.linspace(-1, 1, 11, dtype=torch.float64)
    for found, true in zip(
        torch.autograd.grad(logp, wanted, up), torch.autograd.grad(expected, wanted, up), strict=True
    ):
        torch.testing.assert_close(found, true, rtol=0, atol=1e-12)


def test_one_product_of_each_head_over_the_vocabulary(models: Models) -> None:
    """Two heads and statistics: as many products of the vocabulary as log-probs of the two alone."""
    engine = get_engine("tiled", tile_mib=0.05, tokens=64, kept_mib=0)
    features, frozen = (engine.forward(model, BATCH) for model in models)
    with torch.no_grad():
        with Products() as apart:
            engine.logprobs(features, BATCH)
            engine.logprobs(frozen, BATCH)
        with Products() as together:
            engine.compared(features, frozen, BATCH, statistics)
    assert together.cells == apart.cells == 2 * 26 * models[0].config.vocab_size


def test_log_probs_are_the_same_with_and_without_statistics(models: Models) -> None:
    engine = get_engine("tiled", **SMALL)
    features, frozen = (engine.forward(model, BATCH) for model in models)
    own, other, _ = engine.compared(features, frozen, BATCH, statistics)
    for with_it, without in ((own, features), (other, frozen)):
        alone = engine.logprobs(without, BATCH)
        torch.testing.assert_close(with_it.token_logp, alone.token_logp, rtol=0, atol=1e-12)


def test_a_batch_without_a_completion(models: Models) -> None:
    batch = token_batch([(4, 0), (3, 0)])
    engine = get_engine("tiled", **SMALL)
    features, frozen = (engine.forward(model, batch) for model in models)
    own, other, sums = engine.compared(features, frozen, batch, statistics)
    assert own.sums.tolist() == other.sums.tolist() == sums["kl"].tolist() == [0.0, 0.0]
    own.sums.sum().backward()
    assert float(models[0].lm_head.weight.grad.abs().max()) == 0.0


def test_under_autocast(models: Models) -> None:
    policy, ref = (model.float() for model in models)
    found = {}
    for name in ("dense", "tiled"):
        policy.zero_grad()
        engine = get_engine(name, **(SMALL if name == "tiled" else {}))  # type: ignore[arg-type]
        with torch.autocast("cpu", dtype=torch.bfloat16):
            features, frozen = (engine.forward(model, BATCH) for model in (policy, ref))
            own, other, sums = engine.compared(features, frozen, BATCH, statistics)
        own.sums.sum().backward()
        found[name] = own.sums.detach(), other.sums.detach(), sums["kl"], policy.lm_head.weight.grad.clone()
    for tiled, dense in zip(found["tiled"][:3], found["dense"][:3], strict=True):
        assert tiled.dtype == torch.float32
        torch.testing.assert_close(tiled, dense, rtol=1e-3, atol=1e-3)
    tiled, dense = found["tiled"][3], found["dense"][3]
    assert float((tiled - dense).norm() / dense.norm()) < 0.03


class Products(TorchDispatchMode):
    """The number of cells that matrix products wrote."""

    cells = 0

    def __torch_dispatch__(self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if func.__name__.split(".")[0] in ("mm", "addmm"):
            self.cells += out.numel()
        return out
