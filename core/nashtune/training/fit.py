"""What `fit` does around Lightning's Trainer: run folder, callbacks, training, report."""

from __future__ import annotations

import shutil
import signal
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning.pytorch import Trainer

from nashtune.consoles import Console
from nashtune.data.prompts import fewer
from nashtune.errors import InputError, Interrupted
from nashtune.files import cannot_write
from nashtune.journal.store import Journal
from nashtune.launcher import is_rank_0
from nashtune.notes import note
from nashtune.rounds.progress import NoProgress
from nashtune.sharding.strategy import check_strategy
from nashtune.training.attempts import Attempts
from nashtune.training.bars import PlainProgress, RoundsBar
from nashtune.training.environment import write_environment
from nashtune.training.finish import finish, weights_are_whole
from nashtune.training.game import Game, SameSteps
from nashtune.training.lock import RankLock
from nashtune.training.parting import open_to_the_others, refuse_alone
from nashtune.training.ready import ready
from nashtune.training.room import check_room
from nashtune.training.run_folder import choose_run_dir, claim, loggers, next_attempt
from nashtune.training.samples import Samples, SampleSettings, answers_prompts
from nashtune.training.saving import Checkpoints, RunState
from nashtune.training.stopping import Stopped, Stopping, has_rounds, how_to_go_on, whom_it_waits_for
from nashtune.training.throughput import Throughput
from nashtune.training.trainer import make_trainer

if TYPE_CHECKING:
    from nashtune.cli.lightning import NashtuneCLI
    from nashtune.cli.session import Session


def fit(cli: NashtuneCLI, session: Session) -> None:
    """Train by a spec, and leave a run folder with everything in it."""
    stopping = Stopping()
    try:
        with ExitStack() as held:
            try:
                _fit(cli, session, stopping, held)
            except RuntimeError as error:
                stopping.follow(error)
                refuse_alone(error)
                raise
    except Stopped as stopped:
        if not is_rank_0():
            raise SystemExit(stopping.code) from stopped
        message = how_to_go_on(Path(cli.plain["run_dir"]), cli.model.trainer.global_step)
        raise Interrupted(message, code=stopping.code) from stopped
    except Exception as error:
        if (problem := cannot_write(error)) is None:
            raise
        step = cli.model.trainer.global_step if cli.model._trainer is not None else 0
        raise InputError(
            f"{problem}. Free some space, or make the folder writable. The run has "
            f"{how_to_go_on(Path(cli.plain['run_dir']), step)}"
        ) from error


