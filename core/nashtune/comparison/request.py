"""What a comparison is asked to do, from the command line or from the file that it keeps. Imports no torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from nashtune.comparison.budget import Budget
from nashtune.comparison.fitting import resolve_each
from nashtune.comparison.judge_choice import choose_judge, read_judge
from nashtune.comparison.judged import START
from nashtune.comparison.whereabouts import of_component, of_run, of_spec
from nashtune.errors import InputError
from nashtune.pipeline.settings import sections
from nashtune.spec.gamerules import attribute
from nashtune.spec.loader import Located
from nashtune.spec.model import ComponentSpec, Spec
from nashtune.spec.overrides import Override
from nashtune.spec.resolve import resolve
from nashtune.spec.run import CommandLine, Runs, load_runs
from nashtune.spec.runoptions import put_options

LONGEST_NAME = 60


@dataclass(frozen=True, kw_only=True)
class Request:
    """A comparison, before anything is looked up on the disk.

    Args:
        name: For its folder.
        specs: Resolved, of different names.
        runs: Every section of a run file, the same for all specs.
        seeds: Each spec is trained once with each.
        budget: The same for all.
        prompts: Held-out prompts to answer; None for all of them.
        judge: The oracle that compares the answers.
        notes: What a user should know of the settings, in sentences.
    """

    name: str
    specs: tuple[Spec, ...]
    runs: Runs
    seeds: tuple[int, ...]
    budget: Budget
    prompts: int | None
    judge: ComponentSpec
    notes: tuple[str, ...] = field(default=(), compare=False)

    def to_dict(self) -> dict[str, Any]:
        """As `comparison.yaml` keeps it: `from_file` gives an equal request."""
        return {
            "name": self.name,
            "specs": {spec.name: spec.to_dict() for spec in self.specs},
            "run": sections(self.runs),
            "seeds": list(self.seeds),
            "budget": {self.budget.kind: self.budget.amount},
            "prompts": self.prompts,
            "judge": self.judge.to_dict(),
            "notes": list(self.notes),
        }


def from_command_line(
    sources: Sequence[str],
    line: CommandLine,
    options: Sequence[str],
    judge: Sequence[Override],
    *,
    seeds: int,
    prompts: int | None,
    budget: Budget,
) -> Request:
    """A new comparison.

    Args:
        sources: Names or files of specs.
        line: `--config` and `--spec.x.y`.
        options: `--data.train F` and other sections of a run file, as they were typed.
        judge: `--judge` and `--judge.x`, as settings of a section `oracle`.
        seeds: Trainings of each spec.
        prompts: Held-out prompts; None for all.
        budget: The same for all specs.

    Raises:
        InputError: names, types or choices are wrong.
    """
    if line.spec is not None:
        raise InputError(
            f"--spec {line.spec}: a comparison names its specs without an option: nashtune compare {line.spec} OTHER"
        )
    runs = put_options(load_runs(line.configs), options)
    if runs.spec is not None:
        named = runs.spec if isinstance(runs.spec, str) else "a whole spec"
        raise InputError(
            f"--config: a run file names {named}, and a comparison names its specs on the command line; take it out"
        )
    overrides = [*runs.overrides, *line.overrides]
    specs, notes = resolve_each(sources, overrides)
    _refuse_names([spec.name for spec in specs])
    for spec in specs:
        _refuse_other_models(spec)
    first = sections(runs).get("seed_everything", 0)
    if isinstance(first, bool):
        raise InputError(f"{runs.where('seed_everything')}: seed_everything: a comparison needs a number, not {first}")
    return Request(
        name=_name([spec.name for spec in specs]),
        specs=tuple(of_spec(spec) for spec in specs),
        runs=of_run(runs),
        seeds=tuple(range(first, first + seeds)),
        budget=budget,
        prompts=prompts,
        judge=of_component(choose_judge(judge, specs, overrides)),
        notes=tuple(notes),
    )


def from_file(located: Located) -> Request:
    """The comparison that a folder holds.

    Args:
        located: Its `comparison.yaml`.

    Raises:
        InputError: it was altered and cannot be read.
    """
    data = located.data
    try:
        (kind, amount) = next(iter(data["budget"].items()))
        return Request(
            name=str(data["name"]),
            specs=tuple(resolve(spec) for spec in data["specs"].values()),
            runs=Runs(dict(data["run"]), None, (), {}),
            seeds=tuple(int(seed) for seed in data["seeds"]),
            budget=Budget(kind, int(amount)),
            prompts=data["prompts"],
            judge=read_judge(data["judge"], located.source),
            notes=tuple(data["notes"]),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{located.source} is torn or was altered ({error!r}); restore it from a copy") from error


def _refuse_names(names: Sequence[str]) -> None:
    if not names:
        raise InputError(
            "compare: which specs? Name them, for example `nashtune compare dpo ipo simpo --config demo`; "
            "`nashtune list` shows all"
        )
    for name in names:
        if names.count(name) > 1:
            raise InputError(
                f"compare: two specs are called {name}, which is the name of their file; copy one to another file, "
                f"such as {name}_2.yaml with `base: {name}` and what differs"
            )
    if START in names:
        raise InputError(f"compare: a spec called {START} cannot take part, because the starting policy is called so")


def _refuse_other_models(spec: Spec) -> None:
    """Refuse what answers no prompts."""
    scores = attribute(spec.loss, "reads", "logprobs") == "scores"
    if scores or attribute(spec.loss, "rows", "pairs") == "comparisons":
        what, judge = ("a reward model", "reward_model") if scores else ("a preference model", "preference_model")
        raise InputError(
            f"compare: the spec '{spec.name}' trains {what}, which judges answers and gives none; compare policies, "
            f"and let its exported model judge them: --judge {judge} --judge.path RUN_DIR/export"
        )


def _name(names: Sequence[str]) -> str:
    joined = "-".join(names)
    return joined if len(joined) <= LONGEST_NAME else f"{names[0]}-and-{len(names) - 1}-more"
