"""Rows for a reward model: whole conversations, pairs and ranked lists."""

from __future__ import annotations

from dataclasses import replace

import pytest

from nashtune.data.conversations import Conversations
from nashtune.data.lengths import Limits
from nashtune.data.rows import read_rows
from nashtune.data.tokenise import fingerprint, tokenise
from nashtune.data.whole import WholeEncoder
from nashtune.errors import InputError

# One token per letter, and EOS: the longest texts have 6, 10 and 13 tokens.
ROWS = [
    {"prompt": "abc", "chosen": "x", "rejected": "yz"},
    {"prompt": "abcdefgh", "chosen": "x", "rejected": "y"},
    {"prompt": "abcd", "chosen": "x", "rejected": "yyyyyyyy"},
]
RANKED = {"prompt": "p", "responses": ["c", "a", "b"], "scores": [1, 3, 2]}


def run(tokenizer, path, kind="pairs", *, soft=False, margin=False, template="plain", **limits):
    found = read_rows(path, kind, "soft" if soft else "hard", uses_margin=margin)
    conversations = Conversations(tokenizer, template, "the policy", "data.template")
    encoder = WholeEncoder(conversations, Limits(**{"max_length": 100, **limits}), soft=soft)
    rows = []
    return rows, tokenise(found.rows, found, encoder, rows.extend)


def texts(tokenizer, row):
    return [tokenizer.decode(list(ids)) for ids in row.completions]


def test_each_completion_has_its_prompt_before_it(tokenizer, write):
    path = write(ROWS)
    rows, report = run(tokenizer, path)
    assert texts(tokenizer, rows[0]) == ["abcx</s>", "abcyz</s>"]
    assert all(row.prompt_ids == () for row in rows)
    assert (rows[1].where, rows[1].prompt_text, rows[1].p_chosen, rows[1].margin) == (
        f"{path}:2",
        "abcdefgh",
        None,
        None,
    )
    assert (report.kind, report.read, report.used, report.prompt_tokens) == ("pairs", 3, 3, None)
    assert report.completion_tokens is not None and report.completion_tokens.longest == 13
    assert (report.prompt_start, report.completion_end) == ("abcx</s>", "abcx</s>")
    assert report.fingerprint == fingerprint(rows)


def test_lists_are_best_first(tokenizer, write):
    rows, report = run(tokenizer, write([RANKED, ROWS[0]]), "ranked")
    assert [texts(tokenizer, row) for row in rows] == [["pa</s>", "pb</s>", "pc</s>"], ["abcx</s>", "abcyz</s>"]]
    assert (report.kind, report.used) == ("ranked", 2)
    assert [row.levels for row in rows] == [(0, 1, 2), (0, 1)]


def test_equal_scores_are_one_level_and_change_the_fingerprint(tokenizer, write):
    (strict,), _ = run(tokenizer, write([RANKED]), "ranked")
    (tied,), _ = run(tokenizer, write([{**RANKED, "scores": [1, 1, 2]}]), "ranked")
    (other,), _ = run(tokenizer, write([{**RANKED, "scores": [1, 1.5, 2]}]), "ranked")
    assert (tied.levels, other.levels) == ((0, 1, 1), (0, 1, 2))
    assert fingerprint([replace(strict, levels=None)]) == fingerprint([strict])
    assert fingerprint([tied]) != fingerprint([replace(tied, levels=(0, 1, 2))])


def test_labels_and_margins_are_in_the_rows_and_in_the_fingerprint(tokenizer, write):
    row = {**ROWS[0], "p_chosen": 0.75, "margin": 2}
    (both,), _ = run(tokenizer, write([row]), soft=True, margin=True)
    assert (both.p_chosen, both.margin) == (0.75, 2.0)
    (hard,), report = run(tokenizer, write([row]))
    assert (hard.p_chosen, hard.margin) == (None, None)
    assert "columns not used: margin" in report.notes
    (soft,), _ = run(tokenizer, write([row]), soft=True)
    (other,), _ = run(tokenizer, write([{**row, "margin": 1}]), soft=True, margin=True)
    assert len({fingerprint([one]) for one in (both, hard, soft, other)}) == 4


