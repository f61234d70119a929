"""The members of a reward ensemble: which folders they are, that they read alike, and their models in memory."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from nashtune.errors import InputError
from nashtune.models.loading import refuse_missing
from nashtune.models.locate import model_in, resolve_export
from nashtune.oracles.reward_adapters import load_adapters
from nashtune.oracles.reward_weights import RewardFolder, check_reward_folder, load_classifier

PATH, PATHS = "oracle.path", "oracle.paths"


def find_members(path: str | None, paths: Sequence[str] | None, members: int | None) -> list[RewardFolder]:
    """The folders of an ensemble, looked at; one folder may hold several members.

    Args:
        path: A reward model with several outputs, or a folder of member folders.
        paths: Member folders.
        members: How many there have to be; None where the folders say it.

    Raises:
        InputError: there is none, one is no reward model of one output, or they are not so many.
    """
    if (path is None) == (paths is None):
        problem = "no folder of a reward ensemble" if path is None else f"{PATH} and {PATHS} are both given"
        raise InputError(
            f"{PATH}: {problem}; give one of --spec.oracle.path FOLDER (a reward model with several outputs, or a "
            "folder with a folder for each member) and --spec.oracle.paths '[FOLDER, FOLDER]'"
        )
    if path is not None:
        root = resolve_export(path, PATH)
        if model_in(root) == root:
            return [_with_heads(check_reward_folder(path, PATH), members)]
        found = [check_reward_folder(str(folder), PATH) for folder in _member_folders(root)]
    else:
        found = [check_reward_folder(one, f"{PATHS}[{number}]") for number, one in enumerate(paths or ())]
    if not found:
        raise InputError(
            f"{PATH if path else PATHS}: an ensemble of K = 0 members: "
            + (f"{path} holds no folder of a reward model" if path else "the list is empty")
        )
    for folder in found:
        if folder.outputs != 1:
            raise InputError(
                f"{folder.option}: {folder.path} has {folder.outputs} outputs, and a member among several folders has "
                f"1; an ensemble of heads is one folder: --spec.oracle.path {folder.path}"
            )
    if members is not None and members != len(found):
        raise InputError(f"oracle.members: {members}, but there are {len(found)} member folders")
    return found


def _with_heads(folder: RewardFolder, members: int | None) -> RewardFolder:
    if members is not None and members != folder.outputs:
        raise InputError(f"oracle.members: {members}, but the score head of {folder.path} has {folder.outputs} outputs")
    if folder.outputs > 1 and folder.card is None and members is None:
        raise InputError(
            f"{PATH}: {folder.path} has {folder.outputs} outputs and no nashtune_reward.json, and a classifier's class "
            f"scores are no rewards; if each output is a reward, say so: --spec.oracle.members {folder.outputs}"
        )
    return folder


def _member_folders(root: Path) -> list[Path]:
    """Models in the folders of a folder, in the order of their names, member-2 before member-10."""
    folders = [entry for entry in root.iterdir() if entry.is_dir() and not entry.name.startswith(".")]
    folders.sort(key=lambda entry: [(len(part), part) for part in re.split(r"(?<=\D)(?=\d)|(?<=\d)(?=\D)", entry.name)])
    models = []
    for folder in folders:
        model = model_in(folder)
        if model is None:  # left out, an unfinished member would make a smaller ensemble in silence
            raise InputError(f"{PATH}: {folder} holds no model, and every folder in {root} is to be a member")
        models.append(model)
    return models


def check_same_tokenizer(folders: Sequence[RewardFolder], tokenizers: Sequence[Any]) -> None:
    """Whether all members read the same tokens in the same text.

    Raises:
        InputError: two tokenizers differ.
    """
    first = _reads(tokenizers[0])
    for folder, tokenizer in zip(folders[1:], tokenizers[1:], strict=True):
        other = _reads(tokenizer)
        if differing := [name for name, value in first.items() if other[name] != value]:
            raise InputError(
                f"{folder.option}: the tokenizers of {folders[0].path} and {folder.path} differ "
                f"({', '.join(differing)}); the members of an ensemble read the same tokens, so give reward models "
                "with one tokenizer"
            )


def _reads(tokenizer: Any) -> dict[str, Any]:
    rules = json.loads(tokenizer.backend_tokenizer.to_str()) if tokenizer.is_fast else {}
    for state in ("padding", "truncation"):  # of the last call, not of the tokenizer
        rules.pop(state, None)
    return {
        "vocabulary": tokenizer.get_vocab(),
        "chat template": tokenizer.chat_template,
        "end token": tokenizer.eos_token_id,
        "rules of splitting text": rules,
    }


@dataclass(frozen=True, kw_only=True)
class Part:
    """One model in memory.

    Args:
        model: A frozen classifier, or a peft model around one.
        views: Adapter (None: the model as it is) -> the members that its outputs are.
    """

    model: Any
    views: dict[str | None, list[int]]


def load_parts(folders: Sequence[RewardFolder], dtype: torch.dtype, device: torch.device) -> list[Part]:
    """The members' models; adapters of one base model share it.

    Raises:
        InputError: weights cannot be read, or some are missing.
    """
    starts = [sum(folder.outputs for folder in folders[:i]) for i in range(len(folders))]
    columns = [list(range(start, start + folder.outputs)) for start, folder in zip(starts, folders, strict=True)]
    on_base: dict[tuple[Path, int], list[int]] = {}
    parts = []
    # What a head or an adapter holds before its weights are read is random, and the run's own random numbers must not
    # depend on when its oracle is loaded.
    with torch.random.fork_rng(devices=[]):
        for i, folder in enumerate(folders):
            if folder.files.is_adapter:
                on_base.setdefault((folder.files.base.resolve(), folder.outputs), []).append(i)
                continue
            model, filled = load_classifier(folder.files, dtype, folder.option)
            refuse_missing(filled, folder.files, folder.option)
            parts.append(Part(model=model.to(device), views={None: columns[i]}))
        for group in on_base.values():
            model, names = load_adapters([folders[i] for i in group], dtype)
            parts.append(
                Part(model=model.to(device), views={name: columns[i] for name, i in zip(names, group, strict=True)})
            )
    return parts
