"""References to outputs of earlier stages: the text `@STAGE/OUTPUT` wherever a stage's settings take a path."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from nashtune.errors import nearest
from nashtune.pipeline.model import StageSpec
from nashtune.spec.findings import Collector
from nashtune.spec.run import Runs
from nashtune.spec.types import Typed

MARK = "@"


def is_reference(value: Any) -> bool:
    """Whether a value is the output of a stage; a file whose name begins with @ is written ./@NAME."""
    return isinstance(value, str) and value.startswith(MARK)


def split_reference(text: str) -> tuple[str, str]:
    """Stage and output of `@filter/train`."""
    stage, _, output = text.removeprefix(MARK).partition("/")
    return stage, output


def check_references(stages: Sequence[StageSpec]) -> None:
    """Whether every reference leads to an output of an earlier stage.

    Raises:
        InputError: those that do not, each with where it was written.
    """
    found = Collector()
    before: dict[str, tuple[str, ...]] = {}
    names = [stage.name for stage in stages]
    for stage in stages:
        for text, where in _references(stage):
            asked, output = split_reference(text)
            if asked in before and output in before[asked]:
                continue
            if asked in before:
                problem = f"the stage '{asked}' has no output '{output}'{nearest(output, before[asked])}"
            elif asked in names:
                problem = f"the stage '{asked}' does not come before '{stage.name}', which needs it"
            else:
                problem = f"there is no stage '{asked}'{nearest(asked, before)}"
            found.add(f"{where}: {text}: {problem}")
        before[stage.name] = stage.outputs
    found.close()


def _references(stage: StageSpec) -> Iterator[tuple[str, str]]:
    """(text, where) of every reference in a stage's settings."""
    yield from _within(stage.component.args, lambda path: stage.component.where, ())
    yield from _within(stage.runs.data, lambda path: stage.runs.where(*path), ())
    for override in stage.runs.overrides:
        yield from _within(override.value, lambda path, where=override.where: where, ())  # type: ignore[misc]


def _within(value: Any, where: Callable[[Any], str], path: tuple[Any, ...]) -> Iterator[tuple[str, str]]:
    value = value.text if isinstance(value, Typed) else value
    if is_reference(value):
        yield value, where(path)
    elif isinstance(value, Mapping):
        for key, part in value.items():
            yield from _within(part, where, (*path, key))
    elif isinstance(value, (list, tuple)):
        for part in value:
            yield from _within(part, where, path)


def follow(stage: StageSpec, path_of: Callable[[str], str]) -> StageSpec:
    """The stage with each reference replaced.

    Args:
        stage: The stage.
        path_of: Path of a reference's output.
    """
    runs = Runs(
        _replace(stage.runs.data, path_of),
        stage.runs.spec,
        tuple(replace(one, value=_replace(one.value, path_of)) for one in stage.runs.overrides),
        stage.runs.places,
    )
    return replace(stage, component=replace(stage.component, args=_replace(stage.component.args, path_of)), runs=runs)


def _replace(value: Any, path_of: Callable[[str], str]) -> Any:
    plain = value.text if isinstance(value, Typed) else value
    if is_reference(plain):
        return path_of(plain)
    if isinstance(value, Mapping):
        return {key: _replace(part, path_of) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_replace(part, path_of) for part in value]
    return value
