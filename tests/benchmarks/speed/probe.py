"""Stopwatch of one measured process, the same for both peers. Importing it imports no torch.

The parent says in the environment where the record goes, when it started the process, and how many steps there are.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

RECORD, SPAWNED, STEPS = "SPEED_RECORD", "SPEED_SPAWNED", "SPEED_STEPS"
TRACED, PROFILED = "SPEED_TRACED", "SPEED_PROFILED"


def dropped(steps: int) -> int:
    """Steps at the beginning of a process that are left out of speeds."""
    return 2 if steps >= 6 else 1


def status(field: str) -> float:
    """MB of `VmRSS` (now) or `VmHWM` (peak) of this process."""
    found = re.search(rf"{field}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found, field
    return int(found[1]) / 1024


class Probe:
    """Counts steps, tokens, losses, time and memory, and writes them when told.

    Losses and token counts are kept as tensors until the end: reading one waits for the device.
    """

    def __init__(self) -> None:
        import torch

        self._torch = torch
        self._file = Path(os.environ[RECORD])
        self._steps = int(os.environ.get(STEPS, "0"))
        self._spawned = float(os.environ[SPAWNED])
        self._marks: dict[str, float] = {}
        self._begins: list[float] = []
        self._ends: list[float] = []
        self._cpu: list[float] = []
        self._tokens: list[Any] = []
        self._losses: list[Any] = []
        self._extra: dict[str, Any] = {}
        self._profile: Any = None

    def mark(self, name: str) -> None:
        """Seconds since the process was started, and its memory, under a name; the first call of a name counts."""
        if name not in self._marks:
            self._marks[name] = time.monotonic() - self._spawned
            self._extra[f"rss_{name}_mb"] = status("VmRSS")

    def begin_step(self) -> None:
        """An optimiser step begins."""
        self.mark("first_step")
        if os.environ.get(TRACED) and len(self._begins) == self._steps - 2:
            from speed.gpu import start_trace

            self._profile = start_trace()
        if os.environ.get(PROFILED) and len(self._begins) == self._steps - 1:
            from speed.shares import start_profile

            self._profile = start_profile()
        self._begins.append(time.monotonic())

    def tokens(self, masks: Sequence[Any]) -> None:
        """The attention masks of what a step trains on."""
        self._tokens.append([mask.sum() for mask in masks])

    def loss(self, value: Any) -> None:
        """The loss of a step."""
        self._losses.append(value.detach())

    def end_step(self) -> None:
        """An optimiser step is over. The device is waited for at the ends of what is measured, and nowhere else."""
        done = len(self._ends) + 1
        if self._torch.cuda.is_available() and done in (dropped(self._steps), self._steps):
            self._torch.cuda.synchronize()
        self._ends.append(time.monotonic())
        self._cpu.append(time.process_time())
        if done == self._steps and self._profile is not None:
            from speed import gpu, shares

            if os.environ.get(PROFILED):
                self._extra["shares"] = shares.read_profile(self._profile)
            else:
                self._extra["trace"] = gpu.read_trace(self._profile)

    def note(self, **values: Any) -> None:
        """More for the record."""
        self._extra |= values

    def write(self) -> None:
        """Write the record."""
        cuda = self._torch.cuda
        if cuda.is_available():
            self._extra |= {"allocated_mb": cuda.max_memory_allocated() / 2**20}
            self._extra |= {"reserved_mb": cuda.max_memory_reserved() / 2**20, "device": cuda.get_device_name()}
        record = {
            "marks": self._marks,
            "begins": [begin - self._spawned for begin in self._begins],
            "ends": [end - self._spawned for end in self._ends],
            "cpu": self._cpu,
            "tokens": [sum(map(int, counts)) for counts in self._tokens],
            "losses": [float(loss) for loss in self._losses],
            "trained_peak_mb": status("VmHWM"),
            **self._extra,
        }
        self._file.write_text(json.dumps(record))
