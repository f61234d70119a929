"""Everything that a cached log-prob depends on. A cache found by less hands one model's numbers to another."""

from __future__ import annotations

import peft
import torch
import transformers

from nashtune import __version__
from nashtune.interfaces.policy import LogProbEngine
from nashtune.models.locate import TOKENIZER_FILES
from nashtune.models.policy import HFPolicy
from nashtune.references.hashes import digest_of

NUMERICS = 1
# raise it when an engine's arithmetic changes (order of sums, dtypes, attention): kept numbers are of the old one then


def everything(policy: HFPolicy, engine: LogProbEngine, data: str) -> dict[str, str]:
    """Name and value of each thing; the values are in the file too, so that it says itself what it is.

    Template, truncation and which rows are left out change the token ids, and so the data's fingerprint. What is kept
    are sums and lengths: whether a loss divides by the length changes nothing here. Engines agree up to rounding, and
    still have files of their own: with bfloat16 that rounding is no longer small.

    Args:
        policy: Loaded, on its device, under the autocast that the steps run under.
        engine: The run's engine.
        data: sha256 of the token ids and labels of a split.
    """
    folder, device = policy.folder, policy.device
    autocast = torch.is_autocast_enabled(device.type)
    tokenizer = [folder.tokenizer / name for name in TOKENIZER_FILES if (folder.tokenizer / name).is_file()]
    return {
        "model": digest_of(folder.weight_files() + folder.config_files()),
        "tokenizer": digest_of(tokenizer),
        "adapter": policy.adapter,
        "data": data,
        "dtype": str(next(policy.parameters()).dtype),
        "autocast": str(torch.get_autocast_dtype(device.type)) if autocast else "off",
        "products": torch.get_float32_matmul_precision(),
        "device": device.type,
        "attention": policy.config.attention,
        "engine": f"{getattr(engine, 'name', type(engine).__name__)}, {'padded' if engine.pads else 'packed'}",
        "attention_backend": str(getattr(engine, "attention_backend", None)),  # padding engines have none
        "numerics": str(NUMERICS),
        "nashtune": __version__,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "peft": peft.__version__,
    }
