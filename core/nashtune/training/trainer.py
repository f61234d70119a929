"""The user's `trainer` section as a Lightning Trainer, plus what every run has."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.accelerators import CPUAccelerator

from nashtune import cpu
from nashtune.errors import InputError
from nashtune.launcher import launcher
from nashtune.sharding.strategy import own_strategy
from nashtune.spec.runranks import other_count
from nashtune.training.bars import PlainBar, RichBar
from nashtune.training.checkpoint import AtomicCheckpointIO

if TYPE_CHECKING:
    from nashtune.cli.lightning import NashtuneCLI


def make_trainer(
    cli: NashtuneCLI,
    folder: Path | None,
    callbacks: list[Callback],
    own_loggers: list[Any],
    *,
    bar: Callback | None = None,
    **settings: Any,
) -> Trainer:
    """The trainer of a command.

    Args:
        cli: The parsed command.
        folder: Run folder, if there is one.
        callbacks: Ours.
        own_loggers: Ours.
        bar: Progress bar; None for Lightning's.
        settings: What this command sets itself, over the user's.

    Raises:
        InputError: Lightning refuses the settings.
    """
    asked: Any = cli.config_init[cli.subcommand]["trainer"]
    if bar is None:
        bar = PlainBar()
        if sys.stdout.isatty() or cli.subcommand == "predict":  # stdout carries the predictions
            bar = RichBar(leave=True, console_kwargs={"stderr": cli.subcommand == "predict"})
    users = asked["callbacks"] or []
    users = users if isinstance(users, list) else [users]
    user_loggers = (
        asked["logger"] if isinstance(asked["logger"], list) else [asked["logger"]] if asked["logger"] else []
    )
    try:
        trainer: Trainer = cli.instantiate_trainer(
            callbacks=[*users, *callbacks, *([bar] if asked["enable_progress_bar"] is not False else [])],
            logger=[*own_loggers, *(logger for logger in user_loggers if not isinstance(logger, bool))] or False,
            plugins=[*(asked["plugins"] or []), AtomicCheckpointIO()],
            default_root_dir=str(folder) if folder else None,
            enable_checkpointing=False,  # ours: see `Checkpoints`
            enable_model_summary=False,
            use_distributed_sampler=False,
            strategy=own_strategy(asked["strategy"]),
            **settings,
        )
    except (MisconfigurationException, ValueError, TypeError, ModuleNotFoundError) as error:
        raise InputError(f"trainer: {' '.join(str(error).split())}") from error
    started, expected = launcher(), trainer.num_nodes * trainer.num_devices
    if started is not None and started.processes != expected:  # where the devices had to be asked how many they are
        raise InputError(f"trainer.devices: {other_count(started, expected)}")
    if isinstance(trainer.accelerator, CPUAccelerator):
        cpu.tune()
    return trainer
