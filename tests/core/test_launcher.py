"""What the environment says of who has started a process."""

from __future__ import annotations

import pytest

from nashtune.launcher import LAUNCHER, Launcher, is_rank_0, launcher

TORCHRUN = ("RANK", "LOCAL_RANK", "WORLD_SIZE")
SLURM = ("SLURM_PROCID", "SLURM_NTASKS", "SLURM_JOB_NAME")
READ = (LAUNCHER, "NODE_RANK", *TORCHRUN, *SLURM)


@pytest.mark.parametrize(
    ("environment", "expected", "first"),
    [
        ({}, None, True),
        ({"LOCAL_RANK": "1", "WORLD_SIZE": "2"}, None, False),  # as Lightning starts the others
        ({"RANK": "3", "LOCAL_RANK": "1", "WORLD_SIZE": "4"}, Launcher("torchrun", 4), False),
        ({"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "4", "NASHTUNE_LAUNCHER": "Ray"}, Launcher("Ray", 4), True),
        ({"SLURM_PROCID": "2", "SLURM_NTASKS": "16", "SLURM_JOB_NAME": "dpo"}, Launcher("SLURM", 16), False),
        ({"SLURM_PROCID": "0", "SLURM_NTASKS": "16", "SLURM_JOB_NAME": "interactive"}, None, True),
    ],
)
def test_who_started_it_and_whether_it_is_the_first(
    environment: dict[str, str], expected: Launcher | None, first: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in READ:
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert launcher() == expected
    assert is_rank_0() == first
