"""Weights of a reward model: a sequence classifier with one output."""

from __future__ import annotations

from typing import Any

import torch

from nashtune.errors import InputError
from nashtune.models.locate import TOKENIZER_MODELS, ModelFolder, locate, read_json
from nashtune.models.preflight import check_vocabulary

HEADS = ("score.", "classifier.", "pooler.")  # what transformers calls the parts behind the trunk


def check_reward_model(path: str, option: str) -> ModelFolder:
    """Everything about a reward model's folder that needs no weights.

    Raises:
        InputError: it is no folder of a sequence classifier with one output, or tokenizer or weights are missing.
    """
    folder = locate(path, option)
    if folder.is_adapter:
        raise InputError(
            f"{option}: {path} is an adapter; merge it into its base model (peft: merge_and_unload, with the score "
            "head among modules_to_save) and save that as a folder"
        )
    config = read_json(folder.base / "config.json", option)
    kinds = config.get("architectures") or []
    if not any(str(kind).endswith("ForSequenceClassification") for kind in kinds):
        raise InputError(
            f"{option}: {path} is a {', '.join(map(str, kinds)) or 'model of unknown kind'}, not a reward model; give "
            "the folder of a ...ForSequenceClassification with one output"
        )
    from transformers import AutoConfig

    try:
        labels = AutoConfig.from_pretrained(folder.base, local_files_only=True).num_labels
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"{option}: {folder.base} cannot be read: {error}") from error
    if labels != 1:
        raise InputError(
            f"{option}: {path} has {labels} outputs, and a reward model has 1 (num_labels=1); a classifier's class "
            "scores are no reward"
        )
    if not folder.weight_files():
        raise InputError(f"{option}: {folder.base} holds no weights (*.safetensors or *.bin)")
    if not any((folder.tokenizer / name).is_file() for name in TOKENIZER_MODELS):
        raise InputError(
            f"{option}: {folder.tokenizer} has no tokenizer ({', '.join(TOKENIZER_MODELS)}); save the reward model's "
            "own there with tokenizer.save_pretrained"
        )
    check_vocabulary(folder, config, option)
    return folder


def load_classifier(folder: ModelFolder, dtype: torch.dtype, option: str) -> Any:
    """The frozen model.

    Raises:
        InputError: the weights cannot be read, some are missing, or the head has some that would not be used.
    """
    from transformers import AutoModelForSequenceClassification

    try:
        model, info = AutoModelForSequenceClassification.from_pretrained(
            folder.base, dtype=dtype, local_files_only=True, output_loading_info=True
        )
    except (OSError, ValueError, KeyError, ImportError, RuntimeError) as error:
        raise InputError(f"{option}: {folder.base} cannot be loaded: {error}") from error
    except Exception as error:
        if type(error).__name__ != "SafetensorError":  # a cut weight file
            raise
        raise InputError(f"{option}: the weights in {folder.base} cannot be read: {error}") from error
    if missing := sorted(info["missing_keys"]):  # transformers fills them with random numbers
        raise InputError(f"{option}: {folder.base} lacks {len(missing)} weights, such as {missing[0]}")
    if unread := sorted(name for name in info["unexpected_keys"] if name.startswith(HEADS)):
        raise InputError(  # a head trained with a bias loses it in a class without one, and every score moves
            f"{option}: {folder.base} holds {unread[0]}, which {type(model).__name__} does not read; its scores would "
            "not be those it was trained for"
        )
    model.requires_grad_(False)
    return model
