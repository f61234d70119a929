"""Whole conversations: the same ids in training and in judging, BOS once, EOS once."""

from __future__ import annotations

import pytest
from tokenizers import processors
from transformers import AutoTokenizer

from nashtune.data.conversations import Conversations, Tokens
from nashtune.errors import InputError

CHAT = [{"role": "user", "content": "Hi"}]


@pytest.fixture
def with_bos(tokenizer):
    """The tiny tokenizer, made to put BOS before every text, as Llama's does."""
    tokenizer.add_special_tokens({"bos_token": "<s>"})
    bos = tokenizer.bos_token_id
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", bos)]
    )
    return tokenizer


def test_a_chat_is_the_template_without_an_open_turn(tokenizer):
    ids = Conversations(tokenizer, "chat", "m").encode(CHAT, "Hello").ids
    expected = tokenizer.apply_chat_template(
        [*CHAT, {"role": "assistant", "content": "Hello"}], add_generation_prompt=False, return_dict=False
    )
    assert ids == expected


def test_plain_has_one_bos_and_one_eos(with_bos):
    plain = Conversations(with_bos, "plain", "m")
    once = plain.encode("Hi", " there").ids
    assert once[0] == with_bos.bos_token_id and once[-1] == with_bos.eos_token_id
    assert with_bos.decode(once) == "<s>Hi there</s>"
    assert plain.encode("<s>Hi", " there").ids == once  # a written BOS is not doubled
    assert plain.encode("Hi", " there</s>").ids == once  # nor a written EOS


def test_a_template_that_writes_bos_gives_one(with_bos):
    with_bos.chat_template = "{{ bos_token }}" + with_bos.chat_template
    ids = Conversations(with_bos, "chat", "m").encode(CHAT, "Hello").ids
    assert ids.count(with_bos.bos_token_id) == 1 and ids[0] == with_bos.bos_token_id
    written = Conversations(with_bos, "chat", "m").encode([{"role": "user", "content": "<s>Hi"}], "Hello").ids
    assert written.count(with_bos.bos_token_id) == 1  # in a chat the user's is text


def test_tokens_before_the_completion(tokenizer):
    chat, plain = (Conversations(tokenizer, rendering, "m") for rendering in ("chat", "plain"))
    assert plain.before("abc", "xyz") == 3 and plain.before("abc", "ya") == 3
    ids = chat.encode(CHAT, "xyz").ids
    assert tokenizer.decode(ids[: chat.before(CHAT, "xyz")]).endswith("<|assistant|>")
    assert tokenizer.decode(ids[chat.before(CHAT, "xyz") :]).startswith("xyz")


def test_the_last_tokens_keep_the_first():
    assert Tokens([1, 5, 6, 7]).last(3) == Tokens([1, 6, 7])
    assert Tokens([1, 5, 6, 7], [0, 0, 1, 1]).last(2) == Tokens([1, 7], [0, 1])
    assert Tokens([1, 5]).last(2) == Tokens([1, 5])


def test_messages_name_the_option_that_chose_the_rendering(tokenizer):
    chat = [*CHAT, {"role": "assistant", "content": "Yes?"}, {"role": "user", "content": "Go"}]
    with pytest.raises(InputError, match=r"^data\.template: plain takes texts, and a prompt is a conversation of 3"):
        Conversations(tokenizer, "plain", "m", "data.template").encode(chat, "Hello")
    tokenizer.chat_template = "{{ raise_exception('no system') }}"
    with pytest.raises(InputError, match=r"^oracle\.template: the chat template of m refuses .*no system"):
        Conversations(tokenizer, "chat", "m").encode(CHAT, "Hello")
    tokenizer.chat_template = None
    with pytest.raises(InputError, match=r"^data\.template: chat, but the tokenizer of m has no chat template"):
        Conversations(tokenizer, "chat", "m", "data.template")


def test_the_oracle_reads_what_was_trained(tiny, tokenizer, write):
    """Ids of a training row are those that the oracle encodes for the same prompt and answers."""
    from nashtune.data.lengths import Limits
    from nashtune.data.rows import read_rows
    from nashtune.data.whole import WholeEncoder

    prompt = [{"role": "system", "content": "Be brief </s>."}, {"role": "user", "content": "Capital of France?"}]
    path = write([{"prompt": prompt, "chosen": " Paris.", "rejected": "Rome.\n"}])
    for rendering in ("chat", "plain"):
        if rendering == "plain":
            path = write([{"prompt": "Capital of France?", "chosen": " Paris.", "rejected": "Rome.\n"}])
            prompt = "Capital of France?"
        oracle = Conversations(AutoTokenizer.from_pretrained(tiny), rendering, "m")
        trained = Conversations(tokenizer, rendering, "m", "data.template")
        (row,) = WholeEncoder(trained, Limits(max_length=200), soft=False).encode(read_rows(path).rows)
        assert row.prompt_ids == ()
        assert [list(ids) for ids in row.completions] == [
            oracle.encode(prompt, text).ids for text in (" Paris.", "Rome.\n")
        ]
