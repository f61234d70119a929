"""`nashtune compare`: several specs, the same data and budget, and their policies against each other."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nashtune.cli.output import console, print_json, print_table, progress
from nashtune.comparison.budget import KINDS, Budget
from nashtune.comparison.facts import begun
from nashtune.comparison.folder import (
    PAGE,
    RESULT,
    SAVED,
    claim,
    folder_of_judge,
    home_of,
    is_so_far,
    refuse_changed,
    same_judge,
)
from nashtune.comparison.judge_choice import OPTION, choose_judge, judge_override
from nashtune.comparison.missing import choose_so_far
from nashtune.comparison.request import Request, from_command_line, from_file
from nashtune.comparison.whereabouts import of_component
from nashtune.errors import InputError
from nashtune.pipeline.folder import choose_folder, held
from nashtune.spec.loader import read_yaml
from nashtune.spec.run import RUN_SECTIONS, split_cli
from nashtune.terminal import message

if TYPE_CHECKING:
    from nashtune.comparison.plan import Entry
    from nashtune.comparison.runner import Result

SUMMARY = "train several specs on the same data and budget, and play their policies against each other"
EPILOG = """\
Sections of a run file and settings on top of a spec are for all specs; a setting of a section that a spec leaves out
(an oracle, for a method that draws no completions), and an option that its component does not have, are not for that
spec, which is said. A budget of few steps needs one short warm-up for all:
    nashtune compare dpo ipo simpo --config demo --judge vader --steps 40 --seeds 2 --spec.optimizer.warmup 0.1
    nashtune compare dpo inpo --config game --steps 36 --spec.optimizer.warmup 0.1
What differs between two variants of one method goes into files of their own (`base: dpo`, and the difference).
How long answers are and how they are drawn: --samples.max_new_tokens 64 --samples.temperature 1.0
The same command with --run_dir, or --run_dir alone, goes on with a comparison that was stopped:
    nashtune compare --run_dir comparisons/dpo-ipo-simpo-001
Another judge reads the same answers, into comparisons/dpo-ipo-simpo-001/judges/rules:
    nashtune compare --run_dir comparisons/dpo-ipo-simpo-001 --judge rules --judge.rules '[brevity]'
A comparison that was stopped, rated as far as it has come, into comparisons/dpo-ipo-simpo-001/so_far/5-of-6:
    nashtune compare --run_dir comparisons/dpo-ipo-simpo-001 --so_far"""

PLANNED = ("policy", "rows read", "different prompts", "steps, at most", "completions drawn, at most")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `nashtune compare`."""
    parser.add_argument("specs", nargs="*", metavar="SPEC", help="names or files of specs that train policies")
    parser.add_argument(
        "--config", "-c", metavar="RUN", help="run file by name or path; may be given several times, layered"
    )
    parser.add_argument(
        "--seeds", metavar="N", help="trainings of each spec, with seeds from seed_everything on (default: 1)"
    )
    for kind, what in zip(
        KINDS, ("optimiser steps", "tokens trained on, prompts included", "completions drawn in training"), strict=True
    ):
        parser.add_argument(f"--{kind}", metavar="N", help=f"budget of each training: {what}; one budget at most")
    parser.add_argument("--prompts", metavar="N", help="held-out prompts to answer (default: all of data.validation)")
    parser.add_argument(
        OPTION, metavar="ORACLE", help="who compares the answers, with options as --judge.OPTION (default: the specs')"
    )
    parser.add_argument("--run_dir", "--out", metavar="FOLDER", help="its folder (default: comparisons/SPECS-NNN)")
    parser.add_argument(
        "--check", action="store_true", help="look at everything, say what would be trained, and train nothing"
    )
    parser.add_argument(
        "--so_far",
        action="store_true",
        help="with --run_dir alone: train nothing more, and compare the policies that there are",
    )
    parser.add_argument("--json", action="store_true", help=f"print {RESULT} instead of tables")


def take(argv: Sequence[str]) -> tuple[dict[str, Any], list[str]]:
    """Take what belongs to specs, run and judge off the command line: it has no fixed set of options."""
    line = split_cli(argv)
    options: list[str] = []
    judge = []
    rest: list[str] = []
    tokens = iter(line.rest)
    for token in tokens:
        option, equals, text = token.partition("=")
        section = option.removeprefix("--").partition(".")[0]
        if option == OPTION or option.startswith(f"{OPTION}."):
            text = text if equals else next(tokens, "--")
            if text.startswith("--") or not text:
                raise InputError(f"{option} needs a value, for example `{OPTION} vader`")
            judge.append(judge_override(option, text))
        elif option == "--ckpt_path":
            raise InputError("--ckpt_path: the trainings of a comparison begin at the start; use --policy.path FOLDER")
        elif option.startswith("--") and section in RUN_SECTIONS and option != "--run_dir":
            options.append(token)
            if not equals:
                options += [value for value in (next(tokens, None),) if value is not None]
        else:
            rest.append(token)
    return {"line": line, "options": options, "judge": judge, "typed": ["compare", *argv]}, rest


