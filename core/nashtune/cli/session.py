"""What must be known before Lightning's parser runs: the spec, the checkpoint, the layers of configuration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nashtune.errors import InputError
from nashtune.spec.gamerules import attribute
from nashtune.spec.loader import Located, read_yaml
from nashtune.spec.model import Spec
from nashtune.spec.resolve import resolve
from nashtune.spec.run import load_runs, split_cli
from nashtune.training.checkpoint import SECTION, checkpoints_in, newest_checkpoint, note_other_version, read_checkpoint
from nashtune.training.checkpoint_check import check_complete
from nashtune.trust import grants

PER_ATTEMPT = ("run_dir", "ckpt_path")  # said anew for each attempt, never inherited
SECTIONS = ("spec", "policy", "data")  # mappings that each configuration of a run has


@dataclass(frozen=True, kw_only=True)
class Session:
    """A prepared command.

    Args:
        spec: The resolved spec.
        checkpoint: Checkpoint file to start from, if any.
        config: Everything but the command line, lowest layers merged, for the parser.
        rest: The command line that is left for the parser.
        saved_policy: The `policy` section that the checkpoint was trained with.
        resumed: Folder of the run that goes on, if one does.
        command: The whole command line, for what is kept of a run.
    """

    spec: Spec
    checkpoint: Path | None
    config: Mapping[str, Any]
    rest: Sequence[str]
    saved_policy: Mapping[str, Any] | None = None
    resumed: Path | None = None
    command: Sequence[str] = ()


def prepare(subcommand: str, argv: Sequence[str]) -> Session:
    """Resolve everything that needs no model.

    Raises:
        InputError: anything wrong with spec, run files or checkpoint.
    """
    request = split_cli(argv)
    runs = load_runs(request.configs)
    asked_ckpt, rest = take_option(request.rest, "--ckpt_path")
    run_dir, _ = take_option(rest, "--run_dir")
    run_dir = run_dir or runs.data.get("run_dir")
    asked_ckpt = runs.data.get("ckpt_path") if asked_ckpt is None else asked_ckpt
    if asked_ckpt == "":
        raise InputError("--ckpt_path: is empty; give a checkpoint's path, or `last` or `auto` with --run_dir")
    asked_ckpt, resumed = _where_to_begin(asked_ckpt, run_dir, subcommand)
    checkpoint = _locate(asked_ckpt, run_dir) if asked_ckpt and resumed is None else None
    inherited: dict[str, Any] = {}
    if checkpoint is not None:
        content = read_checkpoint(checkpoint, weights=False)
        if subcommand == "fit":
            check_complete(checkpoint, content)
        own = content[SECTION]
        note_other_version(checkpoint, own.get("version"))
        inherited = own["config"]
    if resumed is not None:
        inherited = _saved(resumed / "config.yaml")
    source: str | Located | Mapping[str, Any] | None = request.spec or runs.spec or inherited.get("spec")
    if source is None:
        word = next((w for w in rest[:1] if not w.startswith("-")), None)
        example = f"did you mean --spec {word}?" if word else "for example --spec dpo; `nashtune list` shows all"
        raise InputError(f"--spec: which method? {example}")
    spec = resolve(source, [*runs.overrides, *request.overrides])
    if inherited:
        held = checkpoint or resumed or Path()
        _refuse_other_spec(spec, resolve(inherited["spec"]), held, subcommand, bool(request.spec or runs.spec))
    config = merge({k: v for k, v in inherited.items() if k not in PER_ATTEMPT}, runs.data)
    config["spec"] = spec.to_dict()
    config.pop("ckpt_path", None)
    if resumed is None and checkpoint is not None:
        resumed = _run_of(checkpoint)
    return Session(
        spec=spec,
        checkpoint=checkpoint,
        config=config,
        rest=rest,
        saved_policy=inherited.get("policy"),
        resumed=resumed,
        command=("nashtune", subcommand, *argv, *grants().arguments()),
    )


def _where_to_begin(asked: str | None, run_dir: str | None, subcommand: str) -> tuple[str | None, Path | None]:
    """A checkpoint that is asked for, or the folder of a run that goes on without one."""
    if asked == "auto":
        if subcommand != "fit" or run_dir is None:
            raise InputError(
                "--ckpt_path auto: begins a run, or goes on with what it has saved in its folder; it is for `nashtune "
                "fit` and needs --run_dir FOLDER"
            )
        folder = Path(run_dir)
        if not (folder / "config.yaml").is_file():
            return None, None
        return ("last", None) if checkpoints_in(folder) else (None, folder)
    return asked, _began(run_dir) if asked == "last" and subcommand == "fit" else None


def _began(run_dir: str | None) -> Path | None:
    """A game that was stopped before its first checkpoint: it goes on with its snapshots and its journal."""
    folder = Path(run_dir) if run_dir is not None else None
    if folder is None or checkpoints_in(folder):
        return None
    return folder if (folder / "snapshots").is_dir() and (folder / "config.yaml").is_file() else None


def _saved(file: Path) -> dict[str, Any]:
    """What a run that goes on without a checkpoint was begun with.

    Raises:
        InputError: the file cannot be read, or holds no configuration of a run.
    """
    found = read_yaml(file).data
    if not isinstance(found, dict) or not all(isinstance(found.get(key), dict) for key in SECTIONS):
        raise InputError(
            f"{file}: was cut short or altered: it does not say with which {', '.join(SECTIONS)} the run was begun; "
            "restore it from a copy, or start a new run with another --run_dir"
        )
    return found


def _locate(asked: str, run_dir: str | None) -> Path:
    if asked == "last":
        if run_dir is None:
            raise InputError("--ckpt_path last: of which run? Say --run_dir FOLDER, or give the checkpoint's path")
        return newest_checkpoint(Path(run_dir))
    return Path(asked)


def _run_of(checkpoint: Path) -> Path:
    """The folder of a checkpoint's run: by its path, that a link inside of the folder is seen; else where it leads."""
    by_path = checkpoint.absolute().parent.parent
    return by_path.resolve() if (by_path / "config.yaml").is_file() else checkpoint.resolve().parent.parent


