"""Stage `fit`: trains by a spec, once or once for each member of an ensemble."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from jsonargparse.typing import PositiveInt

from nashtune.errors import InputError
from nashtune.interfaces.stage import Outcome, Planned, Stage, Work
from nashtune.pipeline.fit_command import train
from nashtune.pipeline.refer import is_reference
from nashtune.pipeline.settings import sections
from nashtune.spec.games import check_game, unanswered
from nashtune.spec.model import Spec
from nashtune.spec.resolve import resolve
from nashtune.spec.run import Runs
from nashtune.spec.runcheck import check_run

SPLITS = ("train", "validation", "test")
SHOWN = ("accuracy", "loss")
"""Held-out figures in the final table."""


class FitStage(Stage):
    """`nashtune fit` in a process and a run folder of its own; a killed one goes on from its last checkpoint.

    Settings on top of the spec, and the run's data, trainer and so on, are the stage's `run` section.

    Outputs: `export`, the trained model's folder, or with `seeds` a folder with one such folder for each member; `run`,
    the run folder, or the folder of all of them.

    Args:
        spec: Name or file of the spec.
        seeds: Train this many times from the same start, which gives an ensemble of independent members: member k has
            the seed `seed_everything` + k, and with it head weights and data order of its own. Without it, train once.
    """

    outputs: ClassVar[tuple[str, ...]] = ("export", "run")

    def __init__(self, *, spec: str, seeds: PositiveInt | None = None) -> None:
        self.spec = spec
        self.seeds = None if seeds is None else int(seeds)

    def check(self, runs: Runs) -> Planned:
        """Resolve the spec and check the run as `nashtune check` does, as far as its files are there already.

        Raises:
            InputError: what is wrong, all of it.
        """
        spec = resolve(self.spec, runs.overrides)
        settings = sections(runs)
        notes: tuple[str, ...] = ()
        if any(map(is_reference, self._files(spec, settings))):
            check_game(spec)
            if question := unanswered(spec):
                raise InputError(question)
        else:
            notes = tuple(check_run(spec, runs).notes)
        files = tuple(dict.fromkeys(file for file in self._files(spec, settings) if not _by_name(file)))
        return Planned(settings={"spec": spec.to_dict(), "seeds": self.seeds, **settings}, files=files, notes=notes)

    def run(self, runs: Runs, work: Work) -> Outcome:
        """Train what is not trained yet.

        Raises:
            InputError: a training fails; it has said why.
        """
        config = {"spec": resolve(self.spec, runs.overrides).to_dict(), **sections(runs)}
        if self.seeds is None:
            train(work.folder / "run", config, work)
            made = {"export": work.folder / "run" / "export", "run": work.folder / "run"}
            report = _report(work.folder / "run")
            return Outcome(outputs=made, summary=_summary(report), numbers=report, open=("run",))
        first = int(config.get("seed_everything", 0))
        reports = {}
        for k in range(self.seeds):
            name = f"seed-{first + k}"
            work.say(f"member {k + 1}/{self.seeds}: {name}")
            train(work.folder / "run" / name, {**config, "seed_everything": first + k}, work)
            reports[name] = _report(work.folder / "run" / name)
        links = work.folder / "export"
        links.mkdir(exist_ok=True)
        for name in reports:
            _link(links / name, Path("..") / "run" / name / "export")
        summary = f"{self.seeds} members; {_summary(reports[f'seed-{first}'])}"
        made = {"export": links, "run": work.folder / "run"}
        return Outcome(outputs=made, summary=summary, numbers={"members": reports}, open=("run",))

    def _files(self, spec: Spec, settings: Mapping[str, Any]) -> list[str]:
        """Everything that the training reads."""
        files = [settings["data"].get(split) for split in SPLITS] + [settings["policy"].get("path")]
        for _, component in spec.components():
            files.append(component.args.get("path"))
            paths = component.args.get("paths")
            files += paths if isinstance(paths, list) else []
        return [file for file in files if isinstance(file, str)]


def _by_name(file: str) -> bool:
    """Whether a source is one by name, which has no file here to compare."""
    return file.startswith(("demo:", "hub:"))


def _link(link: Path, target: Path) -> None:
    if not link.is_symlink():
        os.symlink(target, link, target_is_directory=True)


def _report(run: Path) -> dict[str, Any]:
    report: dict[str, Any] = json.loads((run / "report.json").read_text(encoding="utf-8"))
    return {key: report[key] for key in ("spec", "steps", "held_out") if key in report}


def _summary(report: Mapping[str, Any]) -> str:
    held_out = report.get("held_out") or {}
    shown = [f"held-out {name} {held_out[name]:.3g}" for name in SHOWN if isinstance(held_out.get(name), float)]
    return ", ".join([f"{report['steps']} steps", *shown])
