"""Sizes of tiles, and what a pass over them keeps."""

from __future__ import annotations

import pytest
import torch

from nashtune.logprobs.plan import softmax_lse
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
    assert (tiling.tile_bytes, tiling.kept_bytes) == (8 * MIB, 64 * MIB)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_logsumexp_that_a_softmax_gives(dtype: torch.dtype) -> None:
    logits = torch.randn(40, 3000, generator=torch.Generator().manual_seed(0), dtype=dtype) * 20
    logits[0] = 0.0
    logits[1, 5:] = -torch.inf
    share, lse = softmax_lse(logits, torch.empty_like(logits))
    torch.testing.assert_close(share, logits.softmax(-1))
    expected = logits.double().logsumexp(-1)
    assert float((lse.double() - expected).abs().max()) < 200 * torch.finfo(dtype).eps
