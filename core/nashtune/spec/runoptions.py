"""Names and types of everything in a run file and in the options on top of it, before torch is imported."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from nashtune.errors import InputError, nearest
from nashtune.once import said_once
from nashtune.spec.annotations import parse
from nashtune.spec.findings import Collector
from nashtune.spec.games import check_game, unanswered
from nashtune.spec.loader import load_yaml
from nashtune.spec.resolve import resolve
from nashtune.spec.run import RUN_SECTIONS, Runs, load_runs, split_cli
from nashtune.spec.runranks import OPTIONS
from nashtune.spec.runtrainer import check_ranks, check_trainer
from nashtune.spec.secrets import find_secrets
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
    "keep_checkpoints": "PositiveInt",
    "ckpt_path": "str | None",
}


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
            below[key] = dict(inner) if isinstance(inner, Mapping) else _of_class(inner) if path[0] == "trainer" else {}
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
    options["trainer"] = check_trainer(runs, found, partial)
    for path, problem in find_secrets(runs.data):
        found.add(f"{where_and_what(runs.where(*path), '.'.join(map(str, path)))}: {problem}")
    found.close()
    return options


@said_once()
def precheck(argv: Sequence[str]) -> None:
    """Refuse what is wrong with spec, rounds and run files of a training command before torch is imported.

    The command itself goes through the same functions again, with what only it knows: the checkpoint and its parser.

    Raises:
        InputError: what is wrong.
    """
    line = split_cli(argv)
    runs = load_runs(line.configs)
    check_settings(runs, partial=True)
    if not any(word.partition("=")[0] == "--ckpt_path" for word in line.rest) and "ckpt_path" not in runs.data:
        found = Collector()
        check_ranks(put_options(runs, about_ranks(line.rest)), found)
        found.close()
    source = line.spec or runs.spec
    if source is None:
        return
    spec = resolve(source, [*runs.overrides, *line.overrides])
    check_game(spec)
    if question := unanswered(spec):
        raise InputError(question)


def about_ranks(argv: Sequence[str]) -> list[str]:
    """Of a command line, the options that say how many processes there are and what they share.

    Args:
        argv: Words of the command line.
    """
    names = {f"--trainer.{option}" for option in OPTIONS}
    found: list[str] = []
    for word, after in pairwise([*argv, "--"]):
        option, equals, _ = word.partition("=")
        if option in names and (equals or not after.startswith("--")):
            found += [word] if equals else [word, after]
    return found


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


def _of_class(value: Any) -> dict[str, Any]:
    """What is set below a class that the command line has named before: `--trainer.strategy X --trainer.strategy.y`."""
    named = value.value if isinstance(value, Typed) else value
    return {"class_path": value} if isinstance(named, str) else {}
