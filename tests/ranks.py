"""Runs `nashtune` as several data-parallel processes of this machine, as torchrun starts them, and kills some of them.

Processes are forked from a server that has imported everything; a rank's output goes to `FOLDER/rank-R.log`.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from datetime import timedelta
from multiprocessing.process import BaseProcess
from pathlib import Path

from killing import Forked, put_death

SECONDS = 120  # until a process that waits for another gives up
PATIENT = f"{timedelta(seconds=SECONDS)}"
DDP = (
    *("--trainer.strategy", "lightning.pytorch.strategies.DDPStrategy"),
    *("--trainer.strategy.process_group_backend", "gloo", "--trainer.strategy.timeout", PATIENT),
)
FSDP2 = (
    *("--trainer.strategy", "nashtune.sharding.strategy.FSDP2Strategy"),
    *("--trainer.strategy.process_group_backend", "gloo", "--trainer.strategy.timeout", PATIENT),
)
Moment = tuple[str, int, bool]
"""Target, call and `after` of `killing.killed_run`."""


def start_on_ranks(
    arguments: Sequence[str],
    folder: Path,
    *,
    ranks: int = 2,
    strategy: Sequence[str] = DDP,
    deaths: dict[int, Moment] | None = None,
) -> list[BaseProcess]:
    """As `run_on_ranks`, without waiting: the processes, by rank."""
    command = [*arguments, "--trainer.devices", str(ranks), *strategy]
    port = free_port()
    processes: list[BaseProcess] = [
        Forked(target=_rank, args=(rank, ranks, port, command, str(folder), (deaths or {}).get(rank)))
        for rank in range(ranks)
    ]
    for process in processes:
        process.start()
    return processes


def run_on_ranks(
    arguments: Sequence[str],
    folder: Path,
    *,
    ranks: int = 2,
    strategy: Sequence[str] = DDP,
    deaths: dict[int, Moment] | None = None,
    seconds: float = 2 * SECONDS,
) -> list[int | None]:
    """Run `nashtune ARGUMENTS` on several ranks until all have ended.

    Args:
        arguments: Of the command line, without devices and strategy.
        folder: Working directory, and where logs are left.
        ranks: How many.
        strategy: Options that name Lightning's strategy.
        deaths: Ranks that kill themselves, and when.
        seconds: After these, what still runs is killed.

    Returns:
        Exit codes by rank: -9 where one killed itself, None where one had to be killed for it did not end.
    """
    processes = start_on_ranks(arguments, folder, ranks=ranks, strategy=strategy, deaths=deaths)
    return end_all(processes, seconds)


def end_all(processes: Sequence[BaseProcess], seconds: float) -> list[int | None]:
    """Exit codes when all have ended; None for one that was still running after so many seconds, and was killed."""
    end = time.monotonic() + seconds
    for process in processes:
        process.join(max(end - time.monotonic(), 0.01))
    codes = [process.exitcode for process in processes]
    for process in processes:
        if process.exitcode is None:
            process.kill()
            process.join()
    return codes


def fit_on_ranks(
    arguments: Sequence[str],
    folder: Path,
    *,
    ranks: int = 2,
    strategy: Sequence[str] = DDP,
) -> None:
    """As `run_on_ranks`; every rank must end well."""
    codes = run_on_ranks(arguments, folder, ranks=ranks, strategy=strategy)
    assert codes == [0] * ranks, f"exit codes {codes}\n{logs(folder)}"


def call_on_ranks(
    function: Callable[..., None], folder: Path, *arguments: object, ranks: int = 2, seconds: float = 2 * SECONDS
) -> None:
    """Call a function of a test module in each of several processes of one process group (gloo).

    Args:
        function: Of a module, so that it can be named to another process; gets its rank and the arguments.
        folder: Working directory, and where logs are left.
        arguments: Plain values.
        ranks: How many.
        seconds: After these, what still runs is killed.
    """
    port = free_port()
    processes = [
        Forked(target=_call, args=(rank, ranks, port, str(folder), function, arguments)) for rank in range(ranks)
    ]
    for process in processes:
        process.start()
    codes = end_all(processes, seconds)
    assert codes == [0] * ranks, f"exit codes {codes}\n{logs(folder)}"


def logs(folder: Path) -> str:
    """What all ranks wrote."""
    return "\n".join(f"--- {path.name}\n{path.read_text()}" for path in sorted(folder.glob("rank-*.log")))


_kept: deque[socket.socket] = deque()


def free_port() -> int:
    """A port of this machine that nobody listens at, and that nobody is given until so many others were asked for.

    A socket that is bound and does not listen keeps it from all who ask for any port: another worker, or a connection
    that goes out. A server that sets SO_REUSEADDR, as all do that are started here, can listen there all the same.
    """
    while len(_kept) >= 16:
        _kept.popleft().close()
    probe = socket.socket()
    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    probe.bind(("127.0.0.1", 0))
    _kept.append(probe)
    return int(probe.getsockname()[1])


def _rank(rank: int, ranks: int, port: int, command: list[str], folder: str, death: Moment | None) -> None:
    _prepare(rank, ranks, port, folder)
    if death is not None:
        put_death(*death)
    from nashtune.cli.main import main

    try:
        code = main(command)
    except SystemExit as ended:  # of a rank that follows another one that was stopped
        code = int(ended.code or 0)
    except BaseException:
        import traceback

        traceback.print_exc()
        code = 1
    _leave(code)


def _call(
    rank: int, ranks: int, port: int, folder: str, function: Callable[..., None], arguments: tuple[object, ...]
) -> None:
    import torch.distributed as dist

    _prepare(rank, ranks, port, folder)
    code = 0
    try:
        dist.init_process_group("gloo", timeout=timedelta(seconds=SECONDS))
        function(rank, *arguments)
        dist.barrier()
    except BaseException:
        import traceback

        traceback.print_exc()
        code = 1
    _leave(code)


def _prepare(rank: int, ranks: int, port: int, folder: str) -> None:
    """The environment that torchrun gives a process, and a log."""
    os.chdir(folder)
    handle = os.open(f"rank-{rank}.log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for stream in (sys.stdout, sys.stderr):
        os.dup2(handle, stream.fileno())
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    os.environ.update(
        {
            **{"RANK": str(rank), "LOCAL_RANK": str(rank), "GROUP_RANK": "0"},
            **{"WORLD_SIZE": str(ranks), "LOCAL_WORLD_SIZE": str(ranks), "TORCHELASTIC_RUN_ID": "test"},
            **{"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "GLOO_SOCKET_IFNAME": "lo"},
        }
    )
    import torch
    from lightning.fabric.utilities.rank_zero import rank_zero_only

    torch.set_num_threads(1)
    rank_zero_only.rank = rank  # read from the environment at import, which was in the server


def _leave(code: int) -> None:
    """End as the command does: who has said what all have to say stays for a while, so that the others need not."""
    from nashtune import once

    if once._held:
        time.sleep(once.LATER)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