def run(args: argparse.Namespace) -> int:
    """Check everything, then work.

    Raises:
        InputError: anything is wrong, or a training or the judge fails.
    """
    request = _request(args)
    # from here on torch is loaded
    from nashtune.cli.quiet import quiet
    from nashtune.comparison.plan import make_entries
    from nashtune.comparison.prepare import first_notes, make_ready
    from nashtune.comparison.room import disk_notes
    from nashtune.comparison.runner import compare
    from nashtune.html.comparison_counts import merged

    say = progress(as_json=args.json)
    with quiet():
        entries, ready = make_entries(request), make_ready(request)
        if args.check:
            room = disk_notes(entries, request.seeds, Path(args.run_dir or "comparisons"))
            _show_plan(request, entries, [*first_notes(request, entries, ready), *request.notes], room)
            return 0
        folder = choose_folder(args.run_dir, request.name, parent="comparisons", saved=SAVED)
        home = home_of(folder)
        if is_so_far(folder):
            folder = home  # what goes on is the comparison
        if args.judge and not args.specs and not same_judge(folder, request):
            folder = folder_of_judge(home, request)
        with held(home, "a comparison") as lock:
            if args.so_far:
                folder = choose_so_far([spec.name for spec in request.specs], request.seeds, home)
                refuse_changed(home, request)
            elif home != folder:
                refuse_changed(home, request, judge=False)
            changed = claim(folder, request, begun(args.typed))
            judge, trainings = request.judge.name, len(entries) * len(request.seeds)
            say(f"comparison {request.name}: {trainings} trainings, budget: {request.budget.words()}, in {folder}")
            say(f"judge: {judge}, on {len(ready.prompts.rows)} held-out prompts, both orders")
            first = [*first_notes(request, entries, ready), *changed]
            said = [*first, *request.notes, *(note for one in entries for note in one.notes)]
            for note in merged(said, [one.name for one in entries]):
                say(f"note: {note}")
            if home == folder:  # else nothing is trained
                for line in disk_notes(entries, request.seeds, folder):
                    say(line)
            result = compare(
                request,
                entries,
                ready,
                folder,
                say,
                lock=lock,
                stdout=2 if args.json else None,  # with --json stdout is for the JSON alone
                changed=changed,
                so_far=args.so_far,
            )
    _print(result, folder, said, as_json=args.json)
    return 0


def _request(args: argparse.Namespace) -> Request:
    budget = Budget.asked(vars(args))
    if args.so_far and (args.specs or args.judge or args.check or args.run_dir is None):
        raise InputError(
            "--so_far is for a comparison that has begun and was stopped, and takes nothing beside its folder: "
            "nashtune compare --run_dir FOLDER --so_far"
        )
    if args.specs:
        return from_command_line(
            args.specs,
            args.line,
            args.options,
            args.judge,
            seeds=_count("--seeds", args.seeds) or 1,
            prompts=_count("--prompts", args.prompts),
            budget=budget,
        )
    given = [*args.line.configs, *args.line.overrides, *args.options, args.seeds, args.prompts]
    if args.run_dir is None or any(one is not None for one in given) or budget.amount or args.line.spec:
        raise InputError(
            "compare: which specs? Name them, for example `nashtune compare dpo ipo --config demo --judge vader`; "
            "--run_dir alone goes on with the comparison in a folder; with --judge another judge reads its answers"
        )
    saved = Path(args.run_dir) / SAVED
    if not saved.is_file():
        raise InputError(f"--run_dir: no {saved}, hence no comparison to go on with; name the specs to begin one")
    request = from_file(read_yaml(saved))
    if not args.judge:
        return request
    return replace(request, judge=of_component(choose_judge(args.judge, request.specs, ())))


def _count(option: str, text: str | None) -> int | None:
    if text is None:
        return None
    if not text.isdecimal() or int(text) < 1:
        raise InputError(f"{option}: expected a whole number of 1 or more, found '{text}'")
    return int(text)


def _show_plan(request: Request, entries: Sequence[Entry], notes: Sequence[str], room: Sequence[str]) -> None:
    """What would be trained, and the disk it takes."""
    from nashtune.html.comparison_counts import merged

    said = [*notes, *(note for one in entries for note in one.notes)]
    for note in merged(said, [one.name for one in entries]):
        print(message(f"note: {note}"))
    rows = [
        [
            one.name,
            f"{one.rows.used} of {one.rows.read} {one.rows.unit}",
            str(one.rows.distinct_prompts),
            *("as the run says" if number is None else str(number) for number in (one.steps, one.generations)),
        ]
        for one in entries
    ]
    print_table(PLANNED, rows)
    for line in room:
        print(message(line))
    print(f"all is well: {len(entries) * len(request.seeds)} trainings, {len(request.seeds)} of each; none was begun")


def _print(result: Result, folder: Path, said: Sequence[str], *, as_json: bool) -> None:
    if as_json:
        print_json(result.plain)
        return
    from nashtune.comparison.cost_table import cost_table
    from nashtune.comparison.tables import best_first
    from nashtune.html.comparison_counts import merged

    ratings = result.ratings
    order = [ratings.policies[i] for i in best_first(ratings)]
    for table in [*ratings.tables(), cost_table(result.costs, order, result.plain["phases"])]:
        console().print(table)
    for note in merged([one for one in result.notes if one not in said], result.plain["specs"]):
        print(message(f"note: {note}"))
    ties, changed, pairs = (sum(one[name] for one in result.plain["judged"]) for name in ("ties", "changed", "pairs"))
    print(f"judge:   {ties} of {pairs} pairs of answers tie, and {changed} have another winner in the other order")
    print(f"page:    {folder / PAGE}")
    print(f"figures: {folder / RESULT}")
