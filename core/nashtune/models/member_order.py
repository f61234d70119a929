"""Orders of their own for the members of an ensemble that share one trunk, at the cost of one model.

The heads see the same micro-batches. Over two passes, each row counts twice for a member in one of them and not at all
in the other, and which of the two is drawn for every row and member. So each member reads every row exactly once in two
passes, in an order that no other member has, and its loss is the mean that it would be in one pass of its own.

Legend: B = rows of a micro-batch, K = members.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import TYPE_CHECKING

from nashtune.errors import InputError
from nashtune.spec.model import HeadSpec

if TYPE_CHECKING:
    from torch import Tensor

BITS = 512  # of one digest: the passes of so many members


def member_share(rows_B: Tensor, members: int, seed: int, epoch: int) -> Tensor:
    """Weight of each row in the loss of each member.

    Args:
        rows_B: Index of each row in its data set (B,).
        members: K. What a member draws does not depend on how many there are.
        seed: Of the run.
        epoch: Pass over the data, from 0; passes 2p and 2p + 1 belong together.

    Returns:
        (B, K) of 2.0 and 0.0, float32, on the device of the rows.
    """
    import torch  # here: `nashtune check` asks `check_passes` without torch

    late = [[_reads_late(int(row), member, seed, epoch // 2) for member in range(members)] for row in rows_B.tolist()]
    reads = torch.tensor(late, dtype=torch.bool) == bool(epoch % 2)
    return 2.0 * reads.reshape(len(rows_B), members).to(rows_B.device, torch.float32)


def _reads_late(row: int, member: int, seed: int, both: int) -> bool:
    """Whether a member reads a row in the second of two passes: one bit of a digest."""
    digest = blake2b(f"{seed}/{both}/{row}/{member // BITS}".encode(), digest_size=BITS // 8).digest()
    bit = member % BITS
    return bool(digest[bit // 8] >> (bit % 8) & 1)


def check_passes(head: HeadSpec, max_epochs: int | None) -> None:
    """Whether a run lets every member read every row equally often.

    Raises:
        InputError: `head.own_order` and no even number of epochs.
    """
    if head.own_order and (max_epochs is None or max_epochs < 2 or max_epochs % 2):
        given = "not given" if max_epochs is None else str(max_epochs)
        raise InputError(
            f"trainer.max_epochs: {given}, but with head.own_order a member reads every row once in two epochs; give "
            "an even number such as 2, or --spec.head.own_order false"
        )
