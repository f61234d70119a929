"""Everything that can be wrong with a comparison, looked at before the first training begins."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from nashtune.comparison.budget import Budget, lengths_given, prompts_per_round, with_length
from nashtune.comparison.horizon import lengths, refuse_short
from nashtune.comparison.request import Request
from nashtune.comparison.rows_ahead import RowsRead, prompts_of, rows_read, steps_for, tokenised
from nashtune.data.prompts import read_prompts
from nashtune.errors import InputError
from nashtune.pipeline.settings import sections
from nashtune.spec.findings import Collector, Findings
from nashtune.spec.gamerules import attribute, is_game
from nashtune.spec.model import Spec
from nashtune.spec.plan import Plan
from nashtune.spec.run import Runs
from nashtune.spec.runcheck import check_run


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One spec of a comparison, ready to be trained.

    Args:
        spec: Resolved.
        config: Sections of its run file but for the seed, with the length that the budget gives it.
        rows: What it reads of the training rows.
        steps: Optimiser steps, at most; None where the run alone knows.
        generations: Completions that it draws, at most; None likewise.
        disk: Bytes that a training writes, as `nashtune check` predicts them; None where it does not.
        notes: What a user should know, in sentences.
    """

    spec: Spec
    config: Mapping[str, Any]
    rows: RowsRead
    steps: int | None = None
    generations: int | None = 0
    disk: Mapping[str, Any] | None = field(default=None, compare=False)
    notes: tuple[str, ...] = field(default=(), compare=False)

    @property
    def name(self) -> str:
        """The policy's name, the spec's."""
        return self.spec.name

    @property
    def draws_of_one(self) -> int:
        """Completions that are drawn for each one that is kept: best-of-n keeps one of n."""
        sampler = self.spec.sampler
        chooses = sampler is not None and attribute(sampler, "selects", False)
        return int(sampler.args.get("n", 1)) if sampler is not None and chooses else 1


def make_entries(request: Request) -> tuple[Entry, ...]:
    """Check every spec with the run that it would get, its rows as tokens included; these are kept for the training.

    Args:
        request: A comparison.

    Raises:
        InputError: what is wrong with any of them, all of it; nothing was trained.
    """
    wrong: dict[str, list[str]] = {}
    entries = []
    prompts = prompts_of(request.runs)
    for spec in request.specs:
        found = Collector()
        with found.catch():
            entries.append(_entry(spec, request.runs, request.budget, prompts))
        for line in found.lines:
            wrong.setdefault(line, []).append(spec.name)
    lines = [
        line if len(names) == len(request.specs) else f"{', '.join(names)}: {line}" for line, names in wrong.items()
    ]
    held_out = request.runs.data.get("data", {}).get("validation")
    if getattr(held_out, "value", held_out) is None:  # typed as `--data.validation null`
        where = request.runs.where("data")
        lines.append(
            f"{where}: data.validation is missing; the policies are compared by their answers to held-out prompts: "
            "--data.validation FILE"
        )
    if lines:
        raise Findings(lines)
    return tuple(entries)


