"""The run folder: one folder per run, numbered or named, never overwritten.

RUN_DIR/config.yaml        the resolved run (config.1.yaml, ... for each resume)
RUN_DIR/environment.json   versions, machine and command (environment.1.json, ... for each resume)
RUN_DIR/logs/attempt_N/    metrics.csv; RUN_DIR/tensorboard/ when TensorBoard is installed
RUN_DIR/checkpoints/       step=N.ckpt, whole or absent
RUN_DIR/samples.json       answers before and after
RUN_DIR/report.json        the final table; RUN_DIR/curves.png its picture
RUN_DIR/reliability.png    of a reward or preference model: what it claims and what is so
RUN_DIR/.lock              who is training here; RUN_DIR/.ranks.lock for the other processes
RUN_DIR/oracle/            of a game: what the oracle has counted, over all attempts
RUN_DIR/answers/           of a game: held-out prompts, every policy's answers, and the verdicts on them
RUN_DIR/export/            the trained model as a Hugging Face folder with a model card
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger
from lightning_utilities.core.imports import module_available

from nashtune.confined import refuse_strange
from nashtune.errors import InputError
from nashtune.files import write_bytes_atomically
from nashtune.launcher import is_rank_0, launcher
from nashtune.training.lock import RUN_DIR_VARIABLE, hold, refuse_if_in_use


def choose_run_dir(asked: str | None, spec_name: str, *, resumed: Path | None) -> Path:
    """The folder of this run.

    Args:
        asked: What `--run_dir` says; None numbers a new folder under `runs/`, or goes on in the resumed run's.
        spec_name: Name for the numbered folder.
        resumed: Folder of the run that goes on, if one does.

    Raises:
        InputError: the folder is in use or holds another run, or a link that leads out of it, or several processes
            that cannot talk yet would each number one.
    """
    if not is_rank_0() and (told := asked or os.environ.get(RUN_DIR_VARIABLE)):
        return Path(told)  # unseen: rank 0 has looked at it, and may have made it by now
    if asked is None and resumed is not None and (resumed / "config.yaml").exists():
        refuse_strange(resumed)
        refuse_if_in_use(resumed)
        return resumed
    if asked is None and (started := launcher()) is not None and started.processes > 1:
        raise InputError(
            f"--run_dir: {started.processes} processes were started together by {started.name}, and all of them must "
            "know the folder before they can talk; name it: --run_dir runs/NAME, on a file system that they share"
        )
    if asked is None:
        root = Path("runs")
        number = 1
        while (root / f"{spec_name}-{number:03d}").exists():
            number += 1
        return root / f"{spec_name}-{number:03d}"
    folder = Path(asked)
    refuse_if_in_use(folder)
    if resumed is not None and folder.resolve() == resumed.resolve():
        refuse_strange(folder)
        return folder
    # hidden files: the lock, or what a kill has left of the first write
    if folder.exists() and (not folder.is_dir() or any(not one.name.startswith(".") for one in folder.iterdir())):
        held = "holds another run" if (folder / "config.yaml").exists() else "is not empty"
        raise InputError(
            f"--run_dir: {folder} {held}, and a run is never overwritten; choose another folder, leave --run_dir out "
            f"for a numbered one, or go on with that run: nashtune fit --ckpt_path last --run_dir {folder}"
        )
    if folder.exists():
        refuse_strange(folder)
    return folder


def next_attempt(folder: Path) -> int:
    """0 for a new run, n for its n-th resume."""
    attempt = 0
    while (folder / _config_name(attempt)).exists():
        attempt += 1
    return attempt


@contextmanager
def claim(folder: Path, config: Mapping[str, Any], attempt: int) -> Iterator[None]:
    """Make the folder, keep other runs out while the block runs, and write this attempt's configuration into it.

    Rank 0 does, for all.

    Raises:
        InputError: the folder cannot be made or written to, or another run has it.
    """
    if not is_rank_0():
        yield
        return
    try:
        if attempt == 0 and not folder.exists():
            folder.mkdir(parents=True, exist_ok=False)
    except FileExistsError as error:
        raise InputError(f"--run_dir: another run has just taken {folder}; start again") from error
    except OSError as error:
        raise InputError(f"--run_dir: {folder} cannot be made ({error.strerror}); choose another folder") from error
    with hold(folder):
        if next_attempt(folder) != attempt:
            raise InputError(f"--run_dir: another run has just been at work in {folder}; start again")
        header = "# Written by nashtune. Run it again with: nashtune fit --config THIS_FILE --run_dir NEW_FOLDER\n"
        text = header + yaml.safe_dump(dict(config), sort_keys=False, allow_unicode=True)
        write_bytes_atomically(folder / _config_name(attempt), text.encode())
        os.environ[RUN_DIR_VARIABLE] = str(folder)
        yield


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
