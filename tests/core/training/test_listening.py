"""Signals while a process waits for others and Python runs no handler, and the second one."""

from __future__ import annotations

import os
import signal
import time
from multiprocessing.process import BaseProcess
from pathlib import Path
from threading import Event, current_thread, main_thread

import pytest

from faults import STEP, Fault, _run
from killing import Forked
from lab import Lab
from nashtune.training.checkpoint import newest_checkpoint
from nashtune.training.listening import heard_by
from nashtune.training.lock import LOCK
from ranks import DDP, SECONDS, free_port, logs


def test_a_thread_hears_what_came_and_nothing_of_forks() -> None:
    heard: list[tuple[int, bool]] = []
    came = Event()

    def hear(number: int) -> None:
        heard.append((number, current_thread() is main_thread()))
        came.set()

    before = signal.signal(signal.SIGUSR2, lambda number, frame: None)
    try:
        with heard_by(hear):
            if (child := os.fork()) == 0:
                os.kill(os.getpid(), signal.SIGUSR2)
                os._exit(0)
            os.waitpid(child, 0)
            assert not came.wait(0.3)
            os.kill(os.getpid(), signal.SIGUSR2)
            assert came.wait(60)
        assert heard == [(signal.SIGUSR2, False)]
        assert signal.set_wakeup_fd(-1) == -1
    finally:
        signal.signal(signal.SIGUSR2, before)


def test_a_process_that_was_forked_and_lives_on_keeps_nobody_waiting() -> None:
    """Such as the pool of a plugin's oracle, which multiprocessing ends when this process ends."""
    begun, child = time.monotonic(), 0
    try:
        with heard_by(lambda number: None):
            if (child := os.fork()) == 0:
                time.sleep(10)
                os._exit(0)
        assert time.monotonic() - begun < 5
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def begin(lab: Lab, *faults: Fault | None, missing: int = 0) -> list[BaseProcess]:
    """Start ranks of one run; of all of them, `missing` never begin."""
    total, port = len(faults) + missing, free_port()
    run = ["--run_dir", str(lab.folder / "run"), "--ckpt_path", "auto", "--data.batch_size", "2", "--save_every", "1"]
    command = ["fit", "--config", str(lab.run_file), "--spec", "dpo", *run, "--trainer.devices", str(total), *DDP]
    processes: list[BaseProcess] = [
        Forked(target=_run, args=(rank, total, port, command, str(lab.folder), fault, {}))
        for rank, fault in enumerate(faults)
    ]
    for process in processes:
        process.start()
    return processes


def wait_for(path: Path, text: bytes, process: BaseProcess) -> str:
    """Until a file is there and has some bytes in it; what it holds then."""
    end = time.monotonic() + SECONDS
    while not path.exists() or text not in path.read_bytes():
        assert process.is_alive() and time.monotonic() < end, f"{path}: {logs(path.parent)}"
        time.sleep(0.05)
    return path.read_text(errors="replace")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_process_that_waits_for_one_that_never_begins_says_so_and_ends(lab: Lab, number: int, code: int) -> None:
    (process,) = begin(lab, None, missing=1)
    try:
        log = lab.folder / "rank-0.log"
        assert "waiting for 1 other process (127.0.0.1:" in wait_for(log, b"(127.0.0.1:", process)
        time.sleep(0.5)  # into the call that waits; a signal before it ends the process as well
        assert process.pid is not None
        os.kill(process.pid, number)
        process.join(60)
        assert process.exitcode == code, log.read_text()
        said = " ".join(log.read_text().split())
        assert "begin again in the same folder: nashtune fit --ckpt_path auto" in said and "Traceback" not in said
    finally:
        process.kill()
        process.join()


def test_the_second_signal_ends_a_step_that_waits_for_a_rank_that_hangs(lab: Lab) -> None:
    first, second = begin(lab, None, Fault("hang", STEP, 3))
    try:
        # rank 1 sleeps in its third step, so the ranks have agreed that nobody was asked to stop after the second one
        wait_for(lab.folder / "rank-1.log", b"nothing happens", second)
        wait_for(lab.folder / "run" / "checkpoints" / "step=2.ckpt", b"", first)
        time.sleep(0.5)  # rank 0 waits in the third step now
        assert first.pid is not None and (lab.folder / "run" / LOCK).exists()
        os.kill(first.pid, signal.SIGTERM)
        first.join(4)
        assert first.is_alive(), "a step that is begun is finished"
        os.kill(first.pid, signal.SIGTERM)
        first.join(15)  # rank 1 sleeps for longer
        log = (lab.folder / "rank-0.log").read_text()
        assert first.exitcode == 143, log
        assert "stopped at step 2; the newest checkpoint is step=2.ckpt; go on with" in " ".join(log.split())
        assert newest_checkpoint(lab.folder / "run").name == "step=2.ckpt"
    finally:
        for process in (first, second):
            process.kill()
            process.join()
