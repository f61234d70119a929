"""Sizes of tiles, and what a pass over them keeps."""

from __future__ import annotations

import pytest
import torch

from nashtune.logprobs.head import Head
from nashtune.logprobs.plan import softmax_lse
from nashtune.logprobs.tiles import tiled_logprobs
from nashtune.logprobs.tiling import MIB, Tiling


@pytest.mark.parametrize("vocabulary", [262, 49152, 151936])
@pytest.mark.parametrize("tokens", [1, 700, 5000])
def test_sizes_stay_within_their_budgets(vocabulary: int, tokens: int) -> None:
    tiling = Tiling(tokens=1024, tile_bytes=8 * MIB, kept_bytes=64 * MIB)
    rows, columns = tiling.rows(tokens), tiling.columns(tokens, vocabulary)
    assert rows <= 1024 and (4 * rows * columns <= 8 * MIB) and (columns == vocabulary or columns % 64 == 0)
    for dtype in (torch.float32, torch.bfloat16):
        kept = tiling.kept_tiles(tokens, vocabulary, dtype) * tokens * columns * dtype.itemsize
        assert kept <= min(64 * MIB, tokens * vocabulary)
        assert 1 <= tiling.block(tokens, vocabulary, dtype) <= tokens
    assert 1 <= tiling.whole_rows(vocabulary) <= 1024


def test_a_cpu_keeps_its_tiles_in_cache() -> None:
    tiling = Tiling.on(torch.device("cpu"))
    assert (tiling.tile_bytes, tiling.kept_bytes) == (8 * MIB, 16 * MIB)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_logsumexp_that_a_softmax_gives(dtype: torch.dtype) -> None:
    logits = torch.randn(40, 3000, generator=torch.Generator().manual_seed(0), dtype=dtype) * 20
    logits[0] = 0.0
    logits[1, 5:] = -torch.inf
    share, lse = softmax_lse(logits, torch.empty_like(logits))
    torch.testing.assert_close(share, logits.softmax(-1))
    expected = logits.double().logsumexp(-1)
    assert float((lse.double() - expected).abs().max()) < 200 * torch.finfo(dtype).eps


def test_rows_that_are_hidden_throughout_weigh_nothing() -> None:
    logits = torch.full((3, 5), -torch.inf)
    logits[1] = torch.arange(5.0)
    share, lse = softmax_lse(logits, torch.empty_like(logits), hidden=True)
    torch.testing.assert_close(share[1], logits[1].softmax(-1))
    assert not share[[0, 2]].any()
    torch.testing.assert_close(lse, logits.logsumexp(-1))


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("visible", [slice(0, 40), slice(150, 190), slice(260, 300)])
def test_a_bias_that_hides_whole_tiles(frozen: bool, visible: slice) -> None:
    """Value and gradient as of full logits, wherever in the vocabulary the hidden part is."""
    draw = torch.Generator().manual_seed(0)
    hidden = torch.randn(9, 6, generator=draw, dtype=torch.float64).requires_grad_()
    weight = torch.randn(300, 6, generator=draw, dtype=torch.float64).requires_grad_(not frozen)
    bias = torch.full((300,), -torch.inf, dtype=torch.float64)
    bias[visible] = torch.randn(40, generator=draw, dtype=torch.float64)
    target = torch.randint(visible.start, visible.stop, (9,), generator=draw)
    head = Head(weight=weight, bias=bias, scale=1.5, softcap=None, compute_dtype=torch.float64)
    tiling = Tiling(tokens=4, tile_bytes=4 * 256 * 64, kept_bytes=0)  # five tiles of 64 columns
    found = tiled_logprobs(hidden, head, target, tiling)
    expected = head.logits(hidden).log_softmax(-1).gather(1, target[:, None])[:, 0]
    torch.testing.assert_close(found, expected)
    wanted = [hidden] if frozen else [hidden, weight]
    factor = torch.randn(9, generator=draw, dtype=torch.float64)
    for ours, theirs in zip(
        torch.autograd.grad((found * factor).sum(), wanted),
        torch.autograd.grad((expected * factor).sum(), wanted),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs)
