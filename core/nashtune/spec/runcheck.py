"""What can be known of a run without torch: its options, its rows, its model's files, its number of steps."""

from __future__ import annotations

import ast
import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any

from nashtune.errors import InputError, nearest
from nashtune.plugins.source import read_module
from nashtune.spec.annotations import parse
from nashtune.spec.crosscheck import attribute
from nashtune.spec.findings import Collector
from nashtune.spec.loader import load_yaml
from nashtune.spec.model import Spec
from nashtune.spec.run import RUN_SECTIONS, Runs
from nashtune.spec.settings import check_options, settings_info, where_and_what
from nashtune.spec.types import Mismatch, Typed, describe

SECTION_CLASSES = {
    "policy": "nashtune.models.config:PolicyConfig",
    "data": "nashtune.data.module:PreferenceData",
    "samples": "nashtune.training.samples:SampleSettings",
}
SINGLE = {
    "engine": "Literal['tiled', 'dense']",
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
SPLITS = ("train", "validation", "test")
_ONLY_AT_START = ("demo:", "hub:")  # made or downloaded when the run starts


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


def check_run(spec: Spec, runs: Runs) -> list[str]:
    """Check everything a run file says against the spec, the rows and the model's files.

    Returns:
        What was found to be right, in sentences: rows, steps, and what cannot be known here.

    Raises:
        InputError: what is wrong, all of it.
    """
    found = Collector()
    notes: list[str] = []
    options = {section: _section(runs, section, found) for section in SECTION_CLASSES}
    for key, annotation in SINGLE.items():
        if key in runs.data:
            try:
                parse(annotation).check(runs.data[key])
            except Mismatch as mismatch:
                found.add(f"{where_and_what(runs.where(key), key)}: {mismatch}")
    trainer = _trainer(runs, found)
    found.close()
    rows = _rows(spec, options["data"], runs, found, notes)
    with found.catch():
        notes.append(_model(spec, options["policy"], options["data"], runs))
    if "train" in rows:
        notes.append(_steps(rows["train"], attribute(spec.loss, "rows", "pairs"), options["data"], trainer))
    found.close()
    return notes


def _section(runs: Runs, section: str, found: Collector) -> dict[str, Any]:
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
    )


def _trainer(runs: Runs, found: Collector) -> dict[str, Any]:
    """The trainer's options; their names are checked, their values are Lightning's own business."""
    given = runs.data.get("trainer", {})
    if not isinstance(given, Mapping):
        found.add(f"{runs.where('trainer')}: trainer takes a mapping of options, found {describe(given)}")
        return {}
    known = trainer_options()
    for key in given:
        if key not in known:
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


def _rows(spec: Spec, data: Mapping[str, Any], runs: Runs, found: Collector, notes: list[str]) -> dict[str, int]:
    """Number of rows of each split that could be read."""
    from nashtune.data.rows import read_rows

    kind = attribute(spec.loss, "rows", "pairs")
    if data["labels"] == "soft" and not attribute(spec.loss, "uses_p_chosen", False):
        found.add(
            f"{runs.where('data', 'labels')}: data.labels: soft, but the loss '{spec.loss.name}' does not read "
            "p_chosen; use data.labels: hard, or another loss"
        )
    if kind == "examples" and data["batch_size"] < 2:
        found.add(
            f"{runs.where('data', 'batch_size')}: data.batch_size is 1, but the loss '{spec.loss.name}' compares each "
            "example with another one of its micro-batch; use 2 or more"
        )
    if data["train"] is None:
        found.add(f"{runs.where('data')}: data.train is missing; give a file, for example --data.train pairs.jsonl")
    counts = {}
    for split in SPLITS:
        source = data[split]
        if source is None:
            continue
        if source.startswith("hub:"):
            notes.append(f"data.{split}: {source} is downloaded when the run starts; not checked here")
            continue
        with found.catch():
            read = read_rows(source, kind, data["labels"], data["ranked_pairs"], data["limit"])
            counts[split] = len(read.rows)
            notes.append(f"data.{split}: {len(read.rows)} {kind} from {source}")
            notes += [f"data.{split}: {note}" for note in read.notes()]
    return counts


def _model(spec: Spec, policy: Mapping[str, Any], data: Mapping[str, Any], runs: Runs) -> str:
    from nashtune.models.config import LoraSettings
    from nashtune.models.preflight import check_adapter_off, check_folder

    path, option = policy["path"], f"{runs.where('policy', 'path')}: policy.path"
    if path.startswith(_ONLY_AT_START):
        return f"policy: {path} is made ready when the run starts; not checked here"
    folder = check_folder(path, chat=data["template"] == "chat", option=option)
    lora = LoraSettings(**policy["lora"]) if policy["lora"] is not None else None
    for name, reference in spec.references.items():
        if reference.name == "adapter_off":
            check_adapter_off(folder, lora, f"{reference.where}: references.{name}")
    return f"policy: {path} has a model, its tokenizer{' and a chat template' if data['template'] == 'chat' else ''}"


def _steps(rows: int, kind: str, data: Mapping[str, Any], trainer: Mapping[str, Any]) -> str:
    """Optimiser steps; rows dropped for their length are not known here."""
    from nashtune.data.order import BatchOrder

    devices = trainer.get("devices")
    ranks = trainer.get("num_nodes", 1) * (devices if isinstance(devices, int) and devices > 0 else 1)
    order = BatchOrder(
        size=rows,
        batch_size=data["batch_size"],
        seed=0,
        shuffle=True,
        rank=0,
        world_size=ranks,
        least=2 if kind == "examples" else 1,
    )
    accumulate = trainer.get("accumulate_grad_batches", 1)
    per_epoch = math.ceil(len(order) / accumulate)
    epochs, limit = trainer.get("max_epochs"), trainer.get("max_steps", -1)
    epochs = 1 if epochs is None else epochs
    total = per_epoch * epochs if epochs >= 0 else math.inf
    if limit >= 0:
        total = min(total, limit)
    batch = f"{rows} {kind}, batch_size {data['batch_size']}, accumulate {accumulate}, devices {ranks}"
    return f"steps: {total if total < math.inf else 'no end'} in all, {per_epoch} per epoch ({batch})"
