"""What `fit`, `validate`, `test` and `predict` do around Lightning's Trainer."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import RichProgressBar, TQDMProgressBar
from rich.console import Console
from rich.table import Table

from nashtune.errors import InputError, Interrupted
from nashtune.evaluation.report import draw_curves, print_report, read_metrics
from nashtune.models.preflight import load_tokenizer, preflight
from nashtune.training.checkpoint import AtomicCheckpointIO, Checkpoints, RunState, newest_checkpoint
from nashtune.training.export import export_policy, model_card
from nashtune.training.run_folder import choose_run_dir, claim, loggers, next_attempt, write_json
from nashtune.training.samples import Samples, SampleSettings
from nashtune.training.throughput import Throughput

if TYPE_CHECKING:
    from nashtune.cli.lightning import NashtuneCLI
    from nashtune.cli.session import Session


class _NoVersion:
    """Progress bar without the loggers' version number, which says nothing here."""

    def get_metrics(self, *args: Any) -> dict[str, Any]:
        """What the bar shows."""
        shown: dict[str, Any] = super().get_metrics(*args)  # type: ignore[misc]  # mixed into Lightning's bars
        return {name: value for name, value in shown.items() if name != "v_num"}


class PlainBar(_NoVersion, TQDMProgressBar):
    """For logs and pipes."""


class RichBar(_NoVersion, RichProgressBar):
    """For terminals."""


def fit(cli: NashtuneCLI, session: Session) -> None:
    """Train by a spec, and leave a run folder with everything in it."""
    plain, console = cli.plain, Console()
    resumed = session.checkpoint.parent.parent if session.checkpoint else None
    folder = choose_run_dir(plain["run_dir"], session.spec.name, resumed=resumed)
    ready(cli, "fit", console)
    plain["run_dir"] = str(folder)
    attempt, new = next_attempt(folder), not folder.exists()
    settings = SampleSettings(**plain["samples"])
    samples = Samples(folder, settings, int(plain["seed_everything"]))
    throughput = Throughput()
    state = RunState({name: value for name, value in plain.items() if name != "run_dir"})
    saving = Checkpoints(folder / "checkpoints", plain["save_every"])
    trainer = make_trainer(cli, folder, [state, throughput, samples, saving], loggers(folder, attempt))
    claim(folder, plain, attempt)
    console.print(f"run folder: {folder}", soft_wrap=True)
    try:
        trainer.fit(cli.model, datamodule=cli.datamodule, ckpt_path=session.checkpoint, weights_only=True)
    except BaseException as error:
        if trainer.interrupted and isinstance(error, SystemExit):  # how Lightning ends after Ctrl-C or SIGTERM
            raise Interrupted(_how_to_go_on(trainer, folder), code=143 if trainer.received_sigterm else 130) from error
        if new and trainer.global_step == 0 and trainer.is_global_zero:
            shutil.rmtree(folder, ignore_errors=True)  # made a moment ago, and nothing was trained
        raise
    if throughput.seconds == 0:
        console.print(
            f"nothing left to train: this run ended at step {trainer.global_step}; its results are in {folder}"
        )
        return
    if "validation" in cli.datamodule.reports and cli.model.validated_at != trainer.global_step:
        trainer.validate(cli.model, datamodule=cli.datamodule, verbose=False)
    if trainer.is_global_zero:
        finish(cli, session, trainer, folder, samples, throughput, console)


def _how_to_go_on(trainer: Trainer, folder: Path) -> str:
    saved = sorted((folder / "checkpoints").glob("step=*.ckpt"))
    if not saved:
        return f"stopped at step {trainer.global_step}, before the first checkpoint (--save_every)"
    return (
        f"stopped at step {trainer.global_step}; the newest checkpoint is {newest_checkpoint(folder).name}; go on "
        f"with: nashtune fit --ckpt_path last --run_dir {folder}"
    )


def finish(
    cli: NashtuneCLI,
    session: Session,
    trainer: Trainer,
    folder: Path,
    samples: Samples,
    throughput: Throughput,
    console: Console,
) -> None:
    """Report, picture, export, final table."""
    metrics = read_metrics(folder)
    controller = cli.model.kl.state_dict() if cli.model.kl else {}
    report = {
        "spec": session.spec.name,
        "steps": trainer.global_step,
        "held_out": cli.model.held_out,
        "sampled_kl": samples.kl,
        "beta": controller.get("beta", metrics.last("train/beta")),
        "throughput": throughput.summary(),
        "data": {split: report.as_dict() for split, report in cli.datamodule.reports.items()},
    }
    write_json(folder / "report.json", report)
    draw_curves(metrics, folder / "curves.png", title=f"{session.spec.name}: {session.spec.about.get('title', '')}")
    shutil.rmtree(folder / "export", ignore_errors=True)  # of an earlier, shorter part of this same run
    export_policy(cli.model.policy, folder / "export", model_card(cli.plain, report))
    print_report(report, samples.answers[: samples.settings.show], folder, console)


