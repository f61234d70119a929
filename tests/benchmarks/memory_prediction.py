"""Predicted peak memory against what `fit` reports: both commands on one random model of 30M parameters, on a CPU.

    python tests/benchmarks/memory_prediction.py [--engine tiled ...] [--folder FOLDER] [--write docs/memory.md]

Each run is a process of its own with three optimiser steps, one after another.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

LORA = ("--policy.lora.r", "16")
BF16 = ("--trainer.precision", "bf16-mixed")
CACHED = ("--spec.references.ref", "cached")
CHECKPOINTING = ("--policy.gradient_checkpointing", "true")
WHOLE = ("--data.batch_tokens", "100000")  # a batch in one pass, so that activations weigh something

CASES: dict[str, tuple[str, tuple[str, ...]]] = {
    "float32, live reference": ("short", ()),
    "float32, cached reference": ("short", CACHED),
    "float32, live, long rows": ("long", ()),
    "float32, cached, long rows in one pass": ("long", (*CACHED, *WHOLE)),
    "the same with checkpointing": ("long", (*CACHED, *WHOLE, *CHECKPOINTING)),
    "bf16-mixed, live, long rows": ("long", BF16),
    "bf16-mixed, cached, long rows in one pass": ("long", (*BF16, *CACHED, *WHOLE)),
    "bf16 weights, stochastic rounding, cached": (
        "long",
        ("--policy.precision", "bf16", "--spec.optimizer.rounding", "stochastic", *CACHED),
    ),
    "LoRA on float32, bf16-mixed, long rows in one pass": ("long", (*LORA, *BF16, *WHOLE)),
    "LoRA on bf16 weights, long rows": ("long", (*LORA, "--policy.precision", "bf16")),
    "rmsprop, cached": ("short", ("--spec.optimizer.name", "rmsprop", *CACHED)),
}
"""Name -> data file and options."""


def make_model(folder: Path) -> None:
    """A Llama of 30M parameters with a vocabulary of 49k, and a tokenizer of single bytes."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from nashtune.testing import tiny_model

    tiny_model(folder)
    config = LlamaConfig(
        vocab_size=49152,
        hidden_size=384,
        intermediate_size=1024,
        num_hidden_layers=8,
        num_attention_heads=6,
        num_key_value_heads=2,
        max_position_embeddings=2048,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=2,
        tie_word_embeddings=True,
    )
    torch.manual_seed(0)
    LlamaForCausalLM(config).save_pretrained(folder)


def make_rows(file: Path, size: int) -> None:
    """Pairs with prompts and answers of up to `size` characters, which are tokens here."""
    draw = random.Random(0)

    def text(start: str) -> str:
        return start + "".join(draw.choice("abcdefgh ") for _ in range(int(size * draw.uniform(0.5, 1))))

    rows = [{"prompt": text("p"), "chosen": text("c"), "rejected": text("r")} for _ in range(24)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def nashtune(*argv: str) -> str:
    """Standard output of a command."""
    program = [sys.executable, "-m", "nashtune", *argv]
    done = subprocess.run(program, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    if done.returncode:
        raise SystemExit(f"{' '.join(argv)}\n{done.stdout}{done.stderr}")
    return done.stdout


def measure(folder: Path, engine: str, case: str, number: int) -> tuple[int, float, dict[str, float]]:
    """Predicted and reported bytes, and the parts of the prediction."""
    data, options = CASES[case]
    run = ("--policy.path", str(folder / "model"), "--data.train", str(folder / f"{data}.jsonl"))
    cache = ("--spec.references.ref.folder", str(folder / "cache")) if "cached" in options else ()
    shared = (*run, "--data.template", "plain", "--engine", engine, "--trainer.accelerator", "cpu", *options, *cache)
    shared = (*shared, "--data.batch_size", "4", "--trainer.max_steps", "3", "--spec.optimizer.warmup", "0")
    shared = shared if "--spec.optimizer.name" in options else (*shared, "--spec.optimizer.name", "adamw")
    (checked,) = json.loads(nashtune("check", "dpo", "--json", *shared))
    where = folder / f"run-{engine}-{number}"
    shutil.rmtree(where, ignore_errors=True)  # of an earlier call with the same --folder
    nashtune("fit", "--spec", "dpo", *shared, "--run_dir", str(where))
    report = json.loads((where / "report.json").read_text(encoding="utf-8"))
    return checked["memory"]["peak"], report["throughput"]["peak_memory_gib"] * 2**30, checked["memory"]["parts"]


def main() -> None:
    """Print the table, and put it into a page where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engine", nargs="+", default=["shared", "tiled"])
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--only", nargs="+", type=int, help="numbers of cases")
    parser.add_argument("--write", type=Path)
    args = parser.parse_args()
    folder = args.folder or Path(tempfile.mkdtemp())
    if not (folder / "model").is_dir():
        make_model(folder / "model")
        for name, size in (("short", 100), ("long", 400)):
            make_rows(folder / f"{name}.jsonl", size)
    lines = ["| setting | engine | predicted (GiB) | reported (GiB) | error |", "|---|---|---|---|---|"]
    print("\n".join(lines))
    for engine in args.engine:
        for number, case in enumerate(CASES):
            if args.only and number not in args.only:
                continue
            predicted, reported, parts = measure(folder, engine, case, number)
            error = predicted / reported - 1
            line = f"| {case} | {engine} | {predicted / 2**30:.2f} | {reported / 2**30:.2f} | {error:+.0%} |"
            lines.append(line)
            print(line, {name: round(part / 1e6) for name, part in parts.items()}, flush=True)
    if args.write:
        page = args.write.read_text(encoding="utf-8")
        before, _, rest = page.partition("<!-- table -->\n")
        _, _, after = rest.partition("<!-- end of table -->\n")
        table = "<!-- table -->\n" + "\n".join(lines) + "\n<!-- end of table -->\n"
        args.write.write_text(before + table + after, encoding="utf-8")


if __name__ == "__main__":
    main()
