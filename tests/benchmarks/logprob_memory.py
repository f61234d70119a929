"""Time and peak memory of a log-prob forward and backward: `tiled` against `dense`.

Run on demand: `python tests/benchmarks/logprob_memory.py`. Every measurement is a fresh process; the engines take turns
within each round. Memory is resident memory above what the process held with the model loaded and a small pass done; it
includes the gradients. CPU seconds are the steadier number where other work shares the machine.

Workloads, all with 2,048 completion tokens, hidden size 576 and a vocabulary of 49,152:
- head: no decoder layers and one prompt token, so that the LM head (tied) is nearly all there is;
- head, frozen: the same where the head gets no gradient, as under LoRA;
- model: four decoder layers and 128 prompt tokens before each completion of 128; most of its memory is activations of
  the layers, which no engine changes.

Required of `tiled` on both heads: a third of the memory of `dense` at most, and at most 1.2 times its time.
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

ENGINES = ("dense", "tiled")
WORKLOADS = {  # layers, prompt tokens, sequences, completion tokens, head trained
    "head": (0, 1, 8, 256, True),
    "head, frozen": (0, 1, 8, 256, False),
    "model": (4, 128, 16, 128, True),
}


def resident(field: str) -> float:
    """MB of `VmRSS` (now) or `VmHWM` (peak) of this process."""
    found = re.search(rf"{field}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found, field
    return int(found[1]) / 1024


def measure(engine_name: str, workload: str, dtype: str, repeats: int, threads: int) -> None:
    """One process: prints wall seconds, CPU seconds and peak memory as JSON."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from nashtune.logprobs import get_engine
    from nashtune.testing import token_batch

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
        tie_word_embeddings=head_trained,
        use_cache=False,
    )
    model = LlamaForCausalLM(config).to(torch.bfloat16 if dtype == "bf16" else torch.float32)
    model.lm_head.weight.requires_grad_(head_trained)
    engine = get_engine("dense" if engine_name == "dense" else "tiled")

    def step(size: tuple[int, int], count: int) -> None:
        batch = token_batch([size] * count, vocabulary=config.vocab_size)
        model.zero_grad(set_to_none=True)
        torch.autograd.backward(engine.logprobs(engine.forward(model, batch), batch).sums.sum())

    step((1, 4), 2)
    model.zero_grad(set_to_none=True)
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
    parser.add_argument("--one", nargs=3, metavar=("ENGINE", "WORKLOAD", "DTYPE"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        engine_name, workload, dtype = args.one
        measure(engine_name, workload, dtype, args.repeats, args.threads)
        return 0
    environment = {**os.environ, "OMP_NUM_THREADS": str(args.threads), "HF_HUB_OFFLINE": "1"}
    results: dict[tuple[str, str, str], list[dict[str, float]]] = {}
    cells = [(workload, dtype) for dtype in ("fp32", "bf16") for workload in WORKLOADS]
    for turn in range(args.rounds):
        for workload, dtype in cells:
            for engine in ENGINES[:: 1 if turn % 2 == 0 else -1]:
                command = [sys.executable, __file__, "--one", engine, workload, dtype, "--repeats", str(args.repeats)]
                out = subprocess.run(
                    [*command, "--threads", str(args.threads)], env=environment, check=True, stdout=subprocess.PIPE
                ).stdout
                results.setdefault((workload, dtype, engine), []).append(json.loads(out.splitlines()[-1]))
                print(".", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    print("| workload | dtype | engine | wall s | CPU s | peak MB | wall ratio | CPU ratio | memory ratio |")
    print("|---|---|---|---|---|---|---|---|---|")
    failed = False
    for workload, dtype in cells:
        medians = {}
        for engine in ENGINES:
            runs = results[workload, dtype, engine]
            columns = {name: [run[name] for run in runs] for name in ("wall", "cpu", "memory")}
            medians[engine] = {name: statistics.median(values) for name, values in columns.items()}
            ratio = {name: medians[engine][name] / medians["dense"][name] for name in columns}
            shown = " | ".join(spread(columns[name], 0 if name == "memory" else 2) for name in columns)
            print(f"| {workload} | {dtype} | {engine} | {shown} | {' | '.join(f'{r:.2f}' for r in ratio.values())} |")
        failed |= workload != "model" and (ratio["memory"] > 1 / 3 or min(ratio["wall"], ratio["cpu"]) > 1.2)
    print(
        "\n" + ("NOT met" if failed else "met") + ": a third of the memory and 1.2 times the time at most, on the heads"
    )
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
