"""Training on pairs, `nashtune fit` against TRL's DPOTrainer: the cases, their peers and what is required."""

from __future__ import annotations

import json
import sys
from argparse import Namespace
from pathlib import Path
from typing import Any

from nashtune.cpu import slow_in_float32
from speed.alternate import Bench, Peer, figures, medians, one_round
from speed.nashtune_run import offline

LR, BETA, CLIP = 1e-5, 0.1, 1.0
NASHTUNE, TRL, SKIP = "nashtune", "TRL", "TRL, masked positions skipped"
ONEDNN = "TRL, products by oneDNN"
"""In float32 on processors where `fit` has its products computed by oneDNN: the same for TRL, which leaves it to
torch."""
SPEED_TARGETS: dict[tuple[str, str], float] = {
    ("llama30m/bf16-live", TRL): 5.0,
    ("llama30m/bf16-cached", TRL): 6.0,
    ("llama30m/bf16-cached", SKIP): 2.4,
    ("llama30m/fp32-cached", TRL): 5.0,
    ("smollm135m/bf16-live", TRL): 3.2,
    ("smollm135m/bf16-cached", TRL): 3.3,
    ("smollm135m/bf16-cached", SKIP): 2.2,
}
"""Least ratio of real tokens a second, by case and peer."""
MEMORY_TARGETS = {"llama30m": 0.35, "smollm135m": 0.55}
"""Largest ratio of peak memory to TRL as shipped, by shape."""


TOLERANCES = {"fp32": 1e-4, "bf16": 0.05}
"""Largest difference of a step's loss between the peers, by precision; relative to the loss where that is above 1."""
STEPS = {"smollm135m": 4, "smollm135m/bf16-live": 3, "smollm135m+texts/bf16-live": 3}
"""Shape or case -> optimiser steps of a process where a step costs much; else `USUAL_STEPS`."""
USUAL_STEPS, QUICK_STEPS = 6, 3
TEXTS = "+texts"
"""End of a shape's name where the pairs are those of a file."""


def shape_of(case: str) -> str:
    """A case without its mode."""
    return case.rpartition("/")[0]


def steps_of(args: Namespace, case: str) -> int:
    """Optimiser steps of each process of a case."""
    if args.pairs is not None:
        return int(args.pairs) // int(args.batch)
    if args.quick:
        return QUICK_STEPS
    return STEPS.get(case, STEPS.get(shape_of(case).removesuffix(TEXTS), USUAL_STEPS))


def settings(args: Namespace, longest: int) -> dict[str, Any]:
    """What both peers are told."""
    return {
        "lr": LR,
        "beta": BETA,
        "clip": CLIP,
        "batch": args.batch,
        "max_length": longest,
        "seed": args.seed,
    }


def made(bench: Bench, args: Namespace, case: str, folder: Path, **changes: Any) -> dict[str, Any]:
    """The model and data of a case, made at the first call for that folder."""
    file = folder / "made.json"
    if not file.exists():
        folder.mkdir(parents=True, exist_ok=True)
        shape = shape_of(case).removesuffix(TEXTS)
        texts = shape_of(case).endswith(TEXTS)
        given = {
            "shape": str(Path(shape).resolve()) if Path(shape).exists() else shape,
            "folder": str(folder),
            "vocab": args.vocab,
            "pairs": steps_of(args, case) * args.batch,
            "batch": args.batch,
            "prompt": args.prompt_median,
            "answer": args.answer_median,
            "pairs_file": str(args.pairs_file.resolve()) if texts else None,
            "seed": args.seed,
            **changes,
        }
        # the demo model is looked up in the user's own cache, not in the process's
        bench.python("prepare", json.dumps(given), str(file), env=_own_cache())
    what: dict[str, Any] = json.loads(file.read_text())
    return what


def _own_cache() -> dict[str, str]:
    from nashtune.cache import cache_root

    return {"NASHTUNE_CACHE": str(cache_root())}


def trl_command(
    folder: Path,
    out: Path,
    given: dict[str, Any],
    *,
    precision: str,
    reference: str,
    plain: bool,
    skip: bool = False,
    onednn: bool = False,
) -> list[str]:
    """Command of the TRL script."""
    return [
        *(sys.executable, "-m", "speed.trl_dpo", "--model", str(folder / "model"), "--out", str(out)),
        *("--pairs", str(folder / "pairs.jsonl"), "--order", str(folder / "order.json")),
        *("--batch", str(given["batch"]), "--lr", str(given["lr"]), "--beta", str(given["beta"])),
        *("--clip", str(given["clip"]), "--max-length", str(given["max_length"])),
        *("--precision", precision, "--reference", reference, "--steps", str(given.get("steps", -1))),
        *(["--no-checkpointing"] if plain else []),
        *(["--skip-masked"] if skip else []),
        *(["--onednn"] if onednn else []),
        *(["--gradients", given["gradients"]] if given.get("gradients") else []),
    ]


