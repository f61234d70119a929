"""Who has started this process together with others, by the environment alone: nothing is loaded to know it."""

from __future__ import annotations

import os
from dataclasses import dataclass

LAUNCHER = "NASHTUNE_LAUNCHER"
"""Environment variable: who has started the processes, where it is not torchrun that has set torchrun's."""


@dataclass(frozen=True)
class Launcher:
    """What has started this process together with others.

    Args:
        name: "torchrun", "SLURM" or "Ray".
        processes: How many it has started.
    """

    name: str
    processes: int


def is_rank_0() -> bool:
    """By what a launcher says: torchrun and Ray RANK, SLURM its own, Lightning the other two."""
    return all(os.environ.get(name, "0") == "0" for name in ("RANK", "LOCAL_RANK", "NODE_RANK", "SLURM_PROCID"))


def launcher() -> Launcher | None:
    """Who has started this process with others; None where Lightning is to start them, or has."""
    if "RANK" in os.environ and "WORLD_SIZE" in os.environ:
        return Launcher(os.environ.get(LAUNCHER, "torchrun"), int(os.environ["WORLD_SIZE"]))
    interactive = os.environ.get("SLURM_JOB_NAME") in ("bash", "interactive")  # Lightning's word for a shell of salloc
    if "SLURM_PROCID" in os.environ and "SLURM_NTASKS" in os.environ and not interactive:
        return Launcher("SLURM", int(os.environ["SLURM_NTASKS"]))
    return None
