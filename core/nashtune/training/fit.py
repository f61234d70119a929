"""What `fit`, `validate`, `test` and `predict` do around Lightning's Trainer."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint, RichProgressBar, TQDMProgressBar
from rich.console import Console
from rich.table import Table

from nashtune.evaluation.report import draw_curves, print_report, read_metrics
from nashtune.models.preflight import load_tokenizer, preflight
from nashtune.training.checkpoint import AtomicCheckpointIO, RunState
from nashtune.training.export import export_policy, model_card
from nashtune.training.run_folder import choose_run_dir, claim, loggers, write_json
from nashtune.training.samples import Samples, settings_from
from nashtune.training.throughput import Throughput

if TYPE_CHECKING:
    from nashtune.cli.lightning import NashtuneCLI
    from nashtune.cli.session import Session


def fit(cli: NashtuneCLI, session: Session) -> None:
    """Train by a spec, and leave a run folder with everything in it."""
    plain, console = cli.plain, Console()
    folder = choose_run_dir(plain["run_dir"], session.spec.name, resume=session.checkpoint is not None)
    ready(cli, "fit", console)
    plain["run_dir"] = str(folder)
    attempt = claim(folder, {**plain, "spec": session.spec.to_dict()})
    console.print(f"run folder: {folder}")
    samples = Samples(folder, settings_from(plain["samples"]), int(plain["seed_everything"]))
    throughput = Throughput()
    saving = ModelCheckpoint(
        dirpath=folder / "checkpoints", filename="{step}", every_n_train_steps=plain["save_every"], save_top_k=1
    )
    config = {name: plain[name] for name in plain if name not in ("run_dir",)}
    trainer = make_trainer(cli, folder, [RunState(config), throughput, samples, saving], loggers(folder, attempt))
    trainer.fit(cli.model, datamodule=cli.datamodule, ckpt_path=session.checkpoint, weights_only=True)
    if not trainer.is_global_zero:
        return
    last = folder / "checkpoints" / f"step={trainer.global_step}.ckpt"
    if not last.exists():
        trainer.save_checkpoint(last, weights_only=False)
        for older in (folder / "checkpoints").glob("step=*.ckpt"):
            if older != last:
                older.unlink()
    metrics = read_metrics(folder)
    report = {
        "spec": session.spec.name,
        "steps": trainer.global_step,
        "held_out": {
            k.removeprefix("val/"): float(v) for k, v in trainer.callback_metrics.items() if k.startswith("val/")
        },
        "sampled_kl": samples.kl,
        "beta": (cli.model.kl.state_dict() if cli.model.kl else {}).get("beta", metrics.last("train/beta")),
        "throughput": throughput.summary(),
        "data": {split: report.as_dict() for split, report in cli.datamodule.reports.items()},
    }
    write_json(folder / "report.json", report)
    draw_curves(metrics, folder / "curves.png", title=f"{session.spec.name}: {session.spec.about.get('title', '')}")
    if not (folder / "export").exists():  # a resumed run that was already complete keeps its export
        export_policy(cli.model.policy, folder / "export", model_card(config, report))
    print_report(report, samples.answers[: settings_from(plain["samples"]).show], folder, console)


def evaluate(cli: NashtuneCLI, session: Session) -> None:
    """`validate` and `test`: the metrics of a split, without a run folder."""
    stage = str(cli.subcommand)
    ready(cli, stage, Console(stderr=True))
    trainer = make_trainer(cli, None, [], [])
    command = trainer.validate if stage == "validate" else trainer.test
    results = command(
        cli.model, datamodule=cli.datamodule, ckpt_path=session.checkpoint, weights_only=True, verbose=False
    )
    table = Table("metric", "value", title=f"{stage}: {session.spec.name}")
    for name, value in results[0].items():
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
    """Everything that can be wrong with model files and data, before any weight is loaded."""
    module = cli.model
    preflight(module.policy.config, references=module.references, template=cli.datamodule.template)
    tokenizer = load_tokenizer(module.policy.config.path)
    cli.datamodule.bind(
        tokenizer=tokenizer,
        rows=module.loss.rows,
        uses_p_chosen=module.loss.uses_p_chosen,
        seed=int(cli.plain["seed_everything"]),
    )
    cli.datamodule.setup(stage)
    for report in cli.datamodule.reports.values():
        console.print(report.table())


def make_trainer(cli: NashtuneCLI, folder: Path | None, callbacks: list[Callback], own_loggers: list[Any]) -> Trainer:
    """The user's trainer section, plus what every run has."""
    asked: Any = cli.config_init[cli.subcommand]["trainer"]
    bar: Callback = TQDMProgressBar(refresh_rate=10, leave=True)
    if sys.stdout.isatty() or cli.subcommand == "predict":  # stdout carries the predictions
        bar = RichProgressBar(leave=True, console_kwargs={"stderr": cli.subcommand == "predict"})
    users = asked["callbacks"] or []
    users = users if isinstance(users, list) else [users]
    user_loggers = (
        asked["logger"] if isinstance(asked["logger"], list) else [asked["logger"]] if asked["logger"] else []
    )
    return cli.instantiate_trainer(
        callbacks=[*users, *callbacks, *([bar] if asked["enable_progress_bar"] is not False else [])],
        logger=[*own_loggers, *(logger for logger in user_loggers if not isinstance(logger, bool))] or False,
        plugins=[*(asked["plugins"] or []), AtomicCheckpointIO()],
        default_root_dir=str(folder) if folder else None,
        enable_checkpointing=folder is not None,
        enable_model_summary=False,
        use_distributed_sampler=False,
    )
