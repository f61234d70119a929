"""Where a model's files are. Importing this imports no torch."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nashtune.errors import InputError, nearest

ADAPTER_CONFIG = "adapter_config.json"
RUN_FILE, CHECKPOINTS, EXPORT = "config.yaml", "checkpoints", "export"  # what a run folder holds
TOKENIZER_MODELS = ("tokenizer.json", "tokenizer.model", "spiece.model", "vocab.json", "vocab.txt")
TOKENIZER_FILES = (
    *TOKENIZER_MODELS,
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "merges.txt",
    "chat_template.jinja",
    "chat_template.json",
)
NOT_DOWNLOADED = ("*.gguf", "*.onnx", "*.msgpack", "*.h5", "*.bin", "*.pt", "*.pth", "*.pkl", "*.pickle", "original/*")
WEIGHT_SUFFIXES = (".safetensors", ".bin", ".safetensors.index.json", ".bin.index.json")


@dataclass(frozen=True, kw_only=True)
class ModelFolder:
    """The folders behind a path.

    Args:
        path: What was named: a model or an adapter.
        base: Holds config.json and the full weights; equal to `path` unless that is an adapter.
        tokenizer: Holds the tokenizer: the adapter's own where it has one.
        base_name: The base model of an adapter as a command line names it: its folder, or `hub:owner/name`.
    """

    path: Path
    base: Path
    tokenizer: Path
    base_name: str = ""

    @property
    def is_adapter(self) -> bool:
        """Whether `path` is a LoRA adapter."""
        return self.path != self.base

    def weight_files(self) -> list[Path]:
        """Every file that holds weights, the adapter's included, sorted."""
        files = list(_weight_files(self.base))
        return sorted(files + list(_weight_files(self.path)) if self.is_adapter else files)

    def config_files(self) -> list[Path]:
        """The files that say what the weights mean."""
        return [self.base / "config.json"] + ([self.path / ADAPTER_CONFIG] if self.is_adapter else [])


def _weight_files(folder: Path) -> Iterator[Path]:
    return (file for file in folder.iterdir() if file.name.endswith(WEIGHT_SUFFIXES) and file.is_file())


def resolve_model_path(path: str, option: str = "policy.path") -> Path:
    """The folder that a run file's path means: a local folder, `demo:NAME` or `hub:owner/name`.

    Raises:
        InputError: there is no such folder, demo or repository.
    """
    if path.startswith("demo:"):
        name = path.removeprefix("demo:")
        if name != "smollm2":
            raise InputError(f"{option}: no demo model {name!r}{nearest(name, ['smollm2'])}")
        from nashtune.demo.model import smollm2_folder

        return Path(smollm2_folder())
    if path.startswith("hub:"):
        return _from_hub(path.removeprefix("hub:"), option)
    folder = Path(path).expanduser()
    if not folder.exists():
        beside = [entry.name for entry in folder.parent.iterdir()] if folder.parent.is_dir() else []
        hint = nearest(folder.name, beside) if 0 < len(beside) <= 20 else ""
        hub = (
            f"; a repository of the hub is written hub:{path}" if path.count("/") == 1 and path[0] not in "./~" else ""
        )
        raise InputError(f"{option}: no folder {path}{hint}{hub}")
    if not folder.is_dir():
        raise InputError(f"{option}: {path} is a file; give the folder with config.json and the weights")
    return folder.absolute()


def _from_hub(name: str, option: str) -> Path:
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, ignore_patterns=list(NOT_DOWNLOADED)))
    except Exception as error:  # the hub client raises a dozen kinds, all of them the user's to put right
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise InputError(f"{option}: cannot get hub:{name}: {first}") from error


def read_json(file: Path, option: str) -> dict[str, Any]:
    """A JSON object from a model folder.

    Raises:
        InputError: missing, unreadable or not an object.
    """
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{option}: {file.parent} has no {file.name}") from None
    except (OSError, ValueError) as error:
        raise InputError(f"{option}: {file} cannot be read: {error}") from error
    if not isinstance(data, dict):
        raise InputError(f"{option}: {file} holds {type(data).__name__}, not an object")
    return data


def locate(path: str, option: str = "policy.path") -> ModelFolder:
    """The folders of a model or of an adapter and its base model.

    Raises:
        InputError: a folder is missing, it is neither a model nor an adapter, or it asks for code to be run.
    """
    from nashtune.models.code import check_code

    folder = _folders(path, option)
    check_code(folder, path, option)
    return folder


def _folders(path: str, option: str) -> ModelFolder:
    folder = resolve_model_path(path, option)
    if not (folder / ADAPTER_CONFIG).is_file():
        if not (folder / "config.json").is_file():
            raise InputError(f"{option}: {folder} has no config.json (a model) and no {ADAPTER_CONFIG} (an adapter)")
        return ModelFolder(path=folder, base=folder, tokenizer=folder)
    adapter = read_json(folder / ADAPTER_CONFIG, option)
    kind = adapter.get("peft_type", "LORA")
    if kind != "LORA":
        raise InputError(
            f"{option}: {folder} is an adapter of type {kind}; allowed: LORA. Merge it into its base model first"
        )
    named = adapter.get("base_model_name_or_path")
    if not named:
        raise InputError(f"{option}: {folder / ADAPTER_CONFIG} does not say base_model_name_or_path")
    base, name = _base_of_adapter(str(named), folder, option)
    if not (base / "config.json").is_file():
        raise InputError(f"{option}: the adapter's base model {base} has no config.json")
    own_tokenizer = any((folder / name).is_file() for name in TOKENIZER_MODELS)
    return ModelFolder(path=folder, base=base, tokenizer=folder if own_tokenizer else base, base_name=name)


def model_in(folder: Path) -> Path | None:
    """The model in a folder: itself, or the `export` of a run folder."""
    for place in (folder, folder / EXPORT):
        if any((place / name).is_file() for name in ("config.json", ADAPTER_CONFIG)):
            return place
    return None


def resolve_export(path: str, option: str) -> Path:
    """As `resolve_model_path`, where a run folder stands for the model that the run exported.

    Raises:
        InputError: there is no such folder, or it is of a run that has exported nothing yet.
    """
    folder = resolve_model_path(path, option)
    if not (folder / RUN_FILE).is_file():
        return folder
    found = model_in(folder)
    if found is None and (folder / CHECKPOINTS).is_dir():
        raise InputError(
            f"{option}: {path} is the folder of a run that has exported no model yet; let it end, or export its newest "
            f"checkpoint: nashtune export {path}"
        )
    return found or folder


def _base_of_adapter(named: str, adapter: Path, option: str) -> tuple[Path, str]:
    """Its folder, and its name on a command line."""
    for candidate in (Path(named).expanduser(), adapter / named):
        if candidate.is_dir():
            return candidate.resolve(), str(candidate.resolve())
    # adapters from elsewhere name a repository; a local path that is gone is never asked for there
    if named.count("/") == 1 and not named.startswith(("/", ".", "~")):
        return _from_hub(named, f"{option}: base model of the adapter {adapter}"), f"hub:{named}"
    raise InputError(f"{option}: the adapter {adapter} needs its base model {named}, which is not there")
