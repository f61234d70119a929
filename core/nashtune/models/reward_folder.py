"""What lies in the folder of a reward model, read without torch; and the file beside its weights.

`nashtune_reward.json` says what weights alone do not: how prompt and answer become one text, how long it may be, and
the gain and bias that a consumer applies to each output: reward = gain * output + bias.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nashtune.errors import InputError
from nashtune.models.locate import ADAPTER_CONFIG, ModelFolder, read_json
from nashtune.models.sizes import tensor_shapes
from nashtune.spec.model import HeadSpec

if TYPE_CHECKING:
    from nashtune.models.config import LoraSettings

REWARD_FILE = "nashtune_reward.json"
CLASSIFIER = "ForSequenceClassification"
HEAD_WEIGHT = "score.weight"


@dataclass(frozen=True, kw_only=True)
class RewardFile:
    """What `nashtune_reward.json` says.

    Args:
        members: Outputs of the head.
        gain: Of each output, > 0.
        bias: Of each output, in units of the reward.
        template: "chat": the whole conversation through the chat template; "plain": prompt and answer put together.
        max_length: Tokens that a text might have in training (`data.max_length`, and no more than the model reads).
        base: The base model, where the folder is an adapter.
    """

    members: int
    gain: list[float]
    bias: list[float]
    template: str
    max_length: int | None
    base: str | None = None

    def write(self, folder: Path) -> None:
        """Beside the weights; `base` only where there is one."""
        plain = {key: value for key, value in asdict(self).items() if key != "base" or value is not None}
        (folder / REWARD_FILE).write_text(json.dumps(plain, indent=2) + "\n", encoding="utf-8")


def read_reward_file(folder: Path, option: str) -> RewardFile | None:
    """The file of a folder; None where there is none, as in models from elsewhere.

    Raises:
        InputError: it cannot be read, or its parts do not fit together.
    """
    file = folder / REWARD_FILE
    if not file.is_file():
        return None
    try:
        found = RewardFile(**read_json(file, option))
    except TypeError as error:
        raise InputError(f"{option}: {file} is not what nashtune writes: {error}") from error
    sizes = {len(found.gain), len(found.bias), found.members}
    if len(sizes) > 1:
        raise InputError(
            f"{option}: {file} has {len(found.gain)} gains and {len(found.bias)} biases for {found.members} members"
        )
    return found


def unused_scale(folder: ModelFolder, head: HeadSpec, option: str) -> str | None:
    """What to say where training starts from a reward model with gain and bias, and ends without them.

    Args:
        folder: That training starts from.
        head: What the spec says.
        option: Where the user named the folder.

    Returns:
        None where nothing is lost.
    """
    file = read_reward_file(folder.path, option)
    if file is None or head.normalise != "none" or (set(file.gain) <= {1.0} and set(file.bias) <= {0.0}):
        return None
    return (
        f"{option}: {folder.path} has a gain and a bias, which are not carried over: with head.normalise: none the "
        "trained model's scores are used as they are. Measure them anew with --spec.head.normalise gain_bias (or bias)"
    )


def is_classifier(config: Mapping[str, Any]) -> bool:
    """Whether a config.json is that of a sequence classifier."""
    return any(str(kind).endswith(CLASSIFIER) for kind in config.get("architectures") or [])


def head_width(folder: ModelFolder, option: str) -> int | None:
    """Outputs of the score head that a folder holds; None for a language model, which has none.

    Raises:
        InputError: it is a reward model by its configuration, but the head is not among its weights.
    """
    if folder.is_adapter:
        if (width := _saved_width(folder.path)) is not None:
            return width
        adapter = read_json(folder.path / ADAPTER_CONFIG, option)
        if adapter.get("task_type") == "SEQ_CLS":
            raise InputError(
                f"{option}: the adapter {folder.path} is of a reward model, but its score head is missing: it was "
                'trained without modules_to_save=["score"], or the head was lost when it was saved'
            )
    config = read_json(folder.base / "config.json", option)
    if not is_classifier(config):
        return None
    if (width := _saved_width(folder.base)) is not None:
        return width
    raise InputError(
        f"{option}: {folder.base} is a {config['architectures'][0]}, but a score head ({HEAD_WEIGHT}), as decoders "
        "such as Llama or Qwen have it, is missing among the weights"
    )


def _saved_width(folder: Path) -> int | None:
    for name, shape in tensor_shapes(folder):
        if name == HEAD_WEIGHT or name.endswith(f".{HEAD_WEIGHT}"):
            return int(shape[0])
    return None


def check_head(folder: ModelFolder, head: HeadSpec, option: str = "policy.path") -> int | None:
    """Whether the folder's head, if it has one, is the one that the spec asks for.

    Returns:
        Its width; None where a new head is made.

    Raises:
        InputError: another width, or `head.member` where there is no such output.
    """
    width = head_width(folder, option)
    if head.member is not None:
        if width is None:
            raise InputError(
                f"spec.head.member: {head.member}, but {folder.path} has no score head yet; leave it out, and a new "
                "one is made"
            )
        if head.member >= width:
            raise InputError(
                f"spec.head.member: {head.member}, but the head of {folder.path} has {width} output(s), counted from 0"
            )
        if folder.is_adapter:
            raise InputError(
                f"spec.head.member: {folder.path} is an adapter, whose head is trained on as it is; leave member out"
            )
        return width
    if width is not None and width != head.members:
        one = (
            " (or --spec.head.member 0, for one of its outputs)" if head.members == 1 and not folder.is_adapter else ""
        )
        raise InputError(
            f"{option}: the score head of {folder.path} has {width} output(s), and the spec asks for {head.members}; "
            f"use --spec.head.members {width}{one}, or start from a language model"
        )
    return width


def check_kind(folder: ModelFolder, lora: LoraSettings | None, head: HeadSpec | None, option: str) -> None:
    """Whether the folder can become what the spec trains: a language model, or a reward model.

    Raises:
        InputError: it is a reward model and the spec trains a language model, or its head does not fit the spec's.
    """
    if head is not None:
        check_trunk(folder, lora, head)
        check_head(folder, head, option)
    elif head_width(folder, option) is not None:
        raise InputError(
            f"{option}: {folder.path} is a reward model, and this spec trains a language model; give the folder of "
            "one, or use the reward model as --spec.oracle reward_model --spec.oracle.path FOLDER"
        )


def check_trunk(folder: ModelFolder, lora: LoraSettings | None, head: HeadSpec) -> None:
    """Whether a frozen trunk is one.

    Raises:
        InputError: the trunk is frozen, and an adapter would be trained in it.
    """
    if head.trunk != "frozen" or (lora is None and not folder.is_adapter):
        return
    given = "policy.lora" if lora is not None else f"the adapter {folder.path}"
    raise InputError(
        f"spec.head.trunk: frozen, so that the head alone is trained, but {given} trains in the trunk; "
        + ("leave policy.lora out" if lora is not None else "merge the adapter into its base model first")
        + ", or use --spec.head.trunk trained"
    )
