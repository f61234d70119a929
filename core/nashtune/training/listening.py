"""Signals heard in a thread: also while the main thread waits in a collective call, where Python runs no handler.

Python runs a signal's handler in the main thread between two of its instructions. A main thread that waits in torch, at
the start for a process that has not begun or later for one that hangs, comes to none before the time-out. But the
system's handler also writes the signal's number to a pipe, at once, and a thread can read it there.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from threading import Thread

END = 0
"""No signal has this number. Closing the pipe would not end the thread: processes forked meanwhile hold it open."""


@contextmanager
def heard_by(hear: Callable[[int], None]) -> Iterator[None]:
    """Call a function, in a thread, for each signal that has a handler written in Python. For the main thread.

    Args:
        hear: Gets the signal's number.
    """
    _not_in_forks()
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    before = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    thread = Thread(target=_read, args=(reading, hear), daemon=True, name="signals")
    thread.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        os.set_blocking(writing, True)
        os.write(writing, bytes([END]))
        thread.join()
        os.close(writing)
        os.close(reading)


def _read(pipe: int, hear: Callable[[int], None]) -> None:
    while True:
        for number in os.read(pipe, 64):
            if number == END:
                return
            hear(number)


@cache
def _not_in_forks() -> None:
    """A process that is forked from this one (a worker of a data loader) would write its own signals to our pipe."""
    os.register_at_fork(after_in_child=lambda: signal.set_wakeup_fd(-1))
