"""What runs on each machine: an actor that starts the machine's processes, hands out what they print, and signals them.

Nothing here imports Ray: `cluster` makes an actor of the class.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from threading import Event, Thread
from typing import IO

from nashtune.onray.environment import of_rank

LEFT_OPEN = 5.0
"""Seconds after a process's end in which its last output is read; what it has started may hold the pipe for longer."""


@dataclass(frozen=True)
class Said:
    """Output of a process: of rank 0 as it comes, of another in lines.

    Args:
        rank: Of the process.
        stream: 1 stdout, 2 stderr.
        text: Bytes as they were written.
    """

    rank: int
    stream: int
    text: bytes


@dataclass(frozen=True)
class Ended:
    """A process is gone.

    Args:
        rank: Of the process.
        code: Its exit code, -9 where signal 9 has killed it.
    """

    rank: int
    code: int


class Machine:
    """The processes of one machine."""

    def __init__(self) -> None:
        self._processes: dict[int, subprocess.Popen[bytes]] = {}
        self._began = Event()

    def free_port(self) -> int:
        """A port that nobody listens at."""
        with socket.socket() as probe:
            probe.bind(("", 0))
            return int(probe.getsockname()[1])

    def run(
        self,
        command: Sequence[str],
        folder: str,
        told: Mapping[str, str],
        *,
        machine: int,
        machines: int,
        processes: int,
        meeting: tuple[str, int],
    ) -> Iterator[Said | Ended]:
        """Start the processes, and say what happens until all are gone.

        Args:
            command: `fit` and what follows it.
            folder: Working directory.
            told: Variables that the command hands on.
            machine: Number of this machine, from 0.
            machines: How many there are.
            processes: How many each runs.
            meeting: Address and port at which process 0 waits for the others.
        """
        happened: SimpleQueue[Said | Ended] = SimpleQueue()
        first = machine * processes
        if not Path(folder).is_dir():
            here = f"{socket.gethostname()}: there is no folder {folder}, in which the command was given"
            yield Said(first, 2, f"error: {here}; start it in a folder that all machines share\n".encode())
            yield Ended(first, 2)
            return
        try:
            for local in range(processes):
                self._processes[first + local] = subprocess.Popen(
                    # -P: no module is taken from the working directory
                    [sys.executable, "-P", "-u", "-m", "nashtune.onray.process", str(os.getpid()), *command],
                    cwd=folder,
                    env=of_rank(
                        os.environ,
                        told,
                        machine=machine,
                        machines=machines,
                        local=local,
                        processes=processes,
                        meeting=meeting,
                    ),
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                )
        finally:
            self._began.set()
        for rank, process in self._processes.items():
            Thread(target=_follow, args=(rank, process, happened), daemon=True).start()
        running = len(self._processes)
        while running:
            event = happened.get()
            running -= isinstance(event, Ended)
            yield event

    def pass_on(self, number: int) -> None:
        """Send a signal to the processes that are still there.

        Args:
            number: Of the signal.
        """
        self._began.wait()
        for process in self._processes.values():
            process.send_signal(number)  # does nothing where it is known to have ended


def _follow(rank: int, process: subprocess.Popen[bytes], happened: SimpleQueue[Said | Ended]) -> None:
    assert process.stdout is not None and process.stderr is not None
    readers = [
        Thread(target=_read, args=(rank, number, stream, happened), daemon=True)
        for number, stream in ((1, process.stdout), (2, process.stderr))
    ]
    for reader in readers:
        reader.start()
    code = process.wait()
    for reader in readers:
        reader.join(LEFT_OPEN)
    happened.put(Ended(rank, code))


def _read(rank: int, number: int, stream: IO[bytes], happened: SimpleQueue[Said | Ended]) -> None:
    with stream:
        while text := os.read(stream.fileno(), 65536) if rank == 0 else stream.readline():
            happened.put(Said(rank, number, text))
