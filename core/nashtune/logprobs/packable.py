"""Whether a model can run packed passes, and why not.

Packing rests on one thing: tokens meet in the attention alone, and the attention is given to transformers' interface
with everything that shapes it. What a config shows is read; a model of a family that the tests do not cover is probed
once with a short random batch against its own padded pass.

Legend: N = sequences, T = positions, F = flat positions.
"""

from __future__ import annotations

from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from nashtune.interfaces.batch import TokenBatch
from nashtune.logprobs.attention import PREFIX, WRAPPED, PackedPass, switch
from nashtune.logprobs.head import base_model
from nashtune.logprobs.layout import padded_layout
from nashtune.logprobs.packing import packed_layout
from nashtune.logprobs.positions import model_inputs
from nashtune.models.mode import frozen_mode

KNOWN = ("llama", "qwen2", "qwen3", "mistral", "gemma", "gemma2", "gemma3_text")
"""Model types whose packed passes are tested against padded ones, windows and soft caps included."""
LAYERS = ("full_attention", "sliding_attention")
TOLERANCE = {torch.float64: 1e-6, torch.float32: 1e-3}
COARSE = 0.1
"""Relative error of a probe in 16 bits: a leak between sequences is of the order of 1."""

_verdicts: WeakKeyDictionary[nn.Module, str | None] = WeakKeyDictionary()


def trunk_of(model: Any) -> Any:
    """The part of a transformers model, peft-wrapped or not, that ends in hidden states."""
    base = base_model(model)
    decoder = base.get_decoder() if hasattr(base, "get_decoder") else None
    return decoder if isinstance(decoder, nn.Module) and decoder is not base else getattr(base, "base_model", base)


def not_packable(trunk: Any) -> str | None:
    """Why a backbone cannot run packed passes; None where it can, and then it is ready for them.

    Looked at once per model. Weights are read only where the family is not among `KNOWN`.
    """
    if trunk not in _verdicts:
        _verdicts[trunk] = _look(trunk)
    return _verdicts[trunk]


def why_packable(trunk: Any) -> str:
    """What makes sure that a backbone can run packed passes, where `not_packable` has nothing against it."""
    kind = trunk.config.model_type
    if kind in KNOWN:
        return f"{kind} is a tested family"
    return f"a packed pass of {type(trunk).__name__} agreed with its padded one"


def _look(trunk: Any) -> str | None:
    reason = _from_config(trunk)
    if reason is not None:
        return reason
    before = trunk.config._attn_implementation
    switch(trunk)
    if trunk.config.model_type in KNOWN:
        return None
    reason = _probe(trunk)
    if reason is not None:
        trunk.set_attn_implementation(before)
    return reason


def _from_config(trunk: Any) -> str | None:
    name = type(trunk).__name__
    if not hasattr(trunk, "set_attn_implementation") or not trunk._can_set_attn_implementation():
        return f"{name} does not take its attention from transformers' interface"
    config = trunk.config
    attention = config._attn_implementation.removeprefix(PREFIX)
    if attention not in WRAPPED:
        return f"policy.attention is {attention}; a packed pass takes over from {' or '.join(WRAPPED)}"
    if not getattr(config, "is_causal", True) or getattr(config, "use_bidirectional_attention", None):
        return f"the attention of {name} is not causal"
    if strange := sorted(set(getattr(config, "layer_types", None) or ()) - set(LAYERS)):
        return f"{name} has layers of the type {strange[0]}"
    return None


def _probe(trunk: Any) -> str | None:
    """A packed pass against the padded one, on sequences with and without a common prefix."""
    name = type(trunk).__name__
    batch = _random_batch(trunk)
    layout = packed_layout(batch, share=True).to(batch.input_ids.device)
    assert layout.packed is not None
    with frozen_mode(trunk), torch.autocast(batch.input_ids.device.type, enabled=False):
        padded = trunk(**model_inputs(trunk, batch)).last_hidden_state.flatten(0, 1)
        run = PackedPass(layout.packed)
        try:
            packed = packed_hidden(trunk, run)
        except Exception as failure:  # whatever a model does with arguments that it does not expect
            return f"{name} does not run a packed pass ({type(failure).__name__}: {str(failure)[:200]})"
    found, expected = packed[layout.before].double(), padded[padded_layout(batch).before].double()
    tolerance = TOLERANCE.get(padded.dtype, COARSE)
    error = float((found - expected).norm() / expected.norm())
    if not error <= tolerance:
        return (
            f"a packed pass of {name} differs from its padded one by {error:.1e}, so tokens meet outside the attention"
        )
    return _windows(trunk, run)


def packed_hidden(trunk: Any, run: PackedPass) -> Tensor:
    """Last hidden states of a packed pass (F, H)."""
    ids = run.packed.input_ids
    run.windows.clear()
    hidden: Tensor = trunk(
        input_ids=ids,
        # four dimensions: transformers hands such a mask on as it is; no layer of a packed pass reads it
        attention_mask=torch.ones(1, 1, 1, 1, dtype=torch.bool, device=ids.device),
        position_ids=run.packed.position_ids,
        use_cache=False,  # with a cache, transformers would attend across sequences without a word
        packed=run,
    ).last_hidden_state[0]
    # any other attention function takes the argument without a word, and every token would see every other one
    if len(run.windows) < trunk.config.num_hidden_layers:
        raise RuntimeError(
            f"{len(run.windows)} of {trunk.config.num_hidden_layers} layers ran packed attention: somebody called "
            "set_attn_implementation on the model after the engine did"
        )
    return hidden


def _windows(trunk: Any, run: PackedPass) -> str | None:
    """A window that a layer keeps to itself would be lost: the probe is shorter than any window."""
    config = trunk.config
    kinds = getattr(config, "layer_types", None)
    window = getattr(config, "sliding_window", None)
    layers = config.num_hidden_layers
    if len(run.windows) != layers:
        return (
            f"{len(run.windows)} of {layers} layers of {type(trunk).__name__} take their attention from the interface"
        )
    expected = sum(kind == "sliding_attention" for kind in kinds) if kinds else layers * (window is not None)
    given = sum(one is not None for one in run.windows)
    if expected != given:
        return f"{expected} layers of {type(trunk).__name__} have a sliding window, {given} tell it to the attention"
    return None


def _random_batch(trunk: Any) -> TokenBatch:
    """Two sequences with a common prefix and two others."""
    draw = torch.Generator().manual_seed(0)
    lengths = torch.tensor([20, 17, 14, 9])
    positions = torch.arange(20)[None]
    ids_NT = torch.randint(trunk.config.vocab_size, (4, 20), generator=draw)
    ids_NT[1, :12] = ids_NT[0, :12]
    attended = positions < lengths[:, None]
    batch = TokenBatch(
        kind="rollouts",
        input_ids=ids_NT,
        attention_mask=attended.long(),
        completion_mask=attended & (positions > 0),
        rows=torch.arange(4),
    )
    return batch.to(next(trunk.parameters()).device)
