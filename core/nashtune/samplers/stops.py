"""Where a completion ends: EOS tokens and stop strings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from nashtune.errors import InputError

# a token may carry nothing but a part of a character, or a space that decoding drops at the beginning of a text
SLACK = 4


class Ends:
    """Says after which token a completion ends. What stands in the prompt does not count.

    Special tokens count as their text, so `<|user|>` can be a stop string.

    Args:
        eos: Tokens that end a completion.
        stop: Strings that end it, after the token that completes one.
        tokenizer: Decodes.
    """

    def __init__(self, eos: Sequence[int], stop: Sequence[str], tokenizer: Any) -> None:
        self.eos = tuple(eos)
        self._tokenizer = tokenizer
        self._stop = tuple(stop)
        # each token of a match but those of the slack adds a byte of UTF-8 at least: what is further back cannot matter
        self._window = max((len(text.encode()) for text in stop), default=0) + SLACK

    def ended(self, tokens: Sequence[int]) -> bool:
        """Whether a completion that had not ended before does so with its last token."""
        if tokens[-1] in self.eos:
            return True
        if not self._stop:
            return False
        tail = list(tokens[-self._window :])
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
