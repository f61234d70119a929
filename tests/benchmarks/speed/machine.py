"""What the figures were measured on."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import time
from pathlib import Path
from typing import Any

PACKAGES = ("nashtune", "trl", "torch", "transformers", "lightning", "accelerate", "datasets", "peft")


def describe(threads: int, device: str) -> dict[str, Any]:
    """Machine, versions, load and date."""
    info = Path("/proc/cpuinfo").read_text()
    model = re.search(r"model name\s*:\s*(.+)", info)
    memory = re.search(r"MemTotal:\s+(\d+) kB", Path("/proc/meminfo").read_text())
    flags = set((re.search(r"flags\s*:\s*(.+)", info) or [""])[0].split())
    return {
        "processor": model[1] if model else platform.processor(),
        "bf16": sorted(flag for flag in ("avx512_bf16", "amx_bf16") if flag in flags),
        "cores": len(os.sched_getaffinity(0)),
        "threads": threads,
        "memory_gib": int(memory[1]) / 2**20 if memory else None,
        "device": device,
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in PACKAGES},
        "load_before": os.getloadavg()[0],
        "date": time.strftime("%Y-%m-%d"),
    }


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "absent"
