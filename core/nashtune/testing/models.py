"""What tests of nashtune and of its plugins share: a tiny random model with a tokenizer and a chat template."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nashtune.interfaces.batch import RowKind, TokenBatch

CHAT_TEMPLATE = (
    "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}"
    "{% if m['role'] == 'assistant' %}{{ eos_token }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def tiny_model(folder: str | Path, *, seed: int = 0, layers: int = 2, hidden: int = 32, tie: bool = True) -> Path:
    """Save a random two-layer Llama with a byte-level tokenizer (no merges), and return its folder.

    The tokenizer knows every byte, so any text round-trips; EOS is `</s>`, and padding shares its id as in many real
    models.

    Args:
        folder: Where to save; made if missing.
        seed: Of the weights.
        layers: Decoder layers.
        hidden: Width, a multiple of 4.
        tie: Whether the LM head shares the embedding.
    """
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    folder = Path(folder)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    special = ["<unk>", "<s>", "</s>", "<|system|>", "<|user|>", "<|assistant|>"]
    vocab = {token: i for i, token in enumerate(special + alphabet)}
    raw = Tokenizer(models.BPE(vocab=vocab, merges=[], unk_token="<unk>"))
    raw.add_special_tokens(special)
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=raw, bos_token="<s>", eos_token="</s>", pad_token="</s>", unk_token="<unk>"
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=hidden,
        intermediate_size=2 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=2,
        tie_word_embeddings=tie,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = LlamaForCausalLM(config)
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def token_batch(
    sizes: Sequence[tuple[int, int]], *, seed: int = 0, pad: int = 0, kind: RowKind = "pairs", vocabulary: int = 262
) -> TokenBatch:
    """A right-padded batch of random tokens; sequence i is the same in every batch that has that size at place i.

    Args:
        sizes: (prompt tokens, completion tokens) of each sequence; for pairs the chosen ones, then the rejected ones.
        seed: Of the tokens.
        pad: Padding beyond the longest sequence.
        kind: What the sequences are.
        vocabulary: Token ids are drawn from [6, vocabulary): after the special tokens of `tiny_model`.
    """
    import torch

    from nashtune.interfaces.batch import TokenBatch

    width = max(prompt + completion for prompt, completion in sizes) + pad
    ids = torch.full((len(sizes), width), 2)
    attention, scored = torch.zeros_like(ids), torch.zeros(ids.shape, dtype=torch.bool)
    for i, (prompt, completion) in enumerate(sizes):
        length = prompt + completion
        draw = torch.Generator().manual_seed(1000 * seed + i)
        ids[i, :length] = torch.randint(6, vocabulary, (length,), generator=draw)
        attention[i, :length] = 1
        scored[i, prompt:length] = True
    rows = torch.arange(len(sizes) // 2 if kind == "pairs" else len(sizes))
    return TokenBatch(kind=kind, input_ids=ids, attention_mask=attention, completion_mask=scored, rows=rows)