def evaluate(cli: NashtuneCLI, session: Session) -> None:
    """`validate` and `test`: the metrics of a split, without a run folder."""
    stage = str(cli.subcommand)
    ready(cli, stage, Console(stderr=True))
    trainer = make_trainer(cli, None, [], [])
    command = trainer.validate if stage == "validate" else trainer.test
    command(cli.model, datamodule=cli.datamodule, ckpt_path=session.checkpoint, weights_only=True, verbose=False)
    table = Table("metric", "value", title=f"{stage}: {session.spec.name}")
    for name, value in sorted(cli.model.held_out.items()):
        table.add_row(name, f"{value:.6g}")
    Console().print(table)


def predict(cli: NashtuneCLI, session: Session) -> None:
    """Implicit rewards of every pair of `data.test` (or `data.validation`), one JSON object a line on stdout."""
    ready(cli, "predict", Console(stderr=True))
    trainer = make_trainer(cli, None, [], [])
    batches: Any = trainer.predict(
        cli.model, datamodule=cli.datamodule, ckpt_path=session.checkpoint, weights_only=True
    )
    for batch in batches or []:
        for values in zip(*batch.values(), strict=True):
            sys.stdout.write(json.dumps(dict(zip(batch, values, strict=True))) + "\n")


def ready(cli: NashtuneCLI, stage: str, console: Console) -> None:
    """Everything that can be wrong with settings, model files and data, before any weight is loaded."""
    module, trainer = cli.model, cli.plain["trainer"]
    if str(trainer["precision"]).endswith("-true"):
        raise InputError(
            f"trainer.precision: {trainer['precision']} would cast the policy and not its reference; set "
            "policy.precision (the dtype of all weights), or trainer.precision: bf16-mixed"
        )
    if stage == "fit" and module.policy.config.precision == "bf16" and module.policy.config.lora is None:
        raise InputError(
            "policy.precision: bf16 with all weights trained: at the learning rates of preference methods nearly every "
            "update is smaller than bf16 can hold and is lost; use policy.precision: fp32 with trainer.precision: "
            "bf16-mixed, or policy.lora"
        )
    if trainer["accumulate_grad_batches"] < 1:
        raise InputError(f"trainer.accumulate_grad_batches: {trainer['accumulate_grad_batches']}; it is 1 or more")
    preflight(module.policy.config, references=module.references, template=cli.datamodule.template)
    tokenizer = load_tokenizer(module.policy.config.path)
    cli.datamodule.bind(
        tokenizer=tokenizer,
        rows=module.loss.rows,
        uses_p_chosen=module.loss.uses_p_chosen,
        seed=int(cli.plain["seed_everything"]),
    )
    cli.datamodule.setup(stage)
    interval = trainer["val_check_interval"]
    batches = cli.datamodule.steps_per_epoch(1, 1) if stage == "fit" else 0
    if stage == "fit" and isinstance(interval, int) and interval > batches:
        raise InputError(
            f"trainer.val_check_interval: {interval}, but an epoch has {batches} "
            "micro-batches; give a smaller number, or a share of the epoch such as 0.5"
        )
    for report in cli.datamodule.reports.values():
        console.print(report.table())


def make_trainer(cli: NashtuneCLI, folder: Path | None, callbacks: list[Callback], own_loggers: list[Any]) -> Trainer:
    """The user's trainer section, plus what every run has."""
    asked: Any = cli.config_init[cli.subcommand]["trainer"]
    bar: Callback = PlainBar(refresh_rate=10, leave=True)
    if sys.stdout.isatty() or cli.subcommand == "predict":  # stdout carries the predictions
        bar = RichBar(leave=True, console_kwargs={"stderr": cli.subcommand == "predict"})
    users = asked["callbacks"] or []
    users = users if isinstance(users, list) else [users]
    user_loggers = (
        asked["logger"] if isinstance(asked["logger"], list) else [asked["logger"]] if asked["logger"] else []
    )
    try:
        return cli.instantiate_trainer(
            callbacks=[*users, *callbacks, *([bar] if asked["enable_progress_bar"] is not False else [])],
            logger=[*own_loggers, *(logger for logger in user_loggers if not isinstance(logger, bool))] or False,
            plugins=[*(asked["plugins"] or []), AtomicCheckpointIO()],
            default_root_dir=str(folder) if folder else None,
            enable_checkpointing=False,  # ours: see `Checkpoints`
            enable_model_summary=False,
            use_distributed_sampler=False,
        )
    except (MisconfigurationException, ValueError, TypeError, ModuleNotFoundError) as error:
        raise InputError(f"trainer: {' '.join(str(error).split())}") from error
