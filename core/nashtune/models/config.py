"""What a run file says about the policy. Importing this imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal

from jsonargparse.typing import ClosedUnitInterval, PositiveFloat, PositiveInt

from nashtune.errors import InputError, nearest

Precision = Literal["fp32", "bf16"]


@dataclass(kw_only=True)
class LoraSettings:
    """A fresh low-rank adapter on top of the policy's starting weights.

    Args:
        r: Rank.
        alpha: Scale of the update, which is multiplied by alpha / r.
        dropout: Dropout on the adapter's input while training, in [0, 1].
        target_modules: Names of the linear layers that get an adapter, or "all-linear" (all but the LM head).
    """

    r: PositiveInt = 16
    alpha: PositiveFloat = 32.0
    dropout: ClosedUnitInterval = 0.0
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

    @staticmethod
    def from_plain(values: Mapping[str, Any]) -> PolicyConfig:
        """From a run's `policy` section as plain data, as a checkpoint keeps it.

        Raises:
            InputError: an unknown option, or no path.
        """
        plain = dict(values)
        _refuse_unknown(plain, PolicyConfig, "policy")
        if not plain.get("path"):
            raise InputError("policy.path: missing; give the folder of a model, such as demo:smollm2")
        if isinstance(plain.get("lora"), Mapping):
            lora = dict(plain["lora"])
            _refuse_unknown(lora, LoraSettings, "policy.lora")
            plain["lora"] = LoraSettings(**lora)
        return PolicyConfig(**plain)


def _refuse_unknown(values: Mapping[str, Any], settings: Any, option: str) -> None:
    known = [field.name for field in fields(settings)]
    for name in values:
        if name not in known:
            raise InputError(f"{option}.{name} is not an option{nearest(name, known)}")
