"""Where the time of one online round of `nashtune fit` goes. A Lightning callback that stands behind `StepProbe`.

Each part counts what is spent in it and not in a part inside it. On a GPU these are the host's seconds.
"""

from __future__ import annotations

import importlib
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from speed.probe import RECORD

SAMPLING = "sampling: requests, answers and Python"
UPDATE = "update"
PARTS: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "sampling: server reached, weights sent": ("nashtune.samplers.vllm", "VLLMSampler", ("attach", "sync")),
    "sampling: prompts": ("nashtune.samplers.decode_model", "Runner", ("prefill",)),
    "sampling: tokens": ("nashtune.samplers.decode_model", "Runner", ("step", "spread", "keep")),
    "sampling: noise": ("nashtune.samplers.decode", "", ("draw",)),
    "judge": ("nashtune.rounds.runner", "", ("judge",)),
    "pair": ("nashtune.rounds.runner", "", ("pair", "load_rows")),
    "anchor: log-probs": ("nashtune.rounds.anchor", "", ("score_rows",)),
    "snapshots": ("nashtune.models.snapshots", "SnapshotBank", ("save", "load")),
    "journal": ("nashtune.journal.store", "Journal", ("write_table", "read_table", "write_tensors", "read_tensors")),
}
"""Part -> module, class and functions. What is imported by name is wrapped where it is called."""
SAMPLERS = (("nashtune.samplers.generate", "LiveSampler"), ("nashtune.samplers.vllm", "VLLMSampler"))


class RoundTimes(Callback):
    """Adds `parts` to the record: wall and CPU seconds by part, from the start of training to its end."""

    def __init__(self) -> None:
        self._inner: list[list[float]] = []
        self._spent: dict[str, list[float]] = {}
        self._began: list[float] = []

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        for part, (module, owner, names) in PARTS.items():
            for name in names:
                self._wrap(part, module, owner, name)
        for module, owner in SAMPLERS:
            self._wrap(SAMPLING, module, owner, "sample")
        self._begin()

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        self._begin()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._end(UPDATE)
        # what follows the last step, such as the snapshot of the new weights, belongs to the next round
        self._last = {part: list(spent) for part, spent in self._spent.items()}
        self._whole = [now - begun for now, begun in zip(_now(), self._began[:2], strict=True)]

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        rest = [whole - sum(spent[i] for spent in self._last.values()) for i, whole in enumerate(self._whole)]
        file = Path(os.environ[RECORD])
        record = json.loads(file.read_text())
        record["parts"] = {**self._last, "the rest": rest}
        file.write_text(json.dumps(record))

    def _wrap(self, part: str, module: str, owner: str, name: str) -> None:
        holder: Any = importlib.import_module(module)
        holder = getattr(holder, owner) if owner else holder
        function: Callable[..., Any] = getattr(holder, name)

        def timed(*args: Any, **kwargs: Any) -> Any:
            self._begin()
            try:
                return function(*args, **kwargs)
            finally:
                self._end(part)

        setattr(holder, name, timed)

    def _begin(self) -> None:
        self._began.extend(_now())
        self._inner.append([0.0, 0.0])

    def _end(self, part: str) -> None:
        spent = [now - begun for now, begun in zip(_now(), self._began[-2:], strict=True)]
        del self._began[-2:]
        inner = self._inner.pop()
        own = self._spent.setdefault(part, [0.0, 0.0])
        for i in range(2):
            own[i] += spent[i] - inner[i]
            self._inner[-1][i] += spent[i]


def _now() -> tuple[float, float]:
    return time.monotonic(), time.process_time()
