"""`nashtune verify`: run a method on games small enough to be solved, and measure how far it is from equilibrium."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nashtune.cli.output import print_json
from nashtune.cli.values import picture_path, whole
from nashtune.cli.verify_tables import print_report
from nashtune.errors import InputError
from nashtune.terminal import say

if TYPE_CHECKING:
    from nashtune.evaluation.win_rates import WinRates
    from nashtune.spec.model import Spec
    from nashtune.spec.overrides import Override
    from nashtune.spec.run import CommandLine

SUMMARY = "run a method on preference matrices, exactly, and measure its distance from equilibrium"
EPILOG = """\
The loss, KL controller, references and schedule are the objects that train language models; the policy is a softmax
over a game's actions, in float64, and each update ends at the minimiser of its loss:
    nashtune verify onpo --rounds 200 --spec.loss.eta 0.5
    nashtune verify inpo --game random10 --rounds 200 --spec.loss.tau 0.1 --spec.loss.eta 2 --plot inpo.png
    nashtune verify onpo --game mine.csv --start 0.6,0.3,0.1 --rounds 50 --spec.loss.eta 0.5 --json
    nashtune verify onpo --rounds 20 --spec.loss.eta 0.5 --pairs 1000 --pairing tournament
    nashtune verify rloo --game bandit.json --draws 20000 --plot bandit.png
