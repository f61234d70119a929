"""What can be known of a run without torch: its options, its rows, its model's files, its number of steps."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from nashtune.spec.findings import Collector
from nashtune.spec.gamerules import attribute
from nashtune.spec.model import Spec
from nashtune.spec.run import Runs
from nashtune.spec.runoptions import check_settings

SPLITS = ("train", "validation", "test")
_ONLY_AT_START = ("demo:", "hub:")  # made or downloaded when the run starts


def check_run(spec: Spec, runs: Runs) -> list[str]:
    """Check everything a run file says against the spec, the rows and the model's files.

    Returns:
        What was found to be right, in sentences: rows, steps, and what cannot be known here.

    Raises:
        InputError: what is wrong, all of it.
    """
    options = check_settings(runs)
    trainer = options["trainer"]
    found = Collector()
    notes: list[str] = []
    rows = _rows(spec, options["data"], runs, found, notes)
    with found.catch():
        notes.append(_model(spec, options["policy"], options["data"], runs))
    if "train" in rows:
        note, total = _steps(rows["train"], attribute(spec.loss, "rows", "pairs"), options["data"], trainer)
        notes.append(note)
        if total < math.inf and (warmup := spec.optimizer.warmup_note(int(total))):
            notes.append(f"note: {warmup}")
        notes.append("note: lengths in tokens are checked when the run starts, before the model loads")
    found.close()
    return notes


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


def _steps(rows: int, kind: str, data: Mapping[str, Any], trainer: Mapping[str, Any]) -> tuple[str, float]:
    """Optimiser steps, in words and as a number; rows dropped for their length are not known here."""
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
    return f"steps: {total if total < math.inf else 'no end'} in all, {per_epoch} per epoch ({batch})", total
