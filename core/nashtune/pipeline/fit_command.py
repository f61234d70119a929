"""`nashtune fit` as a command of its own: started, gone on with, and its end understood."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import yaml

from nashtune.errors import InputError, Interrupted
from nashtune.files import write_bytes_atomically
from nashtune.interfaces.stage import Work
from nashtune.trust import grants

COMMAND = (sys.executable, "-m", "nashtune")
REPORT = "report.json"


def train(run: Path, config: Mapping[str, Any], work: Work) -> None:
    """Train in a run folder until its model is exported; nothing happens where it is.

    Args:
        run: The run folder. What an earlier attempt has left there is gone on with.
        config: A run file with a whole spec.
        work: The stage's.

    Raises:
        InputError: the training fails; it has said why.
        Interrupted: it was stopped.
    """
    if finished(run):
        return
    if can_go_on(run):
        call(["fit", "--ckpt_path", "last", "--run_dir", str(run)], work)
    else:
        shutil.rmtree(run, ignore_errors=True)  # begun, and killed before anything was kept
        file = run.with_name(f"{run.name}.yaml")
        text = yaml.safe_dump(dict(config), sort_keys=False, allow_unicode=True)
        write_bytes_atomically(file, text.encode())
        call(["fit", "--config", str(file), "--run_dir", str(run)], work)
    if not finished(run):
        if "SLURM_JOB_ID" in os.environ and can_go_on(run):  # there a training that is told to stop ends with 0
            raise Interrupted(
                f"{run}: stopped, and saved; the same command with this --run_dir goes on with it", code=0
            )
        raise InputError(f"{run}: the training ended without an exported model; look at its output above")


def finished(run: Path) -> bool:
    """Whether a run is over: its model is exported last, at once or not at all."""
    return (run / "export").is_dir()


def can_go_on(run: Path) -> bool:
    """Whether a run has kept something: a checkpoint, or the snapshots and the journal of a game."""
    has_checkpoint = any(run.glob("checkpoints/step=*.ckpt"))
    return has_checkpoint or ((run / "snapshots").is_dir() and (run / "config.yaml").is_file())


def read_report(run: Path) -> dict[str, Any]:
    """What a training that has ended says of itself.

    Args:
        run: The run folder.

    Raises:
        InputError: it is not there, or cannot be read.
    """
    file = run / REPORT
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise damaged_report(run)
    return found


def damaged_report(run: Path) -> InputError:
    """What to say of a training whose report holds no report.

    Args:
        run: The run folder.
    """
    return InputError(
        f"{run / REPORT}: it is not there, was cut short or altered; restore it from a copy, or delete the folder "
        f"{run}: the same command with this --run_dir then trains it anew"
    )


def call(arguments: Sequence[str], work: Work) -> None:
    """Run a nashtune command and wait for it; Ctrl-C and SIGTERM reach it, too.

    Raises:
        InputError: it fails.
        Interrupted: it was stopped.
    """
    sys.stdout.flush()
    command = [*COMMAND, *arguments, *grants().arguments()]
    # as for the installed command, modules of the current folder are not importable unless PYTHONPATH says so
    environ = {**os.environ, "PYTHONSAFEPATH": "1"}
    with subprocess.Popen(command, env=environ, stdout=work.stdout, pass_fds=work.inherit) as process:
        with _terminating(process):
            while True:
                try:
                    code = process.wait()
                    break
                except KeyboardInterrupt:  # the terminal has sent it to the command as well, which is saving now
                    continue
    name = f"`nashtune {arguments[0]}` in {work.folder}"
    if code in (130, 143):
        raise Interrupted(f"{name} was stopped; the same command with this --run_dir goes on with it", code=code)
    if code < 0:
        raise InputError(
            f"{name} was killed by signal {-code} ({signal.Signals(-code).name}); what it had saved is kept, and the "
            "same command with this --run_dir goes on with it"
        )
    if code:
        raise InputError(f"{name} ended with exit code {code}; its own message stands above")


@contextmanager
def _terminating(process: subprocess.Popen[bytes]) -> Iterator[None]:
    """Hand SIGTERM on to the command, which saves what it can; and SIGUSR1, which a SLURM job has before its end."""

    def hand_on(number: int, frame: FrameType | None) -> None:
        process.send_signal(number)

    numbers = [signal.SIGTERM, *([signal.SIGUSR1] if "SLURM_JOB_ID" in os.environ else [])]
    before = {number: signal.signal(number, hand_on) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
