"""What can be known of a run without torch: its options, its rows, its model's files, its number of steps."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from nashtune.data.prompts import fewer
from nashtune.data.serve import DataKind, refusals
from nashtune.models.member_order import check_passes
from nashtune.spec.findings import Collector
from nashtune.spec.gamerules import attribute, is_game
from nashtune.spec.games import check_game, unanswered
from nashtune.spec.model import Spec
from nashtune.spec.optimizerrules import optimizer_problem
from nashtune.spec.plan import Plan
from nashtune.spec.run import Runs
from nashtune.spec.rundisk import written
from nashtune.spec.runmemory import predicted
from nashtune.spec.runoptions import check_settings
from nashtune.spec.runplan import check_epochs, lora_of, plan_run, warmup_notes
from nashtune.spec.runranks import notes as ranks_notes
from nashtune.spec.runranks import ranks_of
from nashtune.spec.settings import where_and_what
from nashtune.spec.types import Typed

if TYPE_CHECKING:
    from nashtune.memory.lengths import Measure
    from nashtune.memory.run import Memory
    from nashtune.models.locate import ModelFolder

NAMES = {"ranked": "ranked lists"}
"""Kind of rows -> what they are called, where that is another word."""
SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class Checked:
    """A run in which nothing was found to be wrong.

    Args:
        notes: What was found to be right, in sentences: rows, steps, and what cannot be known here.
        plan: Of a game, where its rows are known.
        memory: Of an offline run, where rows, model and tokenizer are known.
        disk: Bytes that the run writes and that are free, where the model is known.
    """

    notes: list[str] = field(default_factory=list)
    plan: Plan | None = None
    memory: Memory | None = None
    disk: dict[str, Any] | None = None


def check_run(spec: Spec, runs: Runs) -> Checked:
    """Check everything a run file says against the spec, the rows and the model's files.

    Raises:
        InputError: what is wrong, all of it.
    """
    options = check_settings(runs)
    found = Collector()
    notes = ranks_notes(options["trainer"])
    declared = folder = plan = memory = disk = None
    total = math.inf
    with found.catch():
        declared = check_game(spec)
    if question := unanswered(spec):
        found.add(question)
    kind: DataKind = "prompts" if is_game(spec) else attribute(spec.loss, "rows", "pairs")
    rows, measure = _rows(spec, kind, options["data"], runs, found, notes)
    with found.catch():
        folder, note = _model(spec, options["policy"], options["data"], runs)
        notes.append(note)
    _check_settings(spec, kind, options["data"], folder, runs, found)
    if kind == "prompts":
        check_epochs(options["trainer"], runs, found)
    if spec.head is not None:
        with found.catch():
            if shortened := check_passes(spec.head, options["trainer"]):
                notes.append(f"note: {shortened}")
    if "train" in rows and kind != "prompts":
        total, said = _steps(spec, rows["train"], kind, options["data"], options["trainer"])
        notes += said
    if kind == "prompts" and options["data"]["validation"] is None:
        notes.append("note: no data.validation, so the policies are not compared at the end")
    if "train" in rows and kind == "prompts" and declared is not None:
        with found.catch():
            plan = plan_run(
                spec,
                declared,
                rows["train"],
                options,
                folder,
                min(options["samples"]["prompts"], rows.get("validation", 0)),
                keep.value if isinstance(keep := runs.data.get("keep_checkpoints", 1), Typed) else keep,
            )
            notes += [*plan.lines(), *warmup_notes(spec, declared, plan)]
            if few := fewer(options["samples"]["prompts"], rows.get("validation", 0)):
                notes.append(f"note: {few}")
    if problem := _optimizer_problem(spec, options["policy"], folder):
        found.add(problem)
    found.close()
    if folder is not None and measure is not None:
        memory, said = predicted(spec, kind, measure, folder, options, runs)
        notes += said
    if folder is not None:
        rounds = declared.rounds if kind == "prompts" and declared is not None else ()
        disk, said = written(spec, rounds, folder, options, runs, total, plan)
        notes += said
    if "train" in rows:
        notes.append("note: lengths in tokens are checked when the run starts, before the model loads")
    return Checked(notes, plan, memory, disk)


def _rows(
    spec: Spec, kind: DataKind, data: Mapping[str, Any], runs: Runs, found: Collector, notes: list[str]
) -> tuple[dict[str, int], Measure | None]:
    """Number of rows of each split that could be read, and the sizes of the training rows."""
    from nashtune.data.prompts import read_prompts
    from nashtune.data.rows import RowSet, stream_rows
    from nashtune.memory.lengths import Measure

    if data["train"] is None:
        found.add(f"{runs.where('data')}: data.train is missing; give a file, for example --data.train pairs.jsonl")
    counts, measure = {}, None
    for split in SPLITS:
        source = data[split]
        if source is None:
            continue
        if source.startswith("hub:"):
            notes.append(f"data.{split}: {source} is downloaded when the run starts; not checked here")
            continue
        with found.catch():
            if kind == "prompts":
                read: Any = read_prompts(source, data["limit"])
                counts[split] = len(read.rows)
            else:
                margin = attribute(spec.loss, "uses_margin", False)
                read, sizes = RowSet(source=source, kind=kind), Measure()
                for row in stream_rows(read, data["labels"], data["ranked_pairs"], data["limit"], uses_margin=margin):
                    sizes.add(row)
                counts[split] = read.training_rows
                measure = sizes if split == "train" else measure
            notes.append(f"data.{split}: {counts[split]} {NAMES.get(kind, kind)} from {source}")
            notes += [f"data.{split}: {note}" for note in read.notes()]
    return counts, measure


def _optimizer_problem(spec: Spec, policy: Mapping[str, Any], folder: ModelFolder | None) -> str | None:
    """What optimiser and precision make impossible."""
    adapter = policy["lora"] is not None or (folder is not None and folder.is_adapter)
    head_alone = spec.head is not None and spec.head.trunk == "frozen"
    return optimizer_problem(spec.optimizer, precision=policy["precision"], trains_weights=not (adapter or head_alone))


def _model(
    spec: Spec, policy: Mapping[str, Any], data: Mapping[str, Any], runs: Runs
) -> tuple[ModelFolder | None, str]:
    """The policy's folders, where they are there already, and a note."""
    from nashtune.models.sizes import ready_demo

    path, option = policy["path"], f"{runs.where('policy', 'path')}: policy.path"
    if path.startswith(("demo:", "hub:")):
        return ready_demo(path), f"policy: {path} is made ready when the run starts; not checked here"
    from nashtune.models.preflight import check_adapter_off, check_folder
    from nashtune.models.reward_folder import check_kind

    folder = check_folder(path, chat=data["template"] == "chat", option=option)
    check_kind(folder, lora_of(policy), spec.head, option)
    for name, reference in spec.references.items():
        if reference.name == "adapter_off":
            check_adapter_off(folder, lora_of(policy), f"{reference.where}: references.{name}")
    template = " and a chat template" if data["template"] == "chat" else ""
    return folder, f"policy: {path} has a model, its tokenizer{template}"


