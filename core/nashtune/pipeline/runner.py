"""Runs the stages of a pipeline in order, and goes on where an earlier attempt was stopped."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from nashtune.confined import inside
from nashtune.errors import InputError
from nashtune.interfaces.stage import Planned, Stage, Work
from nashtune.pipeline.journal import (
    RECORD,
    Record,
    differences,
    digest,
    plain,
    read_record,
    refuse_changes,
    write_record,
)
from nashtune.pipeline.model import Pipeline, StageSpec
from nashtune.pipeline.refer import follow, is_reference, split_reference
from nashtune.spec.findings import Collector
from nashtune.spec.resolve import build

Say = Callable[[str], None]


def check_stages(pipeline: Pipeline) -> dict[str, Planned]:
    """Let every stage look at its settings, before anything is done.

    Raises:
        InputError: what is wrong in any of them, all of it.
    """
    found = Collector()
    planned: dict[str, Planned] = {}
    for stage in pipeline.stages:
        with found.catch():
            planned[stage.name] = _build(stage).check(stage.runs)
    found.close()
    return planned


def run_stages(
    pipeline: Pipeline,
    planned: dict[str, Planned],
    folder: Path,
    say: Say,
    *,
    lock: int | None = None,
    stdout: int | None = None,
) -> list[Record]:
    """Do what is not done yet.

    Args:
        pipeline: Checked.
        planned: What `check_stages` gave.
        folder: The pipeline's; this process holds it.
        say: Prints a line of progress.
        lock: File descriptor that commands of the stages inherit.
        stdout: File descriptor for what they print; None for this process's own.

    Returns:
        One record for each stage, all of them done.

    Raises:
        InputError: a stage began with other files, what it made is not there any more, or it fails.
    """
    records: dict[str, Record] = {}

    def path_of(reference: str) -> str:
        name, output = split_reference(reference)
        return str(inside(folder, records[name].outputs[output]["path"], folder / name / RECORD))

    for number, stage in enumerate(pipeline.stages, start=1):
        head = f"stage {number}/{len(pipeline.stages)} {stage.name} ({stage.component.name})"
        ready = follow(stage, path_of)
        record = _begin(pipeline, stage, planned[stage.name], folder, path_of)
        if record.state == "done":
            say(f"{head}: done before; {record.summary}")
        else:
            say(f"{head}: {folder / stage.name}")
            work = Work(folder=folder / stage.name, say=say, stdout=stdout, inherit=() if lock is None else (lock,))
            record = _finish(ready, record, folder, work)
            say(f"{head}: {record.summary}, {record.seconds:.1f} s")
        records[stage.name] = record
    return list(records.values())


def _build(stage: StageSpec) -> Stage:
    try:
        return cast(Stage, build(stage.component))
    except InputError as error:
        raise InputError(str(error).replace("stage '", f"stages.{stage.name}: '", 1)) from error


def refuse_changed_settings(pipeline: Pipeline, planned: dict[str, Planned], folder: Path) -> None:
    """Compare every stage that began with its record; a change in the last one does not wait for the first one's work.

    Raises:
        InputError: a stage began with other settings, and not only with another decision that it has yet to make.
    """
    for stage in pipeline.stages:
        record = read_record(folder, stage.name)
        if record is None:
            continue
        here = {"name": stage.component.name, **plain(planned[stage.name].settings)}
        there = {"name": record.component, **record.settings}
        free = (*stage.placement, *(stage.decides if record.state == "begun" else ()))
        changes = list(differences(_meaning(there, free), _meaning(here, free)))
        refuse_changes(folder, stage.name, "settings", changes, after=_begun_after(pipeline, stage, folder))


def _meaning(settings: dict[str, Any], free: tuple[str, ...]) -> dict[str, Any]:
    return {name: value for name, value in settings.items() if name not in free}


def _begun_after(pipeline: Pipeline, stage: StageSpec, folder: Path) -> list[str]:
    names = [one.name for one in pipeline.stages]
    return [name for name in names[names.index(stage.name) + 1 :] if read_record(folder, name) is not None]


def _begin(
    pipeline: Pipeline, stage: StageSpec, planned: Planned, folder: Path, path_of: Callable[[str], str]
) -> Record:
    """The stage's record, with the settings that it goes on with, written before the stage writes anything."""
    inputs = {name: _digest_of(Path(path_of(name) if is_reference(name) else name)) for name in planned.files}
    record, settings = read_record(folder, stage.name), plain(planned.settings)
    if record is None:
        record = Record(
            stage=stage.name, component=stage.component.name, state="begun", settings=settings, inputs=inputs
        )
        write_record(folder, record)
        return record
    after = _begun_after(pipeline, stage, folder)
    changed = [f"{name} is another file" for name in inputs if record.inputs.get(name) != inputs[name]]
    refuse_changes(folder, stage.name, "what it reads", changed, after=after)
    if record.state == "begun" and record.settings != settings:
        record = replace(record, settings=settings)
        write_record(folder, record)
    for name, output in record.outputs.items():
        path = inside(folder, output["path"], folder / stage.name / RECORD)
        if not path.exists() or (output["sha256"] and digest(path) != output["sha256"]):
            state = "was altered" if path.exists() else "is missing"
            refuse_changes(folder, stage.name, "what it made", [f"{name} ({path}) {state}"], after=after)
    return record


def _digest_of(path: Path) -> str:
    return digest(path.expanduser()) if path.expanduser().exists() else ""


def _finish(stage: StageSpec, record: Record, folder: Path, work: Work) -> Record:
    began = time.perf_counter()
    outcome = _build(stage).run(stage.runs, work)
    missing = [name for name in stage.outputs if name not in outcome.outputs]
    if missing:
        raise InputError(f"stages.{stage.name}: the stage made no {', '.join(missing)}, which it declares")
    outputs = {
        name: {"path": str(path.relative_to(folder)), "sha256": "" if name in outcome.open else digest(path)}
        for name, path in outcome.outputs.items()
    }
    done = replace(
        record,
        state="done",
        outputs=outputs,
        summary=outcome.summary,
        numbers=plain(outcome.numbers),
        seconds=round(time.perf_counter() - began, 3),
    )
    write_record(folder, done)
    return done
