from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from nashtune.models.config import PolicyConfig
from nashtune.models.reward_policy import RewardPolicy
from nashtune.spec.model import HeadSpec


@pytest.fixture
def load_reward() -> Callable[..., RewardPolicy]:
    """A loaded reward policy; settings of `HeadSpec` go to the head, the others to the policy."""

    def make(path: Path, *, seed: int = 5, **settings: Any) -> RewardPolicy:
        of_head = {name: settings.pop(name) for name in list(settings) if name in HeadSpec.__dataclass_fields__}
        torch.manual_seed(seed)
        policy = RewardPolicy(PolicyConfig(path=str(path), **settings), HeadSpec(**of_head))
        policy.load()
        return policy

    return make
