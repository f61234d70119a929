"""What a plugin's folder of specs holds, and which of its names nashtune has already."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable

ENDINGS = (".yaml", ".yml")
RUNS = "runs"
"""Folder of run files inside a folder of specs."""
PIPELINES = "pipelines"
"""Folder of pipelines inside a folder of specs."""
KINDS = {"": "spec", RUNS: "run file", PIPELINES: "pipeline"}


class SpecFile(NamedTuple):
    """A file that is known by name.

    Args:
        folder: Where in a folder of specs: "" for a spec, `RUNS` or `PIPELINES`.
        name: File name without its ending.
        file: Where it is.
    """

    folder: str
    name: str
    file: Traversable


def spec_files(folder: Traversable) -> Iterator[SpecFile]:
    """Every spec, run file and pipeline of a plugin's folder."""
    for sub in KINDS:
        place = folder / sub if sub else folder
        if place.is_dir():
            for file in place.iterdir():
                if file.name.endswith(ENDINGS):
                    yield SpecFile(sub, Path(file.name).stem, file)


def taken_names(files: Collection[SpecFile], own: Collection[tuple[str, str]]) -> str:
    """Why files of another plugin are not known by name, or "": nashtune's own specs cannot be taken over.

    Args:
        files: Of the plugin.
        own: (folder, name) of nashtune's.
    """
    taken = sorted((one for one in files if (one.folder, one.name) in own), key=lambda one: (one.folder, one.name))
    return "; ".join(
        f"nashtune has a {KINDS[one.folder]} '{one.name}' itself, so that {one.file} is known by its path alone; "
        "give it another name"
        for one in taken
    )
