"""Measured processes: one at a time, in alternation, each with caches of its own that nothing filled before."""

from __future__ import annotations

import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from speed.probe import RECORD, SPAWNED, STEPS, TRACED, dropped

PYTHONPATH = str(Path(__file__).resolve().parent.parent)


@dataclass
class Peer:
    """One side of a comparison.

    Args:
        name: Column of the table.
        command: Makes the command line; gets a fresh folder for what the process writes.
    """

    name: str
    command: Callable[[Path], list[str]]


@dataclass
class Bench:
    """Where processes run, and what they have in common.

    Args:
        work: Folder for runs and logs.
        threads: Of each process.
        limit: Seconds after which a process is stopped.
        deadline: `time.monotonic()` after which no further round is begun.
        keep: Whether runs stay on the disk.
        gpu: Whether there is one.
    """

    work: Path
    threads: int
    limit: float
    deadline: float
    keep: bool = False
    gpu: bool = False
    number: int = field(default=0)

    def folder(self) -> Path:
        """A new folder for one process."""
        self.number += 1
        folder = self.work / f"process-{self.number:03d}"
        folder.mkdir(parents=True)
        return folder

    def run(
        self, command: list[str], *, folder: Path | None = None, steps: int = 0, env: Mapping[str, str] | None = None
    ) -> dict[str, Any]:
        """Run one process to its end; its record with `wall` and `whole_cpu` seconds and `peak_mb` of all of it.

        `peak_mb` is the kernel's count for the process. A GPU's memory is not in it.

        Args:
            command: What to start.
            folder: Where it starts, with its caches; a new one when absent.
            steps: Optimiser steps that it takes.
            env: On top of the environment.

        Raises:
            RuntimeError: it failed; with the end of its output.
        """
        folder = folder or self.folder()
        record, log = folder / "record.json", folder / "output.txt"
        full = {
            **os.environ,
            "OMP_NUM_THREADS": str(self.threads),
            "HF_HUB_OFFLINE": "1",
            "PYTHONPATH": os.pathsep.join(filter(None, (PYTHONPATH, os.environ.get("PYTHONPATH")))),
            "NASHTUNE_CACHE": str(folder / "cache"),
            "HF_DATASETS_CACHE": str(folder / "datasets"),
            RECORD: str(record),
            STEPS: str(steps),
            **({TRACED: "1"} if self.gpu else {}),
            **(env or {}),
        }
        with log.open("wb") as out:
            began = time.monotonic()
            full[SPAWNED] = repr(began)
            process = subprocess.Popen(command, env=full, stdout=out, stderr=subprocess.STDOUT, cwd=folder)
            timer = threading.Timer(self.limit, process.send_signal, [signal.SIGKILL])
            timer.start()
            _, state, usage = os.wait4(process.pid, 0)
            wall = time.monotonic() - began
            timer.cancel()
            process.returncode = os.waitstatus_to_exitcode(state)
        if process.returncode:
            lines = log.read_text(errors="replace").strip().splitlines() or [""]
            what = " ".join([Path(command[0]).name, *command[1:3]])
            details = "\n".join(["", " ".join(command), *lines[-25:]])
            raise RuntimeError(f"{what}: exit {process.returncode} after {wall:.0f} s: {lines[-1]}{details}")
        measured = json.loads(record.read_text()) if record.exists() else {}
        cpu = usage.ru_utime + usage.ru_stime
        measured |= {"wall": wall, "whole_cpu": cpu, "peak_mb": usage.ru_maxrss / 1024, "output": str(log)}
        report = next(folder.glob("**/report.json"), None)
        if report is not None:
            measured["throughput"] = json.loads(report.read_text()).get("throughput", {})
        if not self.keep:
            for path in folder.iterdir():
                if path.is_dir():
                    shutil.rmtree(path, ignore_errors=True)
        return measured

    def python(self, module: str, *args: str, env: Mapping[str, str] | None = None) -> dict[str, Any]:
        """A module of this package as a process; its record holds what it printed as JSON in its last line too."""
        measured = self.run([sys.executable, "-m", f"speed.{module}", *args], env=env)
        last = Path(measured["output"]).read_text().strip().splitlines()
        if last and last[-1].startswith("{"):
            measured |= json.loads(last[-1])
        return measured

    def over(self, needed: float) -> bool:
        """Whether something that takes so many seconds would end too late."""
        return time.monotonic() + needed > self.deadline


def one_round(bench: Bench, peers: Sequence[Peer], turn: int, steps: int) -> dict[str, dict[str, Any]]:
    """Every peer once; their order changes with the turn."""
    results: dict[str, dict[str, Any]] = {}
    for peer in peers if turn % 2 == 0 else peers[::-1]:
        folder = bench.folder()
        measured = bench.run(peer.command(folder / "out"), folder=folder, steps=steps)
        results[peer.name] = {**measured, "turn": turn, "load": os.getloadavg()[0]}
        print(f"    {peer.name}: {_short(results[peer.name])}", flush=True)
    return results


def figures(run: Mapping[str, Any]) -> dict[str, float]:
    """What a process shows: steady tokens a second and step times without its first steps, memory, start-up."""
    ends, skip = run["ends"], dropped(len(run["ends"]))
    steady, tokens = ends[-1] - ends[skip - 1], sum(run["tokens"][skip:])
    steps = [end - before for before, end in zip(ends[skip - 1 :], ends[skip:], strict=False)]
    shown = {
        "tokens_per_second": tokens / steady,
        "tokens_per_cpu_second": tokens / max(1e-9, run["cpu"][-1] - run["cpu"][skip - 1]),
        "step_seconds": steady / len(steps),
        "step_least": min(steps),
        "step_most": max(steps),
        "peak_mb": run["peak_mb"],
        "start_to_first_step": run["begins"][0],
        "start_to_first_step_done": ends[0],
        "whole_seconds": run["wall"],
    }
    for name in ("allocated_mb", "reserved_mb"):
        if name in run:
            shown[name] = run[name]
    if "padding_share" in run.get("throughput", {}):
        shown["padding_share"] = run["throughput"]["padding_share"]
    return shown


def medians(runs: Sequence[Mapping[str, float]]) -> dict[str, dict[str, float]]:
    """Median, least and greatest of each figure."""
    return {
        name: {
            "median": statistics.median(values),
            "min": min(values),
            "max": max(values),
        }
        for name in runs[0]
        if (values := [run[name] for run in runs if name in run])
    }


def _short(run: Mapping[str, Any]) -> str:
    if len(run.get("ends", [])) > 1 and run.get("tokens"):
        shown = figures(run)
        return (
            f"{shown['tokens_per_second']:.0f} tokens/s, {shown['step_seconds']:.2f} s a step "
            f"({shown['step_least']:.2f} to {shown['step_most']:.2f}), "
            f"{shown['peak_mb']:.0f} MB, first step after {shown['start_to_first_step']:.1f} s"
        )
    return f"{run['wall']:.1f} s, {run['peak_mb']:.0f} MB"
