"""What reward losses see: the scores of a head.

Legend: N = completions, L = ranked lists, K = members of an ensemble.
Fields end with [shape; unit; when they are there]: the tables of docs/extend are made of it.
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
        scores: Score of each completion by each member, with gradient, the lists one after another [(N, K); reward;
            always].
        sizes: Completions of each list, >= 2 [(L,); completions; always].
        counts: The same as numbers on the host; None where nobody counted them there. `split_sizes` has both ways [L
            numbers; completions; where the host counted them].
        levels: Place of each completion in its list, 0 for the best, and the same for those of which none is better;
            not decreasing within a list, whose first and last one differ. None: all differ [(N,); place; lists with
            equal scores].
        margin: By how much the first of a list of two should win, >= 0 [(L,); reward; rows with margins; declare
            `uses_margin`].
        p_chosen: P(first > second), from 0 to 1, of lists of two [(L,); probability; soft labels; the loss
            declares `uses_p_chosen`].
        share: Weight of each list in each member's loss; None: 1. Members read the data in orders of their own [(L, K);
            share; ensembles].
    """

    scores: Tensor
    sizes: Tensor
    counts: tuple[int, ...] | None = None
    levels: Tensor | None = None
    margin: Tensor | None = None
    p_chosen: Tensor | None = None
    share: Tensor | None = None

    def split_sizes(self) -> list[int]:
        """Completions of each list, on the host; waits for the device where they were not counted before."""
        return list(self.counts) if self.counts is not None else self.sizes.tolist()
