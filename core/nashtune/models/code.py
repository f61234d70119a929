"""Models bring weights and settings, no code. Importing this imports no torch.

A model folder can ask for code in four ways: `auto_map` in one of its JSON files names Python files beside it or in
another repository, `attn_implementation` a compiled kernel on the hub, an adapter's `megatron_config` has peft import a
module, and weights that are pickled can call anything. `configuration_files` names another file to be read in place of
config.json, so it counts as well. Each is refused here, before transformers sees the folder; code runs for a model
that the command line names. Where transformers has the kind of model itself, `auto_map` is left alone with one line:
many models keep that entry from the time before, and are loaded by transformers' own code.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from nashtune.errors import InputError
from nashtune.models.locate import ADAPTER_CONFIG, ModelFolder, read_json
from nashtune.notes import note
from nashtune.trust import REMOTE, grants

CONFIGS = ("config*.json", "tokenizer_config.json", ADAPTER_CONFIG)
CODE, OTHER_CONFIGS = "auto_map", "configuration_files"
KERNELS = {
    f"{begin}{what}_implementation{end}"
    for begin in ("", "_")
    for what in ("attn", "experts")
    for end in ("", "_internal")
}
INDEX = ".safetensors.index.json"


def may_run_code(folder: Path) -> bool:
    """Whether the command line trusts the model in a folder; what `trust_remote_code` is set to."""
    return folder.resolve() in grants().folders


def check_code(folder: ModelFolder, path: str, option: str) -> None:
    """Refuse a model that asks for code, unless the command line names it.

    Args:
        folder: Of the model or adapter.
        path: As the user named it.
        option: Where the user named it.

    Raises:
        InputError: it asks for code, or its weights would be read from outside of its folder.
    """
    for place in dict.fromkeys((folder.base, folder.tokenizer, folder.path)):
        named = path if place != folder.base or not folder.is_adapter else folder.base_name
        if trusted := _trusted(place, path, folder):
            grants().folders.add(place.resolve())
        for file in (file for name in CONFIGS for file in sorted(place.glob(name))):
            noted = False
            for what, repository in _asks(read_json(file, option)):
                wants = repository is None or f"hub:{repository}" not in grants().models
                if what.startswith(CODE) and wants and not trusted and _is_known(folder.base, option):
                    if not noted:
                        note(f"{option}: {named} is loaded by transformers' own code, without what {file.name} names")
                    noted = True
                    continue
                if repository is None and not trusted:
                    raise InputError(
                        f"{option}: {named} asks for code of its own to be run ({file.name}: {what}), and models are "
                        f"loaded without code. If you have read it and trust it, add `{REMOTE} {named}` to the command "
                        "(it cannot be said in a file)"
                    )
                if repository is not None and f"hub:{repository}" not in grants().models:
                    raise InputError(
                        f"{option}: {named} asks for code from hub:{repository} to be run ({file.name}: {what}). If "
                        f"you have read that and trust it, add `{REMOTE} hub:{repository}` to the command"
                    )
        _check_shards(place, option)


def check_kernel(attention: str, option: str) -> None:
    """Refuse an attention that is a compiled kernel on the hub, unless the command line names it.

    Raises:
        InputError: it is one.
    """
    if "/" in attention and f"hub:{attention}" not in grants().models:
        raise InputError(
            f"{option}: {attention} is compiled code that would be downloaded and run; allowed: sdpa, eager, "
            f"flash_attention_2 and the like, or add `{REMOTE} hub:{attention}` to the command"
        )


def check_weights(folder: ModelFolder, option: str) -> None:
    """Refuse a model or adapter whose weights are missing or pickled.

    Raises:
        InputError: a folder has no safetensors file.
    """
    for place in dict.fromkeys((folder.base, folder.path)):
        if any(place.glob("*.safetensors")):
            continue
        if any(place.glob("*.bin")):
            raise InputError(
                f"{option}: {place} has its weights in *.bin files alone, which are pickles: reading one can run any "
                "code. Use a copy in *.safetensors; to make one of a model that you trust, load it with transformers "
                "in a safe place and call save_pretrained"
            )
        raise InputError(f"{option}: {place} holds no weights (*.safetensors)")


def _trusted(place: Path, path: str, folder: ModelFolder) -> bool:
    """Whether the command line names this model: as the user names it here, or by its folder."""
    name = folder.base_name if folder.is_adapter and place == folder.base else path
    if name in grants().models:
        return True
    here = [Path(model).expanduser() for model in grants().models if not model.startswith(("hub:", "demo:"))]
    return place.resolve() in {model.resolve() for model in here} | grants().folders


def _is_known(place: Path, option: str) -> bool:
    """Whether transformers has the kind of model itself."""
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

    config = place / "config.json"
    return config.is_file() and read_json(config, option).get("model_type") in CONFIG_MAPPING_NAMES


def _asks(config: Any) -> Iterator[tuple[str, str | None]]:
    """(entry, other repository) of everything in a configuration that would run code, however deep."""
    if isinstance(config, list):
        for part in config:
            yield from _asks(part)
    if not isinstance(config, Mapping):
        return
    for key, value in config.items():
        if key == CODE:
            for target in _texts(value):
                yield f"{CODE}: {target}", target.partition("--")[0] if "--" in target else None
        elif key == OTHER_CONFIGS and value:
            yield f"{key}: {', '.join(_texts(value))}", None
        elif key == "megatron_config" and value:
            yield f"megatron_core: {config.get('megatron_core')}", None
        elif key in KERNELS:
            for kernel in _texts(value):
                if "/" in kernel:
                    yield f"{key}: {kernel}", kernel.partition("@")[0].partition(":")[0]
        else:
            yield from _asks(value)


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for part in value.values():
            yield from _texts(part)
    elif isinstance(value, list):
        for part in value:
            yield from _texts(part)


def _check_shards(place: Path, option: str) -> None:
    """Transformers joins the names in an index to the folder, wherever that leads."""
    for index in place.glob(f"*{INDEX}"):
        for name in _texts(read_json(index, option).get("weight_map")):
            if Path(name).name != name:
                raise InputError(f"{option}: {index} names {name!r}, which is not a file beside it; get the model anew")
