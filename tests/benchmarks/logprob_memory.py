"""Time and peak memory of the LM head: `tiled` against `dense`, and an epsilon-DPO step against a DPO step.

Run on demand: `python tests/benchmarks/logprob_memory.py`. Every measurement is a fresh process; the two that are
compared take turns within each round. Memory is resident memory above what the process holds with the model and its
gradients. CPU seconds are the steadier number where other work shares the machine.

Workloads, all with a hidden size of 576 and a vocabulary of 49,152:
- head: no decoder layers, 2,048 completion tokens behind prompts of one token, and the embedding frozen, so that the LM
  head is nearly all there is;
- head, frozen: the same where the head gets no gradient, as under LoRA;
- model: four decoder layers and 128 prompt tokens before each completion of 128; most of its memory is activations of
  the layers, which no engine changes;
- step: eight layers, 64 prompt tokens before each of 8 completions of 128, weights in float32, bf16 by autocast;
  log-probs of the policy and of a live reference, with and without the statistics of epsilon-DPO, and backward.

Required: of `tiled` on the trained head in float32 a tenth of the memory of `dense` at most, and 1.2 times its time; of
the epsilon-DPO step 1.15 times the memory of the DPO step and 1.25 times its time.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import time
from pathlib import Path

WORKLOADS = {  # layers, prompt tokens, sequences, completion tokens, head trained
    "head": (0, 1, 8, 256, True),
    "head, frozen": (0, 1, 8, 256, False),
    "model": (4, 128, 16, 128, True),
    "step": (8, 64, 8, 128, True),
}
COMPARED = {name: ("dpo", "epsilon_dpo") if name == "step" else ("dense", "tiled") for name in WORKLOADS}
REQUIRED = {("head", "fp32"): (1.2, 0.1), ("step", "fp32"): (1.25, 1.15), ("step", "bf16"): (1.25, 1.15)}


def resident(field: str) -> float:
    """MB of `VmRSS` (now) or `VmHWM` (peak) of this process."""
    found = re.search(rf"{field}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found, field
    return int(found[1]) / 1024


def measure(variant: str, workload: str, dtype: str, repeats: int, threads: int) -> None:
    """One process: prints wall seconds, CPU seconds and peak memory as JSON."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from nashtune.logprobs import get_engine
    from nashtune.testing import token_batch
    from nashtune_plugins.epsilon_dpo import EpsilonDPOController

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    layers, prompt, sequences, completion, head_trained = WORKLOADS[workload]
    config = LlamaConfig(
        vocab_size=49152,
        hidden_size=576,
        intermediate_size=1536,
        num_hidden_layers=layers,
        num_attention_heads=9,
        num_key_value_heads=3,
        tie_word_embeddings=workload in ("model", "step"),
        use_cache=False,
    )
    autocast = torch.autocast("cpu", dtype=torch.bfloat16, enabled=workload == "step" and dtype == "bf16")
    weights = torch.bfloat16 if dtype == "bf16" and workload != "step" else torch.float32
    model = LlamaForCausalLM(config).to(weights)
    if workload.startswith("head"):
        model.model.embed_tokens.weight.requires_grad_(False)
        model.model.norm.weight.requires_grad_()  # so that hidden states have a gradient
    model.lm_head.weight.requires_grad_(head_trained)
    ref = LlamaForCausalLM(config).requires_grad_(False) if workload == "step" else None
    engine = get_engine("dense" if variant == "dense" else "tiled")
    statistics = EpsilonDPOController(beta=0.1, epsilon=0.01).token_statistics

    def step(size: tuple[int, int], count: int) -> None:
        batch = token_batch([size] * count, vocabulary=config.vocab_size)
        model.zero_grad(set_to_none=True)
        with autocast:
            features = engine.forward(model, batch)
            if ref is None:
                total = engine.logprobs(features, batch).sums.sum()
            else:
                with torch.no_grad():
                    frozen = engine.forward(ref, batch)
                if variant == "dpo":
                    total = engine.logprobs(features, batch).sums.sum()
                    with torch.no_grad():
                        engine.logprobs(frozen, batch)
                else:
                    total = engine.compared(features, frozen, batch, statistics)[0].sums.sum()
        torch.autograd.backward(total)

    step((1, 4), 2)  # leaves gradients
    base = resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
    wall, cpu = [], []
    for _ in range(repeats):
        start, used = time.perf_counter(), time.process_time()
        step((prompt, completion), sequences)
        wall.append(time.perf_counter() - start)
        cpu.append(time.process_time() - used)
    print(json.dumps({"wall": min(wall), "cpu": min(cpu), "memory": resident("VmHWM") - base}))


def spread(values: list[float], digits: int) -> str:
    """Median and range."""
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f}-{max(values):.{digits}f})"


def main() -> int:
    """Prints the table; returns 1 where a requirement is not met."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="fresh processes for each cell")
    parser.add_argument("--repeats", type=int, default=2, help="passes in a process; the fastest counts")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--one", nargs=3, metavar=("VARIANT", "WORKLOAD", "DTYPE"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        variant, workload, dtype = args.one
        measure(variant, workload, dtype, args.repeats, args.threads)
        return 0
    environment = {**os.environ, "OMP_NUM_THREADS": str(args.threads), "HF_HUB_OFFLINE": "1"}
    results: dict[tuple[str, str, str], list[dict[str, float]]] = {}
    cells = [(workload, dtype) for dtype in ("fp32", "bf16") for workload in WORKLOADS]
    for turn in range(args.rounds):
        for workload, dtype in cells:
            for variant in COMPARED[workload][:: 1 if turn % 2 == 0 else -1]:
                command = [sys.executable, __file__, "--one", variant, workload, dtype, "--repeats", str(args.repeats)]
                out = subprocess.run(
                    [*command, "--threads", str(args.threads)], env=environment, check=True, stdout=subprocess.PIPE
                ).stdout
                results.setdefault((workload, dtype, variant), []).append(json.loads(out.splitlines()[-1]))
                print(".", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    print("| workload | dtype | variant | wall s | CPU s | peak MB | wall ratio | CPU ratio | memory ratio |")
    print("|---|---|---|---|---|---|---|---|---|")
    verdicts: list[str] = []
    for workload, dtype in cells:
        medians = {}
        first = COMPARED[workload][0]
        for variant in COMPARED[workload]:
            runs = results[workload, dtype, variant]
            columns = {name: [run[name] for run in runs] for name in ("wall", "cpu", "memory")}
            medians[variant] = {name: statistics.median(values) for name, values in columns.items()}
            ratio = {name: medians[variant][name] / medians[first][name] for name in columns}
            shown = " | ".join(spread(columns[name], 0 if name == "memory" else 2) for name in columns)
            print(f"| {workload} | {dtype} | {variant} | {shown} | {' | '.join(f'{r:.2f}' for r in ratio.values())} |")
        if (workload, dtype) in REQUIRED:
            time_limit, memory_limit = REQUIRED[workload, dtype]
            met = ratio["memory"] <= memory_limit and min(ratio["wall"], ratio["cpu"]) <= time_limit
            verdicts.append(
                f"{'met' if met else 'NOT met'}: {workload}, {dtype}: {time_limit}x time, {memory_limit}x memory"
            )
    print("\n" + "\n".join(verdicts))
    failed = any(verdict.startswith("NOT") for verdict in verdicts)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
