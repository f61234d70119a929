from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from nashtune.interfaces import LogProbEngine, LogProbs, TokenBatch


@pytest.fixture
def model(tiny: Path) -> Any:
    """The tiny model in float64."""
    return AutoModelForCausalLM.from_pretrained(tiny, dtype=torch.float64)


def _score(engine: LogProbEngine, model: Any, batch: TokenBatch) -> tuple[LogProbs, dict[str, torch.Tensor]]:
    model.zero_grad()
    result = engine.logprobs(engine.forward(model, batch), batch)
    weights = torch.linspace(-1, 2, len(result.sums), dtype=result.sums.dtype)
    (result.sums * weights).sum().backward()
    return result, {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.fixture
def score() -> Callable[..., tuple[LogProbs, dict[str, torch.Tensor]]]:
    """Log-probs, and gradients of a weighted sum of them."""
    return _score
