"""SIGTERM, Ctrl-C, and the signal by which SLURM announces the end of a job: stop where nothing is lost.

In the middle of an optimiser step the signal is only noted; when the step is complete all ranks agree, save, and end.
Between steps (start-up, the phases of a game, the end of a run) there is nothing in memory that is not on the disk
already or is made again from it, and the process ends at once, also where it waits for others and hears nothing itself
(see `listening`). A second signal of the same kind ends it at once anywhere. Of several ranks some may be in a step and
others not yet: who leaves says so, and who then finds the others gone leaves for the same reason.

Lightning's own handlers do worse: they talk to other ranks from inside the handler, save wherever the signal finds
them, also between two micro-batches of one step, and ask every rank before every micro-batch.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Timer
from types import FrameType
from typing import Any

import torch.distributed as dist
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.pytorch import Callback, LightningModule, Trainer

from nashtune.launcher import is_rank_0, launcher
from nashtune.ranks import most
from nashtune.training.checkpoint import checkpoints_in
from nashtune.training.listening import heard_by
from nashtune.training.parting import forget, note_down, tell, told
from nashtune.training.slurm import requeue, requeue_signal

DEAF_SECONDS = 2.0
"""After which a main thread that has not heard a signal is taken to wait for others; the process ends without it."""

AGAIN_SECONDS = 3.0
"""Signals that come closer together are one: launchers pass on what a terminal has sent to everybody."""


class Stopped(BaseException):
    """A signal ended the run where nothing is lost. No Exception: nothing that retries may swallow it."""


class Stopping(Callback):
    """Notes signals, and says when to stop for them."""

    def __init__(self) -> None:
        self._asked = 0  # number of the signal
        self._busy = False  # in an optimiser step, or between two of them
        self._requeue_on = 0  # the signal after which SLURM is asked to start the job again
        self._trainer: Trainer | None = None
        self._folder: Path | None = None  # of the run, once signals are heard
        self._heard = False  # by the main thread
        self._came: dict[int, float] = {}  # signal -> when it came first

    @contextmanager
    def listening(self, trainer: Trainer, folder: Path) -> Iterator[None]:
        """Hear signals while the block runs: from before the processes meet until all is done.

        Args:
            trainer: Of the run.
            folder: Run folder, for what is said at the end.
        """
        self._trainer, self._folder = trainer, folder
        if is_rank_0():
            forget(folder)
        self._requeue_on = requeue_signal(trainer)
        # Lightning would put its own handlers over these, and talk to other ranks from inside them
        setattr(trainer._signal_connector, "register_signal_handlers", lambda: None)  # noqa: B010
        handlers: dict[int, Any] = {signal.SIGTERM: self._hear}
        if callable(signal.getsignal(signal.SIGINT)):  # else a shell has put the command into the background
            handlers[signal.SIGINT] = self._interrupt
        if self._requeue_on:
            handlers[self._requeue_on] = self._hear
        with heard_by(self._overhear):
            before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
            try:
                yield
            finally:
                # torchrun tells the others to end when the first one has: what they still say is not to be cut off
                told_again = self._asked and launcher() is not None
                for number, handler in before.items():
                    signal.signal(number, signal.SIG_IGN if told_again else handler)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Spare the ranks Lightning's question before every micro-batch."""
        setattr(trainer.fit_loop.epoch_loop, "_broadcast_sigterm_tensor", lambda: None)  # noqa: B010

    def on_train_batch_start(self, *args: Any) -> None:
        """From here on there may be a step that is in no checkpoint."""
        self._busy = True

    def on_train_end(self, *args: Any) -> None:
        """The last step is saved."""
        self.rest()

    def rest(self) -> None:
        """Nothing is in memory alone now."""
        self._busy = False
        if self._asked:
            self.end()

    def agreed(self) -> bool:
        """Whether any rank was asked to stop; collective."""
        asked = most(self._asked)
        if asked:  # else nothing is touched: a signal that came while the ranks asked each other is still to be told
            self._asked = asked
        return asked != 0

    def end(self) -> None:
        """Ask SLURM for another go where it is due, and stop.

        Raises:
            Stopped: always.
        """
        self._busy = True  # another signal on the way out changes nothing
        tell(self._asked, self._folder)
        if self._asked == self._requeue_on and is_rank_0():
            requeue()
        raise Stopped

    def follow(self, error: RuntimeError) -> None:
        """End as the others where a collective call has failed because a rank was stopped and has left.

        Args:
            error: What went wrong here; any other leaves things as they are.

        Raises:
            Stopped: this rank has heard a signal, or one that has left says that it did.
        """
        if dist.is_initialized() and (isinstance(error, dist.DistError) or "gloo" in str(error)):
            self._asked = self._asked or told(self._folder)
            if self._asked:
                self.end()

    @property
    def code(self) -> int:
        """Exit code: 0 for a SLURM job, which is to be started again and has not failed, else as shells count.

        0 as well for a process that Lightning has started: it kills everybody at once when one of these ends otherwise,
        and rank 0 of the machine says how it was. Any other launcher hears it from each process that it has started.
        """
        return 0 if SLURMEnvironment.job_id() is not None or _is_started_by_lightning() else 128 + self._asked

    def _hear(self, number: int, frame: FrameType | None) -> None:
        """In the main thread."""
        self._heard = True
        self._asked = number
        if not self._busy:
            self.end()

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        """In the main thread: Ctrl-C ends a run where it is, as it always does."""
        self._heard = True
        raise KeyboardInterrupt

    def _overhear(self, number: int) -> None:
        """In a thread of its own, whatever the main thread does."""
        if number not in (signal.SIGTERM, signal.SIGINT, self._requeue_on):
            return
        if number != signal.SIGINT:
            self._pass_on(number)  # of Ctrl-C a terminal tells everybody
        now = time.monotonic()
        if now - self._came.setdefault(number, now) >= AGAIN_SECONDS:
            self._leave(number)
        deaf = Timer(DEAF_SECONDS, self._leave_if_deaf, (number,))
        deaf.daemon = True
        deaf.start()

    def _leave_if_deaf(self, number: int) -> None:
        waits_for_the_step = self._busy and number != signal.SIGINT
        if not self._heard and not waits_for_the_step:
            self._leave(number)

    def _leave(self, number: int) -> None:
        """End this process without its main thread, and those that Lightning has started from it."""
        self._asked = number
        note_down(number, self._folder)
        self._pass_on(signal.SIGKILL)
        if is_rank_0():
            if number == self._requeue_on:
                requeue()
            step = self._trainer.global_step if self._trainer is not None else 0
            if self._folder is not None:
                print(how_to_go_on(self._folder, step), file=sys.stderr)
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(self.code)

    def _pass_on(self, number: int) -> None:
        launcher: Any = self._trainer.strategy.launcher if self._trainer is not None else None
        if hasattr(launcher, "kill"):
            launcher.kill(number)  # processes that Lightning has started from this one


