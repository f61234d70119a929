"""Whether the small parts of a checkpoint can be what a run has saved: how far it was, and where in its data.

Lightning takes these parts as they are: one that is missing is mostly gone without, and one of another kind is a
traceback, or other weights.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from packaging.version import InvalidVersion, Version

SECTION = "nashtune"
"""Where a checkpoint keeps the run's configuration."""

_READY: dict[str, Any] = {"ready": 0, "completed": 0}
_STARTED = {**_READY, "started": 0}
_PROCESSED = {**_STARTED, "processed": 0}
PROGRESS: dict[str, dict[str, Any]] = {
    "epoch_progress": {"total": _PROCESSED, "current": _PROCESSED},
    "batch_progress": {"total": _PROCESSED, "current": _PROCESSED, "is_last_batch": False},
    "scheduler_progress": {"total": _READY, "current": _READY},
    "optim_step_progress": {"total": _READY, "current": _READY},
    "optim_progress": {
        "optimizer": {
            "step": {"total": _READY, "current": _READY},
            "zero_grad": {"total": _STARTED, "current": _STARTED},
        }
    },
}
"""Last part of a name in Lightning's `fit_loop` -> what stands there."""
STEPS = "epoch_loop.automatic_optimization.optim_progress"
LOOPS = ("epoch_progress", "epoch_loop.batch_progress", "epoch_loop.scheduler_progress", STEPS)
"""Names without which a loop would begin anew."""

PLACES: dict[str, tuple[str, tuple[str, ...]]] = {
    "PreferenceData": (
        "train_loader",
        ("epoch", "samples", "rows", "seed", "step_rows", "global_batch_size", "epoch_rows", "epoch_steps"),
    ),
    "GameData": ("game", ("update", "step")),
}
"""Data module -> which of its parts says where in the data a run was, and what is counted there."""


def is_count(value: object) -> bool:
    """Whether it is a whole number from 0 to what 8 bytes hold."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63


def is_number(value: object) -> bool:
    """Whether it is a finite number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def shown(value: object) -> str:
    """A value for a message, short."""
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."


def part_problems(content: Mapping[str, Any]) -> Iterator[str]:
    """What cannot be right; only the first one is sure to be said well.

    Args:
        content: A checkpoint that training is to go on with, with all of its parts.
    """
    yield from _version(content["pytorch-lightning_version"])
    for name in ("loops", "callbacks", "state_dict", "kl", "loss", "logged"):
        if not isinstance(content.get(name, {}), Mapping):
            yield f"{name} is {shown(content[name])} and no mapping"
    for name, state in content["callbacks"].items():
        if not isinstance(state, Mapping):
            yield f"callbacks.{name} is {shown(state)} and no mapping"
    random = content[SECTION].get("random")
    if not isinstance(random, list) or not random or not all(isinstance(one, Mapping) for one in random):
        yield f"{SECTION}.random is {shown(random)} and not one mapping for each process"
    yield from _loop_problems(content)
    yield from _place_problems(content)


def _version(found: object) -> Iterator[str]:
    try:
        known = isinstance(found, str) and Version(found) >= Version("2")
    except InvalidVersion:
        known = False
    if not known:
        yield f"pytorch-lightning_version is {shown(found)}, and no version that nashtune has run with"


def _loop_problems(content: Mapping[str, Any]) -> Iterator[str]:
    loop = content["loops"].get("fit_loop")
    if not isinstance(loop, Mapping):
        yield f"loops.fit_loop is {shown(loop)} and no mapping"
        return
    for name in (*LOOPS, *loop):
        last = str(name).rpartition(".")[2]
        if last in PROGRESS:
            yield from _unlike(PROGRESS[last], loop.get(name), f"loops.fit_loop.{name}")
        elif last == "state_dict" and not isinstance(loop[name], Mapping):
            yield f"loops.fit_loop.{name} is {shown(loop[name])} and no mapping"
    stepped = loop.get("epoch_loop.state_dict", {}).get("_batches_that_stepped", 0)
    if not is_count(stepped):
        yield f"loops.fit_loop: _batches_that_stepped is {shown(stepped)}"
    done = loop[STEPS]["optimizer"]["step"]["total"]["completed"]
    if not is_count(content["global_step"]) or content["global_step"] != done:
        yield f"global_step is {shown(content['global_step'])}, and loops has {done} optimiser steps"


def _unlike(wanted: Mapping[str, Any], found: Any, where: str) -> Iterator[str]:
    """Where something is missing in nested counts, or is no count."""
    if not isinstance(found, Mapping):
        yield f"{where} is {shown(found)} and no mapping"
        return
    for name, like in wanted.items():
        if isinstance(like, Mapping):
            yield from _unlike(like, found.get(name), f"{where}.{name}")
        elif not (isinstance(found.get(name), bool) if isinstance(like, bool) else is_count(found.get(name))):
            yield f"{where}.{name} is {shown(found.get(name))}"


def _place_problems(content: Mapping[str, Any]) -> Iterator[str]:
    modules = [name for name in PLACES if name in content]
    if not modules:
        yield f"it has neither {' nor '.join(PLACES)}, which say where in the data it was saved"
        return
    for module in modules:
        part, counts = PLACES[module]
        state = content[module]
        place = state.get(part) if isinstance(state, Mapping) else None
        if not isinstance(place, Mapping):
            yield f"{module} is {shown(state)}, without {part}, which says where in the data it was saved"
            return
        for name in counts:
            if not is_count(place.get(name)):
                yield f"{module}.{part}.{name} is {shown(place.get(name))} and no count"
        # Lightning hands the loader this one when it has restored the other, so they must be one
        for own in content["loops"]["fit_loop"].get("state_dict", {}).get("combined_loader", []):
            if own != place:
                yield f"loops.fit_loop.state_dict.combined_loader is not what {module}.{part} is"
