"""The end of a run: report, picture, exported model, final table."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning.pytorch import Trainer
from rich.console import Console

from nashtune.errors import CheckFailed, InputError
from nashtune.evaluation.curves import draw_curves
from nashtune.evaluation.reliability_plot import draw_reliability
from nashtune.evaluation.report import print_report, read_metrics
from nashtune.evaluation.reward_table import reward_table
from nashtune.evaluation.rounds_table import rounds_table
from nashtune.evaluation.win_rates_plot import draw_win_rates
from nashtune.models.normaliser import normalise
from nashtune.models.reward_policy import RewardPolicy
from nashtune.rounds.summary import summaries
from nashtune.training.attempts import Attempts
from nashtune.training.checkpoint import checkpoints_in
from nashtune.training.export import asked_as, export_policy, model_card
from nashtune.training.face_off import face_off
from nashtune.training.origin import short, weights_digest
from nashtune.training.run_folder import write_json
from nashtune.training.samples import Samples
from nashtune.training.untrained import nothing_trained, untrained
from nashtune.training.verdicts import report_verdicts

if TYPE_CHECKING:
    from nashtune.cli.lightning import NashtuneCLI
    from nashtune.cli.session import Session
    from nashtune.rounds.data import GameData


@contextmanager
def weights_are_whole(folder: Path) -> Iterator[None]:
    """What comes after training: an error in it says how the weights, where any are saved, are had without it.

    Raises:
        InputError: as inside.
    """
    try:
        yield
    except InputError as error:
        if not checkpoints_in(folder):  # nothing was trained
            raise
        raise InputError(f"{error}. The trained weights are whole: nashtune export {folder}") from error


def finish(
    cli: NashtuneCLI,
    session: Session,
    trainer: Trainer,
    folder: Path,
    samples: Samples,
    attempts: Attempts,
    console: Console,
    game: GameData | None,
) -> None:
    """Report, picture, export, final table.

    Raises:
        InputError: something that the end needs is not what was written, or cannot be asked.
        CheckFailed: nothing was trained; the report is written, and no model is exported.
    """
    metrics, (spent, each_attempt) = read_metrics(folder), attempts.report()
    controller = cli.model.kl.state_dict() if cli.model.kl else {}
    report: dict[str, Any] = {
        "spec": session.spec.name,
        "steps": trainer.global_step,
        "weights": short(weights_digest(cli.model.policy)),
        "held_out": cli.model.held_out,
        "sampled_kl": samples.kl,
        # in reinforcement learning β belongs to a round; a micro-batch's mean is of some of its answers
        "beta": controller.get("beta", metrics.last("rollout/beta") or metrics.last("train/beta")),
        "beta_when": "after the last step" if "beta" in controller else "last logged",
        "units": {"reward": cli.model.objective.reward_unit},
        "throughput": spent,
        "attempts": each_attempt,
        "data": {split: report.as_dict() for split, report in cli.datamodule.reports.items()},
    }
    answers = samples.answers
    policy = cli.model.policy
    if isinstance(policy, RewardPolicy):
        normalise(policy, cli.datamodule)
        report["normaliser"] = {"gain": policy.normaliser.gain, "bias": policy.normaliser.bias}
    if cli.model.verdicts is not None:
        _judge(cli, session, folder, console, report)
    if game is not None:
        report["rounds"] = summaries(game.table, metrics, game.steps_of_round, trainer.global_step)
        report["oracle"] = game.oracle_counts()
        console.print(rounds_table(report["rounds"]))
        if report["oracle"]:
            console.print("oracle: " + ", ".join(f"{name} {count}" for name, count in report["oracle"].items()))
        held_out = cli.datamodule.prompts("validation")
        result = face_off(game.table, held_out, folder, samples.settings)
        if result is None:
            why = "no held-out prompts (data.validation, samples.prompts), so the policies are not compared"
            console.print(why, soft_wrap=True)
        else:
            report["win_rates"], answers = result.as_dict(), result.answers
            if result.win_rates is not None:
                console.print(result.win_rates.table())
                draw_win_rates(result.win_rates, folder / "win_rates.png", title=f"{session.spec.name}: win rates")
            if result.rewards is not None:
                console.print(result.rewards.table())
            if result.kl:
                console.print(result.table())
    if answers:
        report["held_out_prompts"] = {"asked": samples.settings.prompts, "answered": len(answers)}
    report["untrained"] = nothing = untrained(report)
    write_json(folder / "report.json", report)
    title = f"{session.spec.name}: {session.spec.about.get('title', '')}"
    draw_curves(
        metrics,
        folder / "curves.png",
        title=title,
        scores=isinstance(policy, RewardPolicy),
        reward_unit=cli.model.objective.reward_unit,
    )
    if (folder / "export").is_symlink():
        (folder / "export").unlink()
    shutil.rmtree(folder / "export", ignore_errors=True)  # of an earlier, shorter part of this same run
    if nothing is None:
        export_policy(policy, folder / "export", model_card(cli.plain, report), asked=asked_as(cli.plain))
    print_report(report, answers[: samples.settings.show], folder, console)
    if nothing is not None:
        raise CheckFailed(nothing_trained(nothing, folder))


def _judge(cli: NashtuneCLI, session: Session, folder: Path, console: Console, report: dict[str, Any]) -> None:
    """What the reward or preference model in the folder says of held-out rows, into the report and onto the screen."""
    verdicts, policy = cli.model.verdicts, cli.model.policy
    if verdicts is not None and isinstance(policy, RewardPolicy):
        verdicts = verdicts.rescaled(policy.normaliser.gain, policy.normaliser.bias)  # as those who read the folder do
    found = report_verdicts(verdicts, cli.datamodule, "validation", int(cli.plain["seed_everything"]))
    if found is None:
        return
    report["verdicts"] = found
    console.print(reward_table(found, title=f"{session.spec.name}: held-out rows"))
    draw_reliability(
        found["calibration"], folder / "reliability.png", title=f"{session.spec.name}: reliability on held-out pairs"
    )