Games: weighted_rps, rps, random10, condorcet[:SIZE], bradley_terry[:SCORES], or a .csv, .npy or .json file of
P(row beats column). A .json file with "rewards", "sigma" and "reference", one number per arm, is a bandit: where the
loss and KL controller come to rest, and the risk of ending below the reference. Several games are several prompts.
Exit codes: 0 done, 1 an update has no finite minimiser, 2 the input was wrong."""
DEFAULT_GAME = "weighted_rps"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `nashtune verify`."""
    parser.add_argument("spec", nargs="?", metavar="SPEC", help="name or file of a spec, or a run's saved config.yaml")
    parser.add_argument(
        "--game",
        action="append",
        metavar="G",
        help=f"name or file of a game; may be repeated (default: {DEFAULT_GAME})",
    )
    parser.add_argument("--rounds", metavar="T", help="rounds to play, instead of the spec's")
    parser.add_argument("--start", metavar="P,P,...", help="policy before training, which is the reference too")
    parser.add_argument("--pairs", metavar="N", help="sample N pairs per game and round, instead of exact expectation")
    parser.add_argument("--pairing", metavar="P", help="with --pairs: how pairs are made (default: iid)")
    parser.add_argument(
        "--completions", metavar="K", help="with --pairs: completions that the pairing sees together (default: 8)"
    )
    parser.add_argument(
        "--draws", metavar="D", help="with a bandit: draws of the rewards' noise (default: 20000; 1000 for pairs)"
    )
    parser.add_argument("--seed", metavar="S", help="with --pairs or a bandit: seed of the draws (default: 0)")
    parser.add_argument("--plot", metavar="FILE", help="save a picture of gaps and policies, a PNG")
    parser.add_argument(
        "--run",
        metavar="RUN",
        help="folder of a finished game: take its spec, and draw its win rates beside this, RUN/game.png",
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")


def take(argv: Sequence[str]) -> tuple[dict[str, Any], list[str]]:
    """Take `--spec` and `--spec.x.y` off the command line."""
    from nashtune.spec.run import split_cli

    line = split_cli(argv)
    if line.configs:
        raise InputError("verify: takes no run file; give the settings as --spec.x.y, or a run's config.yaml as SPEC")
    return {"line": line}, list(line.rest)


def run(args: argparse.Namespace) -> int:
    """Play, measure, print.

    Raises:
        InputError: a wrong option, spec or game.
        CheckFailed: an update has no finite minimiser.
    """
    from nashtune.bandits.files import is_bandit
    from nashtune.games.find import find_game
    from nashtune.games.matrices import make_game

    line: CommandLine = args.line
    if args.spec and line.spec and args.spec != line.spec:
        raise InputError(f"verify: two specs, {args.spec} and --spec {line.spec}; give one")
    name = args.spec or line.spec
    if bandits := [source for source in args.game or () if is_bandit(source)]:
        return _bandit(args, name, bandits)
    if args.draws is not None:
        raise InputError('--draws: goes with a bandit, a --game FILE.json with "rewards", "sigma" and "reference"')
    folder = Path(args.run).expanduser() if args.run is not None else None
    win_rates = _win_rates(folder) if folder is not None else None
    if name is None and folder is not None:
        name = str(folder / "config.yaml")
    spec = _spec(name, line.overrides, _count(args.rounds, "--rounds", least=1))
    sampling = _sampling(args)
    games = [find_game(name) for name in args.game or [DEFAULT_GAME]]
    if args.start is not None:
        start = _probabilities(args.start)
        games = [make_game(game.name, game.matrix, start) for game in games]
    picture = picture_path(args.plot)

    from nashtune.games.verify import Sampling, verify

    report = verify(spec, games, Sampling(**sampling) if sampling else None)
    if args.json:
        print_json(report.to_dict())
    else:
        print_report(report, spec)
    if picture is not None:
        from nashtune.games.plot import draw

        draw(report, picture)
        if not args.json:
            say(f"picture: {picture}")
    if folder is not None and win_rates is not None:
        from nashtune.evaluation.win_rates_plot import draw_game

        title = f"{spec.name}: {spec.about.get('title', '')}"
        changed = ", ".join(f"{'.'.join(one.path)} {_text(one.value)}" for one in line.overrides)
        draw_game(win_rates, report.to_dict(), folder / "game.png", title=title, changed=changed)
        if not args.json:
            say(f"picture: {folder / 'game.png'}")
    return 0


def _bandit(args: argparse.Namespace, name: str | None, sources: Sequence[str]) -> int:
    from nashtune.cli import verify_bandit

    if other := [source for source in args.game if source not in sources]:
        raise InputError(f"--game {other[0]}: is no bandit, and {sources[0]} is; verify them one at a time")
    verify_bandit.refuse_options(args)
    return verify_bandit.run(
        _spec(name, args.line.overrides, _count(args.rounds, "--rounds", least=1)),
        sources,
        draws=_count(args.draws, "--draws", least=verify_bandit.FEWEST_DRAWS),
        seed=_count(args.seed, "--seed", least=0) or 0,
        picture=picture_path(args.plot),
        json=args.json,
    )


def _text(value: Any) -> str:
    return str(getattr(value, "text", value))


def _win_rates(folder: Path) -> WinRates:
    """What a finished game measured."""
    from nashtune.evaluation.win_rates import WinRates

    file = folder / "report.json"
    if not file.is_file():
        raise InputError(f"--run: {folder} has no report.json; give the folder of a game that has ended")
    found = json.loads(file.read_text(encoding="utf-8")).get("win_rates") or {}
    if "policies" not in found:
        raise InputError(f"--run: {file} has no win rates; a game measures them with data.validation and an oracle")
    return WinRates.from_dict(found)


def _spec(name: str | None, overrides: Sequence[Override], rounds: int | None) -> Spec:
    from nashtune.plugins.static import class_info
    from nashtune.spec.overrides import Override
    from nashtune.spec.resolve import resolve

    if name is None:
        raise InputError("verify: which spec? Give its name or file; `nashtune list` shows the names")
    spec = resolve(name, overrides)
    if rounds is None:
        return spec
    if "rounds" not in {argument.name for argument in class_info(spec.schedule.target).arguments}:
        raise InputError(f"--rounds: the schedule '{spec.schedule.name}' of {spec.name} has no number of rounds to set")
    return resolve(name, [*overrides, Override(("schedule", "rounds"), rounds, "--rounds")])


def _sampling(args: argparse.Namespace) -> dict[str, Any]:
    given = {
        name: getattr(args, name) for name in ("pairing", "completions", "seed") if getattr(args, name) is not None
    }
    if args.pairs is None:
        if given:
            raise InputError(f"--{next(iter(given))}: goes with --pairs N; without it expectations are exact")
        return {}
    for name, least in (("completions", 2), ("seed", 0)):
        if name in given:
            given[name] = whole(given[name], f"--{name}", least=least)
    return {"pairs": whole(args.pairs, "--pairs", least=1), **given}


def _count(text: str | None, option: str, *, least: int) -> int | None:
    return None if text is None else whole(text, option, least=least)


def _probabilities(text: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise InputError(f"--start: expected probabilities such as 0.6,0.3,0.1, found '{text}'") from None
