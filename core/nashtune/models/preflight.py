"""What can be known about a model before its weights load.

Everything but `check_lora` and `load_tokenizer` works without torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nashtune.errors import InputError, nearest
from nashtune.models.code import check_kernel, check_weights, may_run_code
from nashtune.models.locate import TOKENIZER_MODELS, ModelFolder, locate, read_json
from nashtune.models.reward_folder import check_kind, unused_scale
from nashtune.notes import note
from nashtune.spec.model import HeadSpec

if TYPE_CHECKING:
    from nashtune.models.config import LoraSettings, PolicyConfig

SFT_TRAP = (
    "would be the base model and not the SFT model: with the adapter off, what it learned is gone. "
    "Use the reference `base` (a frozen copy of the starting weights) or `checkpoint`, or add policy.lora, "
    "which merges the adapter first"
)


def preflight(
    config: PolicyConfig,
    *,
    references: Mapping[str, object] | None = None,
    template: str = "chat",
    option: str = "policy",
    head: HeadSpec | None = None,
) -> ModelFolder:
    """Every check of a policy that needs no weights.

    Args:
        config: The policy.
        references: The spec's references by name: the objects, or the names of their components.
        template: "chat" where prompts go through the tokenizer's chat template.
        option: Where the user wrote it, for messages.
        head: Of a spec whose loss reads scores.

    Returns:
        The folders behind `config.path`.

    Raises:
        InputError: the first thing that is wrong.
    """
    folder = check_folder(config.path, chat=template == "chat", option=f"{option}.path")
    check_kernel(config.attention, f"{option}.attention")
    for name, reference in (references or {}).items():
        _check_reference(reference, folder, config, f"spec.references.{name}")
    check_kind(folder, config.lora, head, f"{option}.path")
    if head is not None and (text := unused_scale(folder, head, f"{option}.path")) is not None:
        note(text)
    if config.lora is not None:
        check_lora(folder, config.lora, f"{option}.lora", scores=head is not None)
    return folder


def _check_reference(reference: object, folder: ModelFolder, config: PolicyConfig, option: str) -> None:
    if reference == "adapter_off":
        check_adapter_off(folder, config.lora, option)
    if isinstance(reference, str):
        return
    from nashtune.references.adapter_off import AdapterOffReference
    from nashtune.references.checkpoint import CheckpointReference

    if isinstance(reference, AdapterOffReference):
        check_adapter_off(folder, config.lora, option)
    if isinstance(reference, CheckpointReference):
        check_folder(reference.path, chat=False, option=f"{option}.path")


def check_folder(path: str, *, chat: bool, option: str = "policy.path") -> ModelFolder:
    """Model, weights, tokenizer, chat template and vocabulary of a path.

    Raises:
        InputError: one of them is missing, or the tokenizer has tokens that the model has no embedding for.
    """
    folder = locate(path, option)
    config = read_json(folder.base / "config.json", option)
    check_weights(folder, option)
    if not any((folder.tokenizer / name).is_file() for name in TOKENIZER_MODELS):
        raise InputError(
            f"{option}: {folder.tokenizer} has no tokenizer ({', '.join(TOKENIZER_MODELS)}); "
            "save it there with tokenizer.save_pretrained"
        )
    if chat and not has_chat_template(folder.tokenizer):
        raise InputError(
            f"{option}: the tokenizer in {folder.tokenizer} has no chat template; set data.template: plain, "
            "or add chat_template.jinja to the folder"
        )
    check_vocabulary(folder, config, option)
    return folder


def has_chat_template(folder: Path) -> bool:
    """Whether a tokenizer folder holds a chat template, in any of the places where transformers looks."""
    if any((folder / name).is_file() for name in ("chat_template.jinja", "chat_template.json")):
        return True
    settings = folder / "tokenizer_config.json"
    return settings.is_file() and bool(read_json(settings, "policy.path").get("chat_template"))


def check_vocabulary(folder: ModelFolder, config: Mapping[str, Any], option: str) -> None:
    """Whether every token id has an embedding. A larger embedding (padded to a round number) is usual and accepted.

    Raises:
        InputError: the tokenizer's largest id is not below the model's vocabulary size.
    """
    file = folder.tokenizer / "tokenizer.json"
    size = config.get("vocab_size", (config.get("text_config") or {}).get("vocab_size"))
    if not file.is_file() or not isinstance(size, int):
        return
    from tokenizers import Tokenizer

    try:
        ids = Tokenizer.from_file(str(file)).get_vocab(with_added_tokens=True).values()
    except Exception as error:  # the Rust reader raises a bare Exception
        raise InputError(f"{option}: {file} cannot be read: {error}") from error
    if max(ids, default=-1) >= size:
        raise InputError(
            f"{option}: the tokenizer in {folder.tokenizer} has {max(ids) + 1} tokens, the model in {folder.base} a "
            f"vocabulary of {size}; they do not belong together"
        )


def check_adapter_off(folder: ModelFolder, lora: LoraSettings | None, option: str) -> None:
    """Whether "the policy with its adapter off" is the policy at the start of training.

    Raises:
        InputError: there is no adapter, or it holds what SFT learned.
    """
    if folder.is_adapter and lora is None:
        raise InputError(f"{option}: adapter_off with the SFT adapter {folder.path} {SFT_TRAP}")
    if lora is None:
        raise InputError(
            f"{option}: adapter_off, but all weights are trained, so there is no adapter to switch off; "
            "use the reference `base`, or add policy.lora"
        )


def check_lora(folder: ModelFolder, lora: LoraSettings, option: str = "policy.lora", *, scores: bool = False) -> None:
    """Whether the modules that get an adapter exist, in the model built without memory for its weights.

    Args:
        folder: Of the policy.
        lora: The adapter.
        option: Where the user wrote it, for messages.
        scores: Whether the model becomes a reward model.

    Raises:
        InputError: a name matches no module, or a module that is not a linear layer or an embedding.
    """
    if lora.target_modules == "all-linear":
        return
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification
    from transformers.pytorch_utils import Conv1D

    made: Any = AutoModelForSequenceClassification if scores else AutoModelForCausalLM
    try:
        with torch.device("meta"):
            trust = may_run_code(folder.base)
            described = AutoConfig.from_pretrained(folder.base, local_files_only=True, trust_remote_code=trust)
            model = made.from_config(described, trust_remote_code=trust)
    except (ValueError, KeyError, OSError) as error:
        kind = "reward model" if scores else "causal LM"
        raise InputError(f"{folder.base}: no {kind} can be built from config.json: {error}") from error
    fit = (torch.nn.Linear, torch.nn.Embedding, Conv1D)
    modules = dict(model.named_modules())
    head = model.get_output_embeddings()
    shared = head is not None and head.weight is model.get_input_embeddings().weight
    tied = head.weight if shared else None
    known = {name.rsplit(".", 1)[-1] for name, module in modules.items() if isinstance(module, fit)}
    if not lora.target_modules:
        raise InputError(f"{option}.target_modules: the list is empty{nearest('', known)}")
    for target in lora.target_modules:
        found = [module for name, module in modules.items() if name == target or name.endswith(f".{target}")]
        where = f"{option}.target_modules: {target!r}"
        if scores and target.rpartition(".")[2] == "score":
            raise InputError(f"{where} is the score head, which is trained whole and gets no adapter; leave it out")
        if not found:
            raise InputError(f"{where} is not a module of {type(model).__name__}{nearest(target, known)}")
        if not isinstance(found[0], fit):
            kind = type(found[0]).__name__
            raise InputError(f"{where} is a {kind}; an adapter goes on linear layers{nearest(target, known)}")
        if tied is not None and any(getattr(module, "weight", None) is tied for module in found):
            # merging would add the update to the embedding and to the head, which were trained with it on one of them
            raise InputError(
                f"{where}: embedding and LM head share it; allowed: other linear layers{nearest('', known)}"
            )


def load_tokenizer(path: str | Path, option: str = "policy.path") -> Any:
    """The tokenizer of a model or adapter folder (transformers' PreTrainedTokenizerBase).

    Raises:
        InputError: there is none, or it cannot be read.
    """
    folder = locate(str(path), option).tokenizer
    if not any((folder / name).is_file() for name in TOKENIZER_MODELS):
        raise InputError(f"{option}: {folder} has no tokenizer ({', '.join(TOKENIZER_MODELS)})")
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=may_run_code(folder))
    except Exception as error:  # readers of a dozen formats, each with its own exceptions
        raise InputError(f"{option}: the tokenizer in {folder} cannot be loaded: {error}") from error
