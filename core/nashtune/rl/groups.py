"""Statistics over the completions of one prompt. The completions of a prompt need not stand side by side.

Legend: S = completions, G = groups (prompts).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from nashtune.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Groups:
    """Which completions answer the same prompt.

    Args:
        index: Group of each completion, 0 ... G-1 (S,).
        sizes: Completions of each group (G,).
    """

    index: Tensor
    sizes: Tensor

    def mean(self, values_S: Tensor) -> Tensor:
        """Mean of each completion's group (S,)."""
        return (self._sum(values_S.double()) / self.sizes)[self.index].to(values_S.dtype)

    def mean_of_others(self, values_S: Tensor) -> Tensor:
        """Mean over the other completions of each one's group (S,)."""
        wide_S = values_S.double()
        others_S = self._sum(wide_S)[self.index] - wide_S
        return (others_S / (self.sizes[self.index] - 1)).to(values_S.dtype)

    def deviation(self, values_S: Tensor, correction: int) -> Tensor:
        """Standard deviation of each completion's group (S,).

        Args:
            values_S: One per completion.
            correction: 0 divides the squares by the size of the group, 1 by one less.
        """
        wide_S = values_S.double()
        centred_S = wide_S - (self._sum(wide_S) / self.sizes)[self.index]
        variance_G = self._sum(centred_S**2) / (self.sizes - correction)
        return variance_G.sqrt()[self.index].to(values_S.dtype)

    def equal(self, values_S: Tensor) -> Tensor:
        """Whether all completions of a group have the same value (G,). Exact, where a standard deviation is not."""
        high_G = values_S.new_zeros(len(self.sizes)).scatter_reduce(0, self.index, values_S, "amax", include_self=False)
        low_G = values_S.new_zeros(len(self.sizes)).scatter_reduce(0, self.index, values_S, "amin", include_self=False)
        return high_G == low_G

    def _sum(self, values_S: Tensor) -> Tensor:
        return values_S.new_zeros(len(self.sizes)).index_add(0, self.index, values_S)


def grouped(group_S: Tensor | None, who: str, *, least: int) -> Groups:
    """The groups of a batch.

    Args:
        group_S: A number for each completion's prompt (S,).
        who: The loss, for messages.
        least: Completions that a group needs.

    Raises:
        InputError: a group is too small to be compared within.
    """
    import torch

    if group_S is None:
        raise InputError(f"{who} compares the completions of a prompt, and needs to know which prompt each one answers")
    _, index_S, sizes_G = torch.unique(group_S, return_inverse=True, return_counts=True)
    smallest = int(sizes_G.min())
    if smallest < least:
        raise InputError(
            f"{who} compares the completions of a prompt, and a prompt has {smallest}; set sampler.completions to "
            f"{least} or more"
        )
    return Groups(index_S, sizes_G)
