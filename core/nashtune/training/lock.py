"""One run at a time in a run folder: locks that the system takes back when a process dies, however it dies.

Rank 0 holds RUN_DIR/.lock. The other ranks share RUN_DIR/.ranks.lock: after a kill of rank 0 alone they live on for a
while, and may still be writing, when somebody goes on with the run.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import json
import os
import signal
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.strategies.launchers.subprocess_script import _SubprocessScriptLauncher

from nashtune.errors import InputError
from nashtune.notes import note

RUN_DIR_VARIABLE = "NASHTUNE_RUN_DIR"  # rank 0 tells the ranks that it starts which folder it chose
LOCK = ".lock"
RANKS = ".ranks.lock"
PATIENCE = 20.0  # seconds that ranks of a killed attempt get to notice that their rank 0 is gone
NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)


@contextmanager
def hold(folder: Path) -> Iterator[None]:
    """Keep other runs out of a folder while a block runs; for rank 0.

    Raises:
        InputError: another run is at work there, or the folder cannot be written to.
    """
    handle = _open(folder / LOCK)
    try:
        if not _lock(handle, fcntl.LOCK_EX, folder):
            raise _in_use(folder, handle)
        os.truncate(handle, 0)
        os.pwrite(handle, json.dumps({"pid": os.getpid(), "host": socket.gethostname()}).encode(), 0)
        _wait_for_ranks(folder)
        yield
    finally:
        os.close(handle)


def refuse_if_in_use(folder: Path) -> None:
    """Refuse a folder in which a run is at work, before anything else is said of it; nothing is written.

    Raises:
        InputError: it is, naming process and machine.
    """
    try:
        handle = os.open(folder / LOCK, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)  # a pipe would not open
    except OSError:  # there is none, or `hold` will say what is wrong with it
        return
    try:
        if not _lock(handle, fcntl.LOCK_SH, folder):
            raise _in_use(folder, handle)
    finally:
        os.close(handle)


def _in_use(folder: Path, handle: int) -> InputError:
    return InputError(
        f"--run_dir: {folder} is in use: {_holder(handle)} is training there. Wait for its end or stop it, or choose "
        "another folder"
    )


class RankLock(Callback):
    """Holds the other ranks' lock from the moment on that rank 0 is known to have the folder.

    Args:
        folder: The run folder.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._handle: int | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """The processes have met, so none of them is left of an earlier attempt."""
        if trainer.global_rank > 0 and self._handle is None:
            if isinstance(trainer.strategy.launcher, _SubprocessScriptLauncher):
                _end_with_parent(signal.SIGKILL)
            self._handle = _open(self._folder / RANKS)
            _lock(self._handle, fcntl.LOCK_SH, self._folder)

    def release(self) -> None:
        """The run is over; what is left to do here is short, and may end after the parent."""
        if self._handle is not None:
            _end_with_parent(0)
            os.close(self._handle)
            self._handle = None


def _end_with_parent(number: int) -> None:
    """Have the system kill this process when the one that started it dies: nobody else would, for minutes.

    Args:
        number: The signal to do it with; 0 for no longer.
    """
    if sys.platform == "linux" and RUN_DIR_VARIABLE in os.environ:  # started by rank 0, not by torchrun or SLURM
        ctypes.CDLL(None).prctl(1, int(number))  # PR_SET_PDEATHSIG


def _wait_for_ranks(folder: Path) -> None:
    handle = _open(folder / RANKS)
    try:
        begun = time.monotonic()
        while not _lock(handle, fcntl.LOCK_EX, folder):
            if time.monotonic() - begun > PATIENCE:
                raise InputError(
                    f"--run_dir: processes of an earlier attempt are still at work in {folder}, though its first one "
                    "is gone; stop them, and give the same command again"
                )
            time.sleep(0.2)
    finally:
        os.close(handle)


def _open(path: Path) -> int:
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise InputError(f"--run_dir: {path} is a link, and a lock is a file; remove it") from error
        raise InputError(
            f"--run_dir: {path.parent} cannot be written to ({error.strerror}); make it writable, or train in another "
            "folder"
        ) from error


def _lock(handle: int, kind: int, folder: Path) -> bool:
    """Whether the lock was taken. Some network file systems have none: then nothing keeps two runs apart."""
    try:
        fcntl.flock(handle, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
        note(f"{folder}: the file system has no locks, so nothing stops a second run in this folder")
    return True


def _holder(handle: int) -> str:
    with suppress(ValueError, KeyError):
        who = json.loads(os.pread(handle, 1000, 0))
        return f"process {who['pid']} on {who['host']}"
    return "another process"
