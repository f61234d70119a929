"""What a comparison rests on and its settings only name: rows, weights and the judge, by sha256 of what is in them.

A name stays while its content changes: a model that is trained anew in its folder, rows that are written again. Half of
a comparison before that and half after it would give numbers of nothing.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from nashtune.comparison.request import Request
from nashtune.comparison.whereabouts import OPTIONS, behind_colon, is_model
from nashtune.data.digests import known_sha256
from nashtune.data.sources import HUB, source_digest
from nashtune.models.locate import TOKENIZER_FILES, ModelFolder, locate, model_in, resolve_export
from nashtune.references.hashes import digest_of
from nashtune.spec.gamerules import attribute
from nashtune.spec.model import ComponentSpec

SPLITS = ("train", "validation")
JUDGE = "judge"
BESIDE = "nashtune_*.json"
"""How a reward or preference model that nashtune has trained is to be asked."""


def sources(request: Request) -> dict[str, str]:
    """sha256 of what the comparison names, by the option that names it; of a data set by name only the name.

    A file that was not touched since the last time is not read again.

    Args:
        request: The comparison.

    Raises:
        InputError: a file or folder is missing, or is not what its option wants.
    """
    data: Mapping[str, Any] = request.to_dict()["run"].get("data", {})
    found = {}
    for split in SPLITS:
        if data.get(split) is not None:
            found[f"data.{split}"] = rows_digest(data[split])
    found["policy.path"] = content_digest(str(request.to_dict()["run"]["policy"]["path"]), "policy.path")
    for spec in request.specs:
        for path, component in spec.components():
            found |= _of_component(component, f"specs.{spec.name}.{'.'.join(path)}")
    return found | _of_component(request.judge, JUDGE)


def judge_digest(request: Request, found: Mapping[str, str]) -> str:
    """sha256 of all that the judge's answers depend on: its name, its options and the content of its folders.

    Args:
        request: The comparison.
        found: From `sources`.
    """
    own = {name: digest for name, digest in found.items() if name.startswith(f"{JUDGE}.")}
    return hashlib.sha256(json.dumps([meaning(request.judge), own], sort_keys=True).encode()).hexdigest()


def meaning(component: ComponentSpec) -> dict[str, Any]:
    """Settings of a component without those that say where it runs, and how patiently."""
    return without_placement(component.to_dict(), component)


def without_placement(settings: Mapping[str, Any], component: ComponentSpec) -> dict[str, Any]:
    """As `meaning`, of settings that a file holds."""
    where = attribute(component, "placement", ())
    return {name: value for name, value in settings.items() if name not in where}


def content_digest(name: str, option: str) -> str:
    """sha256 of a file, of a model with its tokenizer, or of all models below a folder.

    Args:
        name: A path, `hub:owner/name`, `demo:NAME`, or a run folder, which stands for its export.
        option: Where the user wrote it, for messages.

    Raises:
        InputError: it is not there, or asks for code to be run.
    """
    if Path(name).expanduser().is_file():
        return known_sha256(Path(name).expanduser())
    folder = resolve_export(name, option)
    members = [folder] if model_in(folder) is not None else sorted(one for one in folder.iterdir() if is_model(one))
    return digest_of(file for one in members for file in _files(locate(str(resolve_export(str(one), option)), option)))


def rows_digest(name: str) -> str:
    """sha256 of the rows of a file or of a run's journal; of a data set by name the name, trainings look at its rows.

    Args:
        name: As for `nashtune.data.sources.read_source`, or a folder.

    Raises:
        InputError: there is no such file.
    """
    folder = Path(name).expanduser()
    if folder.is_dir():
        return digest_of(sorted(folder.rglob("*.parquet")))
    return name if name.startswith(HUB) else source_digest(name)


def _files(model: ModelFolder) -> list[Path]:
    """Weights, and all that says what they mean."""
    tokenizer = [model.tokenizer / name for name in TOKENIZER_FILES]
    beside = [*sorted(model.path.glob(BESIDE)), *sorted(model.base.glob("*.py"))]
    return [*model.weight_files(), *model.config_files(), *(file for file in tokenizer if file.is_file()), *beside]


def _of_component(component: ComponentSpec, where: str) -> dict[str, str]:
    found = {}
    for argument, value in component.args.items():
        for option, name in _named(f"{where}.{argument}", value, whole=argument in OPTIONS):
            found[option] = rows_digest(name) if ".sampler." in option else content_digest(name, option)
    return found


def _named(option: str, value: Any, *, whole: bool) -> Iterator[tuple[str, str]]:
    """Every file or folder of an option: its own value, or what stands behind a colon, as in `reward_model:FOLDER`."""
    if isinstance(value, (list, tuple)):
        for number, one in enumerate(value):
            yield from _named(f"{option}.{number}", one, whole=whole)
    elif isinstance(value, str) and whole:
        yield option, value
    elif isinstance(value, str) and is_model(behind_colon(value)):
        yield option, value.partition(":")[2]
