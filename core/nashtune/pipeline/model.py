"""What a resolved pipeline is: stages in order, each with its component and its run. Without torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from nashtune.spec.model import ComponentSpec
from nashtune.spec.run import Runs

SECTIONS: dict[str, str] = {
    "name": "Name of the pipeline, where the file is called otherwise.",
    "about": "What it is: title, paper, conventions.",
    "run": "Sections of a run file, below those of the run.",
    "stages": "The stages by name, in the order in which they run.",
}
"""Top-level key of a pipeline's file -> what it is for."""

ABOUT = ("title", "paper", "conventions")
RUN = "run"
"""Key of a stage that holds sections of a run file for this stage alone."""

NOT_PER_STAGE = ("run_dir", "ckpt_path")
"""Sections of a run file that a pipeline sets itself."""


@dataclass(frozen=True, kw_only=True)
class StageSpec:
    """One stage, resolved.

    Args:
        name: What the pipeline calls it.
        component: The kind of stage, with every argument.
        runs: The run's sections with the stage's own on top.
        own: Its sections alone, as they were given: what `run` says in a saved pipeline.
        outputs: Names of what it makes.
        placement: Arguments that a run which goes on may change.
        decides: Arguments that it may change as long as the stage is not done.
        notes: What a user should know of its settings, in sentences.
    """

    name: str
    component: ComponentSpec
    runs: Runs
    own: Mapping[str, Any] = field(default_factory=dict)
    outputs: tuple[str, ...] = ()
    placement: tuple[str, ...] = ()
    decides: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Pipeline:
    """Stages in order.

    Args:
        name: Of the file, without its ending.
        about: Title, paper and conventions.
        stages: In the order in which they run.
        run: The run's sections, as they are saved with the pipeline.
        run_dir: What a run file says of the pipeline's folder.
    """

    name: str
    about: Mapping[str, str]
    stages: tuple[StageSpec, ...]
    run: Mapping[str, Any] = field(default_factory=dict)
    run_dir: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """As plain data in the form of a pipeline's file; loading it gives the same stages again."""
        stages = {}
        for stage in self.stages:
            own = {RUN: dict(stage.own)} if stage.own else {}
            stages[stage.name] = {**stage.component.to_dict(), **own}
        run = {"run": dict(self.run)} if self.run else {}
        about = {"about": dict(self.about)} if self.about else {}
        return {"name": self.name, **about, **run, "stages": stages}
