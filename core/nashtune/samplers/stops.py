"""Where a completion ends: EOS tokens and stop strings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import StoppingCriteria

from nashtune.errors import InputError

# a token may carry nothing but a part of a character, or a space that decoding drops at the beginning of a text
SLACK = 4


class StopStrings(StoppingCriteria):  # type: ignore[misc]  # transformers is untyped here
    """Ends a row after the token that completes a stop string. What stands in the prompt does not count.

    Special tokens count as their text, so `<|user|>` can be a stop string.

    Args:
        tokenizer: Decodes.
        stop: The strings.
        width: Tokens of the padded prompts, where completions begin.
        rows: Of the batch.

    Attributes:
        lengths: For each row, tokens of the completion up to and with the one that completed a stop string; None as
            long as there was none.
    """

    def __init__(self, tokenizer: Any, stop: Sequence[str], width: int, rows: int) -> None:
        self._tokenizer = tokenizer
        self._stop = tuple(stop)
        self._width = width
        # each token of a match but those of the slack adds a byte of UTF-8 at least: what is further back cannot matter
        self._window = max(len(text.encode()) for text in stop) + SLACK
        self.lengths: list[int | None] = [None] * rows

    def __call__(self, input_ids: Tensor, scores: Any, **kwargs: Any) -> Tensor:
        """Whether each row has ended (R,)."""
        begin = max(self._width, input_ids.shape[1] - self._window)
        for row, tail in enumerate(input_ids[:, begin:].tolist()):
            if self.lengths[row] is None and self._complete(tail):
                self.lengths[row] = input_ids.shape[1] - self._width
        return torch.tensor([length is not None for length in self.lengths], device=input_ids.device)

    def _complete(self, tail: list[int]) -> bool:
        text = self._tokenizer.decode(tail, skip_special_tokens=False, clean_up_tokenization_spaces=False)
        return any(stop in text for stop in self._stop)


def check_stop(stop: Sequence[str]) -> tuple[str, ...]:
    """The stop strings.

    Raises:
        InputError: one is empty.
    """
    if "" in stop:
        raise InputError("sampler.stop: an empty string would end every completion at its first token; leave it out")
    return tuple(stop)


def eos_tokens(model: Any, tokenizer: Any) -> tuple[int, ...]:
    """The tokenizer's EOS and each EOS that the model's generation settings name.

    Raises:
        InputError: neither names one.
    """
    named = getattr(model.generation_config, "eos_token_id", None)
    eos = [tokenizer.eos_token_id, *(named if isinstance(named, list) else [named])]
    if not any(token is not None for token in eos):
        raise InputError("sampler: neither the tokenizer nor the model's generation settings name an EOS token")
    return tuple(dict.fromkeys(int(token) for token in eos if token is not None))
