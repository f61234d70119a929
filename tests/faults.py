"""Runs `nashtune` in processes of its own in which something goes wrong at a named moment.

A moment is the n-th call of a function, counted from 1; the fault happens before the function does its work.
"""

from __future__ import annotations

import ctypes
import errno
import locale
import os
import resource
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from killing import Forked
from ranks import DDP, SECONDS, _leave, _prepare, end_all, free_port, logs

STEP = "nashtune.training.module:AlignmentModule.training_step"
SAVE = "nashtune.training.checkpoint:AtomicCheckpointIO.save_checkpoint"
VALIDATE = "nashtune.training.module:AlignmentModule.validation_step"
LOAD = "nashtune.models.policy:HFPolicy.load"
REMEMBER = "nashtune.references.cached:CachedReference.prepare"
FINISH = "nashtune.training.finish:export_policy"
EVALUATE = "nashtune.training.objective:Objective.evaluate"


@dataclass(frozen=True)
class Fault:
    """What goes wrong.

    Attributes:
        what: Name of a function below.
        where: "module:function" or "module:Class.method".
        call: Which call of it, from 1.
    """

    what: str
    where: str
    call: int = 1


def faulty(
    arguments: Sequence[str],
    folder: Path,
    *faults: Fault | None,
    strategy: Sequence[str] = DDP,
    env: dict[str, str] | None = None,
    seconds: float = 2 * SECONDS,
) -> list[int | None]:
    """Run `nashtune ARGUMENTS` on as many ranks as there are faults; None is a rank in which nothing goes wrong.

    Returns:
        Exit codes by rank; None where a rank had to be killed because it did not end. Logs are in `FOLDER/rank-R.log`.
    """
    ranks, port = len(faults), free_port()
    command = [*arguments, *(["--trainer.devices", str(ranks), *strategy] if ranks > 1 else [])]
    processes = [
        Forked(target=_run, args=(rank, ranks, port, command, str(folder), fault, env or {}))
        for rank, fault in enumerate(faults)
    ]
    for process in processes:
        process.start()
    return end_all(processes, seconds)


def said(folder: Path) -> str:
    """What all ranks wrote, on one line."""
    return " ".join(logs(folder).split())


def _run(
    rank: int, ranks: int, port: int, command: list[str], folder: str, fault: Fault | None, env: dict[str, str]
) -> None:
    _prepare(rank, ranks, port, folder)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if ranks == 1:
        for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "GROUP_RANK", "TORCHELASTIC_RUN_ID"):
            del os.environ[name]
    os.environ.update(env)
    if fault is not None:
        _put(fault)
    from nashtune.cli.main import main

    try:
        code = main(command)
    except SystemExit as end:
        code = int(end.code or 0)
    except BaseException:
        import traceback

        traceback.print_exc()
        code = 1
    _leave(code)


def _put(fault: Fault) -> None:
    module, _, path = fault.where.partition(":")
    holder: Any = import_module(module)
    *owners, name = path.split(".")
    for owner in owners:
        holder = getattr(holder, owner)
    function, calls = getattr(holder, name), 0

    def wrong(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls != fault.call:
            return function(*args, **kwargs)
        return FAULTS[fault.what](lambda: function(*args, **kwargs))

    setattr(holder, name, wrong)


def _signal(number: signal.Signals) -> Callable[[Callable[[], Any]], Any]:
    def act(go_on: Callable[[], Any]) -> Any:
        os.kill(os.getpid(), number)
        return go_on()

    return act


def _sleep(seconds: float) -> Callable[[Callable[[], Any]], Any]:
    def act(go_on: Callable[[], Any]) -> Any:
        print(f"a fault: nothing happens for {seconds:g} s", flush=True)
        time.sleep(seconds)
        return go_on()

    return act


def _patient(go_on: Callable[[], Any]) -> Any:
    """Rank 0, when it refuses to begin, waits for the others for as long as a loaded machine may take."""
    import_module("nashtune.training.parting").MEET_SECONDS = SECONDS
    return go_on()


def _nan(go_on: Callable[[], Any]) -> Any:
    output = go_on()
    return replace(output, values=output.values * float("nan"))


class _NanGradient(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, values: torch.Tensor) -> torch.Tensor:
        return values.clone()

    @staticmethod
    def backward(context: Any, gradient: torch.Tensor) -> torch.Tensor:
        return gradient * float("nan")


def _nan_gradient(go_on: Callable[[], Any]) -> Any:
    output = go_on()
    return replace(output, values=_NanGradient.apply(output.values))


def _full_disk(go_on: Callable[[], Any]) -> Any:
    """No file may grow beyond a few kilobytes from now on."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
    return go_on()


def _no_space(go_on: Callable[[], Any]) -> Any:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "metrics.csv")


def _another_place(go_on: Callable[[], Any]) -> Any:
    """Text is ASCII unless somebody says otherwise, the date line is near, and the clock runs backwards."""
    locale.setlocale(locale.LC_ALL, "C")
    assert locale.getencoding() != "UTF-8"
    os.environ["TZ"] = "Pacific/Kiritimati"
    time.tzset()
    true, began = time.time, time.time()
    time.time = lambda: 2 * began - true() - 1e8
    return go_on()


def _read_only(go_on: Callable[[], Any]) -> Any:
    """From now on this process, and no other, sees the folder `run` on a file system that is read-only."""
    target, libc = os.path.realpath("run").encode(), ctypes.CDLL(None, use_errno=True)
    private, bind, again = 1 << 18 | 1 << 14, 1 << 12, 1 << 12 | 1 << 5 | 1
    steps = (
        lambda: libc.unshare(1 << 17),
        lambda: libc.mount(b"none", b"/", None, private, None),
        lambda: libc.mount(target, target, None, bind, None),
        lambda: libc.mount(target, target, None, again, None),
    )
    for step in steps:
        assert step() == 0, os.strerror(ctypes.get_errno())
    return go_on()


FAULTS: dict[str, Callable[[Callable[[], Any]], Any]] = {
    "kill": _signal(signal.SIGKILL),
    "term": _signal(signal.SIGTERM),
    "int": _signal(signal.SIGINT),
    "usr1": _signal(signal.SIGUSR1),
    "slow": _sleep(2.0),
    "hang": _sleep(30.0),
    "patient": _patient,
    "nan": _nan,
    "nan gradient": _nan_gradient,
    "full disk": _full_disk,
    "no space": _no_space,
    "another place": _another_place,
    "read-only": _read_only,
}
