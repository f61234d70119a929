"""Commands that must answer at once, and how that grows with the plugins and specs that are installed."""

from __future__ import annotations

import os
import statistics
import subprocess
import time
from pathlib import Path
from typing import Any

from speed.nashtune_run import command

LIMIT = 0.5
MODULE = '''"""A plugin of the benchmark."""
from importlib.resources import files

from nashtune.plugins import Component, hookimpl


@hookimpl
def nashtune_components():
    return [Component("loss", "{name}", "nashtune_plugins.dpo:DPOLoss")]


@hookimpl
def nashtune_spec_dirs():
    return [files("{name}") / "specs"]
'''
SPEC = """about: {{title: "{name}", kind: offline, equation: "x", conventions: "x"}}
base: dpo
"""


def run(work: Path, repeats: int, counts: tuple[int, ...]) -> list[dict[str, Any]]:
    """Best and median seconds of each command with so many further plugins, each with a loss and a spec."""
    found = []
    for count in counts:
        folder = work / f"plugins-{count}"
        for i in range(count):
            _plugin(folder, f"speed_plugin_{i}")
        path = os.pathsep.join(filter(None, (str(folder), os.environ.get("PYTHONPATH", ""))))
        env = {**os.environ, "PYTHONPATH": path}
        for arguments in ("--help", "list", "check dpo", "check dpo --config demo", "check --all", "plugins"):
            seconds = []
            for _ in range(repeats + 1):
                began = time.monotonic()
                done = subprocess.run([command(), *arguments.split()], env=env, capture_output=True, text=True)
                seconds.append(time.monotonic() - began)
            if done.returncode:
                raise RuntimeError(f"nashtune {arguments}: {done.stdout[-500:]}{done.stderr[-500:]}")
            times = seconds[1:]  # the first writes the compiled modules of the plugins
            found.append(
                {"command": arguments, "plugins": count, "best": min(times), "median": statistics.median(times)}
            )
        shown = ", ".join(f"{one['command']} {one['median']:.2f} s" for one in found if one["plugins"] == count)
        print(f"    {count} further plugins: {shown}", flush=True)
    return found


def _plugin(folder: Path, name: str) -> None:
    specs = folder / name / "specs"
    specs.mkdir(parents=True, exist_ok=True)
    (folder / name / "__init__.py").write_text(MODULE.format(name=name))
    (specs / f"{name}.yaml").write_text(SPEC.format(name=name))
    info = folder / f"{name}-1.0.dist-info"
    info.mkdir(exist_ok=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[nashtune]\n{name} = {name}\n")
