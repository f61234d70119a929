"""How many processes a run has and what they share, by its section `trainer`; known before anything loads.

`nashtune check` and the training commands ask here, so that a run that is refused is refused by both, in the same
words, and by name: Lightning would say it after everything was loaded, or not at all.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from nashtune.errors import nearest
from nashtune.launcher import Launcher, launcher
from nashtune.spec.types import Typed

Kind = Literal["one", "ddp", "fsdp2", "deepspeed", "other"]

OPTIONS = ("strategy", "accelerator", "devices", "num_nodes", "precision")
"""Of the section `trainer`: what is read here."""
ACCELERATORS = ("auto", "cpu", "gpu", "cuda", "mps")
STRATEGIES: dict[str, Kind] = {
    "auto": "one",
    "ddp": "ddp",
    "ddp_find_unused_parameters_false": "ddp",
    "ddp_find_unused_parameters_true": "ddp",
    "fsdp2": "fsdp2",
    "fsdp2_sharded": "fsdp2",
}
"""Names of `trainer.strategy`; those of DeepSpeed are handed on as they are."""
CLASSES: dict[str, Kind] = {
    "SingleDeviceStrategy": "one",
    "DDPStrategy": "ddp",
    "FSDP2Strategy": "fsdp2",
    "ModelParallelStrategy": "fsdp2",
    "DeepSpeedStrategy": "deepspeed",
}
"""Classes that `trainer.strategy` may name. Another one is looked at when it is made."""

FSDP1 = (
    "FSDP1 (fsdp) is not supported: Lightning's FSDP1 refuses a CPU and clips no norm; use fsdp2, which cuts up "
    "weights, gradients and optimiser state in the same way"
)
FORKED = (
    "processes that are forked or spawned from this one end with what they have measured, and torch with threads or a "
    "GPU does not survive a fork; use ddp, which gives the command again for each process"
)
TPU = "TPUs are not supported; use ddp or fsdp2 on GPUs or a CPU"
REFUSED = {
    r"fsdp|fsdp_cpu_offload|FSDPStrategy": FSDP1,
    r"ddp_(spawn|fork|notebook).*": FORKED,
    r"(single_)?xla.*|\w*XLA\w*Strategy": TPU,
    r"single_device": "one device is what `auto` takes, with trainer.devices 1",
}
"""Names and classes of Lightning's that are known and not supported, and why."""
SCALED = (
    "16-mixed scales gradients, and no scaler knows weights that are cut up (fsdp2); Lightning has no 16-mixed on a "
    "CPU either. Use bf16-mixed"
)


@dataclass(frozen=True)
class Ranks:
    """The processes of a run.

    Args:
        kind: What they share: nothing but gradients ("ddp"), everything ("fsdp2"), or there is "one". "other" is a
            strategy's class that is not known here.
        processes: How many; None where only the machine's devices say it.
    """

    kind: Kind
    processes: int | None


def ranks_of(trainer: Mapping[str, Any]) -> Ranks:
    """The processes that a run will have.

    Args:
        trainer: The section, as it was given; nothing is wrong with it.
    """
    asked = _plain(trainer)
    kind, devices = _kind(asked.get("strategy")), _devices(asked)
    started = launcher()
    if started is not None:
        processes: int | None = started.processes
    else:
        processes = None if devices is None else devices * int(asked.get("num_nodes") or 1)
    return Ranks("ddp" if kind == "one" and processes != 1 else kind, processes)


def notes(trainer: Mapping[str, Any]) -> list[str]:
    """What is let through without having been tried."""
    if ranks_of(trainer).kind != "deepspeed":
        return []
    return ["note: trainer.strategy: DeepSpeed is handed on to Lightning as it is; it is not tested here"]


