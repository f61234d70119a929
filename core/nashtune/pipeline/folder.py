"""The folder of a pipeline: which one, whose it is, and that one process at a time works in it."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import yaml

from nashtune.confined import refuse_strange
from nashtune.errors import InputError
from nashtune.files import write_bytes_atomically
from nashtune.pipeline.form import STAGES, check_form
from nashtune.pipeline.model import Pipeline
from nashtune.spec.loader import read_yaml

SAVED = "pipeline.yaml"
LOCK = ".lock"
HEADER = "# Written by nashtune. Run it again with: nashtune run THIS_FILE --run_dir NEW_FOLDER\n"


def choose_folder(asked: str | None, name: str, *, parent: str = "runs", saved: str = SAVED) -> Path:
    """The folder of a pipeline or a comparison: the one that is asked for, else the next number under `parent`.

    Args:
        asked: By the command line.
        name: What a folder of its own is called, before its number.
        parent: Where such folders are.
        saved: The file by which a folder is known to hold one.

    Raises:
        InputError: the folder holds something else, or a link that leads out of it.
    """
    if asked is None:
        number = 1
        while (Path(parent) / f"{name}-{number:03d}").exists():
            number += 1
        return Path(parent) / f"{name}-{number:03d}"
    folder = Path(asked)
    if folder.exists() and not folder.is_dir():
        raise InputError(f"--run_dir: {folder} is a file; choose another folder")
    if folder.is_dir() and not (folder / saved).exists():
        # hidden files: the lock, or what a kill has left of the first write
        if visible := [entry.name for entry in folder.iterdir() if not entry.name.startswith(".")]:
            held = "holds a single run" if "config.yaml" in visible else f"has no {saved} and is not empty"
            raise InputError(
                f"--run_dir: {folder} {held}, and nothing is ever overwritten; choose another folder, or leave "
                "--run_dir out for a numbered one"
            )
    if folder.is_dir():
        refuse_strange(folder)
    return folder


def refuse_another(folder: Path, pipeline: Pipeline) -> None:
    """Refuse a folder that belongs to a pipeline of another name or of other stages.

    Raises:
        InputError: it does, or its pipeline.yaml was altered and cannot be read.
    """
    path = folder / SAVED
    if not path.exists():
        return
    located = read_yaml(path)
    check_form(located)
    there = located.data.get("name", path.stem), list(located.data[STAGES])
    here = pipeline.name, [stage.name for stage in pipeline.stages]
    if there != here:
        raise InputError(
            f"--run_dir: {folder} holds the pipeline {_called(*there)}, and this is {_called(*here)}; choose another "
            "--run_dir, or leave it out for a numbered one"
        )


def _called(name: str, stages: Sequence[str]) -> str:
    return f"{name} (stages {', '.join(stages)})"


def save(folder: Path, pipeline: Pipeline) -> None:
    """Write the resolved pipeline into its folder, where it is not there already."""
    text = HEADER + yaml.safe_dump(pipeline.to_dict(), sort_keys=False, allow_unicode=True)
    path = folder / SAVED
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        write_bytes_atomically(path, text.encode())


@contextmanager
def held(folder: Path, who: str = "a pipeline") -> Iterator[int]:
    """Keep other processes out of a folder, until this one and every command that it has started are gone.

    Commands inherit the lock: after a kill of this process alone its training still runs, and a second one in the same
    run folder would spoil both.

    Args:
        folder: Made where it is missing.
        who: Works there, for the message.

    Yields:
        File descriptor to hand to such commands.

    Raises:
        InputError: somebody is at work there, or the folder cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise InputError(f"--run_dir: {folder / LOCK} is a link, and a lock is a file; remove it") from error
        raise InputError(
            f"--run_dir: {folder} cannot be written to ({error.strerror}); choose another folder"
        ) from error
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InputError(
                f"--run_dir: {who}, or the training that one has started, is still at work in {folder}; wait for "
                "its end, or stop it, and give the same command again"
            ) from error
        yield handle
    finally:
        os.close(handle)