def peers(case: str, folder: Path, given: dict[str, Any], args: Namespace, gpu: bool) -> list[Peer]:
    """Who takes part in a case."""
    precision, reference, *rest = case.rpartition("/")[2].split("-")
    plain = reference == "cached" or "plain" in rest

    def ours(out: Path) -> list[str]:
        return offline(folder, out, given, spec="dpo", precision=precision, reference=reference, engine=args.engine)

    def theirs(**changes: bool) -> Any:
        return lambda out: trl_command(
            folder, out, given, precision=precision, reference=reference, plain=plain, **changes
        )

    found = [Peer(TRL, theirs()), Peer(NASHTUNE, ours)]
    if plain and not gpu and precision == "bf16":  # a GPU skips them anyway
        found.insert(1, Peer(SKIP, theirs(skip=True)))
    if not gpu and precision == "fp32" and slow_in_float32():
        found.insert(1, Peer(ONEDNN, theirs(onednn=True)))
    return found


def label(case: str) -> str:
    """A case's name in the results: of a shape that is a file or folder, without the place."""
    shape, _, mode = case.rpartition("/")
    place = Path(shape.removesuffix(TEXTS))
    return f"{Path(shape).name if place.exists() else shape}/{mode}"


def run_case(bench: Bench, args: Namespace, case: str, folder: Path, turn: int, results: dict[str, Any]) -> None:
    """One more round of a case.

    Raises:
        RuntimeError: the peers trained on other tokens, or their losses differ by more than `TOLERANCES`.
    """
    what = made(bench, args, case, folder)
    given = settings(args, min(what["longest"], 64 * (args.prompt_median + args.answer_median)))
    steps = steps_of(args, case)
    runs = one_round(bench, peers(case, folder, given, args, bench.gpu), turn, steps)
    entry = results.setdefault(label(case), {"model": what, "steps": steps, "rounds": []})
    entry["rounds"].append(runs)
    counts = {name: run["tokens"] for name, run in runs.items()}
    if len({tuple(tokens) for tokens in counts.values()}) > 1:
        raise RuntimeError(f"{case}: the peers did not train on the same tokens: {counts}")
    if why := judge(case, entry):
        raise RuntimeError(why)


def judge(case: str, entry: dict[str, Any]) -> str | None:
    """Fill in what the rounds of a case show; why it fails, where its losses differ by too much."""
    entry["summary"] = summary(entry["rounds"])
    entry["tolerance"] = TOLERANCES[case.rpartition("/")[2].partition("-")[0]]
    entry["loss_difference"], name, step, one, other = max(
        (abs(one - other) / max(1.0, abs(other)), name, step, one, other)
        for run in entry["rounds"]
        for name, peer in run.items()
        for step, (one, other) in enumerate(zip(peer["losses"], run[TRL]["losses"], strict=True))
    )
    if entry["loss_difference"] <= entry["tolerance"]:
        return None
    return (
        f"the loss of step {step + 1} is {one:.6f} ({name}) and {other:.6f} ({TRL}); tolerance {entry['tolerance']:g}"
    )


def summary(rounds: list[dict[str, dict[str, Any]]]) -> dict[str, Any]:
    """Medians of every peer's figures, and ratios against nashtune taken within each round."""
    shown = [{name: figures(run) for name, run in one.items()} for one in rounds]
    names = list(shown[0])
    result: dict[str, Any] = {"peers": {name: medians([one[name] for one in shown]) for name in names}, "ratios": {}}
    for name in names:
        if name == NASHTUNE:
            continue
        shared = [figure for figure in shown[0][NASHTUNE] if figure in shown[0][name]]
        ratios = [{figure: one[NASHTUNE][figure] / one[name][figure] for figure in shared} for one in shown]
        result["ratios"][name] = medians(ratios)
        # the figure that is held against the target: the ratio of medians
        for figure in result["ratios"][name]:
            over, under = (result["peers"][side][figure]["median"] for side in (NASHTUNE, name))
            result["ratios"][name][figure]["of_medians"] = over / under
    return result


def verdicts(case: str, ratios: dict[str, Any]) -> list[tuple[str, float, str, float, bool]]:
    """What is required of a case: (what, ratio, sign, target, met)."""
    shape = shape_of(case)
    found = []
    for name, figure in ratios.items():
        if (target := SPEED_TARGETS.get((case, name))) is not None:
            value = figure["tokens_per_second"]["of_medians"]
            found.append((f"real tokens/s against {name}", value, ">=", target, value >= target))
        if name == TRL and shape in MEMORY_TARGETS:
            value = figure["peak_mb"]["of_medians"]
            limit = MEMORY_TARGETS[shape]
            found.append((f"peak memory against {name}", value, "<=", limit, value <= limit))
    return found
