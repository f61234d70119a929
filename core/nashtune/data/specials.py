"""Special tokens that a text happens to contain: told apart from those that the chat template writes.

Somebody may write `</s>` or `<|im_end|>` in a prompt or an answer. Read as the special token it would end the turn in
the middle of the text. In a chat such text stays text: it is marked before the template sees it, and encoded letter by
letter after.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

# Unicode noncharacters: reserved for internal use, so no text that was exchanged contains them, and no template
# strips them.
OPEN, CLOSE = "\ufdd0", "\ufdd1"


class SpecialTokens:
    """Finds, marks and encodes texts with special tokens in them.

    Args:
        tokenizer: A Hugging Face tokenizer.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        added = tokenizer.added_tokens_decoder.values()
        words = sorted({t.content for t in added if t.special and t.content.strip()}, key=len, reverse=True)
        self._any = re.compile("|".join(map(re.escape, words)) or "(?!)")  # (?!) matches nothing
        self._marked = re.compile(f"{OPEN}({self._any.pattern}){CLOSE}")

    def found(self, text: str) -> bool:
        """Whether a special token is written in the text."""
        return self._any.search(text) is not None

    def first_end(self, text: str) -> int | None:
        """Where the first special token of the text ends, if there is one."""
        match = self._any.search(text)
        return match.end() if match else None

    def mark(self, text: str) -> str:
        """Mark the special tokens of a text as text."""
        return self._any.sub(f"{OPEN}\\g<0>{CLOSE}", text)

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of texts, none added: marked special tokens as ordinary text, the others as themselves."""
        ids: list[list[int]] = self._plain(list(texts)) if texts else []
        for i, text in enumerate(texts):
            if self._marked.search(text):
                ids[i] = self._with_marks(text)
        return ids

    def _plain(self, texts: list[str], split: bool = False) -> list[list[int]]:
        out = self._tokenizer(texts, add_special_tokens=False, split_special_tokens=split, verbose=False)
        return [list(row) for row in out["input_ids"]]

    def _with_marks(self, text: str) -> list[int]:
        pieces = self._marked.split(text)  # text, marked, text, marked, ..., text
        ids: list[int] = []
        for i, piece in enumerate(pieces):
            if piece:
                ids += self._piece(piece, marked=i % 2 == 1, first=i == 0)
        return ids

    def _piece(self, piece: str, *, marked: bool, first: bool) -> list[int]:
        if first:
            return self._plain([piece], marked)[0]
        # SentencePiece tokenizers put a space before the first word: encode behind a newline, then take it away.
        newline, whole, alone = self._plain(["\n", f"\n{piece}", piece], marked)
        return whole[len(newline) :] if whole[: len(newline)] == newline else alone