def test_overflow_error_names_the_row_and_the_choices(tokenizer, write):
    path = write(ROWS)
    with pytest.raises(InputError) as error:
        run(tokenizer, path, max_length=9)
    first, _, second = str(error.value).splitlines()
    assert first == (
        f"{path}:2: 10 tokens of prompt and completion are more than data.max_length 9; raise the limit, or choose "
        "data.overflow: drop (leave such rows out) or truncate_prompt (keep the text's end)"
    )
    assert second.startswith(f"  {path}:3: 13 tokens")


def test_overflow_drop_takes_the_whole_row(tokenizer, write):
    rows, report = run(tokenizer, write(ROWS), max_length=9, overflow="drop")
    assert [row.prompt_text for row in rows] == ["abc"]
    assert (report.used, report.dropped_overflow, report.dropped_completion, report.truncated) == (1, 2, 0, 0)
    rows, _ = run(
        tokenizer,
        write([RANKED, {**RANKED, "responses": ["c" * 9, "a", "b"]}]),
        "ranked",
        max_length=9,
        overflow="drop",
    )
    assert len(rows) == 1


def test_truncation_keeps_the_first_token_and_the_answers(tokenizer, write):
    rows, report = run(tokenizer, write(ROWS), max_length=9, overflow="truncate_prompt")
    assert [texts(tokenizer, row) for row in rows] == [["abcx</s>", "abcyz</s>"], ["acdefghx</s>", "acdefghy</s>"]]
    assert all(len(ids) <= 9 for row in rows for ids in row.completions)
    assert (report.used, report.truncated, report.dropped_completion) == (2, 1, 1)  # 8 letters, EOS and the first token


@pytest.mark.parametrize("max_length", [10, 11, 12])
def test_an_answer_is_whole_or_its_row_is_gone(tokenizer, write, max_length):
    rows, report = run(tokenizer, write(ROWS), max_length=max_length, overflow="truncate_prompt")
    assert [text.lstrip("abcdefgh") for row in rows for text in texts(tokenizer, row)] == [
        *("x</s>", "yz</s>", "x</s>", "y</s>"),
        *("x</s>", "yyyyyyyy</s>"),
    ]
    assert report.dropped_completion == 0


def test_the_models_context_is_an_error(tokenizer, write):
    with pytest.raises(InputError, match=r":3: 13 tokens .* are more than the model's context of 12"):
        run(tokenizer, write(ROWS), context=12)


def test_nothing_left(tokenizer, write):
    with pytest.raises(InputError, match=r"none of the 3 pairs fits data\.max_length 2; raise it"):
        run(tokenizer, write(ROWS), max_length=2, overflow="drop")


def test_answers_that_the_template_makes_equal(tokenizer, write):
    path = write([{"prompt": "p", "chosen": "a", "rejected": "a</s>"}])
    with pytest.raises(InputError, match=f"{path}:1: two answers are the same tokens once the template"):
        run(tokenizer, path)


def test_an_eos_within_a_plain_answer_is_refused(tokenizer, write):
    """As for policies. One at its end is the one that is added anyway, and those of the prompt end earlier turns."""
    path = write([ROWS[0], {**ROWS[0], "rejected": "y</s>z"}])
    with pytest.raises(InputError, match=f"{path}:2: an answer contains </s> before its end"):
        run(tokenizer, path)
    assert run(tokenizer, path, template="chat")[1].used == 2
    (row,), _ = run(tokenizer, write([{"prompt": "a</s>b", "chosen": "x</s>", "rejected": "y"}]))
    assert texts(tokenizer, row) == ["a</s>bx</s>", "a</s>by</s>"]


def test_rows_that_do_not_fit_the_template_name_their_line(tokenizer, write):
    chat = [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}]
    path = write([ROWS[0], {**ROWS[0], "prompt": chat}])
    with pytest.raises(InputError, match=rf"{path}:2: data\.template: plain takes texts"):
        run(tokenizer, path)
    assert run(tokenizer, path, template="chat")[1].used == 2


def test_special_tokens_in_the_text_are_counted(tokenizer, write):
    _, report = run(tokenizer, write([ROWS[0], {**ROWS[0], "chosen": "see </s> there"}]), template="chat")
    assert report.special_text == 1
