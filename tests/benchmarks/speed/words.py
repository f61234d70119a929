"""A byte-level BPE tokenizer of any size in which a space and a word of four letters are one token.

Byte-level with merges, as the tokenizers of most models, so that every tokenizer class reads it as it is: transformers
gives some architectures a class of their own, whatever the folder says. Lower-case and upper-case letters take turns in
a word (` aBcD`), so there is one way of merging only: letters to syllables, the space to the first syllable, both to
the word.
"""

from __future__ import annotations

import string
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

SPECIAL = ("<s>", "</s>", "<pad>", "<unk>")
SPACE = "Ġ"  # how byte-level tokenizers write it


@dataclass(frozen=True)
class Words:
    """The words of a vocabulary.

    Args:
        vocab: Tokens in all, 300 or more.
    """

    vocab: int

    @cached_property
    def letters(self) -> int:
        """Letters of each kind that words are made of."""
        count = 1
        while count**4 < self.vocab - self._before(count):
            count += 1
        if count > 26 or self.vocab < self._before(count) + 1:
            raise SystemExit(f"--vocab {self.vocab}: from 300 to 400000")
        return count

    @property
    def first(self) -> int:
        """Token of the first word; every token from it on is a word."""
        return self._before(self.letters)

    @staticmethod
    def _before(letters: int) -> int:
        return len(SPECIAL) + 256 + 2 * letters**2

    @cached_property
    def syllables(self) -> list[str]:
        """In the order of their tokens."""
        count = self.letters
        return [a + b for a in string.ascii_lowercase[:count] for b in string.ascii_uppercase[:count]]

    def texts(self, numbers: list[int]) -> str:
        """Words by their numbers, from 0, each behind a space."""
        syllables = self.syllables
        return "".join(f" {syllables[n // len(syllables)]}{syllables[n % len(syllables)]}" for n in numbers)

    def save(self, folder: Path) -> None:
        """Write the tokenizer's files."""
        from tokenizers import Tokenizer, decoders, models, pre_tokenizers
        from transformers import PreTrainedTokenizerFast

        syllables = self.syllables
        tokens = [*SPECIAL, *sorted(pre_tokenizers.ByteLevel.alphabet()), *syllables]
        tokens += [SPACE + one for one in syllables]
        merges = [(one[0], one[1]) for one in syllables] + [(SPACE, one) for one in syllables]
        for number in range(self.vocab - self.first):
            start, end = syllables[number // len(syllables)], syllables[number % len(syllables)]
            tokens.append(SPACE + start + end)
            merges.append((SPACE + start, end))
        raw = Tokenizer(models.BPE(vocab={token: i for i, token in enumerate(tokens)}, merges=merges))
        raw.add_special_tokens(list(SPECIAL))
        raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        raw.decoder = decoders.ByteLevel()
        bos, eos, pad, unk = SPECIAL
        PreTrainedTokenizerFast(
            tokenizer_object=raw, bos_token=bos, eos_token=eos, pad_token=pad, unk_token=unk
        ).save_pretrained(folder)
