"""Where the time of a step of `nashtune fit` goes, by family of torch operators."""

from __future__ import annotations

import re
from argparse import Namespace
from pathlib import Path
from typing import Any

from speed.alternate import Bench
from speed.cases import label, made, settings, steps_of
from speed.nashtune_run import offline
from speed.probe import PROFILED

FAMILIES = {
    "attention": r"scaled_dot_product|flash_attention|_softmax",
    "matrix products": r"::(mm|addmm|bmm|baddbmm|linear|matmul|mkldnn_linear|_weight_int)",
    "optimiser and clipping": r"adam|foreach|clip|norm$|linalg_vector_norm",
    "casts and copies": r"::(copy_|_to_copy|to|clone|contiguous|cat|index|gather|scatter|embedding|index_select)",
    "elementwise and reductions": r"aten::",
    "autograd and Python": r"",
}
"""Name -> what an operator's name contains; the first that fits counts."""


def start_profile() -> Any:
    """Record operators from here on."""
    from torch.profiler import ProfilerActivity, profile

    found = profile(activities=[ProfilerActivity.CPU])
    found.start()
    return found


def read_profile(profile: Any) -> dict[str, float]:
    """Share of each family in the operators' own CPU time."""
    profile.stop()
    spent = dict.fromkeys(FAMILIES, 0.0)
    for event in profile.key_averages():
        family = next(name for name, pattern in FAMILIES.items() if re.search(pattern, event.key))
        spent[family] += event.self_cpu_time_total
    whole = sum(spent.values())
    return {name: time / whole for name, time in spent.items()}


def run(bench: Bench, args: Namespace, folder: Path, shape: str) -> dict[str, Any]:
    """One process of its own, bf16 autocast, live reference."""
    case = f"{shape}/bf16-live"
    what = made(bench, args, case, folder)
    given = settings(args, min(what["longest"], 64 * (args.prompt_median + args.answer_median)))
    place = bench.folder()
    command = offline(folder, place / "out", given, spec="dpo", precision="bf16", reference="live", engine=args.engine)
    measured = bench.run(command, folder=place, steps=steps_of(args, case), env={PROFILED: "1"})
    return {"case": label(case), "shares": measured["shares"]}
