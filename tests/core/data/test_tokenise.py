from __future__ import annotations

import io
import json

import pytest
from rich.console import Console

from nashtune.data.apart import ApartEncoder
from nashtune.data.lengths import Limits, shorten
from nashtune.data.rows import read_rows
from nashtune.data.template import PlainTemplate
from nashtune.data.tokenise import TokenRow, fingerprint, tokenise
from nashtune.errors import InputError

# One token per letter: prompts of 4, 8 and 4 tokens; completions of 2, 3 and 9 with EOS.
ROWS = [
    {"prompt": "abcd", "chosen": "x", "rejected": "yz"},
    {"prompt": "abcdefgh", "chosen": "x", "rejected": "yz"},
    {"prompt": "abcd", "chosen": "x", "rejected": "yyyyyyyy"},
]


def run(tokenizer, path, kind="pairs", soft=False, **limits):
    encoder = ApartEncoder(PlainTemplate(tokenizer), Limits(**{"max_length": 100, **limits}), soft=soft)
    found = read_rows(path, kind, "soft" if soft else "hard")
    rows: list[TokenRow] = []
    return rows, tokenise(found.rows, found, encoder, rows.extend)


def text(tokenizer, ids) -> str:
    return tokenizer.decode(list(ids))


def test_rows_become_ids(tokenizer, write) -> None:
    path = write(ROWS)
    rows, report = run(tokenizer, path)
    assert [text(tokenizer, row.prompt_ids) for row in rows] == ["abcd", "abcdefgh", "abcd"]
    assert [text(tokenizer, ids) for ids in rows[0].completions] == ["x</s>", "yz</s>"]
    assert rows[1].where == f"{path}:2"
    assert rows[1].prompt_text == "abcdefgh"
    assert rows[0].p_chosen is None
    assert rows[0].desirable is None
    assert (report.read, report.used, report.truncated) == (3, 3, 0)
    assert report.completion_tokens.longest == 9
    assert report.prompt_tokens.median == 4


def test_overflow_error_names_the_row_and_the_choices(tokenizer, write) -> None:
    path = write(ROWS)
    with pytest.raises(InputError) as error:
        run(tokenizer, path, max_length=10)
    first, more, second = str(error.value).splitlines()
    assert first == (
        f"{path}:2: 8 prompt and 3 completion tokens are more than data.max_length 10; raise the limit, or choose "
        "data.overflow: drop (leave such rows out) or truncate_prompt (keep the prompt's end)"
    )
    assert more == "and 1 more bad row:"
    assert second.startswith(f"  {path}:3: 4 prompt and 9 completion tokens")


def test_overflow_drop(tokenizer, write) -> None:
    rows, report = run(tokenizer, write(ROWS), max_length=10, overflow="drop")
    assert [row.prompt_text for row in rows] == ["abcd"]
    assert (report.read, report.used, report.dropped_overflow, report.dropped_completion) == (3, 1, 2, 0)


def test_overflow_truncate_prompt_keeps_its_end(tokenizer, write) -> None:
    rows, report = run(tokenizer, write(ROWS), max_length=10, overflow="truncate_prompt")
    assert [text(tokenizer, row.prompt_ids) for row in rows] == ["abcd", "bcdefgh", "d"]
    assert (report.truncated, report.dropped_completion) == (2, 0)


@pytest.mark.parametrize("overflow", ["drop", "truncate_prompt"])
@pytest.mark.parametrize("max_length", [7, 9, 10, 11])
def test_truncation_of_the_completion(tokenizer, write, overflow, max_length) -> None:
    """Whatever the limit: a completion is whole, or its row is gone and counted."""
    whole = {row.where: row.completions for row in run(tokenizer, write(ROWS))[0]}
    rows, report = run(tokenizer, write(ROWS), max_length=max_length, overflow=overflow)
    assert all(row.completions == whole[row.where] for row in rows)
    assert all(len(row.prompt_ids) + row.longest <= max_length for row in rows)
    assert report.used + report.dropped_overflow + report.dropped_completion == 3


def test_a_completion_that_alone_does_not_fit_is_dropped_and_counted(tokenizer, write) -> None:
    rows, report = run(tokenizer, write(ROWS), max_length=9, overflow="truncate_prompt")
    assert len(rows) == 2
    assert (report.dropped_overflow, report.dropped_completion, report.truncated) == (0, 1, 1)


def test_max_prompt_length(tokenizer, write) -> None:
    with pytest.raises(InputError, match=r":2: 8 prompt tokens are more than data\.max_prompt_length 6"):
        run(tokenizer, write(ROWS), max_prompt_length=6)
    rows, _ = run(tokenizer, write(ROWS), max_prompt_length=6, overflow="truncate_prompt")
    assert [len(row.prompt_ids) for row in rows] == [4, 6, 4]


