"""`nashtune verify` on a bandit: a file of rewards, their noise and a reference."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from nashtune.cli.output import print_json, print_table
from nashtune.errors import InputError
from nashtune.terminal import say

if TYPE_CHECKING:
    from nashtune.bandits.report import BanditReport, Line
    from nashtune.games.matrices import Array
    from nashtune.spec.model import Spec

REFUSED = {
    "--start": "the file's 'reference' is the policy before training",
    "--pairs": "expectations over a bandit are exact",
    "--pairing": "expectations over a bandit are exact",
    "--completions": "expectations over a bandit are exact",
    "--run": "a run's win rates are no rewards",
}
SHOWN_ARMS = 24
SHOWN_PROMPTS = 6
FEWEST_DRAWS = 2


def refuse_options(args: argparse.Namespace) -> None:
    """Refuse options of `verify` that mean nothing here.

    Raises:
        InputError: names the option.
    """
    for option, why in REFUSED.items():
        if getattr(args, option[2:]) is not None:
            raise InputError(f"{option}: does not go with a bandit; {why}")


def run(spec: Spec, sources: Sequence[str], *, draws: int | None, seed: int, picture: Path | None, json: bool) -> int:
    """Solve, measure, print.

    Args:
        spec: The resolved spec.
        sources: Files; the prompts of all of them count alike.
        draws: Of the noise; None for the default.
        seed: Of the draws.
        picture: Where to save a PNG.
        json: Whether to print JSON.

    Raises:
        InputError: a wrong file, or a spec that learns neither from rewards nor from pairs.
        CheckFailed: there is no finite optimum.
    """
    from nashtune.bandits.files import read_bandit

    prompts = [arms for source in sources for arms in read_bandit(source)]

    from nashtune.bandits.verify import verify_bandit

    report = verify_bandit(spec, prompts, draws=draws, seed=seed)
    if json:
        print_json(report.to_dict())
    else:
        _print(report)
    if picture is not None:
        from nashtune.bandits.plot import draw

        draw(report, picture)
        if not json:
            say(f"picture: {picture}")
    return 0


def _print(report: BanditReport) -> None:
    prompts = report.prompts
    what = f"{len(prompts)} prompts" if len(prompts) > 1 else f"{prompts[0].size} arms"
    say(f"{report.spec} on {prompts[0].name.partition('[')[0]}: {what}, float64")
    lines = [report.spec_line, *report.theory]
    for number, arms in enumerate(prompts[:SHOWN_PROMPTS]):
        if arms.size > SHOWN_ARMS:
            continue
        columns = {"true reward": arms.gold, "σ": arms.sigma, "estimate": arms.estimate}
        if report.beta is not None:
            columns["β"] = report.beta[number, : arms.size]
        columns |= {"reference": arms.reference, report.spec: report.spec_line.policy[number]}
        rows = [[str(y), *(f"{values[y]:.6g}" for values in columns.values())] for y in range(arms.size)]
        print_table([f"arm of {arms.name}" if len(prompts) > 1 else "arm", *columns], rows)
    print_table(
        ["policy", "β", "λ", "KL", "gold", "gain", "risk", "mean gain", "5% quantile", "mean KL"],
        [_row(line) for line in lines],
    )
    if report.own is not None:
        level = f", λ = {_levels(report.own.level)}"
        say(f"closed form of its β and reward, {report.own.name}{level}: max |π − closed form| = {report.distance:.2g}")
    exact = ", ".join(f"{name} {value:.12g}" for name, value in report.quadratic.items() if value is not None)
    say(f"risk of small steps, exact (quadratic penalties): {exact}")
    risk = report.spec_line.risk
    if risk.method == "exact":
        say("risks are exact: no arm's reward is noisy")
    else:
        say(f"risks and gains over the noise: Monte Carlo, {risk.draws} draws, seed {report.seed}; ±: standard error")
    for note in report.notes:
        say(f"note: {note}")


def _row(line: Line) -> list[str]:
    risk = line.risk
    noisy = risk.method != "exact"
    return [
        line.name,
        "" if line.beta is None else f"{line.beta:.6g}",
        "" if line.level is None else _levels(line.level),
        f"{float(line.kl.mean()):.6g}",
        f"{float(line.gold.mean()):.6g}",
        f"{line.gain:+.6g}",
        f"{risk.value:.5f} ± {risk.standard_error:.5f}" if noisy else f"{risk.value:.0f}",
        f"{risk.mean_gain:+.5f} ± {risk.mean_gain_error:.5f}" if noisy else f"{risk.mean_gain:+.5f}",
        f"{risk.quantile_5:+.5f}",
        f"{line.mean_kl:.6g}",
    ]


def _levels(level: Array) -> str:
    shown = ", ".join(f"{value:.6g}" for value in level[:3])
    return shown + (", …" if len(level) > 3 else "")
