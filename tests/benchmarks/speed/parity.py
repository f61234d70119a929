"""Proof before any timing: losses of the first steps and gradients of the first one agree, in float32."""

from __future__ import annotations

import json
import sys
from argparse import Namespace
from pathlib import Path
from typing import Any

from speed.alternate import Bench
from speed.cases import TOLERANCES, made, settings, trl_command
from speed.nashtune_run import offline

LOSS_TOLERANCE, GRADIENT_TOLERANCE = TOLERANCES["fp32"], 1e-3
"""Largest difference of a loss, and of a gradient relative to its norm; float32 sums in another order give less."""
STEPS = 3
LR = 1e-4
LONGEST = {"prompt": 64, "answer": 48}
"""Largest medians; longer texts prove no more."""


def run(bench: Bench, args: Namespace, work: Path, shapes: list[str]) -> dict[str, Any]:
    """Every shape; their proofs and whether all agree."""
    proofs = {Path(shape).name: one(bench, args, work / f"proof-{i}", shape) for i, shape in enumerate(shapes)}
    return {"shapes": proofs, "agree": all(proof["agree"] for proof in proofs.values())}


def one(bench: Bench, args: Namespace, folder: Path, shape: str) -> dict[str, Any]:
    """TRL, nashtune's engine `dense` and the engine that is measured, without clipping."""
    size = {name: min(most, getattr(args, f"{name}_median")) for name, most in LONGEST.items()}
    vocab = args.vocab if shape != "tiny" else None
    what = made(bench, args, f"{shape}/fp32-live", folder, pairs=STEPS * 2, batch=2, vocab=vocab, **size)
    given = {**settings(args, what["longest"]), "batch": 2, "clip": 0.0, "lr": LR, "steps": STEPS}
    default = args.engine or "default"
    files, losses = {}, {}
    for name in dict.fromkeys(("TRL", "dense", default)):
        place = bench.folder()
        files[name] = place / "gradients.safetensors"
        told = {**given, "gradients": str(files[name])}
        if name == "TRL":
            command = trl_command(
                folder, place / "out", told, precision="fp32", reference="live", plain=True, skip=False
            )
        else:
            engine = None if name == "default" else name
            command = offline(
                folder, place / "out", told, spec="dpo", precision="fp32", reference="live", engine=engine
            )
        losses[name] = bench.run(command, folder=place, steps=STEPS)["losses"]
        print(f"    {Path(shape).name}, {name}: losses {', '.join(f'{loss:.6f}' for loss in losses[name])}", flush=True)
    result: dict[str, Any] = {"losses": losses, "gradients": {}, "pairs": STEPS * 2, "lr": LR}
    for name in losses.keys() - {"TRL"}:
        found = bench.python("parity", str(files["TRL"]), str(files[name]))
        result["gradients"][name] = found["worst"]
        result["gradient_norm"] = found["norm"]
    result["loss_difference"] = max(
        abs(a - b) / max(1.0, abs(a)) for name in losses for a, b in zip(losses["TRL"], losses[name], strict=True)
    )
    result["agree"] = (
        result["loss_difference"] <= LOSS_TOLERANCE and max(result["gradients"].values()) <= GRADIENT_TOLERANCE
    )
    return result


def compare(first: Path, second: Path) -> dict[str, Any]:
    """Largest distance of two files' gradients of one weight, over the norm of that gradient."""
    from safetensors.torch import load_file

    a, b = load_file(first), load_file(second)
    if a.keys() != b.keys():
        raise SystemExit(f"gradients of other weights: {sorted(a.keys() ^ b.keys())[:4]}")
    whole = sum(float(grad.double().square().sum()) for grad in a.values()) ** 0.5
    worst = {
        name: float((a[name].double() - b[name].double()).norm()) / max(float(a[name].double().norm()), 1e-6 * whole)
        for name in a
    }
    name = max(worst, key=worst.__getitem__)
    return {"worst": worst[name], "weight": name, "norm": whole}


if __name__ == "__main__":
    print(json.dumps(compare(Path(sys.argv[1]), Path(sys.argv[2]))))
