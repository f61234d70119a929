"""Sizes of the tiles of logits.

On a CPU a tile is small enough to stay in cache while it is worked on: measured at 1,024 tokens and 49k words, tiles of
8 MiB take 0.93 of the time of tiles of 32 MiB in bfloat16. On an accelerator it is a share of the memory that the
device has, not of what is free: the same machine then gives the same sums, whatever ran before.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import torch

MIB = 2**20


@dataclass(frozen=True, kw_only=True)
class Tiling:
    """Budgets, from which sizes follow.

    Args:
        tokens: Rows of a tile, at most.
        tile_bytes: A tile of logits in float32; it decides the columns.
        kept_bytes: Products kept from forward to backward, at most; never more bytes than a quarter of the logits would
            take in float32.
    """

    tokens: int = 2048
    tile_bytes: int = 8 * MIB
    kept_bytes: int = 16 * MIB

    @staticmethod
    @cache
    def on(device: torch.device) -> Tiling:
        """What a device's memory suggests."""
        if device.type == "cpu":
            return Tiling()
        if device.type != "cuda":
            return Tiling(tile_bytes=64 * MIB, kept_bytes=256 * MIB)
        memory = torch.cuda.get_device_properties(device).total_memory
        return Tiling(tile_bytes=memory // 512, kept_bytes=memory // 64)

    def rows(self, num_tokens: int) -> int:
        """Tokens in a tile."""
        return max(1, min(num_tokens, self.tokens))

    def columns(self, num_tokens: int, vocabulary: int) -> int:
        """Vocabulary in a tile, a multiple of 64 where that is not all of it.

        Of few tokens as if there were 256: else the tile's part of the weight would be the large tensor.
        """
        return min(vocabulary, max(64, self.tile_bytes // (4 * max(256, self.rows(num_tokens))) // 64 * 64))

    def kept_tiles(self, num_tokens: int, vocabulary: int, dtype: torch.dtype) -> int:
        """Vocabulary tiles, over all tokens, whose products are kept in that dtype."""
        budget = min(self.kept_bytes, num_tokens * vocabulary)
        each = num_tokens * self.columns(num_tokens, vocabulary) * dtype.itemsize
        return budget // max(1, each)

    def block(self, num_tokens: int, vocabulary: int, dtype: torch.dtype) -> int:
        """Tokens whose products over the whole vocabulary exist at once, where two distributions are compared.

        Three tiles for each of the two, and 256 tokens in bfloat16 at least (128 in float32): with half of that the
        products themselves took twice as long on a CPU.
        """
        most = max(512 // dtype.itemsize, 3 * self.tile_bytes // (vocabulary * dtype.itemsize))
        return max(1, min(num_tokens, self.tokens, most))

    def whole_rows(self, vocabulary: int) -> int:
        """Tokens whose logits over the whole vocabulary are worked on at once, with what is made of them.

        A quarter of a tile: measured, half of one took a tenth longer on a CPU.
        """
        return max(1, min(self.tokens, self.tile_bytes // (16 * vocabulary)))