def _refuse_other_spec(spec: Spec, saved: Spec, checkpoint: Path, subcommand: str, named: bool) -> None:
    """A run goes on only with its own spec; an evaluation may override values, but not swap the method by name."""
    if subcommand != "fit" and not named:
        return
    ours, theirs = _meaning(spec), _meaning(saved)
    unequal = {k for k in ours.keys() | theirs.keys() if ours.get(k) != theirs.get(k)}
    different = sorted(unequal, key=lambda k: (not k.endswith(".name"), k))
    if different:
        shown = "; ".join(f"{key}: {theirs.get(key)} there, {ours.get(key)} here" for key in different[:3])
        more = f"; and {len(different) - 3} more" if len(different) > 3 else ""
        raise InputError(
            f"--ckpt_path: {checkpoint} belongs to the spec '{saved.name}', which differs from this one "
            f"('{spec.name}'): {shown}{more}. Leave --spec and its overrides out to use the checkpoint's own, or start "
            "a new run without --ckpt_path"
        )


def _meaning(spec: Spec) -> dict[str, Any]:
    """Dotted key -> value of a spec, without what only says where a component runs."""
    where = {
        ".".join((*path, name))
        for path, component in spec.components()
        for name in attribute(component, "placement", ())
    }
    return {key: value for key, value in _flat(spec.to_dict()).items() if key not in where}


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Dotted key -> value of what has meaning: the name and the description of a spec have none."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{key}.")
        elif prefix or key != "name":
            flat[f"{prefix}{key}"] = value
    return {key: value for key, value in flat.items() if not key.startswith("about.")}


def take_option(argv: Sequence[str], name: str) -> tuple[str | None, list[str]]:
    """The last value of `--name value` or `--name=value`, and the command line without it."""
    value: str | None = None
    rest: list[str] = []
    words = iter(argv)
    for word in words:
        if word == name:
            value = next(words, None)
            if value is None:
                raise InputError(f"{name}: a value is missing")
        elif word.startswith(f"{name}="):
            value = word.partition("=")[2]
        else:
            rest.append(word)
    return value, rest


def merge(low: Mapping[str, Any], high: Mapping[str, Any]) -> dict[str, Any]:
    """Nested mappings merged key by key; `high` wins."""
    merged = dict(low)
    for key, value in high.items():
        below = merged.get(key)
        merged[key] = merge(below, value) if isinstance(below, Mapping) and isinstance(value, Mapping) else value
    return merged
