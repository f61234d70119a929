"""What `validate`, `test` and `predict` do around Lightning's Trainer; `fit` has a file of its own."""

from __future__ import annotations

import json
import sys
from operator import itemgetter
from typing import TYPE_CHECKING, Any

from rich.table import Table

from nashtune.consoles import Console
from nashtune.evaluation.reward_table import reward_table
from nashtune.launcher import is_rank_0
from nashtune.notes import note
from nashtune.ranks import everyone
from nashtune.training.origin import facts, made_by, short, spelt_out
from nashtune.training.ready import ready
from nashtune.training.trainer import make_trainer
from nashtune.training.verdicts import report_verdicts

if TYPE_CHECKING:
    from nashtune.cli.lightning import NashtuneCLI
    from nashtune.cli.session import Session


def evaluate(cli: NashtuneCLI, session: Session) -> None:
    """`validate` and `test`: the metrics of a split, without a run folder."""
    stage = str(cli.subcommand)
    ready(cli, stage, Console(stderr=True, quiet=not is_rank_0()))
    trainer = make_trainer(cli, None, [], [])
    command = trainer.validate if stage == "validate" else trainer.test
    command(cli.model, datamodule=cli.datamodule, ckpt_path=session.checkpoint, weights_only=True, verbose=False)
    table = Table("metric", "value", title=f"{stage}: {session.spec.name}")
    for name, value in sorted(cli.model.held_out.items()):
        table.add_row(name, f"{value:.6g}")
    console = Console(quiet=not is_rank_0())  # all ranks have the same figures
    console.print(table)
    split = "validation" if stage == "validate" else "test"
    judged = report_verdicts(cli.model.verdicts, cli.datamodule, split, int(cli.plain["seed_everything"]))
    if judged is not None:
        console.print(reward_table(judged, title=f"{session.spec.name}: {split} rows"))


def predict(cli: NashtuneCLI, session: Session) -> None:
    """Implicit rewards of every pair of `data.test` (or `data.validation`), one JSON object a line on stdout.

    Of several ranks, the first one prints the rows of all, in their order in the file. Each line says what it is of:
    `weights`, `data`, and `made_by`, a digest of everything that the numbers depend on, which is spelt out on stderr.
    """
    ready(cli, "predict", Console(stderr=True, quiet=not is_rank_0()))
    trainer = make_trainer(cli, None, [], [])
    batches: Any = trainer.predict(
        cli.model, datamodule=cli.datamodule, ckpt_path=session.checkpoint, weights_only=True
    )
    rows = [
        dict(zip(batch, values, strict=True)) for batch in batches or [] for values in zip(*batch.values(), strict=True)
    ]
    rows = [row for share in everyone(rows) for row in share]
    (split,) = cli.datamodule.reports
    known = facts(cli.model, cli.datamodule.fingerprint(split), str(trainer.precision))
    if trainer.is_global_zero:
        origin = {"weights": known["weights"], "data": short(known["data"]), "made_by": made_by(known)}
        note(spelt_out(origin["made_by"], known))
        for row in sorted(rows, key=itemgetter("row")):
            sys.stdout.write(json.dumps({**row, **origin}) + "\n")