def test_nothing_left(tokenizer, write) -> None:
    with pytest.raises(InputError, match=r"none of the 3 pairs fits data\.max_length 2; raise it"):
        run(tokenizer, write(ROWS), max_length=2, overflow="drop")


def test_shorten_keeps_bos() -> None:
    assert shorten([1, 5, 6, 7], 4, 1) == (1, 5, 6, 7)
    assert shorten([1, 5, 6, 7], 3, 1) == (1, 6, 7)
    assert shorten([1, 5, 6, 7], 1, 1) is None
    assert shorten([1, 5, 6, 7], 2, None) == (6, 7)
    assert shorten([5, 6], 0, None) is None
    assert shorten([5, 6], -3, 1) is None


def test_eos_in_the_middle_of_a_plain_completion(tokenizer, write) -> None:
    path = write([ROWS[0], {**ROWS[0], "chosen": "a</s>b"}])
    with pytest.raises(InputError, match=f"{path}:2: a completion contains </s>, which would end it in the middle"):
        run(tokenizer, path)


def test_identical_once_eos_is_taken_away(tokenizer, write) -> None:
    with pytest.raises(InputError, match=r":1: 'chosen' and 'rejected' are the same tokens"):
        run(tokenizer, write([{"prompt": "p", "chosen": "a", "rejected": "a</s>"}]))


def test_rows_that_do_not_fit_the_template_name_their_line(tokenizer, write) -> None:
    path = write([ROWS[0], {**ROWS[0], "prompt": [{"role": "user", "content": "p"}]}])
    with pytest.raises(InputError, match=f"{path}:2: the prompt is a list of messages"):
        run(tokenizer, path)


def test_soft_labels_go_into_the_rows(tokenizer, write) -> None:
    path = write([{**ROWS[0], "p_chosen": 0.75}])
    assert run(tokenizer, path, soft=True)[0][0].p_chosen == 0.75
    assert run(tokenizer, path)[0][0].p_chosen is None


def test_examples(tokenizer, write) -> None:
    rows, report = run(tokenizer, write(ROWS), "examples")
    assert [row.desirable for row in rows] == [True, False] * 3
    assert [len(row.completions) for row in rows] == [1] * 6
    assert (report.kind, report.used, report.desirable) == ("examples", 6, 3)
    assert not any("KL estimate" in note for note in report.notes)
    _, tight = run(tokenizer, write(ROWS), "examples", max_length=13)
    assert any("KL estimate" in note for note in tight.notes)


def test_the_fingerprint_is_of_ids_and_labels(tokenizer, write) -> None:
    def row(**more) -> TokenRow:
        base = {"prompt_ids": (1, 2), "completions": ((3,), (4, 5)), "where": "a:1", "prompt_text": "x"}
        return TokenRow(**{**base, **more})

    same = fingerprint([row(), row()])
    assert len(same) == 64
    assert fingerprint([row(where="b:7"), row(prompt_text="y")]) == same
    others = [
        [row()],
        [row(prompt_ids=(1,)), row()],
        [row(prompt_ids=(1, 2, 3), completions=((), (4, 5))), row()],
        [row(p_chosen=0.5), row()],
        [row(desirable=True), row()],
        [row(completions=((4, 5), (3,))), row()],
    ]
    assert len({same, *map(fingerprint, others)}) == 1 + len(others)


def test_the_report_as_dict_and_table(tokenizer, write) -> None:
    path = write([{**ROWS[1], "chosen": "</s>x</s>", "id": 1}, ROWS[2]], name="[odd].jsonl")
    with pytest.raises(InputError, match="contains </s>"):
        run(tokenizer, path)
    path = write([{**ROWS[1], "chosen": "x</s>", "id": 1}, *ROWS], name="[odd].jsonl")
    _, report = run(tokenizer, path, max_length=10, overflow="truncate_prompt")
    plain = json.loads(json.dumps(report.as_dict()))
    assert plain["eos_written"] == 1
    assert plain["special_text"] == 1
    assert plain["completion_end"] == "x</s>"
    assert plain["prompt_start"] == "bcdefgh"
    assert plain["notes"] == ["columns not used: id (1)"]
    out = io.StringIO()
    Console(file=out, width=200).print(report.table())
    shown = out.getvalue()
    for part in ("[odd].jsonl", "4 used of 4 rows read", "prompts truncated", "EOS written in text", "x</s>"):
        assert part in shown
    assert "dropped" not in shown
