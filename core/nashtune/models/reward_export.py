"""What makes a saved reward model mean the same everywhere: its facts, its padding token, its head's precision."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

from nashtune.data.conversations import Conversations, Rendering
from nashtune.errors import InputError
from nashtune.models.reward_folder import RewardFile
from nashtune.notes import note

CONFIG, TOKENIZER_CONFIG, TOKEN_MAP = "config.json", "tokenizer_config.json", "special_tokens_map.json"
TEMPLATE = "chat_template.jinja"
SHOWN = "{% if add_generation_prompt %}{{ nashtune_text }}{% else %}{{ nashtune_text.rstrip() }}{% endif %}"


def finish_export(folder: Path, facts: RewardFile, tokenizer: Any) -> None:
    """Writes what is beside the weights, and settles what transformers reads them by.

    Training reads the score at the EOS that closes the answer. The saved chat template ends there too, so that
    anybody's `apply_chat_template` gives the tokens that were trained on.

    transformers takes a decoder's score at the last token that is not the padding token. Where padding shares its id
    with the EOS that ends a text, that is one token early (transformers#35352), so that what was trained is not what is
    scored. Then another token of the vocabulary becomes the padding token, in the saved config and tokenizer.

    Args:
        folder: A saved model or adapter, with its tokenizer.
        facts: What consumers must know.
        tokenizer: The one that the model was trained with.

    Raises:
        InputError: the chat template cannot be made to end where the score is read.
    """
    facts.write(folder)
    rendering = cast(Rendering, facts.template)
    trained = Conversations(tokenizer, rendering, str(folder), ends_at_eos=True).encode("a", "b").ids
    if trained != Conversations(tokenizer, rendering, str(folder)).encode("a", "b").ids:
        _end_at_eos(folder, tokenizer)
    end = trained[-1]
    pad = padding_token(tokenizer, end)
    if pad is None:
        note(
            f"the tokenizer of {folder.name} has no special token but {tokenizer.convert_ids_to_tokens(end)}, "
            "which ends texts, and so none to pad with. Plain transformers then reads the score of a padded text one "
            "token early, or refuses it; nashtune's oracles read it where it was trained"
        )
    if pad is not None and pad != tokenizer.pad_token:
        for name in (TOKENIZER_CONFIG, TOKEN_MAP):
            if (folder / name).is_file():
                _change(folder / name, pad_token=pad)
    if (folder / CONFIG).is_file():
        # the head is float32, also on a bfloat16 trunk: read in the trunk's dtype it would be rounded
        _change(folder / CONFIG, dtype="float32")
        if pad is not None:
            _set_padding(folder / CONFIG, int(tokenizer.convert_tokens_to_ids(pad)))


def padding_token(tokenizer: Any, end: int) -> str | None:
    """A token that ends no text: the tokenizer's padding token where that is so, else another special one.

    Args:
        tokenizer: A Hugging Face tokenizer.
        end: Token that its template puts last.

    Returns:
        None where the tokenizer has no such token.
    """
    special = sorted(tokenizer.get_added_vocab(), key=tokenizer.get_added_vocab().get)
    usual = [tokenizer.pad_token, tokenizer.unk_token, tokenizer.bos_token, *special]
    kept_out = {tokenizer.convert_ids_to_tokens(end)} | ({tokenizer.eos_token} - {tokenizer.pad_token})
    return next((token for token in usual if token is not None and token not in kept_out), None)


def _end_at_eos(folder: Path, tokenizer: Any) -> None:
    """Wrap the chat template so that nothing follows the last turn; a prompt for another turn stays as it is.

    Older folders keep the template in the tokenizer's config, so it is taken from the tokenizer that read it.
    """
    text = str(tokenizer.get_chat_template())
    # Templates are rendered with trim_blocks and lstrip_blocks, and without the newline that ends their source: the
    # newline behind the first tag is the one that is trimmed, and the empty text keeps spaces before the last tag.
    begin, close = "{% set nashtune_text %}\n", "{{ '' }}{% endset %}"
    wrapped = begin + text.removesuffix("\n") + close + SHOWN
    _check_same_text(tokenizer, text, wrapped)
    (folder / TEMPLATE).write_text(wrapped, encoding="utf-8")
    if (folder / TOKENIZER_CONFIG).is_file():
        _change(folder / TOKENIZER_CONFIG, chat_template=None)


def _check_same_text(tokenizer: Any, before: str, after: str) -> None:
    """Raise `InputError` where two templates differ in more than the whitespace behind the last turn."""
    asked = [{"role": "user", "content": "a"}]
    answered = [*asked, {"role": "assistant", "content": "b"}]
    for turns, opens in ((answered, False), ([*answered, *asked, answered[1]], False), (asked, True)):
        found = [
            tokenizer.apply_chat_template(turns, chat_template=one, tokenize=False, add_generation_prompt=opens)
            for one in (before, after)
        ]
        expected = found[0] if opens else found[0].rstrip()
        if found[1] != expected:
            raise InputError(
                f"export: the chat template cannot be saved so that it ends where the score is read: it would give "
                f"{found[1]!r} and not {expected!r}. Put a chat_template.jinja into policy.path that writes nothing "
                "behind the last turn, and train again, or use data.template: plain"
            )


def _change(file: Path, **values: Any) -> None:
    """Set values of a JSON file, and drop those that are None."""
    content = {**json.loads(file.read_text(encoding="utf-8")), **values}
    kept = {name: value for name, value in content.items() if name not in values or value is not None}
    file.write_text(json.dumps(kept, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _set_padding(file: Path, pad: int) -> None:
    content = json.loads(file.read_text(encoding="utf-8"))
    # a text model inside another one's config: transformers reads the padding token there
    _change(
        file, **({"text_config": content["text_config"] | {"pad_token_id": pad}} if "text_config" in content else {})
    )
    _change(file, pad_token_id=pad)
