"""Steps between two rows of the log make the host wait for nothing: torch raises where one does."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from lightning.pytorch import Callback

from lab import Lab
from nashtune.training import fit

INTERVAL = 4


class NoWaits(Callback):
    def on_train_batch_start(self, trainer: Any, *args: Any) -> None:
        step = trainer.global_step + 1
        torch.cuda.set_sync_debug_mode("error" if step > 1 and step % INTERVAL else "default")

    def on_train_batch_end(self, *args: Any) -> None:
        torch.cuda.set_sync_debug_mode("default")

    def on_exception(self, *args: Any) -> None:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize(
    ("spec", "options"),
    [
        ("dpo", ()),
        ("dpo", ("--engine", "tiled")),
        ("dpo", ("--trainer.precision", "bf16-mixed", "--spec.references.ref", "cached")),
        ("epsilon_dpo", ()),
        ("kto", ()),
        ("reward_bt", ("--spec.head.members", "3", "--spec.head.own_order", "true")),
    ],
)
def test_no_step_between_two_rows_waits(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, spec: str, options: tuple[str, ...]
) -> None:
    original = fit.make_trainer
    monkeypatch.setattr(
        fit,
        "make_trainer",
        lambda cli, folder, callbacks, *rest, **more: original(cli, folder, [NoWaits(), *callbacks], *rest, **more),
    )
    lab.fit(
        *("--trainer.accelerator", "gpu", "--trainer.log_every_n_steps", str(INTERVAL)),
        *("--trainer.gradient_clip_val", "1.0", *options),
        spec=spec,
    )
