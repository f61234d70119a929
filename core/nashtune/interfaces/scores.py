"""What reward losses see: the scores of a head.

Legend: N = completions, L = ranked lists, K = members of an ensemble.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class ScoreBatch:
    """What a reward loss sees: lists of completions of one prompt, best first. A pair is a list of two.

    Args:
        scores: Score of each completion by each member, with gradient, the lists one after another (N, K).
        sizes: Completions of each list, >= 2 (L,).
        levels: Place of each completion in its list, 0 for the best, and the same for those of which none is better
            (N,); not decreasing within a list, whose first and last one differ. None: all differ.
        margin: By how much the first of a list of two should win, >= 0 (L,).
        p_chosen: P(first > second), in [0, 1], of lists of two (L,).
        share: Weight of each list in each member's loss (L, K); None: 1. Members read the data in orders of their own.
    """

    scores: Tensor
    sizes: Tensor
    levels: Tensor | None = None
    margin: Tensor | None = None
    p_chosen: Tensor | None = None
    share: Tensor | None = None