def _entry(spec: Spec, runs: Runs, budget: Budget, prompts: Mapping[str, Hashable]) -> Entry:
    game, notes = is_game(spec), []
    if not game and "prompts_per_round" in runs.data.get("data", {}):
        runs = _without(runs, "data", "prompts_per_round")
        notes.append(f"data.prompts_per_round is not for {spec.name}: it draws no completions")
    steps = limit = None
    if budget.kind == "steps":
        steps = budget.amount
    elif budget.kind == "tokens":
        limit = budget.amount
    elif budget.kind == "generations" and not game:
        notes.append(
            f"{spec.name} draws no completions and cannot spend generations: it trains as long as the run says"
        )
    elif budget.kind == "generations" and not attribute(spec.schedule, "scores", False):
        runs, note = _dealt(spec, runs, budget.amount)
        notes.append(note)
    checked = check_run(spec, runs)
    config, plan = sections(runs), checked.plan
    rows = tokenised(spec, config)
    if budget.kind == "generations" and game and attribute(spec.schedule, "scores", False):
        steps, note = _rounds(spec, plan, budget.amount)
        notes.append(note)
    if budget.kind in ("steps", "tokens"):
        for name in lengths_given(config["trainer"], game=game):
            notes.append(f"trainer.{name} is not followed by {spec.name}: --{budget.kind} says how long it trains")
    if limit is not None and not game:
        steps = steps_for(spec, config, rows, limit)
    if limit is not None and plan is not None:
        config["trainer"] = {key: value for key, value in config["trainer"].items() if key != "max_steps"}
        notes.append(
            f"{spec.name} has a learning-rate schedule for all of its {sum(plan.steps_per_update)} steps: how many "
            "tokens it will draw is not known"
        )
    if plan is not None and steps is not None and sum(plan.steps_per_update) < steps:
        notes.append(
            f"{spec.name} has at most {sum(plan.steps_per_update)} steps in its rounds and cannot spend {steps}"
        )
    if budget.kind == "run" or (budget.kind == "generations" and not game):
        notes += [note.removeprefix("note: ") for note in checked.notes if "warm-up" in note]
    else:
        refuse_short(spec.optimizer, lengths(spec, plan, steps))
    if plan is not None and steps is not None and steps < plan.steps_per_update[0]:
        notes.append(
            f"{spec.name} draws {plan.generations // plan.rounds} completions in its first round, which are enough for "
            f"{plan.steps_per_update[0]} steps, and takes {steps}: draw fewer with --data.prompts_per_round"
        )
    config.pop("seed_everything", None)
    config = with_length(config, steps=steps, game=game, limit=limit)
    most = sum(plan.steps_per_update) if plan is not None else None
    return Entry(
        spec=spec,
        config=config,
        rows=rows_read(rows, prompts),
        steps=min(steps, most) if steps is not None and most is not None else most if steps is None else steps,
        generations=0 if not game else plan.generations if plan is not None else None,
        disk=checked.disk,
        notes=tuple(notes),
    )


def _rounds(spec: Spec, plan: Plan | None, generations: int) -> tuple[int, str]:
    """Optimiser steps of the rounds in which reinforcement learning draws so many completions, and what that is.

    Raises:
        InputError: not even one round, or the prompts are not known.
    """
    if plan is None:
        raise InputError("--generations: the prompts of data.train cannot be counted before the run; use --steps")
    each = plan.generations // plan.rounds
    if each > generations:
        raise InputError(
            f"--generations {generations}: a round draws {each}; give at least as many, or fewer prompts by "
            "--data.prompts_per_round"
        )
    rounds = min(plan.rounds, generations // max(1, each))
    note = f"{spec.name}: {rounds} of {plan.rounds} rounds, {rounds * each} of {generations} generations"
    return sum(plan.steps_per_update[:rounds]), note


def _without(runs: Runs, section: str, key: str) -> Runs:
    kept = {name: value for name, value in runs.data[section].items() if name != key}
    return replace(runs, data={**runs.data, section: kept})


def _dealt(spec: Spec, runs: Runs, generations: int) -> tuple[Runs, str]:
    """A game with as many prompts a round as it may draw for, and what that comes to."""
    source = runs.data.get("data", {}).get("train")
    text = getattr(source, "text", source)
    one = _with_prompts(runs, 1)
    plan = check_run(spec, one).plan
    if plan is None or text is None:
        raise InputError(
            f"--generations: the prompts of data.train ({text}) cannot be counted before the run; use --steps, or set "
            "data.prompts_per_round"
        )
    limit = sections(runs)["data"].get("limit")
    number = prompts_per_round(generations, plan.generations, len(read_prompts(text, limit).rows))
    note = f"{spec.name}: {number} prompts a round, {number * plan.generations} of {generations} generations"
    return _with_prompts(runs, number), note


def _with_prompts(runs: Runs, number: int) -> Runs:
    data = {**runs.data.get("data", {}), "prompts_per_round": number}
    return replace(runs, data={**runs.data, "data": data})
