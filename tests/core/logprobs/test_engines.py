"""`tiled` equals `dense`: values, gradients, and what a sequence's neighbours may not change."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import AutoModelForCausalLM

from nashtune.errors import InputError
from nashtune.interfaces import TokenBatch
from nashtune.logprobs import get_engine
from nashtune.logprobs.tiled import TiledEngine
from nashtune.testing import tiny_model, token_batch

SIZES = [(3, 9), (5, 4), (2, 12), (7, 1)]
SMALL = {"tile_mib": 0.001, "tokens": 7, "kept_mib": 0}  # several tiles in both directions
KEEPING = {**SMALL, "kept_mib": 1}
Score = Callable[..., Any]


@pytest.mark.parametrize("options", [{}, SMALL, KEEPING])
@pytest.mark.parametrize("tie", [True, False])
@pytest.mark.parametrize("frozen_head", [False, True])
def test_tiled_equals_dense_in_float64(
    tmp_path: Path, score: Score, options: dict[str, Any], tie: bool, frozen_head: bool
) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny_model(tmp_path, tie=tie), dtype=torch.float64)
    model.lm_head.weight.requires_grad_(not frozen_head)
    batch = token_batch(SIZES)
    dense, dense_grads = score(get_engine("dense"), model, batch)
    tiled, tiled_grads = score(get_engine("tiled", **options), model, batch)
    torch.testing.assert_close(tiled.sums, dense.sums, rtol=0, atol=1e-10)
    torch.testing.assert_close(tiled.token_logp, dense.token_logp, rtol=0, atol=1e-10)
    assert tiled.lengths.tolist() == dense.lengths.tolist() == [9, 4, 12, 1]
    assert tiled_grads.keys() == dense_grads.keys()
    assert ("lm_head.weight" in dense_grads) == (not tie and not frozen_head)
    for name, grad in dense_grads.items():
        torch.testing.assert_close(tiled_grads[name], grad, rtol=0, atol=1e-10, msg=name)


def test_a_tied_embedding_gets_both_gradients(model: Any, score: Score) -> None:
    """The head's part reaches every token of the vocabulary, the embedding's part only those that were read."""
    batch = token_batch([(3, 4), (3, 4)])
    _, grads = score(get_engine("tiled", **SMALL), model, batch)
    embedding = grads["model.embed_tokens.weight"]
    unread = sorted(set(range(embedding.shape[0])) - set(batch.input_ids.flatten().tolist()))
    assert bool((embedding[unread].abs().sum(1) > 0).all())
    model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.detach().clone())  # untie: the sum of both parts
    _, apart = score(get_engine("dense"), model, batch)
    torch.testing.assert_close(
        embedding, apart["model.embed_tokens.weight"] + apart["lm_head.weight"], rtol=0, atol=1e-10
    )


def test_tiled_equals_dense_in_float32(tiny: Path, score: Score) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny)
    batch = token_batch(SIZES)
    dense, dense_grads = score(get_engine("dense"), model, batch)
    tiled, tiled_grads = score(get_engine("tiled", **SMALL), model, batch)
    torch.testing.assert_close(tiled.sums, dense.sums, rtol=1e-5, atol=1e-5)
    for name, grad in dense_grads.items():
        torch.testing.assert_close(tiled_grads[name], grad, rtol=1e-4, atol=1e-5, msg=name)


@pytest.mark.parametrize("engine", ["dense", "tiled"])
def test_values_depend_on_neither_padding_nor_batch_mates_nor_micro_batches(model: Any, engine: str) -> None:
    """The trap: KL or log-probs that include padding."""
    used = get_engine(engine, **(SMALL if engine == "tiled" else {}))  # type: ignore[arg-type]
    batch = token_batch(SIZES)
    whole = used.logprobs(used.forward(model, batch), batch).sums
    padded = token_batch(SIZES, pad=11)
    torch.testing.assert_close(used.logprobs(used.forward(model, padded), padded).sums, whole, rtol=0, atol=1e-10)
    for i in range(len(SIZES)):
        one = _rows(batch, [i])
        torch.testing.assert_close(
            used.logprobs(used.forward(model, one), one).sums, whole[i : i + 1], rtol=0, atol=1e-10
        )


@pytest.mark.parametrize("engine", ["dense", "tiled"])
def test_log_probs_over_padding_are_refused(model: Any, engine: str) -> None:
    batch = token_batch([(3, 4), (2, 9)])
    wrong = replace(batch, completion_mask=batch.completion_mask | (batch.attention_mask == 0))
    with pytest.raises(ValueError, match="padding"):
        get_engine(engine).forward(model, wrong)  # type: ignore[arg-type]


def test_a_completion_without_a_prompt_token_is_refused(model: Any) -> None:
    with pytest.raises(ValueError, match="position 0"):
        get_engine("tiled").forward(model, token_batch([(0, 4), (2, 3)]))


def test_a_completion_after_one_prompt_token(model: Any) -> None:
    batch = token_batch([(1, 6)], kind="examples")
    tiled, dense = (e.logprobs(e.forward(model, batch), batch) for e in (get_engine("tiled"), get_engine("dense")))
    torch.testing.assert_close(tiled.sums, dense.sums, rtol=0, atol=1e-10)
    assert tiled.lengths.tolist() == [6]


def test_the_logits_never_exist(model: Any) -> None:
    """No tensor of a forward and backward pass is as large as (M, V)."""
    batch = token_batch([(2, 200), (2, 200)])
    engine = get_engine("tiled", tile_mib=0.05, tokens=64, kept_mib=64)
    engine.forward(model, batch)  # the once-only check of the head
    features = engine.forward(model, batch)
    with _Largest() as seen:
        engine.logprobs(features, batch).sums.sum().backward()
        engine.compared(features, features, batch, lambda policy, ref, target: {"zero": policy[:, 0] - ref[:, 0]})
    logits = 400 * model.config.vocab_size
    assert 0 < seen.largest < logits / 2


def test_no_more_than_a_quarter_of_the_logits_is_kept() -> None:
    from nashtune.logprobs.tiling import Tiling

    for tokens in (1, 10, 300, 5000):
        tiling = Tiling(tokens=256, tile_bytes=4 * 256 * 512, kept_bytes=10**12)
        for dtype, most in ((torch.float32, 49152 / 4), (torch.bfloat16, 49152 / 2)):
            kept = tiling.kept_tiles(tokens, 49152, dtype) * tiling.columns(tokens, 49152)
            assert 0 <= kept <= most
    assert Tiling().kept_tiles(2048, 49152, torch.float32) * Tiling().columns(2048, 49152) == 2048


def test_a_second_backward_is_right_though_the_first_used_up_the_kept_tiles(model: Any) -> None:
    batch = token_batch(SIZES)
    engine = get_engine("tiled", **KEEPING)
    total = engine.logprobs(engine.forward(model, batch), batch).sums.sum()
    weight = model.lm_head.weight
    first = torch.autograd.grad(total, weight, retain_graph=True)[0].clone()
    torch.testing.assert_close(torch.autograd.grad(total, weight)[0], first, rtol=0, atol=1e-12)


@pytest.mark.parametrize("frozen_head", [False, True])
def test_bf16_weights_accumulate_in_float32(tiny: Path, score: Score, frozen_head: bool) -> None:
    exact = AutoModelForCausalLM.from_pretrained(tiny, dtype=torch.bfloat16)
    wide = AutoModelForCausalLM.from_pretrained(tiny, dtype=torch.bfloat16).double()
    for model in (exact, wide):
        model.lm_head.weight.requires_grad_(not frozen_head)
    batch = token_batch(SIZES)
    tiled, grads = score(get_engine("tiled", **KEEPING), exact, batch)
    dense, dense_grads = score(get_engine("dense"), exact, batch)
    _, true_grads = score(get_engine("dense"), wide, batch)
    assert tiled.sums.dtype == tiled.token_logp.dtype == torch.float32
    torch.testing.assert_close(tiled.sums, dense.sums, rtol=1e-5, atol=1e-4)
    for name, true in true_grads.items():
        assert grads[name].dtype == torch.bfloat16
        assert _error(grads[name], true) < 1.5 * _error(dense_grads[name], true) + 1e-3, name


def test_a_certain_token_has_a_right_gradient_in_bf16_with_a_frozen_head() -> None:
    """The trap: 1 - p of a token with p near 1 is lost when p itself is rounded to bfloat16."""
    from nashtune.logprobs.head import Head
    from nashtune.logprobs.tiles import tiled_logprobs
    from nashtune.logprobs.tiling import Tiling

    draw = torch.Generator().manual_seed(1)
    weight = torch.randn(96, 16, generator=draw).bfloat16()
    hidden = (weight[:4] * 0.9).requires_grad_()
    head = Head(weight=weight, bias=None, scale=1.0, softcap=None, compute_dtype=torch.bfloat16)
    target = torch.arange(4)
    logp = tiled_logprobs(hidden, head, target, Tiling(tokens=2, tile_bytes=256))
    (found,) = torch.autograd.grad(logp.sum(), hidden)
    p = (hidden.detach() @ weight.t()).double().softmax(-1)  # of the same rounded logits
    assert float(p.diagonal().max()) > 0.999
    expected = (torch.nn.functional.one_hot(target, 96) - p) @ weight.double()
    for row in range(4):
        assert _error(found[row], expected[row]) < 0.02


@pytest.mark.parametrize("frozen_head", [False, True])
def test_autocast_runs_the_head_in_bf16(tiny: Path, frozen_head: bool) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny)
    model.lm_head.weight.requires_grad_(not frozen_head)
    batch = token_batch(SIZES)
    found = {}
    for name in ("dense", "tiled"):
        engine = get_engine(name, **(KEEPING if name == "tiled" else {}))  # type: ignore[arg-type]
        model.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            result = engine.logprobs(engine.forward(model, batch), batch)
        result.sums.sum().backward()  # outside autocast, as Lightning does
        found[name] = result, {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    assert found["tiled"][0].sums.dtype == torch.float32
    torch.testing.assert_close(found["tiled"][0].sums, found["dense"][0].sums, rtol=1e-4, atol=1e-3)
    assert found["tiled"][1].keys() == found["dense"][1].keys()
    for name, dense_grad in found["dense"][1].items():
        tiled_grad = found["tiled"][1][name]
        assert tiled_grad.dtype == torch.float32
        assert _error(tiled_grad, dense_grad.double()) < 0.03, name


def test_statistics_are_sums_over_full_rows(model: Any, tmp_path: Path) -> None:
    other = AutoModelForCausalLM.from_pretrained(tiny_model(tmp_path, seed=5), dtype=torch.float64)
    batch = token_batch(SIZES)

    def kl(policy: torch.Tensor, ref: torch.Tensor, target: torch.Tensor) -> dict[str, torch.Tensor]:
        assert policy.shape == ref.shape == (len(target), model.config.vocab_size)
        assert not policy.requires_grad
        p, q = policy.log_softmax(-1), ref.log_softmax(-1)
        return {"kl": (p.exp() * (p - q)).sum(-1), "logp": p.gather(1, target[:, None])[:, 0]}

    results = []
    for engine in (get_engine("dense"), get_engine("tiled", tile_mib=0.005)):
        features, frozen = engine.forward(model, batch), engine.forward(other, batch)
        sums = engine.compared(features, frozen, batch, kl)[2]
        torch.testing.assert_close(sums["logp"], engine.logprobs(features, batch).sums, rtol=0, atol=1e-10)
        results.append(sums)
    torch.testing.assert_close(results[0], results[1], rtol=0, atol=1e-10)
    assert bool((results[0]["kl"] > 0).all())


def test_statistics_of_equal_models_are_exactly_zero(tiny: Path) -> None:
    """Then no rounding decides a sign (the per-pair decisions of a KL controller)."""
    policy, ref = (AutoModelForCausalLM.from_pretrained(tiny) for _ in range(2))
    engine, batch = TiledEngine(tile_mib=0.01), token_batch(SIZES)
    _, _, sums = engine.compared(
        engine.forward(policy, batch),
        engine.forward(ref, batch),
        batch,
        lambda a, b, target: {"delta": (a - b).abs().sum(-1)},
    )
    assert sums["delta"].tolist() == [0.0] * len(SIZES)


def test_a_batch_without_a_completion_has_zero_gradient(model: Any) -> None:
    batch = token_batch([(4, 0), (3, 0)])
    engine = get_engine("tiled", **KEEPING)
    result = engine.logprobs(engine.forward(model, batch), batch)
    assert result.sums.tolist() == [0.0, 0.0]
    result.sums.sum().backward()
    assert float(model.lm_head.weight.grad.abs().max()) == 0.0


def test_an_unknown_engine_or_option() -> None:
    with pytest.raises(InputError, match="did you mean 'tiled'"):
        get_engine("tild")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="tile_mb"):
        get_engine("tiled", tile_mb=3)
    with pytest.raises(InputError, match="above 0"):
        get_engine("tiled", tile_mib=-1.0)


def _rows(batch: TokenBatch, rows: list[int]) -> TokenBatch:
    length = int(batch.attention_mask[rows].sum(1).max())
    return replace(
        batch,
        input_ids=batch.input_ids[rows, :length],
        attention_mask=batch.attention_mask[rows, :length],
        completion_mask=batch.completion_mask[rows, :length],
    )


def _error(found: torch.Tensor, true: torch.Tensor) -> float:
    return float((found.double() - true.double()).norm() / true.double().norm())


class _Largest(TorchDispatchMode):
    """The number of elements of the largest tensor that any operation made."""

    largest = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for value in out if isinstance(out, tuple | list) else (out,):
            if isinstance(value, torch.Tensor):
                self.largest = max(self.largest, value.numel())
        return out
