"""Runs a command in a process of its own that kills itself, as `kill -9` does, at a named moment."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any

SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(["nashtune.cli.lightning"])


class Forked(SERVER.Process):  # type: ignore[name-defined]
    """A process that is forked from the server, and has the environment of the test that starts it.

    The server's own is that of whichever test of this worker needed it first.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._environ = dict(os.environ)

    def run(self) -> None:
        os.environ.clear()
        os.environ.update(self._environ)
        super().run()


def killed_run(arguments: Sequence[str], folder: str, target: str, call: int, *, after: bool) -> int:
    """Run `nashtune ARGUMENTS` and die at the n-th call of a function.

    Args:
        arguments: Of the command line.
        folder: Working directory.
        target: "module:function" or "module:Class.method".
        call: Which call, from 1.
        after: Whether the function is left to do its work first.

    Returns:
        The exit code; -9 when it was killed.
    """
    process = Forked(target=_run, args=(list(arguments), folder, target, call, after))
    process.start()
    process.join()
    assert process.exitcode is not None
    return process.exitcode


def _run(arguments: list[str], folder: str, target: str, call: int, after: bool) -> None:
    os.chdir(folder)
    put_death(target, call, after)
    from nashtune.cli.main import main

    os._exit(main(arguments))


def put_death(target: str, call: int, after: bool) -> None:
    """Let this process kill itself at a call of a function; see `killed_run`."""
    module, _, path = target.partition(":")
    holder: Any = import_module(module)
    *owners, name = path.split(".")
    for owner in owners:
        holder = getattr(holder, owner)
    setattr(holder, name, _deadly(getattr(holder, name), call, after))


def _deadly(function: Callable[..., Any], call: int, after: bool) -> Callable[..., Any]:
    calls = 0

    def deadly(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == call and not after:
            os.kill(os.getpid(), signal.SIGKILL)
        result = function(*args, **kwargs)
        if calls == call:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    return deadly
