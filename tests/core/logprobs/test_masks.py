"""Padded passes that know of their padding equal those of transformers, bit for bit, and read nothing."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch.overrides import TorchFunctionMode

from nashtune.logprobs import get_engine
from nashtune.logprobs.layout import padded_layout
from nashtune.logprobs.positions import model_inputs
from nashtune.testing import token_batch
from packed_models import make

PADDED, FULL = token_batch([(3, 5), (4, 2)], seed=1), token_batch([(3, 5), (4, 4)], seed=1)


class Reads(TorchFunctionMode):
    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += getattr(func, "__name__", "") in ("__bool__", "item", "tolist")
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3"])
@pytest.mark.parametrize("batch", [PADDED, FULL], ids=["padding", "no padding"])
def test_a_pass_is_that_of_transformers_and_asks_nothing(family: str, batch: Any) -> None:
    model = make(family, attention="sdpa").float()
    at = padded_layout(batch)
    assert (at.positions > at.tokens) == (batch is PADDED)
    with torch.no_grad(), Reads() as asked:
        expected = model.model(**model_inputs(model.model, batch)).last_hidden_state.flatten(0, 1)[at.before]
    assert asked.count, "transformers reads the mask, or this file is of no use any more"
    with torch.no_grad(), Reads() as own:
        found = get_engine("tiled").encode(model.model, replace(batch, layout=at)).hidden
    assert own.count == 0
    assert torch.equal(found, expected)
    with torch.no_grad(), Reads() as after:
        model.model(**model_inputs(model.model, batch))
    assert after.count == asked.count, "other passes are what they were"
