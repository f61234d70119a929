"""Prompts of a game: which rows give one, and which round gets which."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter

import pytest

from nashtune.data.messages import Message
from nashtune.data.prompts import prompts_in_round, read_prompts, round_prompts
from nashtune.errors import InputError

USER = {"role": "user", "content": "p"}
SYSTEM = {"role": "system", "content": "s"}
CHAT = (Message("system", "s"), Message("user", "p"))


def answer(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


@pytest.mark.parametrize(
    ("row", "prompt", "unused"),
    [
        ({"prompt": "p"}, "p", set()),
        ({"prompt": [SYSTEM, USER]}, CHAT, set()),
        ({"prompt": "p", "chosen": "a", "rejected": "b"}, "p", {"chosen", "rejected"}),
        ({"prompt": "p", "chosen": "a", "rejected": "a"}, "p", {"chosen", "rejected"}),  # of no concern here
        ({"prompt": "p", "completion": "a", "label": True}, "p", {"completion", "label"}),
        ({"prompt": "p", "responses": ["a", "b"], "scores": [1, 2]}, "p", {"responses", "scores"}),
        ({"prompt": "p", "chosen": None, "topic": "x"}, "p", {"topic"}),
        ({"chosen": [SYSTEM, USER, answer("a")], "rejected": [SYSTEM, USER, answer("b")]}, CHAT, set()),
        ({"chosen": [SYSTEM, USER, answer("a")]}, CHAT, set()),
        ({"completion": [SYSTEM, USER, answer("a")], "label": False}, CHAT, {"label"}),
        ({"prompt": "p", "chosen": [SYSTEM, USER, answer("a")], "rejected": "b"}, CHAT, {"rejected"}),
        ({"prompt": [USER], "chosen": [answer("a")], "rejected": [answer("b")]}, CHAT[1:], {"chosen", "rejected"}),
    ],
)
def test_a_row_of_any_format_gives_its_prompt(write, row, prompt, unused) -> None:
    path = write([row])
    found = read_prompts(path)
    assert found.rows == [(prompt, f"{path}:1")]
    assert set(found.unused) == unused


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ({"promt": "p"}, "no 'prompt' in this row; did you mean 'prompt' by 'promt'\\? Rename the column"),
        ({"chosen": "a", "rejected": "b"}, "no 'prompt' in this row, found chosen, rejected; a game draws completions"),
        ({"text": "x"}, "no 'prompt' in this row, found text"),
        ({}, "no 'prompt' in this row, found nothing"),
        ({"prompt": " "}, "'prompt' is empty"),
        ({"prompt": [USER, answer("a")]}, "'prompt' ends with an assistant message"),
        ({"chosen": [answer("a")]}, "no 'prompt', and 'chosen' has only the answer"),
        ({"prompt": "q", "chosen": [USER, answer("a")]}, "in 'chosen' does not begin with 'prompt'"),
        (
            {"chosen": [USER, answer("a")], "rejected": [SYSTEM, USER, answer("b")]},
            "conversations of this row differ before the last message",
        ),
    ],
)
def test_a_row_without_a_prompt_is_named(write, row, problem) -> None:
    path = write([{"prompt": "p"}, row])
    with pytest.raises(InputError, match=f"^{path}:2: .*{problem}"):
        read_prompts(path)


def test_a_broken_line_is_named(write) -> None:
    with pytest.raises(InputError, match=r"rows\.jsonl:2: broken JSON"):
        read_prompts(write([{"prompt": "p"}, "{"]))


def test_notes_count_what_is_not_used_and_what_repeats(write) -> None:
    rows = [{"prompt": p, "chosen": "a", "rejected": "b"} for p in ("x", "x", "y")]
    assert read_prompts(write(rows)).notes() == [
        "columns not used: chosen, rejected; a game reads prompts and draws its own completions",
        "1 row repeats an earlier prompt: a game has each prompt once",
    ]
    assert read_prompts(write([{"prompt": "x"}])).notes() == []


def test_each_prompt_is_there_once_from_its_first_row(write) -> None:
    chat = [{"role": "user", "content": "x"}]
    rows = [{"prompt": p, "chosen": f"a{i}", "rejected": "b"} for i, p in enumerate(("x", "y", "x", chat, "y", chat))]
    found = read_prompts(path := write(rows))
    assert [where for _, where in found.rows] == [f"{path}:{line}" for line in (1, 2, 4)]
    assert (found.duplicates, found.read) == (3, 6)
    assert found.notes()[1] == "3 rows repeat an earlier prompt: a game has each prompt once"


def test_limit_reads_the_first_rows(write) -> None:
    assert len(read_prompts(write([{"prompt": f"p{i}"} for i in range(5)]), limit=2).rows) == 2


@pytest.mark.parametrize(("size", "rounds"), [(10, 3), (12, 4), (7, 7), (100, 1)])
def test_all_prompts_are_split_evenly_over_the_rounds(size, rounds) -> None:
    dealt = [round_prompts(size, rounds, None, 5, t) for t in range(1, rounds + 1)]
    assert sorted(i for prompts in dealt for i in prompts) == list(range(size))
    assert max(map(len, dealt)) - min(map(len, dealt)) <= 1
    assert [len(prompts) for prompts in dealt] == [prompts_in_round(size, rounds, None, t + 1) for t in range(rounds)]


def test_every_round_has_fresh_prompts_until_all_were_used() -> None:
    dealt = [round_prompts(10, 4, 4, 5, t) for t in (1, 2, 3, 4)]
    assert [len(set(prompts)) for prompts in dealt] == [4, 4, 4, 4]
    assert sorted(dealt[0] + dealt[1] + dealt[2][:2]) == list(range(10))
    assert dealt[2][2:] + dealt[3][:2] == dealt[0]  # from the beginning again
    assert set(Counter(i for prompts in dealt for i in prompts).values()) == {1, 2}


def test_which_prompts_depends_on_the_seed_alone() -> None:
    assert round_prompts(50, 2, 20, 1, 2) == round_prompts(50, 2, 20, 1, 2)
    assert round_prompts(50, 2, 20, 1, 2) != round_prompts(50, 2, 20, 2, 2)


def test_a_round_cannot_have_a_prompt_twice_or_none() -> None:
    with pytest.raises(
        InputError, match=r"data\.prompts_per_round: 11, but data\.train has 10 different prompts.* give 10 or"
    ):
        round_prompts(10, 2, 11, 0, 1)
    with pytest.raises(InputError, match=r"10 prompts cannot be split over 11 rounds; set data\.prompts_per_round"):
        round_prompts(10, 11, None, 0, 1)
    assert len(round_prompts(10, 11, 10, 0, 11)) == 10


def test_reading_prompts_imports_nothing_heavy(write) -> None:
    code = (
        "import sys; from nashtune.data.prompts import prompts_in_round, read_prompts\n"
        f"assert len(read_prompts({write([{'prompt': 'p'}])!r}).rows) == prompts_in_round(2, 2, None, 1)\n"
        "print(*{name.partition('.')[0] for name in sys.modules})"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert {"torch", "numpy", "pyarrow", "transformers"} & set(out.split()) == set()
