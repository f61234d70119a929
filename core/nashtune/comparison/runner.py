"""The phases of a comparison, in order: check, train, answer, judge, rate. Each does what is not done yet."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nashtune.comparison.answers import answer_all
from nashtune.comparison.clock import Clock
from nashtune.comparison.costs import Cost, cost_of, overspent, phases, short_of_peak, spent_by_policy, unspent
from nashtune.comparison.facts import data_facts, differs, made
from nashtune.comparison.folder import (
    ANSWERS,
    JUDGEMENTS,
    PAGE,
    RESULT,
    RUN_PAGE,
    SAVED,
    home_of,
    refuse_changed,
    run_folder,
    versions,
)
from nashtune.comparison.judge_choice import trained_on
from nashtune.comparison.judged import START
from nashtune.comparison.judgements import judge_all
from nashtune.comparison.missing import ended, refuse_none, so_far_notes, trainings, untrained_notes
from nashtune.comparison.plan import Entry
from nashtune.comparison.prepare import Ready, first_notes
from nashtune.comparison.rate import rate
from nashtune.comparison.ratings import Ratings
from nashtune.comparison.request import Request
from nashtune.comparison.sources import judge_digest, sources
from nashtune.comparison.tabulated import judged_arrays, same_scores, tallies, write_answers, write_verdicts
from nashtune.comparison.train import train_all
from nashtune.files import write_bytes_atomically
from nashtune.pipeline.settings import sections
from nashtune.spec.loader import read_yaml
from nashtune.training.run_folder import write_json
from nashtune.training.samples import SampleSettings

Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Result:
    """What came of a comparison.

    Args:
        ratings: Of the policies.
        costs: Of every training.
        notes: What a user should know, in sentences.
        plain: What `comparison.json` holds.
    """

    ratings: Ratings
    costs: tuple[Cost, ...]
    notes: tuple[str, ...]
    plain: dict[str, Any]


def compare(
    request: Request,
    entries: tuple[Entry, ...],
    ready: Ready,
    folder: Path,
    say: Say,
    *,
    lock: int,
    stdout: int | None = None,
    changed: Sequence[str] = (),
    so_far: bool = False,
) -> Result:
    """Do what is not done yet, and say what came of it.

    Args:
        request: The comparison.
        entries: Its specs, checked.
        ready: From `make_ready`.
        folder: This process holds it, and the request is written down there.
        say: Prints a line of progress.
        lock: File descriptor that trainings inherit.
        stdout: File descriptor for what they print; None for this process's own.
        changed: Since the comparison began, in sentences.
        so_far: Train nothing, and compare the policies that there are.

    Raises:
        InputError: a training fails, or the judge does, or there is no policy to be compared.
        Interrupted: a training was stopped.
    """
    home, clock = home_of(folder), Clock(folder)
    there = Clock(home)

    def check() -> None:
        refuse_changed(home, request, judge=home == folder)

    prompts = ready.prompts.rows
    if not so_far:
        train_all(entries, request.seeds, home, say, lock=lock, check=check, stdout=stdout)
    found = trainings([entry.name for entry in entries], request.seeds, home)
    refuse_none(found, home)
    with there.phase("sampling"):
        answers = answer_all(request, prompts, home, say, trained=found.done, check=check)
    refuse_changed(folder, request)
    judged_by = judge_digest(request, sources(request))
    with clock.phase("judging"):
        verdicts, scores = judge_all(ready.judge, answers, prompts, folder, say, judged_by=judged_by)
    write_answers(folder / ANSWERS, answers, scores, prompts)
    write_verdicts(folder / JUDGEMENTS, verdicts, prompts)
    temperature = SampleSettings(**sections(request.runs)["samples"]).temperature
    entries = tuple(entry for entry in entries if any(entry.name == name for name, _ in found.ended))
    policies = (START, *(entry.name for entry in entries))
    ratings = rate(judged_arrays(answers, verdicts, scores, temperature=temperature, policies=policies))
    costs = [cost_of(entry, seed, run_folder(home, entry.name, seed)) for entry, seed in ended(entries, found)]
    of_trained = [one for one in costs if one.untrained is None]
    spent = [*short_of_peak(of_trained), *unspent(request.budget, of_trained), *overspent(request.budget, of_trained)]
    known = [*first_notes(request, entries, ready), *spent, *same_scores(scores), *changed]
    warnings = [*so_far_notes(found), *untrained_notes(found), *known]
    notes = [*warnings, *request.notes, *(note for entry in entries for note in entry.notes)]
    saved = read_yaml(folder / SAVED).data
    plain = _plain(request, ratings, costs, notes) | {
        "specs": [entry.name for entry in entries],
        "seeds": list(dict.fromkeys(one.seed for one in answers)),
        "missing": [one.as_dict() for one in found.missing],
        "warnings": warnings,
        "judged": tallies(verdicts),
        "phases": phases(costs, there.seconds().get("sampling", 0.0), clock.seconds().get("judging", 0.0)),
        "data": data_facts(entries, ready.prompts, saved),
        "differs": differs([entry.spec for entry in entries]),
        "made": made(request, saved),
    }
    write_json(folder / RESULT, plain)
    write_pages(folder, [run_folder(home, name, seed) for name, seed in found.ended])
    from nashtune.html.comparison_counts import cut_shares, cut_warning

    cut = cut_warning(cut_shares([vars(one) for one in answers]))
    return Result(ratings=ratings, costs=tuple(costs), notes=(*cut, *notes), plain=plain)


def write_pages(folder: Path, runs: Sequence[Path]) -> None:
    """The page of each training that has none yet, and the comparison's, which links to them."""
    from nashtune.html import comparison_page, run_page  # bring jinja2 and matplotlib, which nothing above needs

    for run in runs:
        if not (run / RUN_PAGE).exists():
            write_bytes_atomically(run / RUN_PAGE, run_page.render(run).encode())
    write_bytes_atomically(folder / PAGE, comparison_page.render(folder).encode())


def _plain(request: Request, ratings: Ratings, costs: list[Cost], notes: list[str]) -> dict[str, Any]:
    """Ratings, costs, and what they are of."""
    return {
        "name": request.name,
        "budget": {"kind": request.budget.kind, "amount": request.budget.amount},
        "judge": request.judge.to_dict(),
        "ratings": ratings.as_dict(),
        "costs": [one.as_dict() for one in costs],
        "spent": spent_by_policy(request.budget, costs),
        "trained_on_judge": trained_on(request.judge, request.specs),
        "remarks": notes,
        "versions": versions(),
    }
