"""Results of several runs as one, because a long run may be done in parts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from speed import cases

OF_A_RUN = ("only", "rounds", "minutes", "limit", "pairs", "sections", "cases", "modes", "model_shape", "keep")
OF_A_RUN += ("pairs_from", "prompts", "new_tokens", "rows", "vllm", "peak_tflops")
"""Settings in which parts may differ: the page takes what it says of them from the results."""
OWN = ("machine", "settings", "failed", "cases", "parity", "minutes")


def merged(files: list[Path]) -> dict[str, Any]:
    """One set of results. Rounds of a case add up; of a section that several have, the last one counts.

    Raises:
        SystemExit: they are of different machines, versions or settings.
    """
    result: dict[str, Any] = json.loads(files[0].read_text())
    for file in files[1:]:
        part = json.loads(file.read_text())
        _same(result, part, file)
        _add(result, part)
    result["settings"]["cases"] = list(result["cases"])
    for case, entry in result["cases"].items():
        if why := cases.judge(case, entry):
            result["failed"][case] = why
    return result


def _same(result: dict[str, Any], part: dict[str, Any], file: Path) -> None:
    first = {name: value for name, value in result["machine"].items() if name not in ("load_before", "date")}
    first |= {name: value for name, value in result["settings"].items() if name not in OF_A_RUN}
    other = part["machine"] | part["settings"]
    for name, value in first.items():
        if other.get(name) != value:
            raise SystemExit(f"--report: {file} is of another run: {name} is {other.get(name)}, and {value} before")


def _add(result: dict[str, Any], part: dict[str, Any]) -> None:
    for name in list(result["failed"]):  # what failed in a part and ran in a later one
        if name in part or name in part["cases"]:
            del result["failed"][name]
    result["failed"] |= part["failed"]
    for case, entry in part["cases"].items():
        before = result["cases"].setdefault(case, entry)
        if before is entry:
            continue
        if before["steps"] != entry["steps"]:
            raise SystemExit(
                f"--report: {case} has {before['steps']} steps in one file and {entry['steps']} in another"
            )
        before["rounds"] += entry["rounds"]
    if proof := part.get("parity"):
        shapes = result.get("parity", {"shapes": {}})["shapes"] | proof["shapes"]
        result["parity"] = {"shapes": shapes, "agree": all(one["agree"] for one in shapes.values())}
    result |= {name: value for name, value in part.items() if name not in OWN}
    result["minutes"] = result.get("minutes", 0.0) + part.get("minutes", 0.0)
    for name in ("load_before", "date"):
        result["machine"][name] = max(result["machine"][name], part["machine"][name])
    result["settings"]["pairs_from"] = result["settings"]["pairs_from"] or part["settings"]["pairs_from"]
