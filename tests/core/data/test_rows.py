from __future__ import annotations

import math

import pytest

from nashtune.data.messages import Message
from nashtune.data.rows import Example, Pair, Ranked, load_rows, read_rows
from nashtune.errors import InputError

GOOD = {"prompt": "p", "chosen": "a", "rejected": "b"}
USER = {"role": "user", "content": "p"}
SYSTEM = {"role": "system", "content": "s"}


def answer(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


def without(name: str, **more: object) -> dict[str, object]:
    return {**{k: v for k, v in GOOD.items() if k != name}, **more}


def test_a_pair(write) -> None:
    path = write([GOOD])
    assert load_rows(path) == [Pair(prompt="p", chosen="a", rejected="b", p_chosen=None, where=f"{path}:1")]


@pytest.mark.parametrize(
    ("row", "prompt"),
    [
        ({**GOOD, "prompt": [SYSTEM, USER]}, ("s", "p")),
        ({"prompt": [USER], "chosen": [answer("a")], "rejected": [answer("b")]}, ("p",)),
        ({"prompt": [USER], "chosen": [USER, answer("a")], "rejected": [USER, answer("b")]}, ("p",)),
        ({"prompt": "p", "chosen": [SYSTEM, USER, answer("a")], "rejected": [SYSTEM, USER, answer("b")]}, ("s", "p")),
        ({"prompt": "p", "chosen": [SYSTEM, USER, answer("a")], "rejected": "b"}, ("s", "p")),
        ({"chosen": [USER, answer("a")], "rejected": [USER, answer("b")]}, ("p",)),
        (
            {"prompt": [USER, answer("x"), {**USER, "content": "q"}], "chosen": "a", "rejected": "b"},
            ("p", "x", "q"),
        ),
        ({"prompt": [{**USER, "name": None}], "chosen": "a", "rejected": "b"}, ("p",)),
    ],
)
def test_chats_and_implicit_prompts(write, row, prompt) -> None:
    (pair,) = load_rows(write([row]))
    assert isinstance(pair, Pair)
    assert tuple(m.content for m in pair.prompt if isinstance(m, Message)) == prompt
    assert (pair.chosen, pair.rejected) == ("a", "b")


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        (without("rejected"), "no 'rejected' in this preference row, found chosen, prompt"),
        (without("rejected", rejected=None), "no 'rejected'"),
        (without("chosen", choosen="a"), "no 'chosen' .*; did you mean 'chosen' by 'choosen'\\? Rename the column"),
        (without("prompt"), "no 'prompt', and 'chosen' is a text; add 'prompt', [^;]*$"),
        (without("prompt", prompt=None), "no 'prompt', and 'chosen' is a text.*; 'prompt' is null here, which counts"),
        (without("prompt", messages=[USER]), "is a text.*; did you mean 'prompt' by 'messages'\\? Rename the column"),
        ({**GOOD, "chosen": answer("a")}, "'chosen' must be a text or a list .*; put the message into a list"),
        (
            {**GOOD, "prompt": [{**USER, "content": [{"type": "text", "text": "p"}]}]},
            "the content of message 1 of 'prompt' must be a text.*; parts are not read: join their texts into one",
        ),
        (without("prompt", promt="p"), "no 'prompt' .*; did you mean 'prompt' by 'promt'"),
        (
            {"prompt": "p", "rejcted": "b"},
            "no known columns, found prompt, rejcted; did you mean 'rejected' by 'rejcted'",
        ),
        ({"text": "x"}, "no known columns, found text .*preference: prompt, chosen, rejected, p_chosen"),
        ({**GOOD, "rejected": "a"}, "'chosen' and 'rejected' are identical"),
        ({**GOOD, "chosen": " "}, "'chosen' is empty"),
        ({**GOOD, "prompt": ""}, "'prompt' is empty"),
        ({**GOOD, "prompt": 3}, "'prompt' must be a text or a list of messages, found 3"),
        ({**GOOD, "prompt": []}, "'prompt' is an empty list"),
        ({**GOOD, "prompt": ["p"]}, "message 1 of 'prompt' must be {role, content}, found \"p\""),
        ({**GOOD, "prompt": [{"role": "user"}]}, "message 1 of 'prompt' has no content; found role"),
        ({**GOOD, "prompt": [{"from": "human", "value": "p"}]}, "'from' and 'value' are another convention"),
        ({**GOOD, "prompt": [{**USER, "tool_calls": ["x"]}]}, "has 'tool_calls', which is not read"),
        ({**GOOD, "prompt": [{**USER, "role": "usr"}]}, "has the role \"usr\"; did you mean 'user'\\?"),
        ({**GOOD, "prompt": [{**USER, "content": ["p"]}]}, "the content of message 1 of 'prompt' must be a text"),
        ({**GOOD, "prompt": [USER, answer("x")]}, "'prompt' ends with an assistant message"),
        ({**GOOD, "chosen": [USER]}, "the last message of 'chosen' is from 'user'"),
        ({"chosen": [answer("a")], "rejected": [answer("b")]}, "no 'prompt', and 'chosen' has only the answer"),
        (
            {"chosen": [USER, answer("a")], "rejected": [SYSTEM, USER, answer("b")]},
            "differ before the last message",
        ),
        ({**GOOD, "chosen": [{**USER, "content": "q"}, answer("a")]}, "in 'chosen' does not begin with 'prompt'"),
        ({**GOOD, "p_chosen": math.nan}, "p_chosen is nan; it is a probability in \\[0, 1\\]"),
        ({**GOOD, "p_chosen": 1.5}, "p_chosen is 1.5"),
        ({**GOOD, "p_chosen": -0.1}, "p_chosen is -0.1"),
        ({**GOOD, "p_chosen": "0.9"}, 'p_chosen must be a number, found "0.9"'),
        ({**GOOD, "p_chosen": True}, "p_chosen must be a number, found true"),
        ({"prompt": "p", "chosen": "a", "completion": "c"}, "belong to different formats"),
        ({"prompt": "p", "completion": "c", "label": True}, "this row is unpaired .* the loss trains on pairs"),
        ({"prompt": "p", "responses": ["a"], "scores": [1]}, "'responses' must be a list of at least two"),
        ({"prompt": "p", "responses": ["a", "b"], "scores": [1]}, "'scores' must be a list of 2 numbers"),
        ({"prompt": "p", "responses": ["a", "b"], "scores": [1, math.nan]}, "score 2 is nan"),
        ({"prompt": "p", "responses": ["a", "b"], "scores": [1, "2"]}, 'score 2 must be a number, found "2"'),
        ({"prompt": "p", "responses": ["a", "b"]}, "response 1 needs a score"),
        ({"prompt": "p", "responses": ["a", ""], "scores": [1, 2]}, "'response 2' is empty"),
        ({"prompt": "p", "responses": ["a", {"txt": "b"}], "scores": [1, 2]}, "response 2 must be a text or"),
        ({"prompt": "p", "responses": ["a", 3], "scores": [1, 2]}, "'response 2' must be a text or a list of messages"),
        ({"prompt": "p", "responses": ["a", [SYSTEM, USER, answer("b")]], "scores": [1, 2]}, "has more than 'prompt'"),
        ({"prompt": "p", "responses": [{"text": "a", "score": 1}, "b"], "scores": [1, 2]}, "scores are given twice"),
        ({"prompt": "p", "responses": ["a", "a"], "scores": [1, 2]}, "responses 2 and 1 are identical"),
    ],
)
def test_bad_rows_name_their_line(write, row, problem) -> None:
    path = write([GOOD, row])
    with pytest.raises(InputError, match=f"^{path}:2: .*{problem}"):
        load_rows(path)


