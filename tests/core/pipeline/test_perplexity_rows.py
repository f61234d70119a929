from __future__ import annotations

import json

import pytest

from lab import write_rows
from nashtune.data.lengths import Limits
from nashtune.data.template import make_template
from nashtune.errors import InputError
from nashtune.models.preflight import load_tokenizer
from nashtune.pipeline.perplexity_rows import encode, read_candidates, select, to_lines

PAIR = {"prompt": "Q", "chosen": "good", "rejected": "bad", "source": "web", "extra": [1, {"a": None}]}


def rows(tmp_path, *data):
    return read_candidates([str(write_rows(tmp_path / "rows.jsonl", list(data)))], None, "both").rows


@pytest.mark.parametrize(
    ("apply_to", "kept"),
    [
        ("both", {(True, True)}),
        ("chosen", {(True, True), (True, False)}),
        ("rejected", {(True, True), (False, True)}),
        ("any", {(True, True), (True, False), (False, True)}),
    ],
)
def test_whose_perplexity_counts(tmp_path, apply_to, kept):
    (row,) = rows(tmp_path, PAIR)
    for passes in ((True, True), (True, False), (False, True), (False, False)):
        line, reason = select(row, passes, [1.0, 2.0], apply_to=apply_to, pair_gap=None)
        assert (line is not None) == (passes in kept)
        assert reason == ("" if line is not None else "rule")


def test_a_pair_gap_is_between_the_two_answers(tmp_path):
    (row,) = rows(tmp_path, PAIR)
    assert select(row, (True, True), [1.0, 2.0], apply_to="both", pair_gap=1.0) == (PAIR, "")
    assert select(row, (True, True), [2.0, 0.9], apply_to="both", pair_gap=1.0) == (None, "pair_gap")


def test_candidates_keep_those_that_pass_with_their_scores(tmp_path):
    scored = {"prompt": "Q", "responses": ["a", "b", "c"], "scores": [3, 1, 2], "source": "s"}
    inside = {"prompt": "Q", "responses": [{"text": text, "score": i} for i, text in enumerate("abc")]}
    unlabelled = {"prompt": "Q", "responses": ["a", "b", "c"]}
    for data in (scored, inside, unlabelled):
        (row,) = rows(tmp_path, data)
        line, _ = select(row, (True, False, True), [0.0] * 3, apply_to="both", pair_gap=None)
        kept = {"responses": [data["responses"][0], data["responses"][2]]}
        assert line == {**data, **kept, **({"scores": [3, 2]} if "scores" in data else {})}
        none = select(row, (False, False, True), [0.0] * 3, apply_to="both", pair_gap=None)
        assert none == (None, "fewer than two answers")


def test_single_answers_are_kept_or_not(tmp_path):
    good, bad = rows(
        tmp_path, {"prompt": "Q", "completion": "a", "label": True}, {"prompt": "Q", "completion": "b", "label": False}
    )
    assert (good.slots, bad.slots) == (("desirable",), ("undesirable",))
    assert select(good, (True,), [0.0], apply_to="any", pair_gap=None)[0] == good.data
    assert select(bad, (False,), [0.0], apply_to="any", pair_gap=None) == (None, "rule")


def test_one_side_of_a_pair_needs_pairs(tmp_path):
    path = write_rows(tmp_path / "rows.jsonl", [PAIR, {"prompt": "Q", "responses": ["a", "b"], "scores": [1, 2]}])
    with pytest.raises(InputError, match=r"rows.jsonl:2: apply_to: chosen, and this row has no 'chosen'"):
        read_candidates([str(path)], None, "chosen")


def test_lines_keep_every_column_and_their_order(tmp_path):
    (row,) = rows(tmp_path, PAIR)
    assert to_lines([row.data]) == (json.dumps(PAIR) + "\n").encode()
    assert to_lines([{"prompt": "ü"}]) == '{"prompt": "ü"}\n'.encode()


def test_several_files_and_their_limit(tmp_path):
    first = write_rows(tmp_path / "a.jsonl", [PAIR] * 3)
    second = write_rows(tmp_path / "b.jsonl", [PAIR] * 2)
    read = read_candidates([str(first), str(second)], 2, "both")
    assert read.read == {str(first): 2, str(second): 2}
    assert [row.source for row in read.rows] == [str(first)] * 2 + [str(second)] * 2


def test_tokens_are_those_of_training(tmp_path, tiny):
    tokenizer = load_tokenizer(tiny)
    read = read_candidates([str(write_rows(tmp_path / "rows.jsonl", [PAIR]))], None, "both")
    encode(read, make_template("chat", tokenizer), Limits(max_length=100))
    (row,) = read.rows
    assert tokenizer.decode(row.prompt_ids) == "<|user|>Q<|assistant|>"
    assert [tokenizer.decode(ids) for ids in row.answer_ids] == ["good</s>", "bad</s>"]


def test_rows_that_are_too_long_follow_overflow(tmp_path, tiny):
    template = make_template("chat", load_tokenizer(tiny))
    path = write_rows(tmp_path / "rows.jsonl", [PAIR, {**PAIR, "prompt": "Q" * 50}])
    read = read_candidates([str(path)], None, "both")
    with pytest.raises(InputError, match=r"rows.jsonl:2: 52 prompt and 5 answer tokens are more than"):
        encode(read, template, Limits(max_length=20))
    encode(read, template, Limits(max_length=20, overflow="drop"))
    assert (len(read.rows), read.too_long) == (1, 1)
