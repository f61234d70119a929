"""What makes a saved reward model mean the same everywhere: its facts, its padding token, its head's precision."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

from nashtune.data.conversations import Conversations, Rendering
from nashtune.models.reward_folder import RewardFile

CONFIG, TOKENIZER_CONFIG, TOKEN_MAP = "config.json", "tokenizer_config.json", "special_tokens_map.json"
TEMPLATE = "chat_template.jinja"


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
    """
    facts.write(folder)
    rendering = cast(Rendering, facts.template)
    trained = Conversations(tokenizer, rendering, str(folder), ends_at_eos=True).encode("a", "b").ids
    if trained != Conversations(tokenizer, rendering, str(folder)).encode("a", "b").ids:
        _end_at_eos(folder / TEMPLATE)
    end = trained[-1]
    pad = padding_token(tokenizer, end)
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


def _end_at_eos(file: Path) -> None:
    """Wrap a chat template so that nothing follows the last turn; a prompt for another turn stays as it is."""
    text = file.read_text(encoding="utf-8")
    begin, close = "{% set nashtune_text %}", "{% endset %}"
    shown = "{% if add_generation_prompt %}{{ nashtune_text }}{% else %}{{ nashtune_text.rstrip() }}{% endif %}"
    file.write_text(begin + text + close + shown, encoding="utf-8")


def _change(file: Path, **values: Any) -> None:
    content = json.loads(file.read_text(encoding="utf-8"))
    file.write_text(json.dumps({**content, **values}, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _set_padding(file: Path, pad: int) -> None:
    content = json.loads(file.read_text(encoding="utf-8"))
    # a text model inside another one's config: transformers reads the padding token there
    _change(
        file, **({"text_config": content["text_config"] | {"pad_token_id": pad}} if "text_config" in content else {})
    )
    _change(file, pad_token_id=pad)
