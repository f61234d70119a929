"""One process of a run, as an actor of Ray starts it: `python -m nashtune.onray.process ACTOR COMMAND ...`."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Sequence

from nashtune.cli.main import main


def begin(actor: int, command: Sequence[str]) -> int:
    """Run `nashtune COMMAND ...` and return its exit code.

    Args:
        actor: Process of the actor. When it dies, this one is killed: Ray kills actors, and not what they have started.
        command: Of the command line.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
    if os.getppid() != actor:  # it died before the line above
        return 1
    # a process inherits what is blocked and what is ignored: Ray's threads block SIGINT, and a Ray that was started in
    # the background of a shell ignores it
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    signal.signal(signal.SIGINT, signal.default_int_handler)
    return main(command)


if __name__ == "__main__":
    sys.exit(begin(int(sys.argv[1]), sys.argv[2:]))
