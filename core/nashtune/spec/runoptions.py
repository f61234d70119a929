"""Names and types of everything in a run file and in the options on top of it, before torch is imported."""

from __future__ import annotations

import ast
import functools
from collections.abc import Mapping, Sequence
from typing import Any

from nashtune.errors import InputError, nearest
from nashtune.plugins.source import read_module
from nashtune.spec.annotations import parse
from nashtune.spec.findings import Collector
from nashtune.spec.games import check_game, unanswered
from nashtune.spec.loader import load_yaml
from nashtune.spec.resolve import resolve
from nashtune.spec.run import RUN_SECTIONS, Runs, load_runs, split_cli
from nashtune.spec.settings import check_options, settings_info, where_and_what
from nashtune.spec.types import Mismatch, Typed, describe

SECTION_CLASSES = {
    "policy": "nashtune.models.config:PolicyConfig",
    "data": "nashtune.data.module:PreferenceData",
    "samples": "nashtune.training.samples:SampleSettings",
}
SINGLE = {
    "engine": "Literal['auto', 'shared', 'packed', 'tiled', 'dense']",
    "seed_everything": "bool | NonNegativeInt",
    "run_dir": "str | None",
    "save_every": "PositiveInt",
    "ckpt_path": "str | None",
}
TRAINER = {
    "accumulate_grad_batches": "PositiveInt",
    "max_epochs": "int | None",
    "max_steps": "int",
    "num_nodes": "PositiveInt",
}
"""What the number of steps depends on."""


def put_options(runs: Runs, argv: Sequence[str]) -> Runs:
    """Put `--section.key value` options of a command line on top of run files, as the training commands do.

    Raises:
        InputError: an option names no section of a run file, or lacks its value.
    """
    data = {key: dict(value) if isinstance(value, Mapping) else value for key, value in runs.data.items()}
    places = dict(runs.places)
    tokens = iter(argv)
    for token in tokens:
        option, equals, text = token.partition("=")
        path = tuple(option.removeprefix("--").split("."))
        if not option.startswith("--") or path[0] not in RUN_SECTIONS:
            known = [f"--{section}" for section in RUN_SECTIONS]
            raise InputError(f"unknown option {option}{nearest(option.partition('.')[0], known)}")
        if not equals:
            text = next(tokens, "--")
            if text.startswith("--"):
                raise InputError(f"{option} needs a value")
        value = Typed(text, load_yaml(text, option).data)
        below = data
        for key in path[:-1]:
            inner = below.get(key)
            below[key] = dict(inner) if isinstance(inner, Mapping) else {}
            below = below[key]
        below[path[-1]] = value
        places[path] = option
    return Runs(data, runs.spec, runs.overrides, places)


def check_settings(runs: Runs, *, partial: bool = False) -> dict[str, dict[str, Any]]:
    """Names and types of everything in the run files.

    Args:
        runs: The run files.
        partial: Whether a checkpoint or the command line may add what is missing.

    Returns:
        The options of each section, defaults filled in (the trainer's as they were given).

    Raises:
        InputError: what is wrong, all of it.
    """
    found = Collector()
    options = {section: _section(runs, section, found, partial) for section in SECTION_CLASSES}
    for key, annotation in SINGLE.items():
        if key in runs.data:
            try:
                parse(annotation).check(runs.data[key])
            except Mismatch as mismatch:
                found.add(f"{where_and_what(runs.where(key), key)}: {mismatch}")
    options["trainer"] = _trainer(runs, found)
    found.close()
    return options


def precheck(argv: Sequence[str]) -> None:
    """Refuse what is wrong with spec, rounds and run files of a training command before torch is imported.

    The command itself goes through the same functions again, with what only it knows: the checkpoint and its parser.

    Raises:
        InputError: what is wrong.
    """
    line = split_cli(argv)
    runs = load_runs(line.configs)
    check_settings(runs, partial=True)
    source = line.spec or runs.spec
    if source is None:
        return
    spec = resolve(source, [*runs.overrides, *line.overrides])
    check_game(spec)
    if question := unanswered(spec):
        raise InputError(question)


def _section(runs: Runs, section: str, found: Collector, partial: bool) -> dict[str, Any]:
    given = runs.data.get(section, {})
    if not isinstance(given, Mapping):
        found.add(f"{runs.where(section)}: {section} takes a mapping of options, found {describe(given)}")
        return {}
    return check_options(
        given,
        settings_info(SECTION_CLASSES[section]),
        what=section,
        who=f"the section '{section}'",
        where=lambda *below: runs.where(section, *below),
        found=found,
        partial=partial,
    )


def _trainer(runs: Runs, found: Collector) -> dict[str, Any]:
    """The trainer's options; their names are checked, their values are Lightning's own business."""
    given = runs.data.get("trainer", {})
    if not isinstance(given, Mapping):
        found.add(f"{runs.where('trainer')}: trainer takes a mapping of options, found {describe(given)}")
        return {}
    known = trainer_options()
    for key in given:
        if key.removesuffix("+") not in known:  # `callbacks+` appends to a list
            where = runs.where("trainer", key)
            hint = nearest(key, known).partition(" (known")[0]
            found.add(f"{where}: trainer.{key} is not an option of Lightning's Trainer{hint}")
        if key in TRAINER:
            try:
                parse(TRAINER[key]).check(given[key])
            except Mismatch as mismatch:
                found.add(f"{where_and_what(runs.where('trainer', key), f'trainer.{key}')}: {mismatch}")
    return {key: value.value if isinstance(value, Typed) else value for key, value in given.items()}


@functools.cache
def trainer_options() -> tuple[str, ...]:
    """Arguments of Lightning's Trainer, from its source: importing it takes five seconds."""
    tree = read_module("lightning.pytorch.trainer.trainer").names["Trainer"]
    assert isinstance(tree, ast.ClassDef)
    init = next(one for one in tree.body if isinstance(one, ast.FunctionDef) and one.name == "__init__")
    return tuple(argument.arg for argument in init.args.kwonlyargs)
