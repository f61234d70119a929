"""The run folder: one folder per run, numbered or named, never overwritten.

RUN_DIR/config.yaml        the resolved run (config.1.yaml, ... for each resume)
RUN_DIR/logs/attempt_N/    metrics.csv; RUN_DIR/tensorboard/ when TensorBoard is installed
RUN_DIR/checkpoints/       step=N.ckpt, whole or absent
RUN_DIR/samples.json       answers before and after
RUN_DIR/report.json        the final table; RUN_DIR/curves.png its picture
RUN_DIR/reliability.png    of a reward or preference model: what it claims and what is so
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
from nashtune.files import write_bytes_atomically

RUN_DIR_VARIABLE = "NASHTUNE_RUN_DIR"  # rank 0 tells the ranks that it starts which folder it chose


def choose_run_dir(asked: str | None, spec_name: str, *, resumed: Path | None) -> Path:
    """The folder of this run.

    Args:
        asked: What `--run_dir` says; None numbers a new folder under `runs/`, or goes on in the resumed run's.
        spec_name: Name for the numbered folder.
        resumed: Folder of the run that goes on, if one does.

    Raises:
        InputError: the folder holds another run.
    """
    if RUN_DIR_VARIABLE in os.environ and not _is_rank_0():
        return Path(os.environ[RUN_DIR_VARIABLE])
    if asked is None and resumed is not None and (resumed / "config.yaml").exists():
        return resumed
    if asked is None:
        root = Path("runs")
        number = 1
        while (root / f"{spec_name}-{number:03d}").exists():
            number += 1
        return root / f"{spec_name}-{number:03d}"
    folder = Path(asked)
    if resumed is not None and folder.resolve() == resumed.resolve():
        return folder
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        held = "holds another run" if (folder / "config.yaml").exists() else "is not empty"
        raise InputError(
            f"--run_dir: {folder} {held}, and a run is never overwritten; choose another folder, leave --run_dir out "
            f"for a numbered one, or go on with that run: nashtune fit --ckpt_path last --run_dir {folder}"
        )
    return folder


def next_attempt(folder: Path) -> int:
    """0 for a new run, n for its n-th resume."""
    attempt = 0
    while (folder / _config_name(attempt)).exists():
        attempt += 1
    return attempt


def claim(folder: Path, config: Mapping[str, Any], attempt: int) -> None:
    """Make the folder and write this attempt's configuration into it; rank 0 does, for all.

    Raises:
        InputError: the folder cannot be made, or another run took it in the meantime.
    """
    if not _is_rank_0():
        return
    try:
        if attempt == 0 and not folder.exists():
            folder.mkdir(parents=True, exist_ok=False)
    except FileExistsError as error:
        raise InputError(f"--run_dir: another run has just taken {folder}; start again") from error
    except OSError as error:
        raise InputError(f"--run_dir: {folder} cannot be made ({error.strerror}); choose another folder") from error
    header = "# Written by nashtune. Run it again with: nashtune fit --config THIS_FILE --run_dir NEW_FOLDER\n"
    text = header + yaml.safe_dump(dict(config), sort_keys=False, allow_unicode=True)
    write_bytes_atomically(folder / _config_name(attempt), text.encode())
    os.environ[RUN_DIR_VARIABLE] = str(folder)


def _is_rank_0() -> bool:
    return os.environ.get("LOCAL_RANK", "0") == "0" and os.environ.get("RANK", "0") == "0"


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


def write_json(path: Path, value: Any) -> None:
    """Write plain data atomically."""
    write_bytes_atomically(path, (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode())
