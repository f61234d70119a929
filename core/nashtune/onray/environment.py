"""The environment of a run's processes: the machine's own, what the command hands on, and what torchrun would set."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from contextlib import contextmanager

from nashtune.errors import InputError
from nashtune.launcher import LAUNCHER
from nashtune.notes import note
from nashtune.spec.secrets import find_secrets

HANDED_ON = ("NASHTUNE_", "NCCL_", "GLOO_", "TORCH_", "HF_", "OMP_")
"""Beginnings of the variables that go from the command's environment to every process, but for secrets."""
SLURM = "SLURM_"
"""Of the job in which Ray runs. Its numbers count Ray's own processes, and would be taken for the run's."""


def handed_on(environ: Mapping[str, str], names: Sequence[str]) -> dict[str, str]:
    """The variables that every process gets from the command.

    What looks like a secret, such as HF_TOKEN, goes through the cluster only where it is named.

    Args:
        environ: Of the command.
        names: Further ones, by name.

    Raises:
        InputError: one of them is not set.
    """
    for name in names:
        if name not in environ:
            raise InputError(f"--env {name}: is not set here; set it before the command, or leave --env {name} out")
    found = {name: value for name, value in environ.items() if name in names or name.startswith(HANDED_ON)}
    secret = [name for name, value in found.items() if name not in names and any(find_secrets({name: value}))]
    for name in secret:
        note(f"{name} looks like a secret and is not handed on; where the processes need it, name it: --env {name}")
    return {name: value for name, value in found.items() if name not in secret}


def of_rank(
    own: Mapping[str, str],
    told: Mapping[str, str],
    *,
    machine: int,
    machines: int,
    local: int,
    processes: int,
    meeting: tuple[str, int],
) -> dict[str, str]:
    """The environment of one process.

    Args:
        own: Of the machine's actor, in which Ray has said which GPUs it may use.
        told: What `handed_on` returned.
        machine: Number of the machine, from 0.
        machines: How many there are.
        local: Number of the process on its machine, from 0.
        processes: How many each machine runs.
        meeting: Address and port at which process 0 waits for the others.
    """
    address, port = meeting
    counted = {
        **{"RANK": machine * processes + local, "LOCAL_RANK": local, "GROUP_RANK": machine, "NODE_RANK": machine},
        **{"WORLD_SIZE": machines * processes, "LOCAL_WORLD_SIZE": processes, "GROUP_WORLD_SIZE": machines},
    }
    return {
        **{name: value for name, value in own.items() if not name.startswith(SLURM)},
        "OMP_NUM_THREADS": "1",  # as torchrun has it; Ray's number is that of all processes of the machine together
        **told,
        **{name: str(value) for name, value in counted.items()},
        **{"MASTER_ADDR": address, "MASTER_PORT": str(port)},
        "TORCHELASTIC_RUN_ID": f"ray-{address}-{port}",  # by which torch and Lightning know torchrun
        LAUNCHER: "Ray",
    }


@contextmanager
def outside_slurm(environ: MutableMapping[str, str]) -> Iterator[None]:
    """Hide SLURM's variables while a block runs: a job's script that starts Ray is not one of the run's processes.

    Args:
        environ: This process's environment.
    """
    hidden = {name: environ.pop(name) for name in list(environ) if name.startswith(SLURM)}
    try:
        yield
    finally:
        environ.update(hidden)
