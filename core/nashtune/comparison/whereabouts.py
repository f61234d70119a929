"""Names of local files that hold from any folder: a comparison goes on from wherever it is asked to. No torch."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from nashtune.models.locate import model_in
from nashtune.spec.model import ComponentSpec, Spec
from nashtune.spec.run import Runs
from nashtune.spec.types import Typed

SPLITS = ("train", "validation", "test")
OPTIONS = ("path", "paths")
"""Options of components that name files or folders."""


def of_run(runs: Runs) -> Runs:
    """Run sections whose rows and model are named in full where they are files of this machine."""
    data = dict(runs.data)
    for section, keys in (("data", SPLITS), ("policy", ("path",))):
        given = data.get(section, {})
        data[section] = {key: _full(value) if key in keys else value for key, value in given.items()}
        if not given:
            del data[section]
    return replace(runs, data=data)


def of_spec(spec: Spec) -> Spec:
    """A spec whose components name their files in full."""
    changed: dict[str, Any] = {
        path[0]: of_component(component) for path, component in spec.components() if len(path) == 1
    }
    changed["references"] = {name: of_component(reference) for name, reference in spec.references.items()}
    return replace(spec, **changed)


def of_component(component: ComponentSpec) -> ComponentSpec:
    """A component that names its files in full."""
    args: Mapping[str, Any] = {
        name: _full(value) if name in OPTIONS else _full_inside(value) for name, value in component.args.items()
    }
    return replace(component, args=args)


def behind_colon(value: str) -> Path:
    """What stands behind the colon of `reward_model:FOLDER`."""
    return Path(value.partition(":")[2]).expanduser()


def is_model(folder: Path) -> bool:
    """Whether a folder is a model, or a run that has one."""
    return os.path.isdir(folder) and model_in(folder) is not None  # any text may stand there; `Path.is_dir` would raise


def _full_inside(value: Any) -> Any:
    """A value, or a list of such, in which a model's folder may stand behind a colon."""
    if isinstance(value, (list, tuple)):
        return type(value)(_full_inside(one) for one in value)
    if isinstance(value, str) and ":" in value and is_model(behind_colon(value)):
        return f"{value.partition(':')[0]}:{behind_colon(value).absolute()}"
    return value


def _full(value: Any) -> Any:
    if isinstance(value, Typed):
        name = _full(value.text)
        return value if name == value.text else Typed(name, name)
    if isinstance(value, (list, tuple)):
        return [_full(one) for one in value]
    if isinstance(value, str) and Path(value).expanduser().exists():
        return str(Path(value).expanduser().absolute())
    return value