def _fit(cli: NashtuneCLI, session: Session, stopping: Stopping, held: ExitStack) -> None:
    plain, console = cli.plain, Console(quiet=not is_rank_0())
    with open_to_the_others():
        folder = choose_run_dir(plain["run_dir"], session.spec.name, resumed=session.resumed)
    game = _game(cli, folder)
    if game is not None and session.resumed is not None and session.resumed.resolve() != folder.resolve():
        raise InputError(
            f"--run_dir: {folder}, but the checkpoint lies in {session.resumed}, and a game goes on with the snapshots "
            "and the journal of its own run folder; go on with: nashtune fit --ckpt_path last --run_dir ITS_RUN_FOLDER"
        )
    if game is not None and session.resumed is not None:
        Journal(folder / "journal").check()  # each process for itself: none of them waits for another yet
    ready(cli, "fit", console, completion_room=game.sampler.max_new_tokens if game else 0)
    if game is not None:
        game.prepare()
    plain["run_dir"] = str(folder)
    attempt, new = next_attempt(folder), not folder.exists()
    keep, ranks = plain["keep_checkpoints"], RankLock(folder)
    held.callback(ranks.release)
    settings, seed = SampleSettings(**plain["samples"]), int(plain["seed_everything"])
    samples, throughput = Samples(folder, settings, seed), Throughput()
    elsewhere = session.resumed is not None and session.resumed.resolve() != folder.resolve()
    attempts = Attempts(throughput, folder, attempt, elsewhere=elsewhere)
    state = RunState({name: value for name, value in plain.items() if name != "run_dir"})
    if game is not None:
        bar = RoundsBar() if sys.stdout.isatty() else PlainProgress()
        shown = plain["trainer"]["enable_progress_bar"] is not False
        saving = Checkpoints(folder, plain["save_every"], stopping, keep, lambda: datamodule.checkpoint_is_due())
        callbacks = [ranks, stopping, state, throughput, attempts, saving, SameSteps(game.accumulate)]
        # one long epoch: the rounds' own loader ends it, and held-out prompts are answered when it is over
        settings_of_games: dict[str, Any] = {"bar": bar, "max_epochs": 1, "limit_val_batches": 0}
        trainer = make_trainer(cli, folder, callbacks, loggers(folder, attempt), **settings_of_games)
        datamodule: Any = game.data(trainer, bar if shown else NoProgress())
    else:
        datamodule = cli.datamodule
        saving = Checkpoints(folder, plain["save_every"], stopping, keep)
        callbacks = [ranks, stopping, state, throughput, attempts, samples, saving]
        trainer = make_trainer(cli, folder, callbacks, loggers(folder, attempt))
    check_strategy(trainer, session.spec.optimizer.name)
    _remarks(cli, settings.prompts, game, trainer)
    with open_to_the_others():
        check_room(cli, session, trainer, folder)
        held.enter_context(claim(folder, plain, attempt))
    held.enter_context(stopping.listening(trainer, folder))
    _refuse_gone(session.checkpoint)
    if is_rank_0():
        write_environment(folder, attempt, trainer, session.command)
    console.print(f"run folder: {folder}", soft_wrap=True)
    if waiting := whom_it_waits_for(trainer):
        print(waiting, flush=True)
    try:
        trainer.fit(cli.model, datamodule=datamodule, ckpt_path=session.checkpoint, weights_only=True)
    except BaseException as error:
        if trainer.interrupted and isinstance(error, SystemExit):  # how Lightning ends after Ctrl-C
            raise Interrupted(how_to_go_on(folder, trainer.global_step), code=130) from error
        launcher: Any = trainer.strategy.launcher
        if trainer.is_global_zero and hasattr(launcher, "kill") and not isinstance(error, Stopped):
            launcher.kill(signal.SIGKILL)  # processes that Lightning has started: they may wait for this one for long
        if new and trainer.global_step == 0 and trainer.is_global_zero and not has_rounds(folder):
            shutil.rmtree(folder, ignore_errors=True)  # made a moment ago, and nothing was trained
        if trainer.world_size > 1 and isinstance(error, RuntimeError):  # another process is gone, or the network is
            error.add_note(how_to_go_on(folder, trainer.global_step))
        raise
    if game is not None and not datamodule.conclude() and trainer.is_global_zero:
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
    throughput.gather()
    if "validation" in cli.datamodule.reports and game is None and cli.model.validated_at != trainer.global_step:
        trainer.validate(cli.model, datamodule=cli.datamodule, verbose=False)
    with cli.model.policy.inference_model(or_cpu=True):
        if trainer.is_global_zero:
            with weights_are_whole(folder):
                finish(cli, session, trainer, folder, samples, attempts, console, datamodule if game else None)


def _remarks(cli: NashtuneCLI, asked: int, game: Game | None, trainer: Trainer) -> None:
    """What is odd about the numbers that were asked for, before anything is spent on them."""
    there = len(cli.datamodule.sample_prompts(asked)) if answers_prompts(cli.model.loss) else 0
    found = [fewer(asked, there)]
    if game is not None:
        found.append(game.overdrawn(trainer.world_size, trainer.max_steps))
    for said in found:
        if said is not None:
            note(said)


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


def _refuse_gone(checkpoint: Path | None) -> None:
    """Another run may have gone on, and replaced the checkpoint, before this one had the folder."""
    if checkpoint is not None and not checkpoint.exists():
        raise InputError(f"--ckpt_path: another run has just replaced {checkpoint}; give the same command again")