@pytest.mark.parametrize("label", [math.nan, "true", 2, 1.0])
def test_a_label_is_true_or_false(write, label) -> None:
    path = write([{"prompt": "p", "completion": "c", "label": label}])
    with pytest.raises(InputError, match=r"rows\.jsonl:1: label must be true \(desirable\) or false"):
        load_rows(path, "examples")


def test_every_bad_row_counts_and_five_are_named(write) -> None:
    path = write([GOOD, "{broken", GOOD, *[without("rejected")] * 7])
    with pytest.raises(InputError) as error:
        load_rows(path)
    lines = str(error.value).splitlines()
    assert lines[0].startswith(f"{path}:2: broken JSON at character 2")
    assert lines[1] == "and 7 more bad rows, the first 4 of them:"
    assert [line.split(": ")[0] for line in lines[2:]] == [f"  {path}:{n}" for n in (4, 5, 6, 7)]


def test_columns_that_every_row_has_are_one_line_and_no_misspelling_of_what_is_there(write) -> None:
    extra = {"prompt_id": "7", "messages": [], "score_chosen": 8.0, "score_rejected": 3.0}
    found = read_rows(write([{**GOOD, **extra}, {**GOOD, **extra, "rejected": "c"}]))
    assert found.notes() == ["columns not used: messages, prompt_id, score_chosen, score_rejected"]


