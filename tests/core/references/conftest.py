from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from nashtune.models.policy import HFPolicy, LoraSettings, PolicyConfig


@pytest.fixture
def sft_adapter(tiny: Path, tmp_path: Path) -> Path:
    """An adapter on the tiny model that changes what it says."""
    policy = HFPolicy(PolicyConfig(path=str(tiny), lora=LoraSettings(r=2)))
    policy.load()
    with torch.no_grad():
        for weight in policy.trainable_state_dict().values():
            torch.nn.init.normal_(weight, std=0.2)
    policy.save_pretrained(tmp_path / "sft")
    return tmp_path / "sft"


@pytest.fixture
def load() -> Callable[..., HFPolicy]:
    """A loaded policy."""

    def make(path: Path, **settings: object) -> HFPolicy:
        policy = HFPolicy(PolicyConfig(path=str(path), **settings))  # type: ignore[arg-type]
        policy.load()
        return policy

    return make
