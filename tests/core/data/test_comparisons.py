"""Questions that show two answers."""

from __future__ import annotations

from nashtune.data.comparisons import answer_ids


def test_tokens_are_those_that_begin_a_turn():
    """SentencePiece tokenizers write a space before a word that begins a text, and not before one behind a newline."""

    class Spaced:
        def __call__(self, texts, add_special_tokens):
            ids = {"\n": [13], "\nA": [13, 1], "A": [101], "\nB": [13, 2], "B": [102]}
            return {"input_ids": [ids[text] for text in texts]}

    assert answer_ids(Spaced(), ("A", "B"), "oracle.tokens") == (1, 2)
