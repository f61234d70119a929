"""What a pipeline has done, stage by stage, as files that prove themselves.

RUN_DIR/pipeline.yaml        the resolved pipeline
RUN_DIR/STAGE/stage.json     begun or done, with settings, hashes of what it read and of what it made
RUN_DIR/STAGE/...            whatever the stage writes

A stage is begun before it writes anything, and done after everything that it made is on the disk; each of the two is
written at once or not at all. So a stage that was killed is begun, and does what is left of its work.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from nashtune import __version__
from nashtune.errors import InputError
from nashtune.files import sha256_of, write_bytes_atomically

RECORD = "stage.json"


@dataclass(frozen=True, kw_only=True)
class Record:
    """What is known of a stage that was begun.

    Args:
        stage: Its name in the pipeline.
        component: Its kind.
        state: Whether everything that it makes is there.
        settings: Everything that its result depends on.
        inputs: sha256 of what it reads, by the name that the settings give it.
        outputs: {"path": below the pipeline's folder, "sha256": "" where other commands may add to it}, by name.
        summary: Of the outcome, a few words.
        numbers: Of the outcome.
        seconds: Of the attempt that finished it.
        version: Of nashtune.
    """

    stage: str
    component: str
    state: Literal["begun", "done"]
    settings: Mapping[str, Any]
    inputs: Mapping[str, str] = field(default_factory=dict)
    outputs: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    summary: str = ""
    numbers: Mapping[str, Any] = field(default_factory=dict)
    seconds: float = 0.0
    version: str = __version__


def write_record(folder: Path, record: Record) -> None:
    """Write it, whole or not at all."""
    text = json.dumps(asdict(record), indent=2, ensure_ascii=False) + "\n"
    write_bytes_atomically(folder / record.stage / RECORD, text.encode())


def read_record(folder: Path, stage: str) -> Record | None:
    """What is known of a stage; None when it was never begun.

    Raises:
        InputError: the file is not what was written.
    """
    path = folder / stage / RECORD
    try:
        return Record(**json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
    except (ValueError, TypeError) as error:
        raise InputError(
            f"{path} is torn or was altered; restore it from a copy, or delete the folder {path.parent}, and this "
            "stage begins anew"
        ) from error


def plain(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings as a record holds them: JSON's own lists, numbers and texts."""
    data: dict[str, Any] = json.loads(json.dumps(settings))
    return data


def differences(there: Any, here: Any, path: tuple[str, ...] = ()) -> Iterator[str]:
    """What differs between two settings: "spec.kl.beta: 0.1 there, 0.2 here"."""
    if isinstance(there, Mapping) and isinstance(here, Mapping):
        for key in dict.fromkeys([*there, *here]):
            yield from differences(there.get(key), here.get(key), (*path, str(key)))
    elif there != here:
        was, now = (json.dumps(value, ensure_ascii=False) for value in (there, here))
        yield f"{'.'.join(path)}: {was} there, {now} here"


def refuse_changes(folder: Path, stage: str, what: str, changes: Sequence[str], *, after: Sequence[str] = ()) -> None:
    """Refuse to go on with a stage that began otherwise.

    Args:
        folder: The pipeline's.
        stage: The stage.
        what: What the changes are of.
        changes: From `differences`; without any, nothing happens.
        after: Stages that come after it and began.

    Raises:
        InputError: there are changes.
    """
    if not changes:
        return
    shown = "; ".join(changes[:3]) + (f"; and {len(changes) - 3} more" if len(changes) > 3 else "")
    stale = " and ".join(str(folder / name) for name in (stage, *after))
    raise InputError(
        f"stages.{stage}: {what} changed since this stage began in {folder / stage}: {shown}. Put them back to go on, "
        f"choose another --run_dir, or delete {stale} to do this stage anew"
    )


def digest(path: Path) -> str:
    """sha256 of a file, or of the names and contents of all files below a folder."""
    if not path.is_dir():
        return sha256_of(path)
    total = hashlib.sha256()
    for name in sorted(_files(path)):
        total.update(f"{name}\0{sha256_of(path / name)}\n".encode())
    return total.hexdigest()


def _files(folder: Path) -> Iterator[str]:
    for place, _, names in os.walk(folder, followlinks=True):  # members of an ensemble are links to their runs
        for name in names:
            yield os.path.relpath(os.path.join(place, name), folder)