def _is_started_by_lightning() -> bool:
    return launcher() is None and os.environ.get("LOCAL_RANK", "0") != "0"


def how_to_go_on(folder: Path, step: int) -> str:
    """What a run that was stopped has kept, and the next command.

    Args:
        folder: The run folder.
        step: Optimiser steps done.
    """
    saved = checkpoints_in(folder)
    if not folder.exists():  # nothing was trained in it, so it was removed
        return f"stopped at step {step}, and nothing is left of it in {folder}; give the same command again"
    if not saved and not has_rounds(folder):
        return (
            f"stopped at step {step}, before the first checkpoint (--save_every); begin again in the same folder: "
            f"nashtune fit --ckpt_path auto --run_dir {folder}"
        )
    kept = f"the newest checkpoint is {saved[max(saved)].name}" if saved else "what was sampled is kept"
    return f"stopped at step {step}; {kept}; go on with: nashtune fit --ckpt_path last --run_dir {folder}"


def whom_it_waits_for(trainer: Trainer) -> str | None:
    """One line of the first process of each machine before the processes meet; None where there is nobody to wait for.

    Args:
        trainer: Of the run; its processes have not met yet.
    """
    others = trainer.world_size - 1
    environment = trainer._accelerator_connector.cluster_environment
    if others < 1 or environment is None or trainer.local_rank != 0:
        return None
    what = "1 other process" if others == 1 else f"{others} other processes"
    return f"waiting for {what} ({environment.main_address}:{environment.main_port})"


def has_rounds(folder: Path) -> bool:
    """Whether a game has drawn something already."""
    return any((folder / "journal").glob("round-*"))
