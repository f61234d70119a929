"""Which positions predict a completion token, and sums of per-token values over each completion.

Legend: N = sequences, T = positions, M = completion tokens, H = hidden size.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from nashtune.interfaces.batch import LogProbs, TokenBatch


@dataclass(frozen=True, kw_only=True)
class Predicted:
    """The M completion tokens of a batch, sequences one after another.

    Args:
        sequence: Index of the sequence each token belongs to (M,).
        before: Position that predicts it, one before its own (M,).
        target: The token itself (M,).
        num_sequences: N.
    """

    sequence: Tensor
    before: Tensor
    target: Tensor
    num_sequences: int

    def rows(self, values_NT: Tensor) -> Tensor:
        """`values_NT...` at the predicting positions (M, ...)."""
        return values_NT[self.sequence, self.before]


def predicted(batch: TokenBatch) -> Predicted:
    """The completion tokens of a batch.

    Raises:
        ValueError: a completion starts at position 0, where nothing predicts its first token, or covers padding.
    """
    mask = batch.completion_mask.bool()
    if mask.shape != batch.input_ids.shape or mask.shape != batch.attention_mask.shape:
        raise ValueError(
            f"input_ids {tuple(batch.input_ids.shape)}, attention_mask {tuple(batch.attention_mask.shape)} and "
            f"completion_mask {tuple(mask.shape)} must have one shape (N, T)"
        )
    if bool((mask & (batch.attention_mask == 0)).any()):
        raise ValueError("completion_mask covers padding: log-probs would be summed over tokens that do not exist")
    sequence, position = mask.nonzero(as_tuple=True)  # row-major: sequences one after another
    if bool((position == 0).any()):
        raise ValueError("a completion starts at position 0, but nothing predicts it: put a prompt token before it")
    return Predicted(
        sequence=sequence,
        before=position - 1,
        target=batch.input_ids[sequence, position],
        num_sequences=mask.shape[0],
    )


def last_positions(attention_mask_NT: Tensor) -> Tensor:
    """Position of the last attended token of each sequence (N,), whichever side is padded.

    By the mask and never by the pad token's id: where padding shares its id with EOS, a search for the first or last
    pad token misses the EOS that ends a text by one.
    """
    backwards = attention_mask_NT.bool().flip(1).to(torch.uint8).argmax(1)
    return attention_mask_NT.shape[1] - 1 - backwards


def at_last(hidden_NTH: Tensor, attention_mask_NT: Tensor) -> Tensor:
    """Hidden state of the last attended token of each sequence (N, H)."""
    rows = torch.arange(len(hidden_NTH), device=hidden_NTH.device)
    return hidden_NTH[rows, last_positions(attention_mask_NT)]


def sum_per_sequence(values_M: Tensor, at: Predicted) -> Tensor:
    """Sum of a per-token value over each completion (N,), in the dtype of the values.

    Accumulates in float64: the result then depends neither on padding nor on the order of atomic additions on a GPU, up
    to the last rounding.
    """
    wide = values_M.to(torch.float64)
    sums = wide.new_zeros(at.num_sequences).index_add(0, at.sequence, wide)
    return sums.to(values_M.dtype)


def collect(token_logp_M: Tensor, batch: TokenBatch, at: Predicted) -> LogProbs:
    """Log-probs of a batch from those of its completion tokens."""
    return LogProbs(
        sums=sum_per_sequence(token_logp_M, at),
        lengths=batch.completion_mask.sum(1),
        token_logp=token_logp_M,
    )


def model_inputs(model: nn.Module, batch: TokenBatch) -> dict[str, Any]:
    """Keyword arguments of a forward pass: no cache, position ids from the mask where the model takes them."""
    inputs: dict[str, Any] = {
        "input_ids": batch.input_ids,
        "attention_mask": batch.attention_mask,
        # with a cache, sdpa would attend across packed sequences without a word
        "use_cache": False,
    }
    if "position_ids" in inspect.signature(model.forward).parameters:
        inputs["position_ids"] = (batch.attention_mask.long().cumsum(1) - 1).clamp_min(0)
    return inputs
