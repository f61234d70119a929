"""The process of a command: what ends it, and with which exit code.

A process that has shared collective calls with others must not end as Python ends others. The threads of torch's gloo
outlive the last call by a moment, in which they give back its tensors and need the interpreter's lock for it. Where
the interpreter has begun to end by then, CPython before 3.14 ends such a thread within C++ code, and that aborts the
process: "terminate called without an active exception", exit code -6, of a rank that has done all it had to
(pytorch/pytorch#190489). `destroy_process_group` waits for these threads only if nobody holds the group any more,
neither DDP nor a device mesh nor a plugin, and where another rank has failed it waits for that rank, too.
"""

from __future__ import annotations

import atexit
import gc
import io
import os
import sys
import threading
from contextlib import suppress
from typing import NoReturn

from nashtune.cli.main import main

OPEN = (io.TextIOWrapper, io.BufferedWriter, io.BufferedRandom)
"""What keeps in memory what was written to it."""


def entry() -> NoReturn:
    """`nashtune`: run the command line, and end the process with its exit code."""
    try:
        code: object = main()
    except SystemExit as ended:
        code = ended.code
    except BaseException as error:
        if not _is_one_of_several():
            raise
        sys.excepthook(type(error), error, error.__traceback__)
        code = 130 if isinstance(error, KeyboardInterrupt) else 1
    leave(code)


def leave(code: object) -> NoReturn:
    """End this process: as always where it is alone, else without the end of the interpreter.

    What Python does first is done all the same: threads that are no daemons are waited for, exit functions are called,
    and what was written to files and streams that are still open is written out.

    Args:
        code: As `sys.exit` takes it.
    """
    if not _is_one_of_several():
        sys.exit(code)  # type: ignore[arg-type]  # anything: it is printed
    if code is not None and not isinstance(code, int):
        print(code, file=sys.stderr)
        code = 1
    try:
        # private, but what multiprocessing does at the end of its own processes
        threading._shutdown()  # type: ignore[attr-defined]
    except KeyboardInterrupt:
        code = 130
    atexit._run_exitfuncs()
    for one in gc.get_objects():
        # by the type: an object's own word for its class may be a proxy's, which imports what it stands for
        if issubclass(type(one), OPEN):
            with suppress(OSError, ValueError):  # nobody reads any more, or it is closed
                one.flush()
    os._exit((code or 0) & 0xFF)


def _is_one_of_several() -> bool:
    """Whether processes have met; a command that never asked for torch has not loaded it."""
    distributed = sys.modules.get("torch.distributed")
    return distributed is not None and distributed.is_initialized()
