"""One process of a run, as an actor of Ray starts it: `python -m nashtune.onray.process ACTOR COMMAND ...`."""

from __future__ import annotations

import ctypes
import os
import signal
import sys

from nashtune.cli.entry import entry


def begin(actor: int) -> None:
    """Make this process one that dies with its actor and hears signals.

    Args:
        actor: Process of the actor. When it dies, this one is killed: Ray kills actors, and not what they have started.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
    if os.getppid() != actor:  # it died before the line above
        sys.exit(1)
    # a process inherits what is blocked and what is ignored: Ray's threads block SIGINT, and a Ray that was started in
    # the background of a shell ignores it
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    signal.signal(signal.SIGINT, signal.default_int_handler)


if __name__ == "__main__":
    begin(int(sys.argv.pop(1)))
    entry()
