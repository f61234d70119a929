"""What predictions were made by and of: digests on every line, so that a line says it wherever the file goes.

A header line, or a second file, would be lost by who reads, joins or cuts a table of rows.
"""

from __future__ import annotations

import hashlib
import json
import re
import textwrap
from typing import TYPE_CHECKING

import torch

from nashtune.references.cache_key import everything

if TYPE_CHECKING:
    from nashtune.models.policy import HFPolicy
    from nashtune.training.module import AlignmentModule

SHOWN = 16
"""Hexadecimal digits of a sha256 that are shown: 64 bits, which no two things share by chance."""


def short(digest: str) -> str:
    """A sha256 as it is printed; with its name in front no reader takes one of digits alone for a number."""
    return f"sha256:{digest[:SHOWN]}"


def weights_digest(policy: HFPolicy) -> str:
    """sha256 of the trained weights; what is frozen is that of the model folder. All ranks that share weights call it.

    Args:
        policy: Loaded.
    """
    total = hashlib.sha256()
    for name, weight in sorted(policy.trainable_state_dict().items()):
        total.update(f"{name} {weight.dtype} {tuple(weight.shape)}".encode())
        total.update(weight.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return total.hexdigest()


def facts(module: AlignmentModule, data: str, precision: str) -> dict[str, str]:
    """Name and value of each thing that a prediction depends on.

    Args:
        module: Loaded.
        data: Fingerprint of the rows' token ids and labels.
        precision: Of the trainer.
    """
    spec = json.dumps(module.spec.to_dict(), sort_keys=True, default=str)
    return {
        "spec": module.spec.name,
        "spec's settings": short(hashlib.sha256(spec.encode()).hexdigest()),
        "weights": short(weights_digest(module.policy)),
        "precision": precision,
        **everything(module.policy, module.engine, data),
    }


def made_by(known: dict[str, str]) -> str:
    """One digest over all of it.

    Args:
        known: What `facts` gave.
    """
    return short(hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest())


def spelt_out(digest: str, known: dict[str, str]) -> str:
    """What a digest stands for, in lines for people: of a sha256 its first eight digits.

    Args:
        digest: What `made_by` gave.
        known: What `facts` gave.
    """
    parts = ", ".join(f"{name} {value}" for name, value in known.items())
    text = re.sub(r"(sha256:)?\b([0-9a-f]{8})[0-9a-f]{8,}\b", r"\2", parts)
    return textwrap.fill(f"made_by {digest}: {text}", 100, subsequent_indent="  ", break_on_hyphens=False)
