"""Reward models that are LoRA adapters on one base model: the base is in memory once, the adapters are switched."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from nashtune.errors import InputError
from nashtune.models.loading import peft_calls, refuse_missing
from nashtune.oracles.reward_weights import HEADS, RewardFolder, load_classifier


def load_adapters(folders: Sequence[RewardFolder], dtype: torch.dtype) -> tuple[Any, list[str]]:
    """A frozen peft model with every adapter and its score head, and the adapters' names in it.

    Args:
        folders: Adapters of one base model, of one width.
        dtype: Of all weights.

    Raises:
        InputError: base or adapter cannot be read, or they do not fit one another.
    """
    first = folders[0]
    with _quiet():
        # The base may be a causal LM, or a classifier of another width: every adapter brings its own head.
        model, filled = load_classifier(
            first.files, dtype, first.option, num_labels=first.outputs, ignore_mismatched_sizes=True
        )
        heads_to_come = all(folder.own_head for folder in folders)
        lacking = [name for name in filled if not (heads_to_come and name.startswith(HEADS))]
        refuse_missing(lacking, first.files, first.option)
        names = [f"member_{number}" for number in range(len(folders))]
        peft = None
        for name, folder in zip(names, folders, strict=True):
            peft = _with_adapter(model if peft is None else peft, folder, name, fresh=peft is None)
    assert peft is not None
    return peft.requires_grad_(False), names


def _with_adapter(model: Any, folder: RewardFolder, name: str, *, fresh: bool) -> Any:
    from peft import PeftModel

    path, settings = str(folder.files.path), {"torch_device": "cpu", "autocast_adapter_dtype": False}
    try:
        if fresh:
            return PeftModel.from_pretrained(model, path, adapter_name=name, **settings)
        # the first adapter's missing weights are a warning, those of the next ones a result
        if lacking := model.load_adapter(path, adapter_name=name, **settings).missing_keys:
            raise ValueError(f"Found missing adapter keys while loading the checkpoint: {lacking}")
        return model
    except (OSError, ValueError, KeyError, RuntimeError, UserWarning) as error:
        raise InputError(
            f"{folder.option}: the adapter {folder.path} does not fit {folder.files.base}: {error}"
        ) from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Loading that warns of what is checked here, and no more.

    transformers reports the base's missing head, which each adapter replaces; peft only warns of weights that an
    adapter lacks.
    """
    from transformers.utils import logging

    level = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        with peft_calls():
            warnings.filterwarnings("error", "Found missing adapter keys")
            yield
    finally:
        logging.set_verbosity(level)