def test_one_more_bad_row(write) -> None:
    path = write([without("chosen"), without("rejected")])
    with pytest.raises(InputError, match=f"and 1 more bad row:\n  {path}:2: no 'rejected'"):
        load_rows(path)


def test_unused_columns_are_listed_and_misspelt_ones_named(write) -> None:
    found = read_rows(write([{**GOOD, "source": "x", "p_choosen": 0.9}, {**GOOD, "chosen_model": "m", "label": 1}]))
    assert found.unused == {"source": 1, "p_choosen": 1, "chosen_model": 1, "label": 1}
    notes = "\n".join(found.notes())
    assert "columns not used: chosen_model (1), label (1), p_choosen (1), source (1)" in notes
    assert "the column 'p_choosen' looks like 'p_chosen'" in notes
    assert "'chosen_model' looks like" not in notes


def test_p_chosen_under_hard_labels_is_said_to_be_unused(write) -> None:
    found = read_rows(write([{**GOOD, "p_chosen": 0.3}, {**GOOD, "p_chosen": 0.9}, GOOD]))
    assert (found.p_chosen_unused, found.contradictions, found.duplicates) == (2, 1, 0)
    assert "p_chosen of 2 rows is not used; to use it: data.labels: soft" in found.notes()
    assert "1 rows have p_chosen below 0.5 although labels are hard" in found.notes()


def test_soft_labels(write) -> None:
    found = read_rows(write([{**GOOD, "p_chosen": 0.3}, {**GOOD, "p_chosen": 1}]), labels="soft")
    assert [row.p_chosen for row in found.rows if isinstance(row, Pair)] == [0.3, 1.0]
    assert found.notes() == []


def test_soft_labels_need_p_chosen(write) -> None:
    with pytest.raises(InputError, match=r":1: data.labels: soft needs 'p_chosen' in every row; add it"):
        load_rows(write([GOOD]), labels="soft")
    with pytest.raises(InputError, match="did you mean it by 'p_choosen'"):
        load_rows(write([{**GOOD, "p_choosen": 0.9}]), labels="soft")
    with pytest.raises(InputError, match="ranked rows have scores only"):
        load_rows(write([{"prompt": "p", "responses": ["a", "b"], "scores": [1, 2]}]), labels="soft")


def test_duplicates_are_counted(write) -> None:
    found = read_rows(write([GOOD, {**GOOD, "chosen": "c"}, {**GOOD, "id": 3}]))
    assert found.duplicates == 1
    assert "1 rows repeat an earlier one exactly; each of them counts" in found.notes()


def test_examples(write) -> None:
    path = write(
        [{"prompt": "p", "completion": "c", "label": False}, {"prompt": [USER], "completion": "d", "label": 1}]
    )
    rows = load_rows(path, "examples")
    assert [(row.completion, row.desirable) for row in rows if isinstance(row, Example)] == [("c", False), ("d", True)]


def test_a_preference_gives_two_examples(write) -> None:
    rows = load_rows(write([{**GOOD, "p_chosen": 0.9}]), "examples")
    assert [(r.completion, r.desirable, r.prompt) for r in rows if isinstance(r, Example)] == [
        ("a", True, "p"),
        ("b", False, "p"),
    ]


RANKED = {"prompt": "p", "responses": ["w", "x", "y", "z"], "scores": [3, 1, 3, 2]}


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        ("best_worst", {("w", "x")}),
        ("adjacent", {("y", "z"), ("z", "x")}),
        ("all_pairs", {("w", "z"), ("w", "x"), ("y", "z"), ("y", "x"), ("z", "x")}),
    ],
)
def test_ranked_rows(write, how, expected) -> None:
    rows = load_rows(write([RANKED]), ranked_pairs=how)
    assert {(row.chosen, row.rejected) for row in rows if isinstance(row, Pair)} == expected


def test_ranked_rows_with_scores_inside_and_ties(write) -> None:
    inside = {"prompt": "p", "responses": [{"text": "a", "win_rate": 0.1, "model": "m"}, {"text": "b", "score": 2}]}
    found = read_rows(write([inside, {"prompt": "p", "responses": ["a", "b"], "scores": [1, 1]}]))
    assert [(row.chosen, row.rejected) for row in found.rows if isinstance(row, Pair)] == [("b", "a")]
    assert found.no_pair == 1
    assert found.unused == {"responses.model": 1}
    assert "1 ranked rows give no pair: their scores are equal" in found.notes()


