"""A rank that leaves lets the others know: for a signal in the store they share, before they met by a closed door."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from functools import partial
from pathlib import Path
from signal import valid_signals
from threading import Thread
from typing import Any

import torch.distributed as dist
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment

from nashtune.errors import InputError
from nashtune.files import write_bytes_atomically
from nashtune.launcher import is_rank_0, launcher

TOLD = "nashtune/stopped"
"""Key in the store of the process group: the signal for which a rank has left."""

NOTE = ".stopped"
"""File in the run folder that says it, too: with the rank that keeps the store the store is gone."""

ANSWER_SECONDS = 5
"""Within which the rank that keeps the store answers, or is taken for gone."""


MEET_SECONDS = 20
"""For which rank 0, when it refuses to begin, waits for the others to come, who would wait for it much longer."""


@contextmanager
def open_to_the_others() -> Iterator[None]:
    """What rank 0 looks at alone, before the processes meet: where it refuses, the others hear that it is gone.

    A process that comes to a store which is not there tries again until its time-out is over, and then once more. So
    rank 0 opens the store, lets the others in and goes: they lose the connection, and end.
    """
    try:
        yield
    except InputError as error:
        started = launcher()
        # torchrun may keep a store of its own, and then ends the others itself
        kept = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
        if is_rank_0() and started is not None and started.processes > 1 and not kept:
            error.afterwards = partial(_let_in, started.processes)
        raise


def _let_in(processes: int) -> None:
    if SLURMEnvironment.job_id() is not None:
        environment = SLURMEnvironment()
        address, port = environment.main_address, environment.main_port
    else:
        address, port = os.environ.get("MASTER_ADDR", ""), int(os.environ.get("MASTER_PORT", "0"))
    with suppress(RuntimeError):  # nobody has come: they have refused as well, or were never begun
        store: Any = dist.TCPStore  # type: ignore[attr-defined]  # it has no type
        store(address, port, processes, True, timedelta(seconds=MEET_SECONDS))


def refuse_alone(error: RuntimeError) -> None:
    """Say it where the processes have not met because rank 0 is gone.

    Args:
        error: What went wrong here; any other leaves things as they are.

    Raises:
        InputError: that is so.
    """
    if isinstance(error, dist.DistError) and not dist.is_initialized() and not is_rank_0():
        raise InputError(
            "rank 0 has ended before the processes met, or was not to be reached; its own output says why "
            f"({str(error).splitlines()[0]})"
        ) from error


def tell(number: int, folder: Path | None) -> None:
    """Say to all ranks that this one leaves for a signal.

    Args:
        number: Of the signal.
        folder: The run folder, where it is known.
    """
    if dist.is_initialized():
        note_down(number, folder)
        _ask_store(lambda store: store.set(TOLD, str(number)))


def note_down(number: int, folder: Path | None) -> None:
    """Say it in the run folder alone, where there is no time to wait for a store."""
    if folder is not None and folder.is_dir():  # else nothing was trained, and it is gone
        with suppress(OSError):  # a full disk
            write_bytes_atomically(folder / NOTE, str(int(number)).encode())


def forget(folder: Path) -> None:
    """Remove what an earlier attempt has said in the run folder; for rank 0, before the processes meet."""
    with suppress(OSError):
        (folder / NOTE).unlink()


def told(folder: Path | None) -> int:
    """The signal for which a rank has left; 0 where none has said so.

    Args:
        folder: The run folder, where it is known.
    """
    by_store = int(_ask_store(lambda store: store.get(TOLD) if store.check([TOLD]) else 0) or 0)
    return by_store or (_noted(folder) if folder is not None else 0)


def _noted(folder: Path) -> int:
    with suppress(OSError, ValueError):
        number = int((folder / NOTE).read_bytes()[:8])
        return number if number in valid_signals() else 0
    return 0


def _ask_store(question: Callable[[Any], Any]) -> Any:
    """The answer of the store that the ranks share; None where the rank that keeps it is gone or does not answer.

    The store waits for ever for a host whose cable was pulled: its time limit is not for single answers.
    """
    answers: list[Any] = []

    def ask() -> None:
        with suppress(RuntimeError):
            answers.append(question(_store()))

    asking = Thread(target=ask, daemon=True)
    asking.start()
    asking.join(ANSWER_SECONDS)
    return answers[0] if answers else None


def _store() -> Any:
    return dist.distributed_c10d._get_default_store()  # torch has no public way to it
