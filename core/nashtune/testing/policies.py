"""The tiny language model that samplers, references and specs are tried on, made once in a process."""

from __future__ import annotations

import atexit
import functools
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from nashtune.testing.models import tiny_model

if TYPE_CHECKING:
    from nashtune.models.policy import HFPolicy


@functools.cache
def tiny_folder() -> Path:
    """Folder of the tiny model, removed when the process ends."""
    folder = Path(tempfile.mkdtemp(prefix="nashtune-testing-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return tiny_model(folder / "tiny")


@functools.cache
def tiny_heads() -> Path:
    """The tiny model as a reward model with three random heads, so that rewards and their variance differ."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    folder = tiny_folder().parent / "heads"
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = AutoModelForSequenceClassification.from_pretrained(
            tiny_folder(), num_labels=3, use_safetensors=True, trust_remote_code=False
        )
        torch.nn.init.normal_(model.score.weight)
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(tiny_folder(), trust_remote_code=False).save_pretrained(folder)
    return folder


def tiny_policy(*, lora: bool = False, double: bool = False) -> HFPolicy:
    """The tiny model, loaded.

    Args:
        lora: With a fresh adapter.
        double: In float64, so that no draw hangs on how a matrix product rounds in another batch.
    """
    from nashtune.models.policy import HFPolicy, LoraSettings, PolicyConfig

    policy = HFPolicy(PolicyConfig(path=str(tiny_folder()), lora=LoraSettings(r=2) if lora else None))
    policy.load()
    return policy.double() if double else policy


@contextmanager
def own_cache(folder: Path) -> Iterator[None]:
    """While it lasts, what can be made again is kept in a folder, and not among the user's."""
    before = os.environ.get("NASHTUNE_CACHE")
    os.environ["NASHTUNE_CACHE"] = str(folder)
    try:
        yield
    finally:
        if before is None:
            del os.environ["NASHTUNE_CACHE"]
        else:
            os.environ["NASHTUNE_CACHE"] = before
