"""What `fit` does around Lightning's Trainer: run folder, callbacks, training, report."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning.pytorch import Trainer
from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy
from rich.console import Console

from nashtune.errors import InputError, Interrupted
from nashtune.rounds.progress import NoProgress
from nashtune.training.bars import PlainProgress, RoundsBar
from nashtune.training.checkpoint import Checkpoints, RunState, newest_checkpoint
from nashtune.training.finish import finish
from nashtune.training.game import Game
from nashtune.training.ready import ready
from nashtune.training.run_folder import choose_run_dir, claim, loggers, next_attempt
from nashtune.training.samples import Samples, SampleSettings
from nashtune.training.throughput import Throughput
from nashtune.training.trainer import make_trainer

if TYPE_CHECKING:
    from nashtune.cli.lightning import NashtuneCLI
    from nashtune.cli.session import Session


def fit(cli: NashtuneCLI, session: Session) -> None:
    """Train by a spec, and leave a run folder with everything in it."""
    plain, console = cli.plain, Console()
    folder = choose_run_dir(plain["run_dir"], session.spec.name, resumed=session.resumed)
    game = _game(cli, folder)
    if game is not None and session.resumed is not None and session.resumed.resolve() != folder.resolve():
        raise InputError(
            f"--run_dir: {folder}, but the checkpoint lies in {session.resumed}, and a game goes on with the snapshots "
            "and the journal of its own run folder; go on with: nashtune fit --ckpt_path last --run_dir ITS_RUN_FOLDER"
        )
    ready(cli, "fit", console, completion_room=game.sampler.max_new_tokens if game else 0)
    if game is not None:
        game.prepare()
    plain["run_dir"] = str(folder)
    attempt, new = next_attempt(folder), not folder.exists()
    settings, seed = SampleSettings(**plain["samples"]), int(plain["seed_everything"])
    samples, throughput = Samples(folder, settings, seed), Throughput()
    state = RunState({name: value for name, value in plain.items() if name != "run_dir"})
    if game is not None:
        bar = RoundsBar() if sys.stdout.isatty() else PlainProgress()
        shown = plain["trainer"]["enable_progress_bar"] is not False
        datamodule: Any = game.data(lambda: trainer, bar if shown else NoProgress())
        saving = Checkpoints(folder / "checkpoints", plain["save_every"], datamodule.checkpoint_is_due)
        callbacks = [state, throughput, saving]
        # one long epoch: the rounds' own loader ends it, and held-out prompts are answered when it is over
        settings_of_games: dict[str, Any] = {"bar": bar, "max_epochs": 1, "limit_val_batches": 0}
        trainer = make_trainer(cli, folder, callbacks, loggers(folder, attempt), **settings_of_games)
        if trainer.world_size > 1:
            raise InputError(
                f"trainer.devices: {trainer.world_size} processes, and the rounds of a game run on one in this "
                "version; use --trainer.devices 1"
            )
    else:
        datamodule = cli.datamodule
        saving = Checkpoints(folder / "checkpoints", plain["save_every"])
        trainer = make_trainer(cli, folder, [state, throughput, samples, saving], loggers(folder, attempt))
    if not isinstance(trainer.strategy, (SingleDeviceStrategy, DDPStrategy)):
        raise InputError(
            f"trainer.strategy: {type(trainer.strategy).__name__} is not supported in this version: processes may take "
            "different numbers of passes, which sharded weights cannot; use ddp or one device"
        )
    claim(folder, plain, attempt)
    console.print(f"run folder: {folder}", soft_wrap=True)
    try:
        trainer.fit(cli.model, datamodule=datamodule, ckpt_path=session.checkpoint, weights_only=True)
    except BaseException as error:
        if trainer.interrupted and isinstance(error, SystemExit):  # how Lightning ends after Ctrl-C or SIGTERM
            raise Interrupted(_how_to_go_on(trainer, folder), code=143 if trainer.received_sigterm else 130) from error
        if new and trainer.global_step == 0 and trainer.is_global_zero and not _has_rounds(folder):
            shutil.rmtree(folder, ignore_errors=True)  # made a moment ago, and nothing was trained
        raise
    if game is not None and trainer.is_global_zero and not datamodule.conclude():
        console.print(
            f"stopped at step {trainer.global_step}, before the last round was over: what follows is about the live "
            f"weights, in the middle of a round. Go on with: nashtune fit --ckpt_path last --run_dir {folder} "
            "--trainer.max_steps -1",
            soft_wrap=True,
        )
    # a run that was killed while it was finishing has no step left and no exported model: it finishes now
    if throughput.seconds == 0 and game is None and (folder / "export").is_dir():
        console.print(
            f"nothing left to train: this run ended at step {trainer.global_step}; its results are in {folder}"
        )
        return
    if "validation" in cli.datamodule.reports and game is None and cli.model.validated_at != trainer.global_step:
        trainer.validate(cli.model, datamodule=cli.datamodule, verbose=False)
    if trainer.is_global_zero:
        finish(cli, session, trainer, folder, samples, throughput, console, datamodule if game else None)


def _game(cli: NashtuneCLI, folder: Path) -> Game | None:
    if not cli.model.is_game:
        return None
    trainer = cli.plain["trainer"]
    return Game(
        cli.model,
        cli.datamodule,
        folder=folder,
        seed=int(cli.plain["seed_everything"]),
        epochs=int(trainer["max_epochs"] or 1),
        accumulate=int(trainer["accumulate_grad_batches"]),
        settings={
            "precision": str(trainer["precision"] or "32-true"),
            "engine": str(cli.plain["engine"]),
            "gradient_clip_val": trainer["gradient_clip_val"],
            "gradient_clip_algorithm": trainer["gradient_clip_algorithm"],
        },
    )


def _has_rounds(folder: Path) -> bool:
    """Whether a game has drawn something already."""
    return any((folder / "journal").glob("round-*"))


def _how_to_go_on(trainer: Trainer, folder: Path) -> str:
    saved = any((folder / "checkpoints").glob("step=*.ckpt"))
    if not saved and not _has_rounds(folder):
        return f"stopped at step {trainer.global_step}, before the first checkpoint (--save_every)"
    kept = f"the newest checkpoint is {newest_checkpoint(folder).name}" if saved else "what was sampled is kept"
    return (
        f"stopped at step {trainer.global_step}; {kept}; go on with: nashtune fit --ckpt_path last --run_dir {folder}"
    )
