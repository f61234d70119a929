"""The run folder: one folder per run, numbered or named, never overwritten.

RUN_DIR/config.yaml        the resolved run (config.1.yaml, ... for each resume)
RUN_DIR/logs/attempt_N/    metrics.csv; RUN_DIR/tensorboard/ when TensorBoard is installed
RUN_DIR/checkpoints/       step=N.ckpt, whole or absent
RUN_DIR/samples.json       answers before and after
RUN_DIR/report.json        the final table; RUN_DIR/curves.png its picture
RUN_DIR/export/            the trained model as a Hugging Face folder with a model card
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger
from lightning_utilities.core.imports import module_available

from nashtune.errors import InputError

RUN_DIR_VARIABLE = "NASHTUNE_RUN_DIR"  # rank 0 tells the ranks that it starts which folder it chose


def choose_run_dir(asked: str | None, spec_name: str, *, resume: bool) -> Path:
    """The folder of this run.

    Args:
        asked: What `--run_dir` says; None numbers a new folder under `runs/`.
        spec_name: Name for the numbered folder.
        resume: Whether the run goes on in a folder that already holds it.

    Raises:
        InputError: the folder holds another run.
    """
    if RUN_DIR_VARIABLE in os.environ and os.environ.get("LOCAL_RANK", "0") != "0":
        return Path(os.environ[RUN_DIR_VARIABLE])
    if asked is None:
        root = Path("runs")
        number = 1
        while (root / f"{spec_name}-{number:03d}").exists():
            number += 1
        folder = root / f"{spec_name}-{number:03d}"
    else:
        folder = Path(asked)
        if not resume and folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            held = "holds a run" if (folder / "config.yaml").exists() else "is not empty"
            raise InputError(
                f"--run_dir: {folder} {held}, and a run is never overwritten; choose another folder, leave "
                f"--run_dir out for a numbered one, or go on with "
                f"that run: nashtune fit --ckpt_path last --run_dir {folder}"
            )
    return folder


def claim(folder: Path, config: Mapping[str, Any]) -> int:
    """Make the folder and write this attempt's configuration into it.

    Returns:
        The attempt: 0 for a new run, n for its n-th resume.
    """
    folder.mkdir(parents=True, exist_ok=True)
    attempt = 0
    while (folder / _config_name(attempt)).exists():
        attempt += 1
    header = "# Written by nashtune. Run it again with: nashtune fit --config THIS_FILE --run_dir NEW_FOLDER\n"
    write_text(
        folder / _config_name(attempt), header + yaml.safe_dump(dict(config), sort_keys=False, allow_unicode=True)
    )
    os.environ[RUN_DIR_VARIABLE] = str(folder)
    return attempt


def _config_name(attempt: int) -> str:
    return f"config.{attempt}.yaml" if attempt else "config.yaml"


def loggers(folder: Path, attempt: int) -> list[Logger]:
    """CSV always, flushed at every logged step so that a kill loses nothing; TensorBoard when it is installed."""
    found: list[Logger] = [CSVLogger(folder, name="logs", version=f"attempt_{attempt}", flush_logs_every_n_steps=1)]
    if module_available("tensorboard"):
        found.append(
            TensorBoardLogger(folder, name="tensorboard", version=f"attempt_{attempt}", default_hp_metric=False)
        )
    return found


def write_text(path: Path, text: str) -> None:
    """Write a file atomically."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    partial.write_text(text, encoding="utf-8")
    os.replace(partial, path)


def write_json(path: Path, value: Any) -> None:
    """Write plain data atomically."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")
