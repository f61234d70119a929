"""Whether the decode loop can decode a model: what its layers keep, and a comparison with the model's own passes."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import nn

from nashtune.logprobs.head import TOLERANCE, base_model
from nashtune.notes import note
from nashtune.samplers.batching import left_padded
from nashtune.samplers.decode_model import Runner

LONG, SHORT = 8, 5  # prompt tokens of the two rows that are compared, one of them padded

_known: WeakKeyDictionary[nn.Module, str] = WeakKeyDictionary()


def obstacle(model: nn.Module, prompt: Sequence[int]) -> str:
    """Why the loop cannot decode a model, for people; empty where it can. Looked at, and said, once for each model.

    Args:
        model: In evaluation mode and without gradient, under the autocast of sampling.
        prompt: Token ids that the model is used with.
    """
    if model not in _known:
        _known[model] = _structure(base_model(model)) or _comparison(model, prompt)
        if _known[model]:
            note(
                f"sampler: {type(base_model(model)).__name__} is decoded by transformers' `generate`, which "
                f"computes a prompt anew for each completion and waits for the longest: {_known[model]}"
            )
    return _known[model]


def _structure(base: Any) -> str:
    if base.config.is_encoder_decoder:
        return "it is an encoder-decoder"
    if "past_key_values" not in inspect.signature(base.forward).parameters:
        return "it takes no key-value cache"
    if not base._supports_default_dynamic_cache():
        return "it has a cache of its own kind"
    try:
        Runner(base)
    except KeyError as error:
        return f"transformers has no cache for its layers of type {error}"
    except TypeError as error:
        return str(error)
    return ""


def _comparison(model: nn.Module, prompt: Sequence[int]) -> str:
    """Logits of two rows, padded, cached and exchanged, against those of a pass over each alone."""
    device = next(model.parameters()).device
    token = prompt[-1]
    prompts = [list(prompt[:LONG]), list(prompt[:SHORT])]
    ids, mask = left_padded(prompts, token, device)
    runner = Runner(model)
    runner.prefill(ids, mask)
    runner.spread(torch.tensor([0, 0, 1], device=device), ids.shape[1] + 1)
    runner.keep([0, 2], device)
    rows = torch.tensor([0, 1], device=device)
    grown = nn.functional.pad(mask, (0, 1), value=1)[rows]
    found = runner.step(torch.full((2,), token, device=device), grown, mask.sum(-1)[rows])
    for row, ids_before in enumerate(prompts):
        raw = model(input_ids=torch.tensor([[*ids_before, token]], device=device)).logits[0, -1]
        expected = raw.to(found.dtype)
        # weights that diverged are none of this check's business
        difference = (found[row] - expected).abs().nan_to_num(0.0, 0.0)
        if float(difference.max()) > TOLERANCE[raw.dtype] * max(1.0, float(expected.abs().nan_to_num(0.0, 0.0).max())):
            return "its logits with a cache and padding are not those of a pass without"
    return ""
