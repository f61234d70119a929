"""Time and memory of one forward and backward pass; what `heads` and `scaling` share. Needs torch."""

from __future__ import annotations

import ctypes
import inspect
import os
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch

from nashtune import cpu
from nashtune.interfaces import TokenBatch
from speed.probe import status


def default_engine() -> str:
    """The engine of a run that names none."""
    from nashtune.training.module import AlignmentModule

    return str(inspect.signature(AlignmentModule.__init__).parameters["engine"].default)


def batch_of(
    prompts: int, completions: int, prompt: int, answer: int, *, vocab: int, kind: str = "pairs", seed: int = 0
) -> TokenBatch:
    """Random tokens: so many prompts of equal length, each with its completions of equal length.

    Pairs are laid out as all chosen and then all rejected; ranked lists prompt by prompt.
    """
    random = torch.Generator().manual_seed(seed)
    texts = torch.randint(4, vocab, (prompts, prompt), generator=random)
    answers = torch.randint(4, vocab, (prompts, completions, answer), generator=random)
    if kind == "pairs":
        ids = torch.cat([torch.cat([texts, answers[:, k]], dim=1) for k in range(completions)])
        sizes = None
    else:
        ids = torch.cat([texts.repeat_interleave(completions, 0), answers.flatten(0, 1)], dim=1)
        sizes = torch.full((prompts,), completions)
    scored = torch.zeros(ids.shape, dtype=torch.bool)
    scored[:, prompt:] = True
    rows = torch.arange(prompts)
    return TokenBatch(
        kind=kind, input_ids=ids, attention_mask=torch.ones_like(ids), completion_mask=scored, rows=rows, sizes=sizes
    )


def measure(model: Any, engine: Any, batch: TokenBatch, *, bf16: bool, repeats: int) -> dict[str, float]:
    """See `cost`, of forward and backward of a batch's log-probs; gradients are in its memory."""
    device = next(model.parameters()).device
    batch = batch.to(device)

    def step() -> None:
        model.zero_grad(set_to_none=True)
        with torch.autocast(device.type, torch.bfloat16) if bf16 else nullcontext():
            sums = engine.logprobs(engine.forward(model, batch), batch).sums
        torch.autograd.backward(sums.sum())

    model.zero_grad(set_to_none=True)
    return {**cost(step, device, repeats), "tokens": int(batch.attention_mask.sum())}


def cost(step: Callable[[], None], device: torch.device, repeats: int) -> dict[str, float]:
    """Least wall and CPU seconds of some calls, and their peak memory above what was there, MB."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        base = torch.cuda.memory_allocated() / 2**20
    else:
        ctypes.CDLL(None).malloc_trim(0)
        base = status("VmRSS")
        Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
    wall, spent = [], []
    for _ in range(repeats):
        start, used = time.perf_counter(), time.process_time()
        step()
        if device.type == "cuda":
            torch.cuda.synchronize()
        wall.append(time.perf_counter() - start)
        spent.append(time.process_time() - used)
    top = torch.cuda.max_memory_allocated() / 2**20 if device.type == "cuda" else status("VmHWM")
    return {"wall": min(wall), "cpu": min(spent), "memory": top - base}


def prepared() -> torch.device:
    """The device of a process, with threads and CPU kernels set up as `fit` does."""
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    if torch.cuda.is_available():
        return torch.device("cuda")
    cpu.tune()
    return torch.device("cpu")


def least(runs: Sequence[dict[str, float]]) -> dict[str, float]:
    """The smallest of every figure."""
    return {name: min(run[name] for run in runs) for name in runs[0]}
