"""A message that all processes of a run have for the same reason is printed by one of them on each machine."""

from __future__ import annotations

import atexit
import hashlib
import os
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from nashtune.errors import InputError

LATER = 3.0
"""Seconds for which the first process with a message stays, so that the others know that it was said."""


class AlreadySaid(InputError):
    """Another process of this run, on this machine, has the same message and prints it.

    Attributes:
        lines: None to print.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.lines: list[str] = []


@contextmanager
def said_once() -> Iterator[None]:
    """Among processes that were started together, raise an `InputError` of the block to be printed in one alone.

    A message that is not the same in every letter is printed by each process that has it.

    Raises:
        AlreadySaid: another process prints it.
    """
    try:
        yield
    except AlreadySaid:
        raise
    except InputError as error:
        run = _run()
        if run is not None and not _first(f"{run} {error}"):
            raise AlreadySaid(str(error)) from error
        raise


def _run() -> str | None:
    """What the processes of a run have in common, and no other process of the machine has; None where there is one."""
    started = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("SLURM_NTASKS", "1"))
    where = os.environ.get("MASTER_PORT") or os.environ.get("SLURM_JOB_ID")
    return f"{os.getuid()} {where}" if max(started) > 1 and where else None


_held: dict[str, socket.socket] = {}  # a name among Linux's sockets is free again when its process is gone


def _first(text: str) -> bool:
    """Whether no other living process of this machine was asked the same before. True where there is no way to know."""
    if sys.platform != "linux":
        return True
    name = hashlib.sha256(text.encode()).hexdigest()[:32]
    if name in _held:
        return True
    holder = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        holder.bind(f"\0nashtune-{name}")
    except OSError:
        holder.close()
        return False
    if not _held:
        atexit.register(time.sleep, LATER)
    _held[name] = holder
    return True
