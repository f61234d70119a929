"""Each backend of packed attention against plain attention with a mask, in float64."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from nashtune.logprobs.attention import Backend, PackedPass, packed_attention
from nashtune.logprobs.flex import visible
from nashtune.logprobs.packing import packed_layout
from packed_batches import pairs, random_batch

CASES = [(None, None), (4, None), (None, 2.0), (4, 2.0)]


def plain(query: Tensor, key: Tensor, value: Tensor, run: PackedPass, window: int | None, cap: float | None) -> Tensor:
    """(1, F, Hq, D) from all scores at once."""
    length, groups = query.shape[2], query.shape[1] // key.shape[1]
    at = torch.arange(length)
    mask = visible(run.packed, window)(None, None, at[:, None], at[None, :])
    scores = query @ key.repeat_interleave(groups, 1).transpose(2, 3) * 0.7
    if cap is not None:
        scores = torch.tanh(scores / cap) * cap
    weights = scores.masked_fill(~mask, float("-inf")).softmax(-1)
    return (weights @ value.repeat_interleave(groups, 1)).transpose(1, 2)


def draw(run: PackedPass, heads: tuple[int, int]) -> list[Tensor]:
    length = run.packed.input_ids.shape[1]
    make = torch.Generator().manual_seed(length)
    sizes = (heads[0], heads[1], heads[1])
    return [torch.randn(1, n, length, 8, generator=make, dtype=torch.float64, requires_grad=True) for n in sizes]


@pytest.mark.parametrize("backend", ["rows", "segments"])
@pytest.mark.parametrize("heads", [(4, 4), (4, 2), (3, 1)])
@pytest.mark.parametrize(("window", "cap"), CASES)
def test_values_and_gradients(backend: Backend, heads: tuple[int, int], window: int | None, cap: float | None) -> None:
    for batch in (random_batch(1), pairs([(150, 140, 30), (20, 3, 90)])):
        packed = packed_layout(batch, share=True).packed
        assert packed is not None
        run = PackedPass(packed, backend)
        parts = draw(run, heads)
        expected = plain(*parts, run, window, cap)
        found = packed_attention(*parts, run, scaling=0.7, sliding_window=window, softcap=cap, dropout=0.0)
        assert found.is_contiguous()
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
        weights = torch.randn_like(expected)
        grads = [torch.autograd.grad((one * weights).sum(), parts) for one in (found, expected)]
        torch.testing.assert_close(grads[0], grads[1], rtol=0, atol=1e-11)


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.parametrize(("window", "cap"), CASES)
def test_flex_sees_the_same_keys(window: int | None, cap: float | None) -> None:
    """Its forward pass, uncompiled: FlexAttention has no backward pass on a CPU."""
    packed = packed_layout(random_batch(2), share=True).packed
    assert packed is not None
    run = PackedPass(packed, "flex")
    with torch.no_grad():
        parts = [part.float() for part in draw(run, (4, 2))]
        found = packed_attention(*parts, run, scaling=0.7, sliding_window=window, softcap=cap, dropout=0.0)
        torch.testing.assert_close(found, plain(*parts, run, window, cap), rtol=0, atol=1e-5)


def test_a_bias_on_the_keys_costs_no_precision_in_16_bits() -> None:
    """The trap: scores of 100 and more, rounded to bfloat16, are wrong by up to 0.5. Fused attention keeps float32."""
    packed = packed_layout(pairs([(60, 40, 30)]), share=True).packed
    assert packed is not None
    run = PackedPass(packed)
    query, key, value = (part.detach().float() for part in draw(run, (4, 2)))
    parts = [(query + 6).bfloat16(), (key + 8).bfloat16(), value.bfloat16()]
    true = plain(*(part.double() for part in parts), run, None, None)
    errors = {}
    for backend in ("rows", "segments"):
        run = PackedPass(packed, backend)  # type: ignore[arg-type]
        found = packed_attention(*parts, run, scaling=0.7, sliding_window=None, softcap=None, dropout=0.0)
        errors[backend] = float((found - true).norm() / true.norm())
    assert errors["rows"] < 2 * errors["segments"]  # 60 times with scores in bfloat16


def test_attention_dropout_is_applied() -> None:
    packed = packed_layout(random_batch(2), share=True).packed
    assert packed is not None
    run = PackedPass(packed)
    parts = draw(run, (4, 2))
    torch.manual_seed(0)
    dropped = packed_attention(*parts, run, scaling=0.7, sliding_window=None, softcap=None, dropout=0.5)
    assert not torch.allclose(dropped, plain(*parts, run, None, None))
