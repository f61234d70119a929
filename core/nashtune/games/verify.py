"""From a spec and games to a report: what `nashtune verify` does, for Python."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from nashtune.errors import InputError
from nashtune.games.matrices import Game
from nashtune.games.population import RAREST
from nashtune.games.report import Report, measure
from nashtune.games.runner import RowSource, TabularRunner
from nashtune.games.sampled import DEFAULT_COMPLETIONS, SampledPairs
from nashtune.interfaces import Pairing
from nashtune.plugins.static import class_info
from nashtune.spec.components import find_component
from nashtune.spec.findings import Collector
from nashtune.spec.model import ComponentSpec
from nashtune.spec.resolve import build
from nashtune.spec.settings import check_options

if TYPE_CHECKING:
    from nashtune.spec.model import Spec


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """Finite samples instead of exact expectation.

    Args:
        pairs: Pairs per game and round.
        pairing: Name or class path of the pairing, with its default options.
        completions: Completions that the pairing sees together.
        seed: Of the draws.
    """

    pairs: int
    pairing: str = "iid"
    completions: int = DEFAULT_COMPLETIONS
    seed: int = 0


def verify(spec: Spec, games: Sequence[Game], sampling: Sampling | None = None) -> Report:
    """Run a spec's schedule on games, in float64.

    Args:
        spec: The resolved spec.
        games: One per prompt.
        sampling: None for exact expectations.

    Raises:
        InputError: the spec's loss is not one of pairs, or the sampling does not fit it.
        CheckFailed: an update has no finite minimiser.
    """
    source = None if sampling is None else _sampled(games, sampling)
    runner = TabularRunner(spec, games, cast("RowSource | None", source))
    if source is not None and runner.loss.uses_win_rates and not source.pairing.gives_win_rates:
        raise InputError(
            f"--pairing {cast(Sampling, sampling).pairing}: the loss '{spec.loss.name}' reads win rates, which this "
            "pairing does not give; use best_worst, all_pairs or adjacent"
        )
    report = measure(spec.name, games, runner.run(), runner.loss)
    report.notes.extend(_notes(spec, report, source))
    return report


def _sampled(games: Sequence[Game], sampling: Sampling) -> SampledPairs:
    try:
        target, origin = find_component("pairing", sampling.pairing)
    except InputError as error:
        raise InputError(f"--pairing: {error}") from error
    found = Collector()
    args = check_options(
        {},
        class_info(target),
        what="pairing",
        who=f"'{sampling.pairing}'",
        where=lambda key=None, *below: "--pairing",
        found=found,
    )
    found.close()
    pairing = cast(Pairing, build(ComponentSpec("pairing", sampling.pairing, target, args, origin, "--pairing")))
    return SampledPairs(games, pairing, pairs=sampling.pairs, completions=sampling.completions, seed=sampling.seed)


def _notes(spec: Spec, report: Report, source: SampledPairs | None) -> list[str]:
    notes = []
    if source is None:
        replaced = [
            f"{what} ({component.name})"
            for what, component in (("oracle", spec.oracle), ("sampler", spec.sampler), ("pairing", spec.pairing))
            if component is not None
        ]
        what = ", ".join(replaced) if replaced else "the preference data"
        notes.append(f"replaced by exact expectation over the game: {what}")
    else:
        dropped = ", ".join(f"{count} {why}" for why, count in sorted(source.dropped.items())) or "none"
        notes.append(f"sampled: {source.made} pairs in all rounds and games; dropped: {dropped}")
        notes.append("an action that no pair holds keeps its log-prob; where pairs leave others free, steps are least")
    if any((policy < RAREST).any() for policy in report.last):
        notes.append(f"an action of probability below {RAREST:g} is drawn no more and keeps its log-prob")
    if spec.oracle is None:
        notes.append("no rounds of sampling: pairs are drawn from the start policy, once")
    elif source is not None and (stated := report.bound or report.kl_bound) is not None:
        notes.append(f"the bound {stated[0]} is about exact steps, and these are sampled")
    elif report.bound is None:
        notes.append("no bound on the average policy's gap is stated for these settings")
    elif any(value is None for value in report.bound[1]):
        notes.append(f"the bound {report.bound[0]} is stated for a part of the rounds only")
    return notes
