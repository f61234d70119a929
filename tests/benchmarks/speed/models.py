"""Model folders of a shape: config, random weights, and a tokenizer in which every word is one token."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from speed.words import Words

LLAMA = {"model_type": "llama", "head_dim": 64, "vocab_size": 49152, "tie_word_embeddings": True}
SHAPES: dict[str, dict[str, Any]] = {
    "tiny": {**LLAMA, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4,
             "num_key_value_heads": 2, "head_dim": 16, "vocab_size": 2048},
    "llama30m": {**LLAMA, "hidden_size": 384, "intermediate_size": 1024, "num_hidden_layers": 8,
                 "num_attention_heads": 6, "num_key_value_heads": 3},
    "smollm135m": {**LLAMA, "hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30,
                   "num_attention_heads": 9, "num_key_value_heads": 3},
    "llama1b": {**LLAMA, "hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16,
                "num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 128256},
}  # fmt: skip
QWEN2 = {**SHAPES["llama30m"], "model_type": "qwen2"}
del QWEN2["head_dim"]
SHAPES |= {
    "qwen2_30m": QWEN2,
    "qwen3_30m": {**SHAPES["llama30m"], "model_type": "qwen3"},
    "mistral30m": {**SHAPES["llama30m"], "model_type": "mistral", "sliding_window": None},
    "gemma3_30m": {**SHAPES["llama30m"], "model_type": "gemma3_text", "sliding_window": 512},
    "qwen2_500m": {"model_type": "qwen2", "hidden_size": 896, "intermediate_size": 4864, "num_hidden_layers": 24,
                   "num_attention_heads": 14, "num_key_value_heads": 2, "vocab_size": 151936,
                   "tie_word_embeddings": True},
    "qwen2_1.5b": {"model_type": "qwen2", "hidden_size": 1536, "intermediate_size": 8960, "num_hidden_layers": 28,
                   "num_attention_heads": 12, "num_key_value_heads": 2, "vocab_size": 151936,
                   "tie_word_embeddings": True},
}  # fmt: skip
"""Name -> the options of a transformers config that differ from the architecture's own."""
DEMO = {"smollm135m": "demo:smollm2"}
"""Shape -> the demo model that has it, whose weights are used where its files are there."""


def make_model(shape: str, folder: Path, *, vocab: int | None, own_tokenizer: bool, seed: int) -> str:
    """Put a model into a folder.

    Args:
        shape: A name of `SHAPES`, a model folder, or a config.json.
        folder: Made.
        vocab: Vocabulary of a random model; None for the shape's own.
        own_tokenizer: Keep the tokenizer of a model folder; else words are tokens.
        seed: Of random weights.

    Returns:
        What the weights are, in words.
    """
    folder.mkdir(parents=True, exist_ok=True)
    source = _source(shape, vocab)
    if source is not None:
        for file in source.iterdir():
            if file.is_file():
                (folder / file.name).symlink_to(file.resolve())
        size = int(json.loads((folder / "config.json").read_text())["vocab_size"])
        what = "the weights of " + (DEMO[shape] if shape in DEMO else source.name)
    else:
        if own_tokenizer:
            raise SystemExit(f"--pairs-file: {shape} has random weights and no tokenizer; give the folder of a model")
        size, what = _random(shape, folder, vocab, seed), "random weights"
    if not own_tokenizer:
        _word_tokenizer(folder, size)
    return what


def _source(shape: str, vocab: int | None) -> Path | None:
    if Path(shape).is_dir():
        return Path(shape)
    if shape not in DEMO or vocab is not None:
        return None
    from nashtune.errors import InputError
    from nashtune.models.locate import resolve_model_path

    try:
        return resolve_model_path(DEMO[shape])
    except InputError as error:
        print(f"note: {shape} gets random weights: {error}")
        return None


def _random(shape: str, folder: Path, vocab: int | None, seed: int) -> int:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    if shape in SHAPES:
        options = dict(SHAPES[shape])
    elif Path(shape).is_file():
        options = json.loads(Path(shape).read_text())
    else:
        raise SystemExit(f"--model-shape {shape}: no such shape, folder or config.json; shapes: {', '.join(SHAPES)}")
    kind = options.pop("model_type")
    special = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2}
    config = AutoConfig.for_model(kind, **{"max_position_embeddings": 8192, **options, **special})
    if vocab is not None:
        config.vocab_size = vocab
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    model.save_pretrained(folder)
    return int(config.vocab_size)


def _word_tokenizer(folder: Path, size: int) -> None:
    """A tokenizer with as many tokens as the model, in place of the folder's own."""
    for old in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "special_tokens_map.json"):
        (folder / old).unlink(missing_ok=True)
    Words(size).save(folder)
    # one meaning of the special tokens in every file, or the peers tell each other's apart
    for name in ("config.json", "generation_config.json"):
        file = folder / name
        if not file.exists():
            continue
        settings = json.loads(file.read_text())
        settings |= {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2}
        file.unlink()
        file.write_text(json.dumps(settings, indent=2))
