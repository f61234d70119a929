"""Under which precision held-out rows are looked at."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning.pytorch.plugins import MixedPrecision

from nashtune.training.held_out import HeldOutMeasures


@pytest.mark.parametrize(
    ("attention", "precision", "rounded"),
    [
        ("sdpa", "bf16-mixed", False),
        ("flash_attention_2", "bf16-mixed", True),
        ("flash_attention_2", "32-true", False),
    ],
)
def test_autocast_stays_where_attention_reads_16_bits_alone(
    attention: str, precision: str, rounded: bool, caplog: pytest.LogCaptureFixture
) -> None:
    plugin = MixedPrecision("bf16-mixed", "cpu")
    trainer: Any = SimpleNamespace(precision=precision, precision_plugin=plugin)
    loss: Any = SimpleNamespace(reads="logprobs", rows="pairs")
    measures = HeldOutMeasures(loss, attention)
    with caplog.at_level("INFO"):
        for _ in range(2):
            with measures.context(trainer, torch.device("cpu")):
                assert torch.is_autocast_enabled("cpu") == rounded
                assert not torch.is_grad_enabled()
    assert caplog.text.count("takes 16 bits alone") == rounded
