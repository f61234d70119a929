"""Run files and command lines of `nashtune fit`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import yaml

from speed.trl_online import RULES

PROBE = "speed.lightning_probe.StepProbe"


def command(name: str = "nashtune") -> str:
    """The console script beside this interpreter."""
    return str(Path(sys.executable).with_name(name))


def base_run(model: Path, given: dict[str, Any], *, precision: str, engine: str | None) -> dict[str, Any]:
    """What every run file has.

    Args:
        model: Its folder.
        given: `lr`, `beta`, `clip`, `batch`, `max_length`, `seed` and, where they are kept, `gradients`.
        precision: "bf16" (autocast, float32 weights) or "fp32".
        engine: None for the product's default.
    """
    init = {"gradients": given["gradients"]} if given.get("gradients") else {}
    trainer: dict[str, Any] = {
        "max_epochs": 1,
        **({"precision": "bf16-mixed"} if precision == "bf16" else {}),
        "callbacks": [{"class_path": PROBE, "init_args": init}],
    }
    if given["clip"]:
        trainer["gradient_clip_val"] = given["clip"]
    optimizer = {"name": "adamw", "lr": given["lr"], "weight_decay": 0.0, "warmup": 0, "decay": "constant"}
    return {
        "policy": {"path": str(model)},
        "data": {"batch_size": given["batch"], "max_length": given["max_length"], "template": "plain"},
        "spec": {"kl": {"beta": given["beta"]}, "optimizer": optimizer},
        "trainer": trainer,
        "seed_everything": given["seed"],
        **({"engine": engine} if engine else {}),
    }


def offline(
    folder: Path, out: Path, given: dict[str, Any], *, spec: str, precision: str, reference: str, engine: str | None
) -> list[str]:
    """Command of training on pairs; writes its run file into `out`."""
    run = base_run(folder / "model", given, precision=precision, engine=engine)
    run["data"]["train"] = str(folder / "pairs.jsonl")
    run["spec"]["references"] = {"ref": "cached" if reference == "cached" else "base"}
    if given.get("steps"):
        run["trainer"]["max_steps"] = given["steps"]
    return _fit(run, spec, out)


def online(folder: Path, out: Path, given: dict[str, Any], *, engine: str | None, vllm: str | None) -> list[str]:
    """Command of one online round; writes its run file into `out`."""
    run = base_run(folder / "model", given, precision="fp32", engine=engine)
    run["data"] |= {"train": str(folder / "prompts.jsonl"), "prompts_per_round": given["prompts"]}
    sampler: dict[str, Any] = {"completions": 2, "max_new_tokens": given["new_tokens"], "temperature": 1.0}
    if vllm:
        sampler |= {"name": "vllm", "servers": [vllm]}
    rules = {"rules": [f"regex:{letter}" for letter in RULES], "weights": list(RULES.values())}
    run["spec"] |= {"oracle": {"name": "rules", **rules}, "sampler": sampler, "schedule": {"rounds": 1}}
    return _fit(run, "online_dpo", out)


def _fit(run: dict[str, Any], spec: str, out: Path) -> list[str]:
    out.mkdir(parents=True, exist_ok=True)
    (out / "run.yaml").write_text(yaml.safe_dump(run, sort_keys=False))
    arguments = ["--spec", spec, "--config", str(out / "run.yaml"), "--run_dir", str(out / "run")]
    return [command(), "fit", *arguments, "--allow-import", PROBE.partition(".")[0]]
