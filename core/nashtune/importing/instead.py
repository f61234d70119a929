"""What is used in place of a value that is lost: a default of the spec or of a run file, which nobody asked for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from nashtune.importing.entries import Entry, Method
from nashtune.importing.method import word
from nashtune.spec.resolve import resolve
from nashtune.spec.runoptions import SECTION_CLASSES
from nashtune.spec.settings import settings_info

LORA = "nashtune.models.config:LoraSettings"
OF_RUNS = {
    "trainer.precision": "32-true",
    "trainer.val_check_interval": 1.0,
    "trainer.check_val_every_n_epoch": 1,
    "save_every": 50,
    "keep_checkpoints": 1,
}
"""Defaults of a run that no class has which could be read without importing Lightning."""
ADVICE = {"trainer.max_epochs": "a run needs it, or trainer.max_steps"}


@dataclass(frozen=True)
class Instead:
    """What holds where a key is left out.

    Args:
        method: The tool's loss.
        settings: What is written.
        origins: Where each of it comes from.
    """

    method: Method
    settings: Mapping[str, Any]
    origins: Mapping[str, str]

    def of(self, entry: Entry | None) -> str:
        """`; without it spec.optimizer.decay is constant (the spec dpo)`; empty for a key that goes nowhere here."""
        if entry is None:
            return ""
        inner = (path for ours in entry.values.values() if isinstance(ours, Mapping) for path in ours)
        found = [self._said(path) for path in dict.fromkeys(entry.paths or inner)]
        return f"; without it {', '.join(found)}" if found else ""

    def _said(self, path: str) -> str:
        if path in self.settings:
            return f"{path} is {word(self.settings[path])} ({self.origins[path]})"
        if path.startswith("spec."):
            value, whose = self._of_spec(path.split(".")[1:]), f"the spec {self.method.base}"
        else:
            value, whose = _of_run(path), "the default here"
        if value is None:
            return f"{path} is not set" + (f": {ADVICE[path]}" if path in ADVICE else "")
        return f"{path} is {word(value)} ({whose})"

    def _of_spec(self, keys: list[str]) -> Any:
        value: Any = resolve(self.method.base).to_dict()
        for key in keys:
            value = value.get(key) if isinstance(value, Mapping) else None
        return value


def _of_run(path: str) -> Any:
    section, _, key = path.partition(".")
    place = LORA if key.startswith("lora.") else SECTION_CLASSES.get(section)
    if place is None:
        return OF_RUNS.get(path)
    known = {one.name: one.default for one in settings_info(place).arguments}
    return known.get(key.removeprefix("lora."))
