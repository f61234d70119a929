"""The form of a pipeline's file: its sections, and stages with names."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources.abc import Traversable
from pathlib import Path

from nashtune.confined import is_plain
from nashtune.errors import InputError, nearest
from nashtune.pipeline.model import ABOUT, SECTIONS
from nashtune.plugins.component import NAME
from nashtune.spec.findings import Collector
from nashtune.spec.loader import Located, read_yaml
from nashtune.spec.types import describe

STAGES = "stages"


def outline(source: Path | Traversable) -> dict[str, str]:
    """A pipeline's title, paper and stages; nothing is checked but its form.

    Raises:
        InputError: the file cannot be read as a pipeline.
    """
    located = read_yaml(source)
    check_form(located)
    about = located.data.get("about", {})
    stages = located.data[STAGES]
    shown = [f"{name}: {part.get('spec', part.get('name', ''))}" for name, part in stages.items()]
    return {"title": about.get("title", ""), "paper": about.get("paper", ""), STAGES: ", ".join(shown)}


def check_form(located: Located) -> None:
    """Check the sections of a pipeline's file and the names of its stages; what the stages say is not looked at.

    Raises:
        InputError: what is wrong, all of it.
    """
    found, data = Collector(), located.data
    if not isinstance(data, Mapping):
        raise InputError(f"{located.source}: a pipeline is a mapping of {', '.join(SECTIONS)}; found {describe(data)}")
    if STAGES not in data and "loss" in data:
        raise InputError(f"{located.source}: this is a spec, not a pipeline; train by it with `nashtune fit --spec`")
    for key in data:
        if key not in SECTIONS:
            found.add(f"{located.where((key,))}: '{key}' is not a section of a pipeline{nearest(key, SECTIONS)}")
    if not isinstance(data.get("name", ""), str):
        found.add(f"{located.where(('name',))}: name takes text, found {describe(data['name'])}")
    elif "name" in data and not is_plain(data["name"]):
        found.add(f"{located.where(('name',))}: name: {data['name']!r}; folders are called after it, so it is no path")
    about = data.get("about", {})
    if not isinstance(about, Mapping):
        found.add(f"{located.where(('about',))}: about takes a mapping, found {describe(about)}")
        about = {}
    for key, value in about.items():
        if key not in ABOUT:
            found.add(f"{located.where(('about', key))}: about.{key} is not known{nearest(key, ABOUT)}")
        elif not isinstance(value, str):
            found.add(f"{located.where(('about', key))}: about.{key} takes text, found {describe(value)}")
    stages = data.get(STAGES)
    if not isinstance(stages, Mapping) or not stages:
        found.add(f"{located.where((STAGES,))}: a pipeline needs stages, such as `stages: {{dpo: {{name: fit, ...}}}}`")
        stages = {}
    for name, part in stages.items():
        if not NAME.fullmatch(name):
            found.add(
                f"{located.where((STAGES, name))}: '{name}': a stage's name is made of a-z, 0-9 and _ and begins with "
                "a letter"
            )
        if not isinstance(part, Mapping):
            found.add(f"{located.where((STAGES, name))}: stages.{name} takes a mapping, found {describe(part)}")
    found.close()
