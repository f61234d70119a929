"""Run files and the command line of a run: which spec, what on top of it, and everything else merged.

Layers, lowest first: spec file, the `spec:` sections of run files in order, `--spec.x.y` on the command line; and for
the other sections: run files in order, command line.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nashtune.errors import InputError, nearest
from nashtune.spec.findings import Collector
from nashtune.spec.loader import KeyPath, Located, read_yaml
from nashtune.spec.locate import find_run
from nashtune.spec.overrides import Override, flatten, take_overrides
from nashtune.spec.types import describe

RUN_SECTIONS: dict[str, str] = {
    "spec": "A spec's name, settings on top of one, or a whole spec.",
    "policy": "The language model to train.",
    "data": "Training and held-out rows.",
    "trainer": "Lightning's Trainer.",
    "samples": "Answers that a run samples for its report.",
    "engine": "Log-prob engine: auto, shared, packed, tiled or dense.",
    "seed_everything": "Seed of the run.",
    "run_dir": "Folder of the run.",
    "save_every": "Optimiser steps between checkpoints.",
    "keep_checkpoints": "How many of the newest checkpoints stay.",
    "ckpt_path": "Checkpoint to start from.",
}
"""Top-level key of a run file -> what it is for."""

Places = dict[KeyPath, str]


@dataclass(frozen=True)
class CommandLine:
    """A run's command line, taken apart.

    Args:
        spec: What `--spec` names; None when it is not given.
        overrides: `--spec.x.y value`.
        configs: What `--config` names, in order.
        rest: Everything else, as it was.
    """

    spec: str | None
    overrides: tuple[Override, ...]
    configs: tuple[str, ...]
    rest: tuple[str, ...]


@dataclass(frozen=True)
class Runs:
    """Run files, merged.

    Args:
        data: Every section but `spec`.
        spec: The spec that the files name or hold in whole; None when they do neither.
        overrides: Settings on top of the spec.
        places: "file:line" of each key in `data`.
    """

    data: dict[str, Any]
    spec: str | Located | None
    overrides: tuple[Override, ...]
    places: Mapping[KeyPath, str]

    def where(self, *path: str | int) -> str:
        """`file:line` of a key path, or of the nearest key above it."""
        for end in range(len(path), 0, -1):
            if path[:end] in self.places:
                return self.places[path[:end]]
        return ".".join(map(str, path)) or "run"


def split_cli(argv: Sequence[str]) -> CommandLine:
    """Take `--spec`, `--spec.x.y` and `--config` (`-c`) off a command line.

    Raises:
        InputError: one of them lacks its value or names no section.
    """
    overrides, remaining = take_overrides(argv)
    values: dict[str, list[str]] = {"--spec": [], "--config": []}
    rest = []
    tokens = iter(remaining)
    for token in tokens:
        option, equals, value = token.partition("=")
        option = "--config" if option == "-c" else option
        if option not in values:
            rest.append(token)
            continue
        if not equals:
            value = next(tokens, "--")
        if value.startswith("--") or not value:
            example = "--spec dpo" if option == "--spec" else "--config run.yaml"
            raise InputError(f"{option} needs a name or a file, for example `{example}`")
        values[option].append(value)
    named = list(dict.fromkeys(values["--spec"]))
    if len(named) > 1:
        raise InputError(f"--spec is given as {' and as '.join(named)}; a run trains by one spec")
    return CommandLine(named[0] if named else None, tuple(overrides), tuple(values["--config"]), tuple(rest))


def load_runs(files: Sequence[str | Located]) -> Runs:
    """Read run files and merge them; a later one wins.

    A whole spec (a mapping with `name`, as a run's saved config holds it, or with `base`) replaces what earlier files
    said about the spec; any other mapping is settings on top of one.

    Args:
        files: Names or paths, or what was read from a file.

    Raises:
        InputError: a file is missing or broken, or has an unknown section.
    """
    data: dict[str, Any] = {}
    places: Places = {}
    spec: str | Located | None = None
    overrides: list[Override] = []
    found = Collector()
    for file in files:
        with found.catch():
            located = read_yaml(find_run(file)) if isinstance(file, str) else file
            _check_sections(located)
            if "spec" in located.data:
                layer = located.section("spec")
                if isinstance(layer.data, Mapping) and layer.data.keys() & {"name", "base"}:
                    spec, overrides = layer, []
                elif isinstance(layer.data, str):
                    spec = layer.data
                else:
                    overrides += flatten(layer)
            others = {key: value for key, value in located.data.items() if key != "spec"}
            merge_section(data, others, (), places, located.where)
    found.close()
    return Runs(data, spec, tuple(overrides), places)


def _check_sections(located: Located) -> None:
    if located.data is None:
        raise InputError(f"{located.source}: is empty; a run file has sections such as policy, data and trainer")
    if not isinstance(located.data, Mapping):
        raise InputError(f"{located.where()}: a run file is a mapping of sections, found {describe(located.data)}")
    found = Collector()
    if "loss" in located.data:
        raise InputError(f"{located.where(('loss',))}: this is a spec, not a run file; give it with --spec")
    for key in located.data:
        if key not in RUN_SECTIONS:
            found.add(f"{located.where((key,))}: '{key}' is not a section of a run file{nearest(key, RUN_SECTIONS)}")
    found.close()


def merge_section(
    low: dict[str, Any], high: Mapping[str, Any], path: KeyPath, places: Places, where: Callable[[KeyPath], str]
) -> None:
    """Put `high` on `low` key by key; another `class_path` replaces the mapping: its options are another's.

    Args:
        low: Changed in place.
        high: Goes on top.
        path: Of both, in the run file.
        places: Gets the place of each key of `high`.
        where: Place of a key path.
    """
    if "class_path" in high and high["class_path"] != low.get("class_path"):
        low.clear()
    for key, value in high.items():
        here = (*path, key)
        places[here] = where(here)
        if isinstance(value, Mapping):
            below = low[key] if isinstance(low.get(key), dict) else {}
            low[key] = below
            merge_section(below, value, here, places, where)
        else:
            low[key] = value
