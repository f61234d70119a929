"""What a run file says about the policy. Importing this imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from jsonargparse.typing import OpenUnitInterval, PositiveFloat, PositiveInt

Precision = Literal["fp32", "bf16"]


@dataclass(kw_only=True)
class LoraSettings:
    """A fresh low-rank adapter on top of the policy's starting weights.

    Args:
        r: Rank.
        alpha: Scale of the update, which is multiplied by alpha / r.
        dropout: Dropout on the adapter's input while training, in (0, 1); None for none.
        target_modules: Names of the linear layers that get an adapter, or "all-linear" (all but the LM head).
    """

    r: PositiveInt = 16
    alpha: PositiveFloat = 32.0
    dropout: OpenUnitInterval | None = None
    target_modules: list[str] | Literal["all-linear"] = "all-linear"


@dataclass(kw_only=True)
class PolicyConfig:
    """The language model to train.

    Args:
        path: Folder of a Hugging Face causal LM or of a LoRA adapter for one; `demo:smollm2`; or `hub:owner/name`. An
            adapter folder is trained further as it is; with `lora` it is first merged into the weights, in memory, and
            a fresh adapter goes on top.
        precision: Dtype of the weights.
        lora: Train an adapter instead of all weights.
        gradient_checkpointing: Recompute activations in backward: less memory, about a third more time.
        attention: Attention implementation of transformers, such as sdpa, eager or flash_attention_2.
    """

    path: str
    precision: Precision = "fp32"
    lora: LoraSettings | None = None
    gradient_checkpointing: bool = False
    attention: str = "sdpa"
