"""Orders of their own for the members of an ensemble that share one trunk, at the cost of one model.

The heads see the same micro-batches. Over two passes, each row counts twice for a member in one of them and not at all
in the other, and which of the two is drawn for every row and member. So each member reads every row exactly once in two
passes, in an order that no other member has, and its loss is the mean that it would be in one pass of its own.

Legend: B = rows of a micro-batch, K = members.
"""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

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


WHOLE: dict[str, tuple[type, float]] = {"limit_train_batches": (float, 1.0), "overfit_batches": (float, 0.0)}
"""Option of Lightning's Trainer that shortens epochs -> the value that does not; as a whole number 1 is one batch."""


def check_passes(head: HeadSpec, trainer: Mapping[str, Any]) -> str | None:
    """Whether a run lets every member read every row equally often.

    Args:
        head: Of the spec.
        trainer: Settings of the run's trainer.

    Returns:
        A note, where `max_steps` may end the run earlier.

    Raises:
        InputError: `head.own_order`, and no even number of whole epochs.
    """
    if not head.own_order:
        return None
    why, epochs = "with head.own_order a member reads every row once in two epochs", trainer.get("max_epochs")
    if epochs is None or epochs < 2 or epochs % 2:
        raise InputError(
            f"trainer.max_epochs: {'not given' if epochs is None else epochs}, but {why}; give an even number such as "
            "2, or --spec.head.own_order false"
        )
    given = {name: value for name, value in trainer.items() if value is not None}
    cut = [name for name, (kind, all_of_it) in WHOLE.items() if not _is(given.get(name, all_of_it), kind, all_of_it)]
    if cut := [*cut, *(["max_time"] if "max_time" in given else [])]:
        raise InputError(
            f"trainer.{cut[0]}: {given[cut[0]]}, but {why}, and these would not be whole; leave it out (data.limit "
            "uses fewer rows, trainer.max_epochs fewer passes), or --spec.head.own_order false"
        )
    if given.get("max_steps", -1) < 0:
        return None
    return (
        f"trainer.max_steps: {given['max_steps']} may end the run in the middle of two epochs; {why}, so that members "
        "would then have read different rows, and not equally many"
    )


def _is(value: Any, kind: type, whole: float) -> bool:
    return value == whole and (isinstance(value, kind) or not value)
