"""How the cost of a pass grows: sequence length, pairs, vocabulary, completions of a prompt, share of the prompt.

One process; forward and backward of nashtune's engines on the same tokens, `dense` (padded, full logits) beside the
engine that a run uses.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from typing import Any

BASE = {"prompts": 4, "completions": 2, "prompt": 128, "answer": 64}


def points(vocab: int, small: bool) -> Iterator[tuple[str, int, int, dict[str, Any]]]:
    """Axis, its value, vocabulary and the batch."""
    for length in (96, 192, 384) if small else (96, 192, 384, 768):
        yield "tokens of a sequence", length, vocab, BASE | {"prompt": 2 * length // 3, "answer": length // 3}
    for pairs in (1, 2, 4) if small else (1, 2, 4, 8):
        yield "pairs of a pass", pairs, vocab, BASE | {"prompts": pairs}
    for size in (vocab // 4, vocab) if small else (vocab // 4, vocab // 2, vocab, 2 * vocab):
        yield "vocabulary", size, size, BASE
    for completions in (2, 4) if small else (2, 4, 8):
        yield (
            "completions of a prompt",
            completions,
            vocab,
            BASE | {"prompts": 1, "completions": completions, "kind": "ranked"},
        )
    for share in (25, 75) if small else (10, 25, 50, 75, 90):
        prompt = 192 * share // 100
        yield "share of the prompt, %", share, vocab, BASE | {"prompt": prompt, "answer": 192 - prompt}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--shape", required=True)
    parser.add_argument("--vocab", type=int)
    parser.add_argument("--engine")
    parser.add_argument("--small", action="store_true")
    args = parser.parse_args()
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    from nashtune.logprobs import get_engine
    from speed.models import SHAPES
    from speed.passes import batch_of, default_engine, measure, prepared

    device = prepared()
    options = dict(SHAPES[args.shape])
    kind = options.pop("model_type")
    names: tuple[Any, ...] = tuple(dict.fromkeys(("dense", args.engine or default_engine())))
    models: dict[int, Any] = {}
    found = []
    for axis, value, vocab, shape in points(args.vocab or int(options["vocab_size"]), args.small):
        if vocab not in models:
            torch.manual_seed(0)
            config = AutoConfig.for_model(kind, **{**options, "vocab_size": vocab, "max_position_embeddings": 8192})
            model = AutoModelForCausalLM.from_config(config)
            models = {vocab: model.to(device)}
            for name in names:  # compiled or asked for once
                measure(models[vocab], get_engine(name), batch_of(2, 2, 4, 4, vocab=vocab), bf16=True, repeats=1)
        batch = batch_of(vocab=vocab, **shape)
        for name in names:
            cost = measure(models[vocab], get_engine(name), batch, bf16=True, repeats=1 if args.small else 2)
            found.append({"axis": axis, "value": value, "engine": name, **cost})
    print(json.dumps({"points": found, "shape": args.shape}))


if __name__ == "__main__":
    main()
