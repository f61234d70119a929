"""`nashtune frontier`: how far best-of-n can be pushed before the true reward falls."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from nashtune.cli.output import print_json, print_table
from nashtune.cli.values import picture_path
from nashtune.errors import InputError
from nashtune.terminal import say

if TYPE_CHECKING:
    from nashtune.bandits.frontier import Curve, Frontier

SUMMARY = "best-of-n overoptimisation: true reward and proxy against sqrt KL, and fitted laws"
EPILOG = """\
    nashtune frontier --plot frontier.png
    nashtune frontier --game scores.json --n 1,4,16,64 --json
Without --game: 2000 arms, one in ten of which five reward models misjudge, exactly. A file holds {"gold": [...],
"proxies": [[...], ...]}: true rewards, and one list of scores per reward model; for several prompts a list of such for
each. They count as all that the policy can say, alike or by "reference"; with "sampled": true as answers it gave.
Exit codes: 0 done, 2 the input was wrong."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `nashtune frontier`."""
    parser.add_argument("--game", metavar="FILE", help="a .json file of gold rewards and proxies")
    parser.add_argument(
        "--n", nargs="+", metavar="N", help="values of n: 1,4,16 or 1 4 16 (default: powers of two up to the answers)"
    )
    parser.add_argument("--plot", metavar="FILE", help="save a picture, a PNG")
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")


def run(args: argparse.Namespace) -> int:
    """Compute, fit, print.

    Raises:
        InputError: a wrong option or file.
    """
    from nashtune.bandits.frontier import example, frontier
    from nashtune.bandits.frontier_files import read_answers

    ns = _ns(args.n)
    picture = picture_path(args.plot)
    name, prompts = ("the built-in example", example()) if args.game is None else read_answers(args.game)
    found = frontier(name, prompts, ns)
    if args.json:
        print_json(found.to_dict())
    else:
        _print(found, len(prompts))
    if picture is not None:
        from nashtune.bandits.frontier_plot import draw

        draw(found, picture)
        if not args.json:
            say(f"picture: {picture}")
    return 0


def _ns(given: Sequence[str] | None) -> list[int] | None:
    if given is None:
        return None
    words = [word for part in given for word in part.split(",") if word]
    if not words:
        raise InputError("--n: expected whole numbers such as 1,4,16")
    for word in words:
        if not word.isdecimal() or int(word) < 1:
            raise InputError(f"--n: expected whole numbers >= 1 such as 1,4,16, found '{word}'")
    return sorted({int(word) for word in words})


def _print(found: Frontier, prompts: int) -> None:
    what = "exact" if found.exact else "unbiased estimates from samples"
    say(f"best-of-n on {found.name}: {prompts} prompt{'s' if prompts > 1 else ''}, {what}")
    common = {"KL bound": found.bound} if found.kl is None else {"KL": found.kl, "KL bound": found.bound}
    for title in ("gold", "proxy") if found.kl is not None else ("KL", "gold", "proxy"):
        own = {f"{title}, {curve.name}": getattr(curve, title.lower()) for curve in found.curves}
        columns = common | own
        rows = [[str(n), *(f"{values[q]:.6f}" for values in columns.values())] for q, n in enumerate(found.ns)]
        print_table(["n", *columns], rows)
    laws = [curve for curve in found.curves if curve.law is not None]
    if laws:
        headers = ["gold = d (α − β d), d = √KL", "α", "β", "R²", "peak d", "gain there", "largest gold at n"]
        print_table(headers, [_law(curve, found.ns) for curve in laws])
    for note in found.notes:
        say(f"note: {note}")


def _law(curve: Curve, ns: Sequence[int]) -> list[str]:
    law = curve.law
    assert law is not None
    d, gain = law.peak
    beyond = "" if law.peak_seen else " (beyond the data)"
    return [
        curve.name,
        f"{law.alpha:.4f} ± {law.alpha_error:.4f}",
        f"{law.beta:.4f} ± {law.beta_error:.4f}",
        f"{law.r2:.4f}",
        f"{d:.3f}{beyond}" if np.isfinite(d) else "none",
        f"{gain:.4f}" if np.isfinite(d) else "none",
        str(ns[curve.best]),
    ]
