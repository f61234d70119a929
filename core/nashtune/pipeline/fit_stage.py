"""Stage `fit`: trains by a spec, once or once for each member of an ensemble."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

from jsonargparse.typing import PositiveInt

from nashtune.interfaces.stage import Outcome, Planned, Stage, Work
from nashtune.pipeline.fit_command import damaged_report, read_report, train
from nashtune.pipeline.layers import text_of
from nashtune.pipeline.refer import is_reference
from nashtune.pipeline.settings import sections
from nashtune.spec.model import Spec
from nashtune.spec.overrides import Override
from nashtune.spec.resolve import resolve
from nashtune.spec.run import Runs
from nashtune.spec.runcheck import check_run

SPLITS = ("train", "validation", "test")
SHOWN = ("accuracy", "best_over_worst", "loss")
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
        own_heads: With `seeds`, member k goes on with output k of the starting model's score head: an adapter for each
            head of a trunk that was trained with all of them.
    """

    outputs: ClassVar[tuple[str, ...]] = ("export", "run")

    def __init__(self, *, spec: str, seeds: PositiveInt | None = None, own_heads: bool = False) -> None:
        if own_heads and seeds is None:
            raise ValueError("own_heads: true, but there are no members; give seeds, as many as the model has heads")
        self.spec = spec
        self.seeds = None if seeds is None else int(seeds)
        self.own_heads = own_heads

    def check(self, runs: Runs) -> Planned:
        """Resolve the spec and check the run as `nashtune check` does, as far as its files are there already.

        Raises:
            InputError: what is wrong, all of it.
        """
        spec = self._resolve(runs, None if self.seeds is None else 0)
        settings = sections(runs)
        waiting = any(is_reference(file) for file in self._files(spec, settings))
        checked = check_run(spec, replace(runs, data=_to_come(runs.data)))
        notes = () if waiting else tuple(checked.notes)  # counts are known when the rows are
        own = {"seeds": self.seeds, "own_heads": self.own_heads}
        files = tuple(dict.fromkeys(file for file in self._files(spec, settings) if not _by_name(file)))
        return Planned(settings={"spec": spec.to_dict(), **own, **settings}, files=files, notes=notes)

    def run(self, runs: Runs, work: Work) -> Outcome:
        """Train what is not trained yet.

        Raises:
            InputError: a training fails; it has said why.
        """
        config = sections(runs)
        if self.seeds is None:
            train(work.folder / "run", {"spec": self._resolve(runs, None).to_dict(), **config}, work)
            made = {"export": work.folder / "run" / "export", "run": work.folder / "run"}
            report = _report(work.folder / "run")
            return Outcome(outputs=made, summary=_summary(report), numbers=report, open=("run",))
        first = int(config.get("seed_everything", 0))
        reports = {}
        for k in range(self.seeds):
            name = f"seed-{first + k}"
            work.say(f"member {k + 1}/{self.seeds}: {name}")
            own = {"spec": self._resolve(runs, k).to_dict(), **config, "seed_everything": first + k}
            train(work.folder / "run" / name, own, work)
            reports[name] = _report(work.folder / "run" / name)
        links = work.folder / "export"
        links.mkdir(exist_ok=True)
        for name in reports:
            _link(links / name, Path("..") / "run" / name / "export")
        summary = f"{self.seeds} members; {_summary(*reports.values())}"
        made = {"export": links, "run": work.folder / "run"}
        return Outcome(outputs=made, summary=summary, numbers={"members": reports}, open=("run",))

    def _resolve(self, runs: Runs, member: int | None) -> Spec:
        """The spec of a member, or of the one training."""
        where = f"own_heads of stage `fit` ({self.spec})"
        own = [Override(("head", "member"), member, where)] if self.own_heads and member is not None else []
        return resolve(self.spec, [*runs.overrides, *own])

    def _files(self, spec: Spec, settings: Mapping[str, Any]) -> list[str]:
        """Everything that the training reads."""
        files = [settings["data"].get(split) for split in SPLITS] + [settings["policy"].get("path")]
        for _, component in spec.components():
            files.append(component.args.get("path"))
            paths = component.args.get("paths")
            files += paths if isinstance(paths, list) else []
        return [file for file in files if isinstance(file, str)]


def _to_come(value: Any) -> Any:
    """Settings in which outputs to come stand as sources by name, which nobody looks for before they are needed."""
    if isinstance(value, Mapping):
        return {key: _to_come(part) for key, part in value.items()}
    return f"hub:{text_of(value)}" if is_reference(text_of(value)) else value


def _by_name(file: str) -> bool:
    """Whether a source is one by name, which has no file here to compare."""
    return file.startswith(("demo:", "hub:"))


def _link(link: Path, target: Path) -> None:
    if not link.is_symlink():
        os.symlink(target, link, target_is_directory=True)


def _report(run: Path) -> dict[str, Any]:
    report = read_report(run)
    rounds = report.get("rounds") or []
    fits = (
        isinstance(report.get("steps"), int)
        and isinstance(report.get("held_out"), dict | None)
        and isinstance(rounds, list)
        and all(isinstance(one, dict) and isinstance(one.get("score"), float | int | None) for one in rounds)
    )
    if not fits:
        raise damaged_report(run)
    return {key: report[key] for key in ("spec", "steps", "held_out", "win_rates", "rounds") if key in report}


def _summary(*reports: Mapping[str, Any]) -> str:
    """Steps, what the held-out rows say (from the lowest member to the highest), and the last round's reward."""
    words = [f"{reports[0]['steps']} steps"]
    for name in SHOWN:
        values = [value for report in reports if isinstance(value := (report["held_out"] or {}).get(name), float)]
        if values:
            low, high = f"{min(values):.3g}", f"{max(values):.3g}"
            words.append(f"held-out {name} {low}" + (f" to {high}" if high != low else ""))
    rounds = reports[0].get("rounds") or []
    first, last = (rounds[0].get("score"), rounds[-1].get("score")) if rounds else (None, None)
    if first is not None and last is not None:
        words.append(f"mean reward {first:+.3g} in the first round, {last:+.3g} in the last")
    return ", ".join(words)
