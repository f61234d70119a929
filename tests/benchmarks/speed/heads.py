"""The LM head alone, forward and backward with all gradients: tiles against full logits. One process for each engine.

2,048 completion tokens, hidden size 576, vocabulary 49,152 (or --vocab), no decoder layer and one prompt token, so that
the tied head is nearly all there is.
"""

from __future__ import annotations

import argparse
import json
import os
from typing import Any

from speed.alternate import Bench, medians

TARGETS = {"wall": 1.2, "memory": 0.1}
FULL, TILED = "dense", "tiled"


def run(bench: Bench, rounds: int, vocab: int, tokens: int) -> dict[str, Any]:
    """Alternating processes in float32 and in bf16 autocast."""
    result: dict[str, Any] = {"vocab": vocab, "tokens": tokens, "hidden": 576}
    for dtype in ("fp32", "bf16"):
        found: dict[str, list[dict[str, float]]] = {FULL: [], TILED: []}
        for turn in range(rounds):
            for engine in (FULL, TILED)[:: 1 if turn % 2 == 0 else -1]:
                shown = bench.python("heads", engine, dtype, str(vocab), str(tokens))
                found[engine].append({name: shown[name] for name in ("wall", "cpu", "memory")})
        shown = {engine: medians(runs) for engine, runs in found.items()}
        ratios = {
            name: shown[TILED][name]["median"] / shown[FULL][name]["median"] for name in ("wall", "cpu", "memory")
        }
        result[dtype] = {"engines": shown, "ratios": ratios}
        print(
            f"    {dtype}: tiles against full logits {', '.join(f'{k} {v:.2f}' for k, v in ratios.items())}", flush=True
        )
    return result


def one(engine: str, dtype: str, vocab: int, tokens: int) -> dict[str, float]:
    """This process."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from nashtune.logprobs import get_engine
    from speed.passes import batch_of, measure

    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=vocab,
        hidden_size=576,
        intermediate_size=1536,
        num_hidden_layers=0,
        num_attention_heads=9,
        num_key_value_heads=3,
        tie_word_embeddings=True,
        use_cache=False,
    )
    model = LlamaForCausalLM(config)
    if torch.cuda.is_available():
        model.cuda()
    made: Any = get_engine(engine)  # type: ignore[arg-type]
    bf16 = dtype == "bf16"
    measure(model, made, batch_of(1, 2, 1, 4, vocab=vocab), bf16=bf16, repeats=1)
    return measure(model, made, batch_of(4, 2, 1, tokens // 8, vocab=vocab), bf16=bf16, repeats=2)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("engine")
    parser.add_argument("dtype")
    parser.add_argument("vocab", type=int)
    parser.add_argument("tokens", type=int)
    print(json.dumps(one(**vars(parser.parse_args()))))
