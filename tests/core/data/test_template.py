"""Tokenisation traps, each by its name."""

from __future__ import annotations

from typing import Any

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from nashtune.data.messages import Message, RowError
from nashtune.data.template import ChatTemplate, PlainTemplate, Template, make_template
from nashtune.errors import InputError

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def make_tokenizer(
    template: str | None = CHATML,
    *,
    eos: str = "<|im_end|>",
    bos: str | None = None,
    adds: tuple[str, ...] = (),
    merges: list[tuple[str, str]] | None = None,
) -> Any:
    """A byte-level tokenizer with ChatML and Llama style special tokens; `adds` frame a text, "$A" is the text."""
    special = ["<s>", "</s>", "<|im_start|>", "<|im_end|>"]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = special + alphabet + ["".join(pair) for pair in merges or []]
    vocab = {token: i for i, token in enumerate(words)}
    raw = Tokenizer(models.BPE(vocab=vocab, merges=merges or []))
    raw.add_special_tokens(special)
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    raw.decoder = decoders.ByteLevel()
    if adds:
        raw.post_processor = processors.TemplateProcessing(
            single=list(adds), special_tokens=[(word, vocab[word]) for word in adds if word != "$A"]
        )
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=raw, eos_token=eos, bos_token=bos)
    tokenizer.chat_template = template
    return tokenizer


def encode(template: Template, prompt: Any, *completions: str) -> tuple[str, list[str]]:
    """Prompt and completions, decoded token by token and joined with |, so that token borders show."""
    rendered = [template.render(prompt, completions)]
    (ids,) = template.encode_prompts(rendered)
    (answers,) = template.encode_completions(rendered)
    return spell(template, ids), [spell(template, answer) for answer in answers]


def spell(template: Template, ids: list[int]) -> str:
    return "|".join(template.tokenizer.convert_ids_to_tokens(ids)).replace("Ċ", "\n").replace("Ġ", " ")


def test_chat_prompt_and_completion_meet_at_the_generation_prompt() -> None:
    template = ChatTemplate(make_tokenizer())
    prompt, (chosen, rejected) = encode(template, "hi", "yo", "no")
    assert prompt == "<|im_start|>|u|s|e|r|\n|h|i|<|im_end|>|\n|<|im_start|>|a|s|s|i|s|t|a|n|t|\n"
    assert (chosen, rejected) == ("y|o|<|im_end|>", "n|o|<|im_end|>")


def test_chat_keeps_system_and_earlier_turns() -> None:
    chat = (Message("system", "S"), Message("user", "a"), Message("assistant", "b"), Message("user", "c"))
    template = ChatTemplate(make_tokenizer())
    (ids,) = template.encode_prompts([template.render(chat, ["x", "y"])])
    assert template.tokenizer.decode(ids) == (
        "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\nb<|im_end|>\n"
        "<|im_start|>user\nc<|im_end|>\n<|im_start|>assistant\n"
    )


def test_what_the_model_is_asked_at_sampling_is_the_prompt_it_was_trained_on(tokenizer) -> None:
    template = ChatTemplate(tokenizer)
    (ids,) = template.encode_prompts([template.render("hi", ["a", "b"])])
    asked = tokenizer.apply_chat_template([{"role": "user", "content": "hi"}], add_generation_prompt=True)
    assert ids == asked["input_ids"]


@pytest.mark.parametrize("text", ["yo", "yo</s>", "yo</s>\n", "yo</s></s> "])
@pytest.mark.parametrize("name", ["chat", "plain"])
def test_double_eos(tokenizer, name, text) -> None:
    """The template ends with EOS, the tokenizer may add one, the row may have one written: one is left."""
    template = make_template(name, tokenizer)
    rendered = template.render("hi", [text])
    ((ids,),) = template.encode_completions([rendered])
    assert ids.count(tokenizer.eos_token_id) == 1
    assert tokenizer.decode(ids) == "yo</s>"
    assert rendered.eos_written == (text != "yo")


def test_double_eos_from_a_tokenizer_that_adds_one() -> None:
    tokenizer = make_tokenizer(None, eos="</s>", bos="<s>", adds=("<s>", "$A", "</s>"))
    assert encode(PlainTemplate(tokenizer), "hi", "yo") == ("<s>|h|i", ["y|o|</s>"])


def test_missing_eos_is_appended_once() -> None:
    """A template that closes the turn with a word, or with nothing: EOS follows once."""
    words = "{% for m in messages %}### {{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"
    words += "{% if add_generation_prompt %}### assistant: {% endif %}"
    assert encode(ChatTemplate(make_tokenizer(words)), "a", "b")[1] == ["b|<|im_end|>"]
    ended = words.replace("}}\n", "}} END\n")
    assert encode(ChatTemplate(make_tokenizer(ended)), "a", "b")[1] == ["b| |E|N|D|<|im_end|>"]


def test_end_of_turn_that_is_not_eos_is_kept_before_it() -> None:
    template = ChatTemplate(make_tokenizer(eos="</s>"))
    assert encode(template, "a", "b")[1] == ["b|<|im_end|>|</s>"]


def test_double_bos() -> None:
    """The template writes BOS and the tokenizer would add another one; a written one is not doubled under `plain`."""
    tokenizer = make_tokenizer("{{ bos_token }}" + CHATML, bos="<s>", adds=("<s>", "$A"))
    prompt, (answer,) = encode(ChatTemplate(tokenizer), "a", "b")
    assert prompt.count("<s>") == 1
    assert prompt.startswith("<s>|<|im_start|>")
    assert answer == "b|<|im_end|>"
    assert encode(PlainTemplate(tokenizer), "a", "b") == ("<s>|a", ["b|<|im_end|>"])
    assert encode(PlainTemplate(tokenizer), "<s>a", "b") == ("<s>|a", ["b|<|im_end|>"])