def test_ranked_responses_as_chats(write) -> None:
    row = {"prompt": [USER], "responses": [[answer("a")], {"text": [USER, answer("b")]}], "scores": [1, 2]}
    (pair,) = load_rows(write([row]))
    assert isinstance(pair, Pair)
    assert (pair.chosen, pair.rejected) == ("b", "a")


def test_only_ties_leave_nothing(write) -> None:
    with pytest.raises(InputError, match="1 rows were read, and none gives a pair; 1 ranked rows give no pair"):
        load_rows(write([{"prompt": "p", "responses": ["a", "b"], "scores": [1, 1]}]))


def test_examples_take_the_best_and_the_worst_only(write) -> None:
    path = write([RANKED])
    assert len(load_rows(path, "examples")) == 2
    with pytest.raises(InputError, match=r"data\.ranked_pairs: adjacent .* use best_worst"):
        load_rows(path, "examples", ranked_pairs="adjacent")


def test_limit(write) -> None:
    assert len(load_rows(write([GOOD, {**GOOD, "chosen": "c"}, "{broken"]), limit=2)) == 2


def test_ranked_lists_are_best_first_and_ties_have_one_level(write) -> None:
    path = write([RANKED, GOOD, {"prompt": "p", "responses": ["a", "b"], "scores": [1, 1]}])
    found = read_rows(path, "ranked")
    assert found.rows == [
        Ranked(prompt="p", responses=("w", "y", "z", "x"), scores=(3.0, 3.0, 2.0, 1.0), where=f"{path}:1"),
        Ranked(prompt="p", responses=("a", "b"), scores=(1.0, 0.0), where=f"{path}:2"),
    ]
    assert [row.levels for row in found.rows if isinstance(row, Ranked)] == [(0, 0, 1, 2), (0, 1)]
    assert (found.ties, found.no_pair, found.training_rows) == (1, 1, 2)
    assert found.notes() == [
        "1 ranked rows give no pair: their scores are equal",
        "1 ranked lists have equal scores; these answers are not compared",
    ]


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        (
            {"prompt": "p", "completion": "c", "label": True},
            "the loss trains on ranked lists: give responses",
        ),
        ({"prompt": "p", "responses": ["a", "b", "a"], "scores": [1, 2, 3]}, "two responses are identical \\('a'\\)"),
    ],
)
def test_bad_rows_of_a_ranked_loss_name_their_line(write, row, problem) -> None:
    path = write([GOOD, row])
    with pytest.raises(InputError, match=f"^{path}:2: .*{problem}"):
        read_rows(path, "ranked")


def test_comparisons_are_pairs_that_count_twice(write) -> None:
    found = read_rows(write([GOOD, RANKED]), "comparisons")
    assert [(row.chosen, row.rejected) for row in found.rows if isinstance(row, Pair)] == [("a", "b"), ("w", "x")]
    assert found.training_rows == 4


def test_margins_are_read_where_the_loss_reads_them(write) -> None:
    path = write([{**GOOD, "margin": 0}, {**GOOD, "chosen": "c", "margin": 1.5}])
    found = read_rows(path, uses_margin=True)
    assert [row.margin for row in found.rows if isinstance(row, Pair)] == [0.0, 1.5]
    assert (found.margins, found.notes()) == (2, [])
    unread = read_rows(path)
    assert [row.margin for row in unread.rows if isinstance(row, Pair)] == [None, None]
    assert unread.notes() == ["columns not used: margin"]


@pytest.mark.parametrize("margin", [-0.5, math.nan, math.inf, "1", True])
def test_a_margin_is_a_number_from_0(write, margin) -> None:
    path = write([{**GOOD, "margin": margin}])
    with pytest.raises(InputError, match=r"rows\.jsonl:1: margin (is|must be)"):
        read_rows(path, uses_margin=True)
    assert read_rows(path).rows  # of a loss that does not read it the column may mean anything


def test_margins_are_in_every_row_or_in_none(write) -> None:
    path = write([{**GOOD, "margin": 1}, GOOD, RANKED])
    with pytest.raises(InputError, match=r"1 of 3 pairs have a margin; give it in every row \(0 asks for none\)"):
        read_rows(path, uses_margin=True)


def test_a_misspelt_margin_is_named(write) -> None:
    found = read_rows(write([{**GOOD, "margins": 1}]), uses_margin=True)
    assert "the column 'margins' looks like 'margin'; rename it if it is meant" in found.notes()
