"""Start-up and memory of `nashtune fit` by the size of the data: a first start, and a second on the same rows."""

from __future__ import annotations

import json
import time
from argparse import Namespace
from pathlib import Path
from typing import Any

from speed.alternate import Bench
from speed.cases import made, settings, trl_command
from speed.nashtune_run import offline

TRL_MOST = 10_000
"""Largest data set that TRL is started on: it encodes text by text, and keeps nothing between processes here."""
STEPS = 2


def run(bench: Bench, args: Namespace, work: Path) -> list[dict[str, Any]]:
    """Each size: two starts of nashtune and, on small ones, one of TRL. A tiny model; the data are what counts."""
    found = []
    spent: list[float] = []  # seconds of each size
    for size in args.rows:
        growth = (spent[-1] - spent[0]) * size / found[-1]["rows"] if spent else 0.0
        if spent and bench.over(spent[0] + growth):
            print(f"    {size} rows: left out, the time is over", flush=True)
            break
        began = time.monotonic()
        folder = work / f"rows-{size}"
        what = made(bench, args, "tiny/fp32-live", folder, pairs=size, prompt=10, answer=6, batch=2, vocab=None)
        given = {**settings(args, what["longest"]), "batch": 2, "steps": STEPS}
        entry: dict[str, Any] = {"rows": size, "file_mb": (folder / "pairs.jsonl").stat().st_size / 2**20}
        shared = {"NASHTUNE_CACHE": str(folder / "cache")}
        for name in ("first", "second"):
            place = bench.folder()
            command = offline(
                folder, place / "out", given, spec="dpo", precision="fp32", reference="live", engine=args.engine
            )
            entry[name] = _figures(bench.run(command, folder=place, steps=STEPS, env=shared))
        if size <= TRL_MOST:
            place = bench.folder()
            command = trl_command(folder, place / "out", given, precision="fp32", reference="live", plain=True)
            entry["TRL"] = _figures(bench.run(command, folder=place, steps=STEPS))
        for file in folder.glob("*.jsonl"):
            file.unlink()
        found.append(entry)
        print(f"    {json.dumps(entry)}", flush=True)
        spent.append(time.monotonic() - began)
    return found


def _figures(run: dict[str, Any]) -> dict[str, float]:
    return {"start": run["begins"][0], "peak_mb": run["peak_mb"]}