def test_prompt_completion_merge() -> None:
    """ "a" and "b" are one token when they stand together; over the border they must not be."""
    tokenizer = make_tokenizer(None, eos="</s>", merges=[("a", "b")])
    assert tokenizer.tokenize("ab") == ["ab"]
    assert encode(PlainTemplate(tokenizer), "a", "b", "ab") == ("a", ["b|</s>", "ab|</s>"])


def test_special_tokens_in_a_chat_stay_text() -> None:
    template = ChatTemplate(make_tokenizer())
    rendered = template.render("say <|im_end|> now", ["x <|im_end|> y", "</s>"])
    prompt = template.encode_prompts([rendered])[0]
    answers = template.encode_completions([rendered])[0]
    assert rendered.special
    assert template.tokenizer.decode(prompt).count("say <|im_end|> now") == 1
    assert prompt.count(template.eos) == 1  # the template's own, after the user's turn
    assert [answer.count(template.eos) for answer in answers] == [1, 1]
    assert template.tokenizer.decode(answers[0]) == "x <|im_end|> y<|im_end|>"
    assert spell(template, answers[1]) == "<|/|s|>|<|im_end|>"


def test_special_tokens_in_plain_text_are_special(tokenizer) -> None:
    template = PlainTemplate(tokenizer)
    rendered = template.render("<|user|>hi<|assistant|>", ["yo"])
    assert rendered.special
    assert spell(template, template.encode_prompts([rendered])[0]) == "<|user|>|h|i|<|assistant|>"
    assert not template.render("hi", ["yo"]).special


def test_markers_never_reach_the_tokens() -> None:
    template = ChatTemplate(make_tokenizer())
    forged = "\ufdd0</s>\ufdd1"
    rendered = template.render("a", [forged])
    ((ids,),) = template.encode_completions([rendered])
    assert template.tokenizer.decode(ids) == f"{forged}<|im_end|>"
    assert template.tokenizer.convert_tokens_to_ids("</s>") not in ids


def test_a_template_that_trims_is_counted() -> None:
    trims = CHATML.replace("m['content']", "m['content'] | trim")
    template = ChatTemplate(make_tokenizer(trims))
    assert template.render("a", ["b ", "c"]).trimmed
    assert not template.render("a", ["b", "c"]).trimmed
    assert encode(template, "a", " b ")[1] == ["b|<|im_end|>"]


def test_text_before_the_answer_belongs_to_the_completion() -> None:
    thinks = CHATML.replace(
        "{{ m['content'] }}", "{% if m['role'] == 'assistant' %}<think></think>{% endif %}{{ m['content'] }}"
    )
    _, (answer,) = encode(ChatTemplate(make_tokenizer(thinks)), "a", "b")
    assert answer.replace("|", "") == "<think></think>b<im_end>"


def test_a_template_that_rewrites_the_prompt_is_refused() -> None:
    rewrites = "{% if messages | length > 1 %}*{% endif %}" + CHATML
    with pytest.raises(RowError, match="rewrites the earlier turns"):
        ChatTemplate(make_tokenizer(rewrites)).render("a", ["b"])


def test_a_template_that_ends_answers_differently_is_refused() -> None:
    moody = CHATML.replace("{% endfor %}", "{% if m['content'] == 'odd' %}!{% endif %}{% endfor %}")
    with pytest.raises(RowError, match="ends this answer with"):
        ChatTemplate(make_tokenizer(moody)).render("a", ["odd"])


def test_a_template_that_refuses_a_conversation() -> None:
    strict = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system prompt') }}{% endif %}" + CHATML
    template = ChatTemplate(make_tokenizer(strict))
    with pytest.raises(RowError, match="the chat template refuses this conversation: no system prompt"):
        template.render((Message("system", "s"), Message("user", "u")), ["b"])


def test_a_template_that_hides_the_answer() -> None:
    hides = "{% for m in messages %}{% if m['role'] == 'user' %}{{ m['content'] }}{% endif %}{% endfor %}"
    with pytest.raises(RowError, match="does not show the assistant's answer"):
        ChatTemplate(make_tokenizer(hides)).render("a", ["b"])


def test_no_chat_template() -> None:
    with pytest.raises(InputError, match=r"no chat template\. For a base model use data\.template: plain"):
        ChatTemplate(make_tokenizer(None))


@pytest.mark.parametrize("name", ["chat", "plain"])
def test_no_eos(name) -> None:
    tokenizer = make_tokenizer()
    tokenizer.eos_token = None
    with pytest.raises(InputError, match="the tokenizer has no eos_token"):
        make_template(name, tokenizer)


def test_plain_takes_no_chats() -> None:
    with pytest.raises(RowError, match=r"data\.template: plain takes texts; use data\.template: chat"):
        PlainTemplate(make_tokenizer()).render((Message("user", "a"),), ["b"])


@pytest.mark.parametrize("text", ["<|im_end|>", " <|im_end|> <|im_end|>\n"])
def test_a_completion_of_nothing_but_eos(text) -> None:
    with pytest.raises(RowError, match=r"nothing but <\|im_end\|>"):
        PlainTemplate(make_tokenizer()).render("a", [text])


def test_sentencepiece_spaces_do_not_appear_around_text_that_was_marked() -> None:
    """A tokenizer that puts a space before the first word must not put one before every piece."""
    tokenizer = make_tokenizer()
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True, use_regex=False)
    template = ChatTemplate(tokenizer)
    rendered = template.render("a", ["x</s>y"])
    ((ids,),) = template.encode_completions([rendered])
    assert template.tokenizer.decode(ids).strip() == "x</s>y<|im_end|>"
