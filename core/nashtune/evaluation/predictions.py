"""What `nashtune predict` says of a batch."""

from __future__ import annotations

from nashtune.interfaces import LossOutput, TokenBatch


def predictions(batch: TokenBatch, output: LossOutput) -> dict[str, list[float]]:
    """Implicit rewards of every pair or example of a batch, one list a column."""
    chosen, rejected = output.reward_chosen, output.reward_rejected
    assert chosen is not None and rejected is not None, "ranked lists are not predicted"
    columns = {"row": batch.rows, "reward_chosen": chosen, "reward_rejected": rejected}
    if batch.desirable is not None:  # unpaired: the two rewards belong to different examples
        reward = chosen
        if output.desirable is None:  # a loss that gives the rewards of each side on their own
            reward = chosen.new_empty(len(batch))
            reward[batch.desirable], reward[~batch.desirable] = chosen, rejected
        columns = {"row": batch.rows, "desirable": batch.desirable, "reward": reward}
    return {name: value.tolist() for name, value in columns.items()}
