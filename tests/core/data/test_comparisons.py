"""Questions that show two answers, and rows that train a preference model on them."""

from __future__ import annotations

import pytest

from nashtune.data.comparisons import ComparisonEncoder, Questions, answer_ids
from nashtune.data.lengths import Limits
from nashtune.data.rows import read_rows
from nashtune.data.tokenise import tokenise
from nashtune.errors import InputError

ROWS = [{"prompt": "Hi", "chosen": "good", "rejected": "bad"}, {"prompt": "p", "chosen": "yes", "rejected": "no" * 20}]


def run(tokenizer, path, *, soft=False, template="chat", **limits):
    found = read_rows(path, "comparisons", "soft" if soft else "hard")
    questions = Questions(tokenizer, template, option="policy.path")
    encoder = ComparisonEncoder(questions, Limits(**{"max_length": 200, **limits}), soft=soft)
    rows = []
    return rows, tokenise(found.rows, found, encoder, rows.extend)


def test_tokens_are_those_that_begin_a_turn():
    """SentencePiece tokenizers write a space before a word that begins a text, and not before one behind a newline."""

    class Spaced:
        def __call__(self, texts, add_special_tokens):
            ids = {"\n": [13], "\nA": [13, 1], "A": [101], "\nB": [13, 2], "B": [102]}
            return {"input_ids": [ids[text] for text in texts]}

    assert answer_ids(Spaced(), ("A", "B"), "oracle.tokens") == (1, 2)


def test_both_orders_are_trained(tokenizer, write):
    """A model that sees the better answer always in the same place learns the place."""
    path = write(ROWS)
    rows, report = run(tokenizer, path)
    assert [tokenizer.decode(list(row.prompt_ids)) for row in rows[:2]] == [
        "<|user|>[CONTEXT] Hi [RESPONSE A] good [RESPONSE B] bad \n<|assistant|>",
        "<|user|>[CONTEXT] Hi [RESPONSE A] bad [RESPONSE B] good \n<|assistant|>",
    ]
    a, b = tokenizer.convert_tokens_to_ids(["A", "B"])
    assert [row.completions for row in rows] == [((a,), (b,)), ((b,), (a,))] * 2
    assert [row.where for row in rows] == [f"{path}:1"] * 2 + [f"{path}:2"] * 2
    assert (report.kind, report.read, report.used) == ("comparisons", 2, 4)


def test_the_oracle_asks_what_was_trained(tiny, tokenizer, write):
    from nashtune.oracles.preference_model import PreferenceModelOracle

    chat = [{"role": "system", "content": "Be </s> brief."}, {"role": "user", "content": "Capital?"}]
    for template, prompt in (("chat", chat), ("plain", "Capital?")):
        rows, _ = run(
            tokenizer, write([{"prompt": prompt, "chosen": "Paris", "rejected": "Ro{me}"}]), template=template
        )
        oracle = PreferenceModelOracle(path=str(tiny), template=template)
        asked = oracle._questions([(prompt, "Paris", "Ro{me}"), (prompt, "Ro{me}", "Paris")])
        assert [list(row.prompt_ids) for row in rows] == asked
        assert oracle._prepared().answers == (rows[0].completions[0][0], rows[0].completions[1][0])


def test_soft_labels_belong_to_the_pair_in_both_orders(tokenizer, write):
    rows, _ = run(tokenizer, write([{**ROWS[0], "p_chosen": 0.75}]), soft=True)
    assert [row.p_chosen for row in rows] == [0.75, 0.75]


def test_a_pair_that_is_too_long_goes_in_both_orders(tokenizer, write):
    path = write(ROWS)
    with pytest.raises(InputError) as error:
        run(tokenizer, path, max_length=60)
    assert str(error.value).endswith(
        "tokens of question and answer are more than data.max_length 60; raise the limit, or choose data.overflow: "
        "drop (leave such rows out)"
    )
    rows, report = run(tokenizer, path, max_length=60, overflow="drop")
    assert (len(rows), report.dropped_overflow) == (2, 1)
    with pytest.raises(InputError, match="more than the model's context of 60 tokens"):
        run(tokenizer, path, context=60)
    with pytest.raises(InputError, match=r"none of the 4 comparisons fits data\.max_length 10"):
        run(tokenizer, path, max_length=10, overflow="drop")


def test_single_examples_make_no_comparison(write, tokenizer):
    with pytest.raises(InputError, match="the loss trains on pairs: give chosen and rejected"):
        run(tokenizer, write([{"prompt": "p", "completion": "c", "label": True}]))


def test_special_tokens_in_the_answers_are_text_and_counted(tokenizer, write):
    rows, report = run(tokenizer, write([{**ROWS[0], "chosen": "</s>"}]))
    assert report.special_text == 1
    assert all(tokenizer.eos_token_id not in row.prompt_ids for row in rows)
