"""Weights of a reward model into memory: a language model's trunk with a score head, new or from the folder."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from nashtune.errors import InputError
from nashtune.models.code import check_kernel, check_weights, may_run_code
from nashtune.models.loading import (
    DTYPES,
    Loaded,
    empty_adapter,
    peft_calls,
    readable,
    refuse_missing,
    training_config,
)
from nashtune.models.locate import ModelFolder, read_json
from nashtune.models.reward_folder import HEAD_WEIGHT, check_head, is_classifier
from nashtune.models.reward_head import NAME, new_head, require_head, set_head
from nashtune.spec.model import HeadSpec


def load_reward_model(
    folder: ModelFolder,
    head: HeadSpec,
    *,
    precision: str,
    attention: str,
    merge: bool,
    seed: int,
    option: str = "policy.path",
    empty: bool = False,
) -> Loaded:
    """A sequence classifier with a float32 head of `head.members` outputs.

    Args:
        folder: Of a causal LM, of a reward model, or of an adapter for either.
        head: What the spec says of the head.
        precision: Dtype of the trunk's weights, "fp32" or "bf16". The head is float32 in any case: it is small, and at
            bfloat16's resolution it would not learn.
        attention: Attention implementation.
        merge: Add an adapter folder into the weights instead of training it further.
        seed: Of a new head.
        option: Where the user named the folder.
        empty: Build it without weights, on torch's `meta` device, and read none: another rank does.

    Raises:
        InputError: config or weights cannot be read, weights are missing, or the head does not fit the spec.
    """
    from transformers import AutoModelForSequenceClassification

    check_kernel(attention, "policy.attention")
    check_weights(folder, option)
    width = check_head(folder, head, option)
    has_head = is_classifier(read_json(folder.base / "config.json", option))
    with readable(folder.base, option):
        config, settings = training_config(folder)
        if not has_head:
            config.num_labels = head.members
        if empty:
            return Loaded(model=_empty(config, folder, head, width, precision, attention, merge), settings=settings)
        with _quietly():
            model, info = AutoModelForSequenceClassification.from_pretrained(
                folder.base,
                config=config,
                dtype=DTYPES[precision],
                attn_implementation=attention,
                local_files_only=True,
                output_loading_info=True,
                trust_remote_code=may_run_code(folder.base),
                use_safetensors=True,
            )
    layer = require_head(model, option)
    if unread := sorted(name for name in info["unexpected_keys"] if name.startswith("score.")):
        raise InputError(f"{option}: {folder.base} holds {unread[0]}, which {type(model).__name__} does not read")
    refuse_missing(set(info["missing_keys"]) - (set() if has_head else {HEAD_WEIGHT, "score.bias"}), folder, option)
    if has_head and not folder.is_adapter:
        kept = _saved_head(folder, layer.weight.detach())
        set_head(model, kept if head.member is None else kept[head.member : head.member + 1])
    else:  # of an adapter that brings a head of its own, these numbers are replaced below
        fresh = new_head(
            head.members,
            layer.in_features,
            init=head.init,
            initializer_range=getattr(config.get_text_config(), "initializer_range", 0.02),
            seed=seed,
        )
        set_head(model, fresh)
    if folder.is_adapter:
        model = _with_adapter(model, folder, merge=merge, brings_head=width is not None, option=option)
    return Loaded(model=model, settings=settings)


def _empty(
    config: Any, folder: ModelFolder, head: HeadSpec, width: int | None, precision: str, attention: str, merge: bool
) -> Any:
    """The modules that `load_reward_model` gives, without weights."""
    from transformers import AutoModelForSequenceClassification

    with torch.device("meta"):
        model = AutoModelForSequenceClassification.from_config(
            config,
            dtype=DTYPES[precision],
            attn_implementation=attention,
            trust_remote_code=may_run_code(folder.base),
        )
        set_head(model, torch.empty(head.members, model.score.in_features))
    if merge or not folder.is_adapter:
        return model
    return empty_adapter(model, folder) if width is not None else _wrapped(model, folder)


def _saved_head(folder: ModelFolder, loaded_KH: Tensor) -> Tensor:
    """The head as it was saved: loading has rounded it to the trunk's dtype."""
    from safetensors import safe_open

    for file in sorted(folder.base.glob("*.safetensors")):
        with safe_open(file, framework="pt") as weights:
            if HEAD_WEIGHT in weights.keys():
                found: Tensor = weights.get_tensor(HEAD_WEIGHT)
                return found.float()
    return loaded_KH.float()


def _with_adapter(model: Any, folder: ModelFolder, *, merge: bool, brings_head: bool, option: str) -> Any:
    """The adapter on the model. One of a language model is read as one of the trunk, and gets the new head."""
    from peft import PeftModel

    try:
        with peft_calls():
            if brings_head:
                found = PeftModel.from_pretrained(model, str(folder.path), is_trainable=not merge)
            else:
                found = _of_language_model(model, folder)
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise InputError(f"{option}: the adapter {folder.path} does not fit {folder.base}: {error}") from error
    return found.merge_and_unload(safe_merge=True) if merge else found


def _of_language_model(model: Any, folder: ModelFolder) -> Any:
    """A language model's adapter on a trunk, and a copy of the new head beside it, to be trained with it."""
    from peft import load_peft_weights, set_peft_model_state_dict

    head = {f"base_model.model.{NAME}.{name}": value for name, value in model.score.state_dict().items()}
    saved = load_peft_weights(str(folder.path), device="cpu")
    wrapped = _wrapped(model, folder)
    result = set_peft_model_state_dict(wrapped, {**saved, **head})
    if lost := [name for name in result.missing_keys if "lora_" in name]:
        raise ValueError(f"it lacks {lost[0]}")
    return wrapped


def _wrapped(model: Any, folder: ModelFolder) -> Any:
    """A trunk inside the wrapper of a language model's adapter, which is to train and save the head as well."""
    from peft import PeftConfig, get_peft_model

    config = PeftConfig.from_pretrained(str(folder.path))
    config.task_type, config.inference_mode = "SEQ_CLS", False
    config.modules_to_save = sorted({*(config.modules_to_save or ()), NAME})
    wrapped = get_peft_model(model, config)
    wrapped.peft_config["default"].modules_to_save = [NAME]
    return wrapped


@contextmanager
def _quietly() -> Iterator[None]:
    """No report of the missing head, and no random numbers drawn for it, of which a wider head would draw more."""
    from transformers.utils import logging

    before = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        logging.set_verbosity(before)
