"""A step of ε-DPO against a step of DPO, both `nashtune fit` with the reference in the loop, bf16 autocast."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import Any

from speed.alternate import Bench, Peer, figures, medians, one_round
from speed.cases import made, settings, steps_of
from speed.nashtune_run import offline

TARGETS = {"step_seconds": 1.25, "peak_mb": 1.15}


def run(bench: Bench, args: Namespace, folder: Path, shape: str, rounds: int) -> dict[str, Any]:
    """Alternating rounds."""
    case = f"{shape}/bf16-live"
    what = made(bench, args, case, folder)
    given = settings(args, min(what["longest"], 64 * (args.prompt_median + args.answer_median)))

    def peer(spec: str) -> Peer:
        return Peer(
            spec,
            lambda out: offline(folder, out, given, spec=spec, precision="bf16", reference="live", engine=args.engine),
        )

    shown = []
    for turn in range(rounds):
        runs = one_round(bench, [peer("dpo"), peer("epsilon_dpo")], turn, steps_of(args, case))
        shown.append({name: figures(run) for name, run in runs.items()})
    peers = {name: medians([one[name] for one in shown]) for name in shown[0]}
    ratios = {name: peers["epsilon_dpo"][name]["median"] / peers["dpo"][name]["median"] for name in TARGETS}
    return {"model": what, "peers": peers, "ratios": ratios}
