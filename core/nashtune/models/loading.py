"""Weights into memory: a causal LM, with or without an adapter, and what reward models share with it.

Base models run without dropout: a policy and its reference must be the same function where their weights are the same,
and a log-ratio under two dropout masks is noise. LoRA's own dropout is `lora.dropout`.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from nashtune.errors import InputError
from nashtune.models.code import check_kernel, check_weights, may_run_code
from nashtune.models.config import LoraSettings
from nashtune.models.locate import ModelFolder

Task = Literal["CAUSAL_LM", "SEQ_CLS"]
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """A model in memory.

    Args:
        model: The transformers model, or a peft model around it.
        settings: What its config said about dropout and cache before training changed it, to be restored in what is
            saved.
    """

    model: Any
    settings: Mapping[str, Any]


def load_model(
    folder: ModelFolder,
    *,
    precision: str,
    attention: str,
    adapter: Literal["train", "merge"],
    option: str = "policy.path",
    empty: bool = False,
) -> Loaded:
    """A causal LM from a folder; of an adapter folder the base model with the adapter on it, trainable or merged.

    Args:
        folder: Where it lies.
        precision: Of its weights, "fp32" or "bf16".
        attention: Attention implementation.
        adapter: What becomes of an adapter.
        option: Where the user named the folder.
        empty: Build it without weights, on torch's `meta` device, and read none: another rank does.

    Raises:
        InputError: the config or the weights cannot be read, weights are missing, or the attention is not available.
    """
    from transformers import AutoModelForCausalLM

    check_kernel(attention, "policy.attention")
    check_weights(folder, option)
    with readable(folder.base, option):
        config, settings = training_config(folder)
        if empty:
            with torch.device("meta"):
                model = AutoModelForCausalLM.from_config(
                    config,
                    dtype=DTYPES[precision],
                    attn_implementation=attention,
                    trust_remote_code=may_run_code(folder.base),
                )
            return Loaded(model=empty_adapter(model, folder) if adapter == "train" else model, settings=settings)
        model, info = AutoModelForCausalLM.from_pretrained(
            folder.base,
            config=config,
            dtype=DTYPES[precision],
            attn_implementation=attention,
            local_files_only=True,
            output_loading_info=True,
            trust_remote_code=may_run_code(folder.base),
            use_safetensors=True,
        )
    refuse_missing(info["missing_keys"], folder, option)
    if folder.is_adapter:
        model = _with_adapter(model, folder, merge=adapter == "merge", option=option)
    return Loaded(model=model, settings=settings)


@contextmanager
def readable(folder: Path, option: str) -> Iterator[None]:
    """Names the folder and the option where transformers cannot read a model."""
    try:
        yield
    except (OSError, ValueError, KeyError, ImportError, RuntimeError) as error:
        raise InputError(f"{option}: {folder} cannot be loaded: {error}") from error
    except Exception as error:
        if type(error).__name__ != "SafetensorError":  # a cut weight file
            raise
        raise InputError(f"{option}: the weights in {folder} cannot be read: {error}") from error


def refuse_missing(names: Iterable[str], folder: ModelFolder, option: str) -> None:
    """Stop where weights are missing: transformers fills them with random numbers and says so in a log line."""
    if missing := sorted(names):
        raise InputError(f"{option}: {folder.base} lacks {len(missing)} weights, such as {missing[0]}")


def training_config(folder: ModelFolder) -> tuple[Any, dict[str, Any]]:
    """A model's config without cache and dropout, and the values that it had."""
    from transformers import AutoConfig

    trust = may_run_code(folder.base)
    config = AutoConfig.from_pretrained(folder.base, local_files_only=True, trust_remote_code=trust)
    return config, _training_settings(config)


def _training_settings(config: Any) -> dict[str, Any]:
    """Switches cache and dropout off in a config and returns the values it had."""
    text = config.get_text_config()
    before = {"use_cache": getattr(text, "use_cache", None)}
    text.use_cache = False
    for name, value in list(vars(text).items()):
        if ("dropout" in name or "pdrop" in name or "layerdrop" in name) and isinstance(value, float) and value > 0:
            before[name] = value
            setattr(text, name, 0.0)
    return before


def _with_adapter(model: Any, folder: ModelFolder, *, merge: bool, option: str) -> Any:
    from peft import PeftModel

    try:
        with peft_calls():
            peft_model = PeftModel.from_pretrained(model, str(folder.path), is_trainable=not merge)
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise InputError(f"{option}: the adapter {folder.path} does not fit {folder.base}: {error}") from error
    return peft_model.merge_and_unload(safe_merge=True) if merge else peft_model


def empty_adapter(model: Any, folder: ModelFolder) -> Any:
    """A model without weights inside the peft wrapper of its folder's adapter, to be trained; alone where it has none.

    Args:
        model: A transformers model on torch's `meta` device.
        folder: Where the adapter lies.
    """
    if not folder.is_adapter:
        return model
    from peft import PeftConfig, get_peft_model

    config = PeftConfig.from_pretrained(str(folder.path))
    config.inference_mode = False
    with peft_calls():
        return get_peft_model(model, config)


def add_lora(model: Any, lora: LoraSettings, task: Task = "CAUSAL_LM") -> Any:
    """The model inside a peft wrapper with a fresh adapter; only the adapter is trainable, and a score head with it.

    Args:
        model: A transformers model.
        lora: The adapter.
        task: What the adapter says it is for; "SEQ_CLS" trains and saves a copy of the head as well.

    Raises:
        InputError: a target module is not there.
    """
    from peft import LoraConfig, get_peft_model

    targets = lora.target_modules
    try:
        config = LoraConfig(
            r=lora.r,
            lora_alpha=lora.alpha,
            lora_dropout=lora.dropout,
            target_modules=targets if isinstance(targets, str) else list(targets),
            task_type=task,
            modules_to_save=["score"] if task == "SEQ_CLS" else None,
        )
        with peft_calls():
            wrapped = get_peft_model(model, config)
        if task == "SEQ_CLS":  # peft appends the names of heads that it knows, present or not
            wrapped.peft_config["default"].modules_to_save = ["score"]
        return wrapped
    except ValueError as error:
        raise InputError(f"policy.lora: {error}") from error


@contextmanager
def peft_calls() -> Iterator[None]:
    """Peft 0.21 reads a name that transformers 5.23 renamed; nothing a user could do about it."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
        yield


def enable_checkpointing(model: Any) -> None:
    """Recompute activations in backward, without reentrant autograd, which loses gradients of frozen inputs."""
    kwargs = {"use_reentrant": False}
    if hasattr(model, "activation_checkpointing_enable"):
        model.activation_checkpointing_enable(activation_checkpointing_kwargs=kwargs)
    else:  # the name before transformers 5.23
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs=kwargs)
