from __future__ import annotations

import io

import pytest
from rich.console import Console

from nashtune.data.lengths import Limits
from nashtune.data.prompt_tokens import tokenise_prompts
from nashtune.data.prompts import read_prompts
from nashtune.data.template import ChatTemplate, PlainTemplate
from nashtune.errors import InputError

# One token per letter: prompts of 4 and 8 tokens.
ROWS = [{"prompt": "abcd"}, {"prompt": "abcdefgh"}]
USER = {"role": "user", "content": "p"}
SYSTEM = {"role": "system", "content": "s"}


def run(tokenizer, path, *, room=5, template=PlainTemplate, **limits):
    found = read_prompts(path)
    return tokenise_prompts(
        found, template(tokenizer), Limits(**{"max_length": 100, **limits}), completion_room=room, split="train"
    )


def test_a_prompt_becomes_ids_for_the_sampler_and_messages_for_the_oracle(tokenizer, write) -> None:
    path = write([{"prompt": [SYSTEM, USER]}, {"prompt": "q"}])
    (chat, text), report = run(tokenizer, path, template=ChatTemplate)
    assert tokenizer.decode(chat.prompt_ids) == "<|system|>s<|user|>p<|assistant|>"
    assert chat.prompt == [SYSTEM, USER]
    assert (chat.prompt_text, chat.where) == ("p", f"{path}:1")
    assert tokenizer.decode(text.prompt_ids) == "<|user|>q<|assistant|>"
    assert (text.prompt, text.prompt_text) == ("q", "q")
    assert (report.kind, report.read, report.used) == ("prompts", 2, 2)


def test_the_ids_are_those_that_a_preference_method_trains_with(tokenizer, write) -> None:
    from nashtune.data.apart import ApartEncoder
    from nashtune.data.rows import read_rows

    path = write(
        [{"prompt": [SYSTEM, USER], "chosen": "a", "rejected": "b"}, {**ROWS[1], "chosen": "a", "rejected": "b"}]
    )
    prompts, _ = run(tokenizer, path, template=ChatTemplate)
    encoder = ApartEncoder(ChatTemplate(tokenizer), Limits(max_length=100), soft=False)
    pairs = encoder.encode(read_rows(path).rows)
    assert [row.prompt_ids for row in prompts] == [row.prompt_ids for row in pairs]


def test_room_is_left_for_what_the_sampler_draws(tokenizer, write) -> None:
    path = write(ROWS)
    assert len(run(tokenizer, path, max_length=13)[0]) == 2
    with pytest.raises(InputError) as error:
        run(tokenizer, path, max_length=12)
    assert str(error.value) == (
        f"{path}:2: 8 prompt and 5 completion tokens (sampler.max_new_tokens) are more than data.max_length 12; raise "
        "the limit, or choose data.overflow: drop (leave such rows out) or truncate_prompt (keep the prompt's end)"
    )
    with pytest.raises(InputError, match=r":2: 8 prompt tokens are more than data\.max_prompt_length 7"):
        run(tokenizer, path, max_prompt_length=7)


def test_overflow_drops_or_shortens_the_prompt_and_the_oracle_still_sees_all_of_it(tokenizer, write) -> None:
    path = write(ROWS)
    (only,), report = run(tokenizer, path, max_length=12, overflow="drop")
    assert (only.prompt, report.dropped_overflow) == ("abcd", 1)
    (_, short), report = run(tokenizer, path, max_length=12, overflow="truncate_prompt")
    assert tokenizer.decode(short.prompt_ids) == "bcdefgh"
    assert (short.prompt, report.truncated) == ("abcdefgh", 1)
    with pytest.raises(InputError, match=r"none of the 2 prompts fits data\.max_length 8 with 5 completion tokens"):
        run(tokenizer, path, max_length=8, overflow="drop")


def test_a_prompt_that_fills_the_models_context_is_refused(tokenizer, write) -> None:
    path = write(ROWS)
    assert len(run(tokenizer, path, context=13)[0]) == 2
    for overflow in ("error", "drop", "truncate_prompt"):
        with pytest.raises(
            InputError, match=r":2: 8 prompt and 5 completion tokens .* the model's context of 12 tokens"
        ):
            run(tokenizer, path, context=12, overflow=overflow)


def test_a_prompt_without_tokens_is_refused(tokenizer, write) -> None:
    tokenizer.add_bos_token = False

    class Mute(PlainTemplate):
        def encode_prompts(self, rendered):
            return [[] for _ in rendered]

    with pytest.raises(InputError, match=r"rows\.jsonl:1: the prompt has no tokens"):
        run(tokenizer, write(ROWS), template=Mute)


def test_prompts_that_are_the_same_tokens_are_one(tokenizer, write) -> None:
    path = write([{"prompt": [USER]}, {"prompt": "p"}, {"prompt": "p"}, {"prompt": "q"}])
    kept, report = run(tokenizer, path, template=ChatTemplate)
    assert [row.where for row in kept] == [f"{path}:1", f"{path}:4"]
    assert (report.read, report.used, report.duplicates) == (4, 2, 2)
    assert report.notes == (
        "1 row repeats an earlier prompt: a game has each prompt once",
        "prompts that are the same tokens as an earlier one, and left out: 1",
    )


def test_a_chat_needs_the_chat_template(tokenizer, write) -> None:
    with pytest.raises(InputError, match=r"rows\.jsonl:1: the prompt is a list of messages, and data\.template: plain"):
        run(tokenizer, write([{"prompt": [USER]}]))


def test_the_fingerprint_is_that_of_the_prompts_in_order(tokenizer, write) -> None:
    def of(rows):
        return run(tokenizer, write(rows))[1].fingerprint

    assert of(ROWS) == of([{**row, "chosen": "x", "rejected": "y"} for row in ROWS])
    assert len({of(ROWS), of(ROWS[::-1]), of([{"prompt": "abcdabcd"}, {"prompt": "efgh"}])}) == 3


def test_the_report_says_nothing_of_completions(tokenizer, write) -> None:
    _, report = run(tokenizer, write([*ROWS, ROWS[0]]))
    screen = io.StringIO()
    Console(file=screen, width=120).print(report.table())
    shown = screen.getvalue()
    assert "2 used of 3 rows read" in shown
    assert "4 to 8, median 8, total 12" in shown
    assert "completion" not in shown
    assert "1 row repeats an earlier prompt" in shown
    assert report.as_dict()["completion_tokens"] is None
