"""Where the tokens of a right-padded batch are: what the `dense` and `tiled` engines plan.

Legend: N = sequences, T = positions, M = completion tokens.
"""

from __future__ import annotations

import torch
from torch import Tensor

from nashtune.interfaces.batch import LogProbs, TokenBatch
from nashtune.interfaces.layout import Layout


def check_masks(batch: TokenBatch) -> Tensor:
    """The completion mask (N, T) as booleans.

    Raises:
        ValueError: a completion covers padding, or a sequence has no token.
    """
    mask = batch.completion_mask.bool()
    if mask.shape != batch.input_ids.shape or mask.shape != batch.attention_mask.shape:
        raise ValueError(
            f"input_ids {tuple(batch.input_ids.shape)}, attention_mask {tuple(batch.attention_mask.shape)} and "
            f"completion_mask {tuple(mask.shape)} must have one shape (N, T)"
        )
    if bool((mask & (batch.attention_mask == 0)).any()):
        raise ValueError("completion_mask covers padding: log-probs would be summed over tokens that do not exist")
    if not bool(batch.attention_mask.any(1).all()):
        raise ValueError("a sequence without any token has neither a log-prob nor a score")
    return mask


def check_predicted(at: Layout) -> None:
    """Refuse log-probs of a token that nothing predicts. A score needs no such token.

    Raises:
        ValueError: a completion starts at position 0.
    """
    if at.begins:
        raise ValueError("a completion starts at position 0, but nothing predicts it: put a prompt token before it")


def padded_layout(batch: TokenBatch) -> Layout:
    """Flat positions are n * T + t.

    Raises:
        ValueError: as `check_masks`.
    """
    mask = check_masks(batch)
    scored = mask.clone()
    scored[:, 0] = False
    sequence, position = scored.nonzero(as_tuple=True)  # row-major: sequences one after another
    num_sequences, width = mask.shape
    start = torch.arange(num_sequences, device=mask.device) * width
    return Layout(
        sequence=sequence,
        target=batch.input_ids[sequence, position],
        before=sequence * width + position - 1,
        last=start + last_positions(batch.attention_mask),
        lengths=scored.sum(1),
        num_sequences=num_sequences,
        num_targets=len(sequence),
        tokens=int(batch.attention_mask.sum()),
        positions=mask.numel(),
        begins=bool(mask[:, 0].any()),
    )


def last_positions(attention_mask_NT: Tensor) -> Tensor:
    """Position of the last attended token of each sequence (N,), whichever side is padded.

    By the mask and never by the pad token's id: where padding shares its id with EOS, a search for the first or last
    pad token misses the EOS that ends a text by one.
    """
    backwards = attention_mask_NT.bool().flip(1).to(torch.uint8).argmax(1)
    return attention_mask_NT.shape[1] - 1 - backwards


def sum_per_sequence(values_M: Tensor, at: Layout) -> Tensor:
    """Sum of a per-token value over each completion (N,), in the dtype of the values.

    Accumulates in float64: the result then depends neither on padding nor on the order of atomic additions on a GPU, up
    to the last rounding.
    """
    wide = values_M.to(torch.float64)
    sums = wide.new_zeros(at.num_sequences).index_add(0, at.sequence, wide)
    return sums.to(values_M.dtype)


def collect(token_logp_M: Tensor, at: Layout) -> LogProbs:
    """Log-probs of a batch from those of its completion tokens."""
    return LogProbs(sums=sum_per_sequence(token_logp_M, at), lengths=at.lengths, token_logp=token_logp_M)
