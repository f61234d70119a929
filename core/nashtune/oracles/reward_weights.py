"""Folders of reward models: sequence classifiers and adapters for them, before and while their weights load."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from nashtune.errors import InputError
from nashtune.models.code import check_weights, may_run_code
from nashtune.models.loading import readable
from nashtune.models.locate import TOKENIZER_MODELS, ModelFolder, locate, read_json, resolve_export
from nashtune.models.preflight import check_vocabulary
from nashtune.models.reward_folder import REWARD_FILE, RewardFile, is_classifier, read_reward_file
from nashtune.models.sizes import tensor_shapes

HEADS = ("score.", "classifier.", "pooler.")  # what transformers calls the parts behind the trunk
OUTPUTS = ("score.weight", "classifier.weight", "classifier.out_proj.weight")  # the last layer, whose rows are outputs


@dataclass(frozen=True, kw_only=True)
class RewardFolder:
    """A reward model that was looked at.

    Args:
        path: As the user named it, for messages.
        option: Where the user named it.
        files: Its folders.
        outputs: Width of its score head, >= 1.
        own_head: Whether the head is in `files.path`; an adapter without one uses that of its base model.
        card: What nashtune's own export says about it; None for a folder from elsewhere.
    """

    path: str
    option: str
    files: ModelFolder
    outputs: int
    own_head: bool
    card: RewardFile | None


def check_reward_folder(path: str, option: str) -> RewardFolder:
    """Everything about a reward model's folder that needs no weights.

    Raises:
        InputError: it is no sequence classifier and no adapter with a score head, its head is missing or has another
            width than it says, or tokenizer or weights are missing.
    """
    files = locate(str(resolve_export(path, option)), option)
    rows = head_rows(files.path, option)
    own = next((rows[name] for name in OUTPUTS if name in rows), None)
    declared = None if files.is_adapter and own is not None else _declared_outputs(files, option, path)
    check_weights(files, option)
    if not rows and not files.is_adapter:
        raise InputError(
            f"{option}: {path} has no score head: its weights lack score.weight, and transformers would fill it with "
            "random numbers; save the reward model with its head"
        )
    if not any((files.tokenizer / name).is_file() for name in TOKENIZER_MODELS):
        raise InputError(
            f"{option}: {files.tokenizer} has no tokenizer ({', '.join(TOKENIZER_MODELS)}); save the reward model's "
            "own there with tokenizer.save_pretrained"
        )
    check_vocabulary(files, read_json(files.base / "config.json", option), option)
    card = read_reward_file(files.path, option)
    said = {"config.json": declared, "its score head": own, REWARD_FILE: card.members if card else None}
    widths = {name: width for name, width in said.items() if width is not None}
    if len(set(widths.values())) > 1:
        raise InputError(
            f"{option}: {path}: the score head has another width than it should: "
            f"{', '.join(f'{name} says {width}' for name, width in widths.items())}; export the reward model again"
        )
    outputs = next(iter(widths.values()))
    if outputs < 1:
        raise InputError(f"{option}: {path} has a score head without outputs (K = 0); a reward model has at least one")
    return RewardFolder(path=path, option=option, files=files, outputs=outputs, own_head=own is not None, card=card)


def _declared_outputs(files: ModelFolder, option: str, path: str) -> int:
    """Outputs of the classifier in `files.base`, as its config says."""
    config = read_json(files.base / "config.json", option)
    if not is_classifier(config):
        kinds = ", ".join(map(str, config.get("architectures") or [])) or "model of unknown kind"
        if files.is_adapter:
            raise InputError(
                f"{option}: the adapter {path} has no score head (no score.weight among its weights), and its base "
                f"model is a {kinds}, which has none either; train it with task type SEQ_CLS and "
                "modules_to_save=['score'], so that the head is saved with it"
            )
        raise InputError(
            f"{option}: {path} is a {kinds}, not a reward model; give the folder of a ...ForSequenceClassification "
            "with one output"
        )
    from transformers import AutoConfig

    with readable(files.base, option):
        trust = may_run_code(files.base)
        return int(AutoConfig.from_pretrained(files.base, local_files_only=True, trust_remote_code=trust).num_labels)


def head_rows(folder: Path, option: str) -> dict[str, int]:
    """Parameters behind the trunk with their first sizes, from the headers of a folder's safetensors files.

    Raises:
        InputError: a header cannot be read.
    """
    with readable(folder, option):
        shapes = list(tensor_shapes(folder))
    # an adapter writes "base_model.model." before the names of its base model's parameters
    plain = [(name.removeprefix("base_model.model."), shape) for name, shape in shapes]
    return {name: int(shape[0]) for name, shape in plain if name.startswith(HEADS)}


def load_classifier(folder: ModelFolder, dtype: torch.dtype, option: str, **settings: Any) -> tuple[Any, list[str]]:
    """The frozen classifier in `folder.base`, and which weights transformers filled with random numbers.

    Args:
        folder: Its folders.
        dtype: Of its weights. A linear score head stays float32: rounded to bfloat16, members would differ by their
            rounding.
        option: Where the user named it.
        settings: Further arguments of `from_pretrained`.

    Raises:
        InputError: the weights cannot be read, or the head has some that would not be used.
    """
    from transformers import AutoConfig, AutoModelForSequenceClassification

    trust = may_run_code(folder.base)
    with readable(folder.base, option):
        config = AutoConfig.from_pretrained(folder.base, local_files_only=True, trust_remote_code=trust)
        known = AutoModelForSequenceClassification._model_mapping.get(type(config), None)
        model, info = AutoModelForSequenceClassification.from_pretrained(
            folder.base,
            dtype=dtype,
            # always said, or the model's config would choose: another than these may be fetched from the hub
            attn_implementation="sdpa" if getattr(known, "_supports_sdpa", False) else "eager",
            local_files_only=True,
            output_loading_info=True,
            trust_remote_code=trust,
            use_safetensors=True,
            **settings,
        )
    if unread := sorted(name for name in info["unexpected_keys"] if name.startswith(HEADS)):
        raise InputError(  # a head trained with a bias loses it in a class without one, and every score moves
            f"{option}: {folder.base} holds {unread[0]}, which {type(model).__name__} does not read; its scores would "
            "not be those it was trained for"
        )
    if dtype != torch.float32:
        _float32_head(model, folder.base)
    model.config.get_text_config().use_cache = False  # keys and values of texts that nobody goes on with
    model.requires_grad_(False)
    return model, sorted({*info["missing_keys"], *(key[0] for key in info["mismatched_keys"])})


def _float32_head(model: Any, folder: Path) -> None:
    head = getattr(model, "score", None)
    if not isinstance(head, nn.Linear):
        return
    head.float()
    head.register_forward_pre_hook(_as_float32)  # a copy of the head, as peft makes one for each adapter, keeps it
    saved = dict(_saved_head(folder))
    with torch.no_grad():
        for name, weight in head.named_parameters():
            if name in saved and saved[name].shape == weight.shape:
                weight.copy_(saved[name])


def _as_float32(module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return (inputs[0].float(),)


def _saved_head(folder: Path) -> list[tuple[str, Tensor]]:
    from safetensors import safe_open

    found = []
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, framework="pt") as content:
            names = [name for name in content.keys() if name.startswith("score.")]
            found += [(name.removeprefix("score."), content.get_tensor(name)) for name in names]
    return found