def problems(trainer: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """(option, what is wrong with it) of everything that cannot work.

    Args:
        trainer: The section, as it was given.
    """
    asked = _plain(trainer)
    strategy, accelerator = asked.get("strategy"), asked.get("accelerator") or "auto"
    if problem := _strategy_problem(strategy):
        yield "strategy", problem
    elif _kind(strategy) == "fsdp2" and str(asked.get("precision")) in ("16", "16-mixed"):
        yield "precision", SCALED
    if isinstance(accelerator, str) and accelerator not in ACCELERATORS:
        known = f"; {TPU}" if accelerator == "tpu" else nearest(accelerator, ACCELERATORS)
        yield "accelerator", f"'{accelerator}' is no accelerator here{known}"
    problem = _devices_problem(asked.get("devices"), cpu=accelerator == "cpu")
    if problem is not None:
        yield "devices", problem
        return
    devices, started = _devices(asked), launcher()
    if started is not None and devices is not None:
        expected = devices * int(asked.get("num_nodes") or 1)
        if expected != started.processes:
            yield "devices", other_count(started, expected)


def other_count(started: Launcher, expected: int) -> str:
    """What to say where a launcher was told another number of processes than the trainer.

    Args:
        started: The launcher.
        expected: trainer.num_nodes x trainer.devices.
    """
    return (
        f"{started.processes} processes were started by {started.name}, and trainer.num_nodes x trainer.devices is "
        f"{expected}; each would be a run of its own. Say what the launcher was told: --trainer.num_nodes N "
        "--trainer.devices PROCESSES_PER_MACHINE --trainer.strategy ddp (or fsdp2)"
    )


def on_accelerator(trainer: Mapping[str, Any]) -> bool:
    """Whether Lightning will take a GPU; seen from the device file of an Nvidia card, because torch is not asked."""
    asked = trainer.get("accelerator") or "auto"
    return asked in ("gpu", "cuda") or (asked == "auto" and Path("/dev/nvidia0").exists())


def _kind(strategy: Any) -> Kind:
    name = _name(strategy)
    if name is None:
        return "other"
    if name.startswith("deepspeed"):
        return "deepspeed"
    return STRATEGIES.get(name) or CLASSES.get(name) or "other"


def _name(strategy: Any) -> str | None:
    """A strategy's name or that of its class; None where a mapping names none, or it was made by somebody else."""
    if strategy is None:
        return "auto"
    if isinstance(strategy, Mapping):
        strategy = strategy.get("class_path")
    if not isinstance(strategy, str):
        return None
    last = strategy.rpartition(".")[2]
    return last if "." in strategy or last in CLASSES or last.endswith("Strategy") else strategy.lower()


def _strategy_problem(strategy: Any) -> str | None:
    name = _name(strategy)
    if name is None:
        return None
    for pattern, why in REFUSED.items():
        if re.fullmatch(pattern, name):
            return f"{name}: {why}"
    if isinstance(strategy, Mapping):
        given = {**strategy, **(strategy.get("init_args") or {})}
        return f"start_method {method}: {FORKED}" if (method := given.get("start_method", "popen")) != "popen" else None
    named = isinstance(strategy, str) and ("." in strategy or strategy.endswith("Strategy"))
    if named or name in STRATEGIES or name.startswith("deepspeed"):
        return None
    return f"'{strategy}' is no strategy here{nearest(name, [*STRATEGIES, 'deepspeed'])}"


def _devices(trainer: Mapping[str, Any]) -> int | None:
    """Processes of a machine; None where all of its devices are asked for and nobody has counted them."""
    asked = trainer.get("devices")
    if isinstance(asked, str) and re.fullmatch(r"-?\d+", asked):
        asked = int(asked)
    if isinstance(asked, list):
        return len(asked)
    if isinstance(asked, str) and "," in asked:
        return len([one for one in asked.split(",") if one.strip()])
    if isinstance(asked, int) and asked > 0:
        return asked
    return None if on_accelerator(trainer) else 1


def _devices_problem(asked: Any, *, cpu: bool) -> str | None:
    text = str(asked)
    if asked is None or text == "auto":
        return None
    listed = isinstance(asked, list) or "," in text
    if isinstance(asked, bool) or (not listed and not re.fullmatch(r"-?\d+", text)):
        return f"{asked}: expected how many devices of a machine, their numbers such as 0,2, or auto"
    if listed:
        if cpu:
            return f"{text}: on a CPU it is how many processes, such as 2"
        return None if asked else "names no device; give how many, or auto"
    if int(text) == 0 or int(text) < -1 or (cpu and int(text) < 1):
        return f"{text}: give 1 or more" + ("" if cpu else ", or -1 for all of a machine")
    return None


def _plain(value: Any) -> Any:
    """Without what the command line adds to a value."""
    if isinstance(value, Typed):
        return _plain(value.value)
    return {key: _plain(part) for key, part in value.items()} if isinstance(value, Mapping) else value
