"""One stage while its layers are put on top of one another: pipeline file, run files, command line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from nashtune.errors import InputError, nearest
from nashtune.pipeline.model import NOT_PER_STAGE, RUN
from nashtune.spec.loader import KeyPath, Located
from nashtune.spec.model import COMPONENTS
from nashtune.spec.overrides import Override, flatten, is_component
from nashtune.spec.run import RUN_SECTIONS, Runs, merge_section
from nashtune.spec.types import Typed, describe


class StageDraft:
    """What the layers say of one stage.

    Args:
        name: The stage's.
        base: The run's sections, which every stage has.

    Attributes:
        args: Arguments of its component, and the component's `name`.
        places: Where each of them was given.
        own: Its own sections of a run file, without `spec`.
        overrides: Its own settings on top of the spec.
    """

    def __init__(self, name: str, base: Runs) -> None:
        self.name = name
        self.args: dict[str, Any] = {}
        self.places: dict[KeyPath, str] = {}
        self.own: dict[str, Any] = {}
        self.overrides: list[Override] = []
        self._base = base
        self._data: dict[str, Any] = {}
        self._data_places = dict(base.places)
        merge_section(self._data, base.data, (), {}, base_where(base))

    def layer(self, located: Located) -> None:
        """Put a mapping of the stage's settings on top.

        Raises:
            InputError: it is no mapping, or its `run` is not one of sections of a run file.
        """
        given, dotted = located.data, f"stages.{self.name}"
        if not isinstance(given, Mapping) or not given:
            raise InputError(
                f"{located.where()}: {dotted} takes a mapping such as {{name: fit, spec: dpo}}, found {describe(given)}"
            )
        named = given.get("name", self.args.get("name"))
        if "name" in self.args and text_of(named) != text_of(self.args["name"]):
            self.args, self.places = {}, {}  # another component's arguments
        arguments = {key: value for key, value in given.items() if key != RUN}
        merge_section(self.args, arguments, (), self.places, located.where)
        if RUN in given:
            self._sections(located.section(RUN), f"{dotted}.{RUN}")

    def _sections(self, located: Located, dotted: str) -> None:
        if not isinstance(located.data, Mapping):
            raise InputError(
                f"{located.where()}: {dotted} takes sections of a run file, found {describe(located.data)}"
            )
        allowed = [section for section in RUN_SECTIONS if section not in NOT_PER_STAGE]
        for key in located.data:
            if key not in allowed:
                raise InputError(
                    f"{located.where((key,))}: {dotted}.{key} is not a section that a stage may have"
                    f"{nearest(key, allowed)}"
                )
        if "spec" in located.data:
            settings = located.section("spec")
            if not isinstance(settings.data, Mapping) or settings.data.keys() & {"name", "base"}:
                raise InputError(
                    f"{settings.where()}: {dotted}.spec takes settings on top of the stage's spec, such as "
                    f"{{kl: {{beta: 0.2}}}}; the spec itself is named by stages.{self.name}.spec"
                )
            self.overrides += flatten(settings)
        others = {key: value for key, value in located.data.items() if key != "spec"}
        merge_section(self._data, others, (), self._data_places, located.where)
        merge_section(self.own, others, (), {}, located.where)

    def runs(self) -> Runs:
        """The run's sections with the stage's own on top."""
        return Runs(self._data, None, (*self._base.overrides, *self.overrides), self._data_places)

    def unused(self) -> list[str]:
        """Options of the command line for all stages that this one does not follow, in sentences."""
        return [
            f"{option} is not followed by the stage '{self.name}', which sets {'.'.join(map(str, path))} itself "
            f"({self._data_places[path]}); use --stages.{self.name}.{RUN}.{'.'.join(map(str, path))}"
            for path, option in self._base.places.items()
            if option.startswith("--") and self._data_places.get(path) != option
        ]

    def saved(self) -> dict[str, Any]:
        """Its own sections as plain data, `spec` among them."""
        spec = nested(self.overrides)
        return {**untyped(self.own), **({"spec": spec} if spec else {})}


def base_where(runs: Runs) -> Any:
    """Place of a key path in merged run files, as `merge_section` asks for it."""
    return lambda path: runs.where(*path)


def text_of(value: Any) -> Any:
    """What was typed on the command line as text, anything else as it is."""
    return value.text if isinstance(value, Typed) else value


def untyped(value: Any) -> Any:
    """Plain data: what was typed on the command line is read as YAML."""
    if isinstance(value, Typed):
        return value.value
    if isinstance(value, Mapping):
        return {key: untyped(part) for key, part in value.items()}
    return [untyped(part) for part in value] if isinstance(value, (list, tuple)) else value


def nested(overrides: Sequence[Override]) -> dict[str, Any]:
    """Settings on top of a spec as one mapping of sections; another name drops the arguments of the one before."""
    tree: dict[str, Any] = {}
    for override in overrides:
        path, value = override.path, untyped(override.value)
        if is_component(path) and path[0] in COMPONENTS and not isinstance(value, Mapping) and path != ("references",):
            path, value = (*path, "name"), text_of(override.value)
        below = tree
        for key in path[:-1]:
            inner = below.get(key)
            below[key] = inner if isinstance(inner, dict) else {}
            below = below[key]
        if path[-1] == "name" and below.get("name") != value:
            below.clear()
        below[path[-1]] = value
    return tree
