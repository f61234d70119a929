"""Where specs and run files are: by name in the folders that plugins bring, or by path."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from importlib.resources.abc import Traversable
from pathlib import Path

from nashtune.errors import InputError, nearest
from nashtune.plugins import load_plugins
from nashtune.plugins.spec_files import ENDINGS, PIPELINES, RUNS


@dataclass(frozen=True)
class Listed:
    """A spec or run file that is known by name.

    Args:
        name: File name without its ending.
        plugin: The plugin that brought its folder.
        file: Where it is.
    """

    name: str
    plugin: str
    file: Traversable


def list_specs() -> list[Listed]:
    """Every spec that is known by name, sorted by name."""
    return _listed("")


def list_runs() -> list[Listed]:
    """Every run file that is known by name, sorted by name."""
    return _listed(RUNS)


def list_pipelines() -> list[Listed]:
    """Every pipeline that is known by name, sorted by name."""
    return _listed(PIPELINES)


def find_spec(name_or_path: str) -> Path | Traversable:
    """The file of a spec.

    Args:
        name_or_path: A name, or a path: anything with a separator or ending in .yaml or .yml.

    Raises:
        InputError: there is no such spec or file, or two plugins bring the name.
    """
    return _find(name_or_path, list_specs, "spec", "run `nashtune list`")


def find_run(name_or_path: str) -> Path | Traversable:
    """The run file of a name or path; as `find_spec`.

    Raises:
        InputError: there is no such run file, or two plugins bring the name.
    """
    return _find(name_or_path, list_runs, "run file", "run `nashtune list --runs`")


def find_pipeline(name_or_path: str) -> Path | Traversable:
    """The pipeline of a name or path; as `find_spec`.

    Raises:
        InputError: there is no such pipeline, or two plugins bring the name.
    """
    return _find(name_or_path, list_pipelines, "pipeline", "run `nashtune list --pipelines`")


def is_path(name_or_path: str) -> bool:
    """Whether a spec or run file is given by path and not by name."""
    return name_or_path.endswith(ENDINGS) or os.sep in name_or_path or "/" in name_or_path


def _listed(folder: str) -> list[Listed]:
    found = [Listed(one.name, plugin, one.file) for plugin, one in load_plugins().spec_files() if one.folder == folder]
    return sorted(found, key=lambda listed: (listed.name, listed.plugin))


def _find(name: str, listing: Callable[[], list[Listed]], what: str, step: str) -> Path | Traversable:
    if is_path(name):
        path = Path(name).expanduser()
        if path.is_file():
            return path
        if path.is_dir():
            raise InputError(f"{name}: is a folder; give the {what}'s file")
        beside = path.parent if path.parent.is_dir() else None
        siblings = [str(one.name) for one in beside.iterdir() if one.name.endswith(ENDINGS)] if beside else []
        raise InputError(f"{name}: no such file{nearest(path.name, siblings) if siblings else ''}")
    known = listing()
    found = [listed for listed in known if listed.name == name]
    if len(found) > 1:
        both = " and ".join(f"plugin '{listed.plugin}' ({listed.file})" for listed in found)
        raise InputError(f"{what} '{name}' is given by {both}; give the path of the one you mean")
    if not found:
        hint = nearest(name, [listed.name for listed in known])
        raise InputError(
            f"no {what} is called '{name}'{hint}; {step}, or give a path that ends in .yaml{load_plugins().note()}"
        )
    return found[0].file
