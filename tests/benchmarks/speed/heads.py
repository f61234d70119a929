"""The LM head alone, forward and backward with all gradients: tiles against full logits. One process for each.

2,048 hidden states of size 576 that are given, vocabulary 49,152 (or --vocab). Full logits are as plain as they can be:
a linear map, log-softmax in float32, the targets' entries.

Memory is counted above the gradients of weight and hidden states, which both sides return; with them it is told too.
"""

from __future__ import annotations

import argparse
import json
from typing import Any

from speed.alternate import Bench, medians

TARGETS = {"wall": 1.2, "memory": 0.1}
FULL, TILED = "dense", "tiled"
FIGURES = ("wall", "cpu", "memory", "with_gradients")
HIDDEN = 576


def run(bench: Bench, rounds: int, vocab: int, tokens: int) -> dict[str, Any]:
    """Alternating processes in float32 and in bfloat16 products of float32 weights."""
    result: dict[str, Any] = {"vocab": vocab, "tokens": tokens, "hidden": HIDDEN}
    for dtype in ("fp32", "bf16"):
        found: dict[str, list[dict[str, float]]] = {FULL: [], TILED: []}
        for turn in range(rounds):
            for engine in (FULL, TILED)[:: 1 if turn % 2 == 0 else -1]:
                shown = bench.python("heads", engine, dtype, str(vocab), str(tokens))
                found[engine].append({name: shown[name] for name in FIGURES})
        shown = {engine: medians(runs) for engine, runs in found.items()}
        ratios = {name: shown[TILED][name]["median"] / shown[FULL][name]["median"] for name in FIGURES}
        result[dtype] = {"engines": shown, "ratios": ratios}
        print(
            f"    {dtype}: tiles against full logits {', '.join(f'{k} {v:.2f}' for k, v in ratios.items())}", flush=True
        )
    return result


def one(engine: str, dtype: str, vocab: int, tokens: int) -> dict[str, float]:
    """This process."""
    import torch
    from torch import Tensor

    from nashtune.logprobs.head import Head
    from nashtune.logprobs.tiles import tiled_logprobs
    from nashtune.logprobs.tiling import Tiling
    from speed.passes import cost, prepared

    device = prepared()
    draw = torch.Generator().manual_seed(0)
    weight = (0.02 * torch.randn(vocab, HIDDEN, generator=draw)).to(device).requires_grad_()
    compute = torch.bfloat16 if dtype == "bf16" else torch.float32
    head = Head(weight=weight, bias=None, scale=1.0, softcap=None, compute_dtype=compute)

    def full(hidden: Tensor, target: Tensor) -> Tensor:
        logits = torch.nn.functional.linear(hidden.to(compute), weight.to(compute)).float()
        return logits.log_softmax(-1).gather(1, target[:, None])[:, 0]

    def step(hidden: Tensor, target: Tensor) -> None:
        logp = full(hidden, target) if engine == FULL else tiled_logprobs(hidden, head, target, Tiling.on(device))
        torch.autograd.grad(logp.sum(), (weight, hidden))

    found: dict[str, float] = {}
    for size, repeats in ((64, 1), (tokens, 2)):  # the first for what a process does once
        hidden = torch.randn(size, HIDDEN, generator=draw).to(device).requires_grad_()
        target = torch.randint(vocab, (size,), generator=draw).to(device)
        found = cost(lambda hidden=hidden, target=target: step(hidden, target), device, repeats)
    returned = 4 * HIDDEN * (vocab + tokens) / 2**20
    return {**found, "memory": found["memory"] - returned, "with_gradients": found["memory"]}


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("engine")
    parser.add_argument("dtype")
    parser.add_argument("vocab", type=int)
    parser.add_argument("tokens", type=int)
    print(json.dumps(one(**vars(parser.parse_args()))))
