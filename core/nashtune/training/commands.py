"""What `validate`, `test` and `predict` do around Lightning's Trainer; `fit` has a file of its own."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from nashtune.evaluation.reward_table import reward_table
from nashtune.training.ready import ready
from nashtune.training.trainer import make_trainer
from nashtune.training.verdicts import report_verdicts

if TYPE_CHECKING:
    from nashtune.cli.lightning import NashtuneCLI
    from nashtune.cli.session import Session


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
    split = "validation" if stage == "validate" else "test"
    judged = report_verdicts(cli.model.verdicts, cli.datamodule, split, int(cli.plain["seed_everything"]))
    if judged is not None:
        Console().print(reward_table(judged, title=f"{session.spec.name}: {split} rows"))


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
