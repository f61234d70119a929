"""Held-out rows are looked at without autocast: rounding to 16 bits is more than a few steps move them by."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from lab import Lab
from nashtune.cli.main import main
from nashtune.training.checkpoint import newest_checkpoint
from nashtune.training.held_out import HeldOutMeasures


@pytest.mark.loads
@pytest.mark.parametrize("reference", ["base", "cached"])
def test_under_autocast_they_are_what_float32_finds(lab: Lab, monkeypatch: pytest.MonkeyPatch, reference: str) -> None:
    measured, autocast = [], set()
    measure, look = HeldOutMeasures.compute_and_reset, torch.nn.Embedding.forward

    def keep(measures: HeldOutMeasures) -> Any:
        means, verdicts = measure(measures)
        measured.append(means)
        return means, verdicts

    def see(module: torch.nn.Embedding, ids: torch.Tensor) -> torch.Tensor:
        autocast.add((torch.is_grad_enabled(), torch.is_autocast_enabled("cpu")))
        return look(module, ids)

    monkeypatch.setattr(HeldOutMeasures, "compute_and_reset", keep)
    monkeypatch.setattr(torch.nn.Embedding, "forward", see)
    options = ("--spec.references.ref", reference, "--trainer.max_steps", "3", "--spec.optimizer.lr", "1e-5")
    run = lab.fit(*options, "--trainer.precision", "bf16-mixed")
    assert (True, True) in autocast and (True, False) not in autocast, "steps run under it"
    checkpoint = str(newest_checkpoint(run))
    assert main(["validate", "--ckpt_path", checkpoint, "--trainer.precision", "32-true"]) == 0
    mixed, plain = measured[0], measured[-1]
    assert set(mixed) == set(plain) and mixed["loss"] != 0.0
    for name, value in plain.items():
        assert mixed[name] == pytest.approx(value, rel=1e-5, abs=1e-7), name
