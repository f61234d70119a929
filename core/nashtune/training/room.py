"""Whether the disk has room for what a run will write, looked at before its model loads."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from lightning.pytorch import Trainer
from lightning.pytorch.strategies import DeepSpeedStrategy

from nashtune.errors import InputError
from nashtune.launcher import is_rank_0
from nashtune.memory.disk import Disk, critic_parameters, free_space
from nashtune.models.locate import CHECKPOINTS, EXPORT
from nashtune.notes import note
from nashtune.spec.plan import size
from nashtune.spec.rundisk import PUSHED, disk_of_run
from nashtune.training.checkpoint import checkpoints_in
from nashtune.training.optimizer import total_steps

if TYPE_CHECKING:
    from nashtune.cli.lightning import NashtuneCLI
    from nashtune.cli.session import Session


def check_room(cli: NashtuneCLI, session: Session, trainer: Trainer, folder: Path) -> None:
    """Refuse a run whose first checkpoint has no room, and say where its peak has none. Rank 0 does, for all.

    What is counted against a run is what it takes at least: none is refused that would fit.

    Args:
        cli: The parsed command, its rows read.
        session: What it goes on from.
        trainer: Made.
        folder: The run's, there or not.

    Raises:
        InputError: the run would train, and could not save.
    """
    if not is_rank_0() or isinstance(trainer.strategy, DeepSpeedStrategy):
        return
    # Lightning gives a run without any limit one of its own, later
    ends = trainer.max_steps > 0 or (trainer.max_epochs or 0) > 0
    steps = total_steps(trainer, cli.datamodule) if ends and not cli.model.is_game else None
    disk = _disk(cli, steps)
    if disk is None:
        return
    # what earlier attempts have left unfinished is removed before anything is saved
    free = free_space(folder) + sum(map(_bytes, (folder / CHECKPOINTS).glob(".step=*")))
    if free < disk.first and _saves(session, trainer, steps, game=cli.model.is_game):
        start = " and the snapshot that a game begins with" if disk.snapshots else ""
        adapter = "" if cli.model.policy.is_lora else "train an adapter (--policy.lora.r 16) or "
        raise InputError(
            f"--run_dir: {folder}: {size(free)} are free there, and the first checkpoint{start} takes at least "
            f"{size(disk.first)}, so nothing could be saved. Free some space, give a folder on a larger disk "
            f"(--run_dir /LARGE/NAME), {adapter}take a smaller model"
        )
    there = checkpoints_in(folder)
    if disk.saves is not None:  # an old one stays until the next one is whole, also where that is the only one to come
        disk = replace(disk, saves=disk.saves + len(there))
    own = sum(map(_bytes, [*there.values(), folder / "snapshots", folder / PUSHED]))
    needed = max(disk.while_saving, disk.while_pushing, disk.at_the_end - _bytes(folder / EXPORT)) - own
    if free < needed:
        note(
            f"{folder}: {size(free)} are free there, and the run needs up to {size(needed)} ({size(disk.checkpoint)} a "
            f"checkpoint, {disk.keep} kept, one more while saving; the exported model {size(disk.export)}). Where the "
            "disk is full it ends, and checkpoints that are there stay whole"
        )


def _disk(cli: NashtuneCLI, steps: int | None) -> Disk | None:
    module, policy = cli.model, cli.model.policy
    critic = 0
    if module.loss.uses_values:
        critic = critic_parameters(module.loss.critic_init, policy.folder, module.oracle_model)
    return disk_of_run(
        module.spec,
        policy.folder,
        module.schedule.rounds() if module.is_game else (),
        math.inf if steps is None else steps,
        precision=policy.config.precision,
        lora=policy.config.lora,
        critic=critic,
        keep=int(cli.plain["keep_checkpoints"]),
        every=int(cli.plain["save_every"]),
    )


def _saves(session: Session, trainer: Trainer, steps: int | None, *, game: bool) -> bool:
    """Whether it is certain that a checkpoint will be written: a run that goes on may have nothing left to train."""
    if trainer.max_steps == 0 or trainer.limit_train_batches == 0:
        return False
    if session.checkpoint is None:
        return not game or session.resumed is None
    done = session.checkpoint.stem.partition("=")[2]
    return steps is not None and done.isdecimal() and int(done) < steps


def _bytes(path: Path) -> int:
    """Of a file, or of what a folder holds; 0 where there is none."""
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())
