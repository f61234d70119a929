"""What a run folder holds, read as plain data. Nothing of it is run, and no weights are loaded."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from nashtune.errors import InputError
from nashtune.evaluation.report import Metrics, read_metrics

COMPARISON = "comparison.yaml"


@dataclass(frozen=True, kw_only=True)
class Run:
    """A run, finished or not.

    Args:
        folder: Its folder.
        config: The resolved run, of its newest attempt.
        attempts: How many times it was begun or taken up again.
        report: What it came to; None before its end.
        metrics: What was logged.
        samples: Answers before and after, of runs that do not play rounds.
        environment: Of the newest attempt that wrote it down: versions, machine, command; empty where none did.
    """

    folder: Path
    config: Mapping[str, Any]
    attempts: int
    report: Mapping[str, Any] | None
    metrics: Metrics
    samples: list[dict[str, str]]
    environment: Mapping[str, Any] = field(default_factory=dict)

    @property
    def spec(self) -> Mapping[str, Any]:
        """The resolved spec."""
        found: Mapping[str, Any] = self.config["spec"]
        return found

    @property
    def kind(self) -> str:
        """`about.kind` of the spec: offline, game, rl or reward."""
        return str((self.spec.get("about") or {}).get("kind", ""))


def read_run(folder: Path) -> Run:
    """Read a run folder.

    Raises:
        InputError: it is none, or a file in it is not what was written.
    """
    if not folder.is_dir():
        raise InputError(
            f"{folder}: no such folder; give the folder of a run, such as runs/dpo-001, or of a comparison"
        )
    configs = sorted(folder.glob("config*.yaml"), key=_attempt)
    environments = sorted(folder.glob("environment*.json"), key=_attempt)
    if not configs:
        raise InputError(f"{folder}: {_what_else(folder)}")
    config = read_yaml(configs[-1])
    if not isinstance(config.get("spec"), dict):
        raise InputError(f"{configs[-1]} names no spec; a page is made of a folder that `nashtune fit` wrote")
    return Run(
        folder=folder,
        config=config,
        attempts=len(configs),
        report=_optional(folder / "report.json", dict),
        metrics=read_metrics(folder),
        samples=_optional(folder / "samples.json", list) or [],
        environment=read_json(environments[-1], dict) if environments else {},
    )


def _what_else(folder: Path) -> str:
    """Why a folder is no run, for the end of a message."""
    if (folder / "pipeline.yaml").exists():
        runs = [path.parent.name for path in sorted(folder.glob("*/config.yaml"))]
        which = f"; give the folder of a stage that trains: {', '.join(runs)}" if runs else ""
        return f"is a pipeline, and each of its stages has a page of its own{which}"
    inner = [path.parent.name for path in sorted(folder.glob("*/config.yaml"))[:3]]
    hint = f"; did you mean {folder / inner[0]}?" if inner else ""
    return f"is neither a run (no config.yaml) nor a comparison (no {COMPARISON}){hint}"


def read_json(path: Path, kind: type) -> Any:
    """A JSON file that holds a list or an object.

    Raises:
        InputError: it cannot be read, or holds something else.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path} is torn or was altered ({error}); restore it from a copy") from error
    if not isinstance(found, kind):
        raise InputError(f"{path} holds {type(found).__name__}, expected {kind.__name__}; restore it from a copy")
    return found


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML file that holds a mapping; plain values alone, so that nothing in it runs.

    Raises:
        InputError: it cannot be read, or holds something else.
    """
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise InputError(f"{path} is torn or was altered ({str(error).splitlines()[0]}); restore it") from error
    if not isinstance(found, dict):
        raise InputError(f"{path} holds no settings; restore it from a copy")
    return found


def _optional(path: Path, kind: type) -> Any:
    return read_json(path, kind) if path.exists() else None


def _attempt(path: Path) -> int:
    """N of `config.n.yaml`, 0 of `config.yaml`."""
    number = path.stem.rpartition(".")[2]
    return int(number) if number.isdecimal() else 0