def _check_settings(
    spec: Spec, kind: DataKind, data: Mapping[str, Any], folder: ModelFolder | None, runs: Runs, found: Collector
) -> None:
    """Note settings that nothing would read, or that leave no room."""
    from nashtune.models.sizes import context_length

    sizes = {name: data[name] for name in ("batch_size", "eval_batch_size") if data[name] is not None}
    for option, problem in refusals(
        kind,
        labels=data["labels"],
        uses_p_chosen=attribute(spec.loss, "uses_p_chosen", False),
        ranked_pairs=data["ranked_pairs"],
        prompts_per_round=data["prompts_per_round"],
        sizes=sizes,
        max_length=data["max_length"],
        max_prompt_length=data["max_prompt_length"],
        overflow=data["overflow"],
        batch_tokens=data["batch_tokens"],
        compares_rows=_compares_rows(spec),
        reads=attribute(spec.loss, "reads", "logprobs"),
        context=context_length(folder) if folder is not None else None,
        completion_room=(spec.sampler.args.get("max_new_tokens") or 0) if spec.sampler is not None else 0,
    ):
        section, _, key = option.partition(".")
        named = spec.sampler.where if spec.sampler is not None else ""
        where = runs.where(section, key) if section == "data" else spec.places.get((section, key), named)
        found.add(f"{where_and_what(where, option)}: {problem}")


def _steps(
    spec: Spec, rows: int, kind: str, data: Mapping[str, Any], trainer: Mapping[str, Any]
) -> tuple[float, list[str]]:
    """Optimiser steps of an offline run, and what to say of them; rows dropped for their length are not known here."""
    from nashtune.data.order import BatchOrder

    processes = ranks_of(trainer).processes
    ranks = processes or 1
    order = BatchOrder(
        size=rows,
        batch_size=data["batch_size"],
        seed=0,
        shuffle=True,
        rank=0,
        world_size=ranks,
        least=2 if kind == "examples" else 1,
        borrows=kind != "examples",
    )
    accumulate = trainer.get("accumulate_grad_batches", 1)
    per_epoch = math.ceil(len(order) / accumulate)
    epochs, limit = trainer.get("max_epochs"), trainer.get("max_steps", -1)
    epochs = 1 if epochs is None else epochs
    total = per_epoch * epochs if epochs >= 0 else math.inf
    if limit >= 0:
        total = min(total, limit)
    batch = f"{rows} {NAMES.get(kind, kind)}, batch_size {data['batch_size']}, accumulate {accumulate}, devices {ranks}"
    if processes is None:
        batch += ", for trainer.devices does not say how many"
    notes = [f"steps: {total if total < math.inf else 'no end'} in all, {per_epoch} per epoch ({batch})"]
    if total < math.inf and (warmup := spec.optimizer.warmup_note(int(total))):
        notes.append(f"note: {warmup}")
    return total, notes


def _compares_rows(spec: Spec) -> bool:
    """As `Objective.compares_rows`, read from the sources: of rollouts β is fixed before the update."""
    asked = [spec.loss]
    if spec.kl is not None and attribute(spec.loss, "rows", "pairs") != "rollouts":
        asked.append(spec.kl)
    return any(attribute(one, "compares_rows", False) for one in asked)
