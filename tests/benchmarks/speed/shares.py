"""Where the time of a step of `nashtune fit` goes: by part of the step, from torch's profiler.

Each operator's own time counts for the part that it runs in. What no operator accounts for is Python: Lightning, the
batch on the host, autograd's bookkeeping.
"""

from __future__ import annotations

import re
import time
from argparse import Namespace
from pathlib import Path
from typing import Any

from speed.alternate import Bench
from speed.cases import label, made, settings, steps_of
from speed.nashtune_run import offline
from speed.probe import PROFILED

MODES = ("bf16-live", "fp32-cached")
HEAD = "speed: head"
WITHIN = {
    "LM head": rf"{HEAD}|_TiledLogProb",
    "attention": r"_Rows|_Segments|scaled_dot_product|flex_attention",
    "optimiser, clipping, gradient norms": r"_fused_adamw|linalg_vector_norm|_foreach",
    "embedding and sums of gradients": r"[Ee]mbedding|AccumulateGrad",
}
"""Part -> what the name of an operator, or of one that it runs in, contains; the innermost decides.

A step of the optimiser is none of these: Lightning runs forward and backward inside of it."""
ALONE = {
    "layers: matrix products": r"::(mm|addmm|bmm|linear|matmul)",
    "layers: casts and copies": r"::(copy_|_to_copy|to|clone|contiguous|cat|index|slice|view)",
    "layers: norms, activations, rotations": r"aten::",
}
"""The same of operators outside of those parts, by their own name."""
HOST = "Python on the host"


def start_profile() -> Any:
    """Record operators from here on; the LM head's passes by name, as they run outside of autograd."""
    from torch.profiler import ProfilerActivity, profile, record_function

    from nashtune.logprobs import tiled

    for name in ("tiled_logprobs", "tiled_comparison"):
        inner = getattr(tiled, name)

        def named(*args: Any, inner: Any = inner, **kwargs: Any) -> Any:
            with record_function(HEAD):
                return inner(*args, **kwargs)

        setattr(tiled, name, named)
    found = profile(activities=[ProfilerActivity.CPU])
    found.start()
    return found, time.perf_counter()


def read_profile(started: Any) -> dict[str, float]:
    """Share of each part in the time of the step."""
    profile, began = started
    whole = 1e6 * (time.perf_counter() - began)
    profile.stop()
    spent = dict.fromkeys((*ALONE, *WITHIN), 0.0)
    for event in profile.events():
        if (part := _part(event)) is not None:
            spent[part] += event.self_cpu_time_total
    shares = {name: spent_us / whole for name, spent_us in spent.items()}
    return {**shares, HOST: max(0.0, 1.0 - sum(shares.values()))}


def _part(event: Any) -> str | None:
    """Of the step; None for what is no operator."""
    names, at = [], event
    while at is not None:
        names.append(at.name)
        at = at.cpu_parent
    for name in names:
        for part, pattern in WITHIN.items():
            if re.search(pattern, name):
                return part
    return next((part for part, pattern in ALONE.items() if re.search(pattern, event.name)), None)


def run(bench: Bench, args: Namespace, folder: Path, shape: str) -> list[dict[str, Any]]:
    """One process for each mode."""
    found = []
    for mode in MODES:
        case = f"{shape}/{mode}"
        what = made(bench, args, f"{shape}/{MODES[0]}", folder)
        given = settings(args, min(what["longest"], 64 * (args.prompt_median + args.answer_median)))
        place = bench.folder()
        precision, reference = mode.split("-")
        command = offline(
            folder, place / "out", given, spec="dpo", precision=precision, reference=reference, engine=args.engine
        )
        measured = bench.run(command, folder=place, steps=steps_of(args, case), env={PROFILED: "1"})
        seconds = measured["ends"][-1] - measured["begins"][-1]
        found.append({"case": label(case), "shares": measured["shares"], "seconds": seconds})
        top = sorted(measured["shares"].items(), key=lambda one: -one[1])
        print(f"    {case}: {', '.join(f'{name} {share:.0%}' for name, share in top[:4])}", flush=True)
    return found
