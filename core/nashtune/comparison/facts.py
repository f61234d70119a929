"""What a reader asks of a comparison beside its ratings: which rows, which settings differ, when, where and by what."""

from __future__ import annotations

import os
import platform
import socket
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from nashtune.comparison.request import Request
from nashtune.pipeline.settings import sections
from nashtune.spec.model import Spec

if TYPE_CHECKING:
    from nashtune.comparison.held_out import HeldOut
    from nashtune.comparison.plan import Entry

TOLD = ("name", "about")
"""Parts of a spec that change nothing of what it trains."""
NONE = "none"
"""A section that a spec leaves out."""


def begun(command: Sequence[str]) -> dict[str, Any]:
    """When, where and by what a comparison began; brings torch.

    Args:
        command: The command line.
    """
    import torch

    from nashtune.training.environment import processor, without_secrets

    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": socket.gethostname(),
        "system": platform.platform(),
        "processor": processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": torch.get_num_threads(),
        "devices": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
        "command": ["nashtune", *without_secrets(command)],
    }


def made(request: Request, saved: Mapping[str, Any]) -> dict[str, Any]:
    """The same for `comparison.json`, with the model.

    Args:
        request: The comparison.
        saved: Its `comparison.yaml`.
    """
    policy = sections(request.runs)["policy"]
    lora = policy.get("lora")
    adapter = f"LoRA, {', '.join(f'{name} {value}' for name, value in lora.items())}" if lora else None
    model = {"model": policy["path"], "adapter": adapter}
    return {**saved.get("begun", {}), "versions": saved["versions"], **model}


def data_facts(entries: Sequence[Entry], prompts: HeldOut, saved: Mapping[str, Any]) -> dict[str, Any]:
    """Which rows each spec trains on, and which prompts are answered.

    Args:
        entries: The specs, checked.
        prompts: What is answered.
        saved: Its `comparison.yaml`.
    """
    return {
        "specs": {entry.name: entry.rows.as_dict() for entry in entries},
        "held_out": len(prompts.rows),
        "held_out_different": prompts.different,
        "held_out_also_trained_on": prompts.also_trained_on,
        "sources": saved["sources"],
    }


def differs(specs: Sequence[Spec]) -> list[dict[str, Any]]:
    """Every setting in which the specs differ; a spec without it has none.

    Args:
        specs: Resolved.

    Returns:
        [{"setting": "kl.beta", "values": {SPEC: value}}].
    """
    own = {spec.name: _flat(spec) for spec in specs}
    settings = dict.fromkeys(key for flat in own.values() for key in flat)
    found = []
    for setting in settings:
        values = {name: flat[setting] for name, flat in own.items() if setting in flat}
        if set(map(str, values.values())) == {NONE} and len(values) < len(specs):
            continue  # parts of the others have names of their own, as references have: `references.ref.name` tells
        if len(values) < len(specs) or any(value != next(iter(values.values())) for value in values.values()):
            found.append({"setting": setting, "values": values})
    return found


def _flat(spec: Spec) -> dict[str, Any]:
    """Settings by their key paths, {"kl.beta": 0.1}; a section that is left out as {"kl.name": "none"}."""
    found: dict[str, Any] = {}

    def put(path: str, value: Any, *, top: bool) -> None:
        if isinstance(value, Mapping) and value:
            for key, one in value.items():
                put(f"{path}.{key}", one, top=False)
        else:
            found[f"{path}.name" if top and not isinstance(value, Mapping) else path] = value

    for section, value in spec.to_dict().items():
        if section not in TOLD:
            put(section, value, top=True)
    return found
