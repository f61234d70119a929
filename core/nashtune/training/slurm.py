"""A SLURM job that is stopped at its time limit asks to be started again."""

from __future__ import annotations

import os
import signal
import subprocess

from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.pytorch import Trainer

from nashtune.notes import note


def requeue_signal(trainer: Trainer) -> int:
    """The signal after which a job is to be started again; 0 for never, and where there is no job.

    A `SLURMEnvironment` among `trainer.plugins` may name another than USR1, or none.
    """
    if SLURMEnvironment.job_id() is None:
        return 0
    environment = trainer._accelerator_connector.cluster_environment
    if isinstance(environment, SLURMEnvironment):
        return int(environment.requeue_signal or 0) if environment.auto_requeue else 0
    return int(signal.SIGUSR1)


def requeue() -> None:
    """Ask for another go of this job, and say whether it was granted."""
    array = os.environ.get("SLURM_ARRAY_JOB_ID")
    job = f"{array}_{os.environ['SLURM_ARRAY_TASK_ID']}" if array else os.environ["SLURM_JOB_ID"]
    try:
        done = subprocess.run(["scontrol", "requeue", job], capture_output=True, text=True, timeout=60)
        problem = done.stderr.strip() if done.returncode else ""
    except (OSError, subprocess.TimeoutExpired) as error:
        problem = str(error)
    note(f"SLURM could not be asked to start job {job} again: {problem}" if problem else f"job {job} is queued again")
